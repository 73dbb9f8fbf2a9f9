"""What a command in the sandbox is given, and what its errors show."""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.host.runner import ReleaseError, harmless, sandboxed


@pytest.mark.parametrize(
    "name", ["x\nExecStopPost=+/usr/bin/touch pwned", "x\rUser=root", "x\\", "x\x7f", "x\0", "x\udcff"]
)
def test_no_name_of_a_folder_adds_a_line_to_a_unit(name: str) -> None:
    # systemd writes the properties to a file as they are, and reads the file again at each daemon-reload.
    with pytest.raises(ReleaseError, match="control character, a backslash or invalid UTF-8"):
        sandboxed(["true"], user="shop", root="/srv/shop", directory=f"/srv/shop/releases/1/src/{name}")


def test_other_names_are_taken() -> None:
    command = sandboxed(["true"], user="shop", root="/srv/shop", directory="/srv/shop/releases/1/src/ä b%s$c")
    assert "--property=WorkingDirectory=/srv/shop/releases/1/src/ä b%s$c" in command


def test_an_error_cannot_steer_the_terminal_or_fill_it() -> None:
    error = ReleaseError("Build", "extra \x1b[2J\x1b]0;title\x07 \x9b2J\ufffd\nsecond\tline\n" + "m" * 10**6, "a\rb")
    assert error.reason.splitlines()[:2] == ["extra ?]0;title? ?2J\ufffd", "second\tline"]
    assert len(error.reason) < 2000
    assert error.cure == "a?b"
    assert "\x1b" not in str(error)


def test_a_warning_cannot_steer_the_terminal_but_keeps_its_command() -> None:
    command = "uv pip compile " + "a" * 5000
    assert harmless(f"\x1b[2J\x9b {command}\nsecond") == f"? {command}\nsecond"
    assert len(harmless("a" * 10**7)) == 10_000
