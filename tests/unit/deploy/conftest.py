"""The fixtures that several files of tests share: a site, a repository, a workshop of virtual environments."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import (
    lock,
)
from ansible.module_utils.flaskhost.deploy.lock import Lock
from fakes import fake_owners
from release_site import REAL_KEEP, Site, Yard, back_again, first_release, next_release
from source_files import Repository
from virtualenv_workshop import Workshop


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: hundreds of sites take a disk its time."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def site(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = os.umask(0o022)
    yield Site(memory, monkeypatch, fake_owners(monkeypatch))
    os.umask(before)


@pytest.fixture
def locked(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site whose lock is kept between two phases, as it is."""
    sleeping: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        sleeping.append(subprocess.Popen(*arguments, **options))
        return sleeping[-1]

    monkeypatch.setattr(Lock, "keep", REAL_KEEP)
    monkeypatch.setattr(lock, "subprocess", SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL))
    yield site
    for process in sleeping:
        process.kill()
        process.wait()


@pytest.fixture(params=[first_release, next_release, back_again], ids=lambda item: item.__name__)
def yard(memory: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Yard:
    return Yard(memory, monkeypatch, request.param)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    # A host has none; make sets it for this machine's own programs.
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    return Workshop(tmp_path, monkeypatch)
