"""The watch: what counts for a release, and when it does worse than the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy.watch import TAIL_BYTES, AccessLog, Traffic, verdict


def line(release: str = "new", status: Any = 200, seconds: Any = "0.050") -> bytes:
    return json.dumps({"release": release, "status": status, "upstream_time": seconds}).encode()


def traffic(*lines: bytes, release: str = "new", others: bool = True) -> Traffic:
    found = Traffic(release, others=others)
    found.add(list(lines))
    return found


def test_only_the_releases_own_answers_count_and_those_that_nobody_gave() -> None:
    found = traffic(
        line(),
        line("old", 500),
        line("", 200),
        line("", 404),
        line("", 503),
        line("", 502),
        line("", 504),
        line("new", 500),
    )
    assert (found.answers, found.errors) == (4, 3)
    assert (traffic(line("", 502), others=False)).answers == 0


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"1", b"\xff\xfe", b'{"status": 200}', b'{"status":"x","release":"new"}']
)
def test_a_damaged_line_counts_for_nothing(text: bytes) -> None:
    assert traffic(text).answers == 0


def test_the_last_of_several_attempts_is_the_time() -> None:
    assert traffic(line(seconds="0.5, 0.25")).times == [0.25]
    assert traffic(line(seconds="-"), line(seconds="")).times == []


@pytest.mark.parametrize(
    ("before", "errors", "good", "bad"),
    [
        ((0, 0), 3, 0, True),
        ((0, 0), 2, 0, False),
        ((0, 100), 5, 95, False),
        ((0, 100), 6, 94, True),
        ((50, 50), 50, 50, False),
        ((50, 50), 56, 44, True),
        ((0, 0), 3, 1000, False),
    ],
)
def test_errors_beyond_chance_and_beyond_what_was_before(
    before: tuple[int, int], errors: int, good: int, bad: bool
) -> None:
    earlier = traffic(*[line("old", 500)] * before[0], *[line("old")] * before[1], release="old")
    problem = verdict(earlier, traffic(*[line("new", 500)] * errors, *[line()] * good))
    assert bool(problem) == bad
    if bad:
        assert f"{errors} of {errors + good} requests" in problem


@pytest.mark.parametrize(
    ("usual", "present", "number", "bad"),
    [
        ("0.05", "1.5", 10, True),
        ("0.05", "1.5", 9, False),
        ("0.05", "0.9", 50, False),
        ("0.5", "1.9", 50, False),
        ("0.5", "2.1", 50, True),
    ],
)
def test_slow_is_several_times_as_long_and_more_than_a_second(usual: str, present: str, number: int, bad: bool) -> None:
    earlier = traffic(*[line("old", seconds=usual)] * 20, release="old")
    problem = verdict(earlier, traffic(*[line(seconds=present)] * number))
    assert bool(problem) == bad


def test_a_release_that_nobody_has_visited_before_is_not_compared() -> None:
    assert verdict(Traffic(""), traffic(*[line(status=500)] * 5)) == "5 of 5 requests ended with a server error (5xx)"
    problem = verdict(traffic(*[line("old")] * 5, release="old"), traffic(*[line(status=500)] * 5))
    assert problem.endswith("; with the previous release it was 0 of 5")


def test_a_few_slow_ones_are_not_the_middle() -> None:
    earlier = traffic(*[line("old")] * 20, release="old")
    assert not verdict(earlier, traffic(*[line(seconds="9")] * 9, *[line()] * 11))


def test_without_a_before_nothing_is_slow() -> None:
    assert not verdict(Traffic("old"), traffic(*[line(seconds="9")] * 50))


def test_the_log_is_read_from_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(line("old", 500) + b"\n" + line("other") + b"\n")
    log = AccessLog(path)
    assert log.new_lines() == []
    with path.open("ab") as stream:
        stream.write(line() + b"\n" + line()[:10])
        stream.flush()
        assert log.new_lines() == [line()]
        stream.write(line()[10:] + b"\n")
    assert log.new_lines() == [line()]
    found = log.before("old")
    assert (found.answers, found.errors) == (1, 1)
    # What came after the beginning is not before.
    assert AccessLog(path).before("new").answers == 2
    with path.open("ab") as stream:
        stream.write(line("", 404) + b"\n")
    # Before the first release there was none, and what the web server answered by itself is nobody's.
    assert AccessLog(path).before("").answers == 0
    with path.open("ab") as stream:
        stream.write(line("", 502) + b"\n")
    # The errors of a site that was down.
    assert (AccessLog(path).before("").errors, AccessLog(path).before("new").errors) == (1, 1)
    log.begin()
    assert log.new_lines() == []


def test_a_log_that_was_rotated_or_cut_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(line("old") + b"\n")
    log = AccessLog(path)
    path.rename(tmp_path / "access.log.1")
    assert log.new_lines() == []
    path.write_bytes(line() + b"\n" + line() + b"\n")
    assert len(log.new_lines()) == 2
    path.write_bytes(line() + b"\n")
    assert len(log.new_lines()) == 1


def test_there_need_be_no_log(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "missing")
    assert log.new_lines() == []
    assert log.before("old").answers == 0
    (tmp_path / "missing").write_bytes(line() + b"\n")
    assert log.new_lines() == [line()]


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes((line("old") + b"\n") * 60000)
    found = AccessLog(path).before("old")
    assert 10000 < found.answers <= TAIL_BYTES // len(line("old"))
