"""What browsers are told of HTTPS, from the first day to the end of the ramp."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from flaskhost_certificates.config import CertificateError, Hsts
from flaskhost_certificates.hsts import map_text, value, write

SINCE, DAY = 1_800_000_000.0, 86400.0
ALL = Hsts(subdomains=True, preload=True)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (0, "max-age=300"),
        (-400, "max-age=300"),  # the clock went back
        (0.99, "max-age=300"),
        (1, "max-age=86400"),
        (6.99, "max-age=86400"),
        (7, "max-age=2592000"),
        (29.99, "max-age=2592000"),
        (30, "max-age=63072000; includeSubDomains; preload"),
        (4000, "max-age=63072000; includeSubDomains; preload"),
    ],
)
def test_the_ramp(days: float, expected: str) -> None:
    assert value(ALL, SINCE, SINCE + days * DAY) == expected


def test_nothing_is_said_without_a_trusted_certificate() -> None:
    for hsts in (ALL, Hsts(max_age=0)):
        assert value(hsts, 0, SINCE) == ""


def test_more_than_the_time_only_when_asked_for() -> None:
    for hsts, expected in (
        (Hsts(), "max-age=63072000"),
        (Hsts(subdomains=True), "max-age=63072000; includeSubDomains"),
        (Hsts(preload=True), "max-age=63072000; preload"),
    ):
        assert value(hsts, SINCE, SINCE + 31 * DAY) == expected


def test_never_more_than_is_wanted() -> None:
    short = Hsts(max_age=1000)
    seen = [value(short, SINCE, SINCE + days * DAY) for days in (0, 1, 7, 30)]
    assert seen == ["max-age=300", "max-age=1000", "max-age=1000", "max-age=1000"]


def test_what_has_been_said_can_be_taken_back() -> None:
    for days in (0, 40):
        assert value(Hsts(max_age=0, subdomains=True, preload=True), SINCE, SINCE + days * DAY) == "max-age=0"


@pytest.mark.parametrize("text", ["", "max-age=300", "max-age=63072000; includeSubDomains; preload"])
def test_the_map_gives_nginx_the_value(text: str) -> None:
    lines = [line for line in map_text(text).splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    found = re.fullmatch(r'default "([^"$\\]*)";', lines[0])
    assert found
    assert found[1] == text


def test_the_file_is_written_when_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "hsts.map"
    before = os.umask(0o077)
    try:
        assert write(path, map_text("max-age=300"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    status = path.stat()
    assert not write(path, map_text("max-age=300"))
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == (status.st_ino, status.st_ctime_ns)
    assert write(path, map_text(""))
    assert path.read_text(encoding="utf-8") == map_text("")
    with pytest.raises(CertificateError, match="could not be written"):
        write(tmp_path / "none/hsts.map", "")
