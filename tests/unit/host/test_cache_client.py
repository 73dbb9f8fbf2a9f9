"""What Redis and Memcached answer over their sockets, and servers that do not answer as they do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host import cache_client
from ansible.module_utils.flaskhost.host.cache_client import NoAnswer, info_of_redis, keys_of_redis, memcached_stats
from socket_server import answering, info, stats

ME = os.geteuid()


def test_redis_is_understood_however_its_answer_arrives(tmp_path: Path) -> None:
    whole = info()
    with answering(tmp_path / "s", [whole[:3], whole[3:50], whole[50:]]) as asked:
        found = info_of_redis(tmp_path / "s", ME, 60)
    assert asked == [b"INFO memory persistence keyspace\r\n"]
    assert (found["used_memory"], found["aof_enabled"]) == ("3145728", "1")
    keys = keys_of_redis(found)
    assert keys == {"0": (7, 3), "1": (2, 0)}
    assert keys["0"].lasting == 4


def test_keys_of_a_queue_that_still_loads_do_not_count(tmp_path: Path) -> None:
    """Redis answers INFO while it loads, with the keys that it has read so far."""
    with answering(tmp_path / "s", [info(loading=1)]), pytest.raises(NoAnswer, match="it still loads its data"):
        info_of_redis(tmp_path / "s", ME, 60)


def test_memcached_is_understood(tmp_path: Path) -> None:
    with answering(tmp_path / "s", [stats()]) as asked:
        assert memcached_stats(tmp_path / "s", ME, 60)["limit_maxbytes"] == "8388608"
    assert asked == [b"stats\r\n"]


@pytest.mark.parametrize(
    ("parts", "stays", "says"),
    [
        ([b"-LOADING Redis is loading the dataset in memory\r\n"], True, "LOADING Redis is loading"),
        ([b"-NOPERM no\x1b[31m rights\r\n"], True, r"NOPERM no \[31m rights"),
        ([b"$30\r\nhalf"], False, "closed the connection"),
        ([], False, "closed the connection"),
        ([b"$30\r\nhalf"], True, "no answer within 0.3 s"),
        ([b"$99999999\r\n", *([b"x" * 60_000] * 3)], True, "too long"),
        ([b"x" * 60_000] * 3, True, "too long"),
        ([b"hello\r\n"], True, "hello"),
    ],
)
@pytest.mark.parametrize("ask", [info_of_redis, memcached_stats])
def test_no_answer_ends_with_the_reason(
    tmp_path: Path, ask: Callable[..., object], parts: list[bytes], stays: bool, says: str
) -> None:
    if ask is memcached_stats and parts and parts[0].startswith((b"-", b"hello")):
        parts, says = [b"ERROR\r\nEND\r\n"], "ERROR END"
    with answering(tmp_path / "s", parts, stays=stays), pytest.raises(NoAnswer, match=says):
        # Only what never comes is not waited for long: this machine can be busy.
        ask(tmp_path / "s", ME, 0.3 if "within" in says else 60)


def test_nothing_behind_the_socket_or_another_users_process_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="No such file"):
        info_of_redis(tmp_path / "s", ME, 60)
    with answering(tmp_path / "s", [info()]) as asked, pytest.raises(NoAnswer, match="another user's process"):
        info_of_redis(tmp_path / "s", ME + 1, 60)
    assert asked in ([], [b""]), "it is told nothing"
    with pytest.raises(NoAnswer, match="Connection refused"):
        info_of_redis(tmp_path / "s", ME, 60)


def test_what_a_client_has_written_is_shown_on_one_line() -> None:
    assert cache_client.plain("a\x1b]0;x\x07\n  b" + "c" * 500, 20) == "a ]0;x bcccccccccccc"
