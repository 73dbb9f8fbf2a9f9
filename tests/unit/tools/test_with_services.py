"""scripts/with_services.py: the PostgreSQL that it takes, what it installs, and how it reports a failed start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
import with_services
from common import Problem


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What would be installed with apt-get, which then is there; nothing is at the start."""
    calls: list[list[str]] = []
    found: set[str] = set()

    def apt_install(packages: list[str], _why: str) -> None:
        calls.append(packages)
        found.update(packages)
        for version in ("9", "15", "17") if "postgresql" in packages else ():
            (tmp_path / version / "bin").mkdir(parents=True)
            (tmp_path / version / "bin/postgres").touch()

    monkeypatch.setattr(with_services, "PROGRAMS", tmp_path)
    monkeypatch.setattr(with_services, "apt_install", apt_install)
    monkeypatch.setattr(with_services.shutil, "which", lambda name: name if name in found else None)
    return calls


def test_newest_postgresql_is_taken_and_missing_packages_are_installed(installed, tmp_path):
    assert with_services.programs() == tmp_path / "17/bin"
    assert installed == [["postgresql", "redis-server"]]
    assert with_services.programs() == tmp_path / "17/bin"
    assert len(installed) == 1


def test_browser_and_npm_are_installed_only_if_they_are_missing(installed):
    with_services.find_browser()
    assert installed == [["chromium", "fonts-dejavu-core", "npm"]]
    with_services.find_browser()
    assert len(installed) == 1


def test_service_that_ends_at_once_is_reported_with_its_log(tmp_path):
    log = tmp_path / "redis.log"
    log.write_text("the port is in use")
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with pytest.raises(Problem) as caught:
            with_services.wait("Redis", lambda: False, process, log)
    assert caught.value.what == "Redis did not start."
    assert "the port is in use" in caught.value.detail
