"""One app on one host, for the tests of a release: how it is deployed, what serves, and what a killed run leaves."""

from __future__ import annotations

import copy
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import (
    flip,
    freeze,
    prepare,
    records,
    slots,
    virtualenv,
)
from ansible.module_utils.flaskhost.deploy.app import Outcome
from ansible.module_utils.flaskhost.deploy.lock import Lock
from ansible.module_utils.flaskhost.deploy.records import RECORD, Record
from ansible.module_utils.flaskhost.deploy.release import PHASES, Deployment
from ansible.module_utils.flaskhost.deploy.sources import folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import USER, FakeHost, fake_owners, run_command
from loading import load_plugin

REAL_KEEP = Lock.keep
CODE = {"shop.py": "app = 1\n", "requirements.txt": "flask==3.1.3\n", "static/site.css": "body {}"}


MODULE = load_plugin("plugins/modules/flask_release.py")
GATE = "unix:/var/lib/nginx/gate/gate.sock"


class Site:
    """One app on one host, and the folder of its code on the controller."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, owners: dict[Path, tuple[int, int]]) -> None:
        self.folder, self.root, self.code, self.owners = folder, folder / "srv/shop", folder / "code", owners
        self.units = folder / "units"
        self.units.mkdir()
        self.host = FakeHost(self.root, units=self.units)
        # tar, cp and so on: test_source_*.py and some tests of a release have the real ones.
        self.host.quick = True
        self.monkeypatch = monkeypatch
        self.answer(self.host.probe)
        monkeypatch.setattr(flip, "listens", lambda address: address == GATE and self.host.nginx)
        monkeypatch.setattr(freeze.check, "__defaults__", (folder / "freeze.json", None))
        (folder / "journald@flask-shop.conf").touch()
        monkeypatch.setattr(prepare.require_journal, "__defaults__", (folder,))
        # Nobody pulls the plug here, and hundreds of runs would wait for the disk.
        monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
        monkeypatch.setattr(os, "sync", lambda: None)
        self.pauses: list[float] = []
        # The lock has tests of its own, and a process for each phase of hundreds of runs takes its time.
        monkeypatch.setattr(Lock, "keep", lambda held, _seconds: held.release())
        # To wait takes no time, and yet it passes.
        clock = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + sum(self.pauses))
        monkeypatch.setattr(slots, "time", clock)
        #: What happens while the deploy waits: visitors come, for instance.
        self.meanwhile: Callable[[], object] = lambda: None
        self.access_log = folder / "access.log"
        self.config = folder / "gunicorn.conf.py"
        self.config.write_text("workers = 2\n", encoding="utf-8")
        self.unit_file = folder / "flask-shop@.service"
        self.unit_file.write_text("[Service]\n", encoding="utf-8")
        self.change(CODE)
        self.options: dict[str, Any] = {
            **{name: option.get("default", "") for name, option in MODULE.ARGUMENT_SPEC.items()},
            "app": "shop",
            "user": USER,
            "root": str(self.root),
            "secrets_dir": str(folder / "etc/flaskhost/shop"),
            "cache_dir": str(folder / "cache"),
            "source_path": str(self.code),
            "by": "ada@laptop",
            "wsgi": "shop:app",
            "server_package": "gunicorn==27.0.1",
            "server_lock": "gunicorn==27.0.1 --hash=sha256:" + "0" * 64,
            "uv": "/opt/uv/bin/uv",
            "persistent": ["instance"],
            "environment": {"FLASK_APP": "shop:app"},
            "secrets": {"MAIL_PASSWORD": "hunter $2"},
            "unit": "flask-shop",
            "unit_files": [str(self.unit_file)],
            "units_dir": str(self.units),
            "access_log": str(self.access_log),
            "gate_address": GATE,
            "watch": 0,
            "server_config": str(self.config),
            "socket_dir": str(folder / "run"),
            "live_socket": str(self.root / "live.sock"),
            "host": "www.shop.example",
            "health": {"path": "/healthz", "status": 200, "probes": 3, "timeout": 2},
            "keep_releases": 5,
        }

    def change(self, files: dict[str, str]) -> None:
        """Write files of the code."""
        for name, content in files.items():
            path = self.code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")

    def answer(self, probe: Callable[..., tuple[int, str]]) -> None:
        """Have the slots answer in this way."""
        self.monkeypatch.setattr(slots, "probe", probe)
        self.monkeypatch.setattr(flip, "probe", probe)

    def pause(self, seconds: float) -> None:
        if seconds < 0.1:
            # A process that was told to end needs a moment to do so.
            time.sleep(0.002)
            return
        self.pauses.append(seconds)
        self.meanwhile()

    def deployment(self, check: bool = False, **options: Any) -> Deployment:
        return Deployment(self.host, {**self.options, **options}, check=check, pause=self.pause)

    @property
    def store(self) -> records.Store:
        return records.Store(self.root)

    @property
    def history(self) -> list[tuple[str, str, str]]:
        return [(item["verb"], item["from"], item["release"]) for item in self.store.history()]

    def rollback(self, check: bool = False, **options: Any) -> Outcome:
        return self.deployment(check, verb="rollback", **options).go()

    def phase(self, name: str, **options: Any) -> Outcome:
        """Run a single phase, as a fleet does."""
        return self.deployment(**{"phases": [name], "deploy": "run-1", **options}).go()

    def phases(self, **options: Any) -> Outcome:
        """Deploy as a fleet does, one phase after the other, each in a run of its own."""
        outcome = found = self.deploy(phases=["prepare"], deploy="run-1", **options)
        for name in PHASES[1:] if found.pending else ():
            outcome = self.phase(name, release=found.release, previous=found.previous, **options)
        return outcome

    def deploy(self, check: bool = False, **options: Any) -> Outcome:
        """Deploy as the action plugin does: the code is sent where it is asked for."""
        if self.options["source_repo"] or options.get("source_repo"):
            return self.deployment(check, source_path="", **options).go()
        persistent = options.get("persistent", self.options["persistent"])
        options["source_digest"] = folders.digest(self.code, persistent)
        outcome = self.deployment(check, **options).go()
        if not outcome.needs_source:
            return outcome
        archive = self.folder / f"{options['source_digest']}.tar.gz"
        if not archive.exists():
            folders.pack(self.code, archive, persistent)
        return self.deployment(check, archive=str(archive), **options).go()

    def refused(self, **options: Any) -> ReleaseError:
        """Deploy what cannot be, and see that what serves has not been touched."""
        before = self.serving()
        history = list(self.host.history)
        with pytest.raises(ReleaseError) as caught:
            self.deploy(**options)
        assert self.serving() == before
        other = self.deployment().app.slots.idle()
        assert [event for event in self.host.history[len(history) :] if not event.endswith(other)] == []
        assert other not in self.host.running
        assert other not in self.host.enabled
        return caught.value

    def serving(self) -> tuple[str, ...]:
        """All that decides what a visitor gets, now and after a reboot."""
        links = [self.root / "live.sock", self.root / "current"]
        targets = [str(link.readlink()) if link.is_symlink() else "" for link in links]
        slot = self.deployment().app.slots.live()
        held = self.root / "slots" / slot
        release_id = held.readlink().name if slot else ""
        return (*targets, slot, release_id, self.host.served(), str(slot in self.host.enabled))

    def record(self, release_id: str) -> Record:
        found = self.store.record(release_id)
        assert found
        return found

    def path(self, outcome: Outcome) -> Path:
        return self.root / "releases" / outcome.release

    def ids(self) -> list[str]:
        return sorted(path.name for path in (self.root / "releases").iterdir())


def assert_in_order(site: Site, wanted: Outcome | None = None) -> None:
    """One slot serves, by every sign that there is, and the other one is off."""
    slot = site.deployment().app.slots.live()
    other = next(item for item in SLOTS if item != slot)
    served = site.host.served()
    assert served
    assert site.deployment().app.slots.release(slot) == served
    assert (site.root / "current").resolve().name == served
    assert set(site.host.running) == site.host.enabled == {slot}
    assert other not in site.host.running
    record = site.record(served)
    assert record.healthy
    assert virtualenv.is_whole(site.root / "venvs" / record.venv)
    assert (site.root / "releases" / served / "venv").resolve() == site.root / "venvs" / record.venv
    partial = [path for path in (site.root / "releases").iterdir() if not (path / RECORD).exists()]
    assert len(partial) <= 1
    if wanted:
        assert (wanted.release, wanted.slot) == (served, slot)


def two(site: Site) -> tuple[Outcome, Outcome]:
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})
    return first, site.deploy()


def to(site: Site, last: str, **options: Any) -> Outcome:
    """Run the phases up to one of them."""
    asked = site.deploy(phases=["prepare"], deploy="run-1", **options)
    for name in PHASES[1 : PHASES.index(last) + 1]:
        site.phase(name, release=asked.release, previous=asked.previous, **options)
    return asked


def visits(site: Site, release_id: str, status: int, seconds: str = "0.050", number: int = 4) -> None:
    entry = json.dumps({"status": status, "release": release_id, "upstream_time": seconds})
    with site.access_log.open("a", encoding="utf-8") as stream:
        stream.write(f"{entry}\n" * number)


def first_release(_site: Site) -> None:
    """Nothing serves yet."""


def next_release(site: Site) -> None:
    """Two releases are there, and the next one has other code, another lock and more data, and drives the first out."""
    site.deploy()
    site.change({"shop.py": "app = 2\n", "requirements.txt": "flask==3.1.4\n"})
    site.deploy()
    site.change({"shop.py": "app = 3\n", "requirements.txt": "flask==3.1.5\nclick==8\n"})
    site.options.update(persistent=["instance", "uploads"], keep_releases=1, build_command="echo 1 > built")
    site.options.update(processes={"worker": "work"}, timers={"nightly": {"command": "tidy", "on_calendar": "daily"}})


def back_again(site: Site) -> None:
    """Two releases are there, and the first one is wanted again."""
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    site.change(CODE)


class Yard:
    """Puts one site into the same situation again and again, and sees what a kill does to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, situation: Callable[[Site], object]) -> None:
        self.pristine, self.owners, self.situation = folder / "pristine", fake_owners(monkeypatch), situation
        (folder / "site").mkdir()
        self.the_site = site = Site(folder / "site", monkeypatch, self.owners)
        site.options["release_command"] = "touch $HOME/released"
        situation(site)
        site.host.calls.clear()
        # Made once and copied from then on: to make it takes several deploys.
        run_command(["cp", "--archive", str(site.folder), str(self.pristine)], check_rc=True)
        self.memory, self.memory_of_owners = copy.deepcopy((site.options, vars(site.host))), dict(self.owners)
        #: What served before, what is wanted, how many commands that takes, and what it leaves.
        self.old = self.revision(site)
        self.wanted = site.deploy().revision
        self.commands = list(site.host.calls)
        assert_in_order(site)
        assert self.revision(site) == self.wanted != self.old
        self.end = self.state(site)

    def site(self) -> Site:
        """The site as it was in the beginning."""
        site = self.the_site
        shutil.rmtree(site.folder)
        run_command(["cp", "--archive", str(self.pristine), str(site.folder)], check_rc=True)
        site.options, host = copy.deepcopy(self.memory)
        vars(site.host).update(host)
        self.owners.clear()
        self.owners.update(self.memory_of_owners)
        return site

    @staticmethod
    def revision(site: Site) -> str:
        """The code that a visitor reaches."""
        served = site.host.served()
        return site.record(served).revision if served else ""

    def check(self, site: Site, where: str) -> None:
        """After a kill: visitors are served, and the same command again brings everything to the same end."""
        assert self.revision(site) in (self.old, self.wanted), where
        site.host.kill_at = 0
        outcome = site.deploy()
        assert_in_order(site, outcome)
        assert self.revision(site) == self.wanted, where
        assert self.state(site) == self.end, where
        assert not site.deploy().changed, where

    def state(self, site: Site) -> tuple[Any, ...]:
        """What must be the same whether a run was disturbed or not."""
        served = site.root / "releases" / site.host.served()
        files = {
            str(path.relative_to(served)): stat.S_IMODE(path.lstat().st_mode)
            for path in served.rglob("*")
            # Half a record is nobody's, and the next one that is written takes its place.
            if not path.is_symlink() and path.name != f"{RECORD}.partial"
        }
        data = sorted(str(path.relative_to(site.root)) for path in (site.root / "data").rglob("*"))
        packages = sorted(path.name for path in (served / "venv").resolve().rglob("*"))
        record, last = site.record(served.name), site.store.history()[-1]["release"] == served.name
        units = sorted(path.name for path in site.units.rglob("*")), sorted(site.host.workers), sorted(site.host.timers)
        current = set(site.host.workers.values()) <= {served.name}
        owner = site.owners[site.root / "data"]
        return (
            files,
            data,
            packages,
            owner,
            sorted(site.host.running),
            record.healthy,
            record.failed,
            last,
            units,
            current,
        )
