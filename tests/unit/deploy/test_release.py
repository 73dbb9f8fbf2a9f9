"""A deploy either brings the wanted release into service or leaves what serves alone, and can always be repeated."""

from __future__ import annotations

import copy
import errno
import fcntl
import functools
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import (
    database,
    environment,
    flip,
    freeze,
    lock,
    prepare,
    processes,
    records,
    slots,
    virtualenv,
)
from ansible.module_utils.flaskhost.deploy.app import RETURN, Outcome
from ansible.module_utils.flaskhost.deploy.lock import Lock, Locked, processes_with
from ansible.module_utils.flaskhost.deploy.records import RECORD, Record
from ansible.module_utils.flaskhost.deploy.release import PHASES, Deployment
from ansible.module_utils.flaskhost.deploy.sources import folders
from ansible.module_utils.flaskhost.host import atomic, runner
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.testing import patch_module_args
from fakes import GID, UID, USER, FakeHost, Killer, fake_owners, read_systemd_run, run_command, tree

ROOT = Path(__file__).resolve().parents[3]
REAL_KEEP = Lock.keep
CODE = {"shop.py": "app = 1\n", "requirements.txt": "flask==3.1.3\n", "static/site.css": "body {}"}


def load_module() -> Any:
    spec = importlib.util.spec_from_file_location("flask_release_module", ROOT / "plugins/modules/flask_release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = load_module()
GATE = "unix:/var/lib/nginx/gate/gate.sock"


class Site:
    """One app on one host, and the folder of its code on the controller."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, owners: dict[Path, tuple[int, int]]) -> None:
        self.folder, self.root, self.code, self.owners = folder, folder / "srv/shop", folder / "code", owners
        self.units = folder / "units"
        self.units.mkdir()
        self.host = FakeHost(self.root, units=self.units)
        # tar, cp and so on: test_source.py and some tests here have the real ones.
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


# -- a deploy that goes well ----------------------------------------------------------------------------------------


def test_the_first_release_serves(site: Site) -> None:
    outcome = site.deploy()
    assert outcome.changed
    assert (outcome.slot, outcome.previous) == ("blue", "")
    assert_in_order(site, outcome)
    assert site.host.history == ["start blue"]
    assert str((site.root / "live.sock").readlink()) == f"{site.folder}/run/blue.sock"
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{7}", outcome.release)
    assert outcome.revision.startswith(outcome.release[-7:])


def test_what_is_in_a_release(site: Site) -> None:
    folder = site.path(site.deploy())
    assert sorted(path.name for path in folder.iterdir()) == [
        "app",
        "env",
        "processes",
        "release.json",
        "server.conf.py",
        "src",
        "static",
        "venv",
    ]
    assert (folder / "app/shop.py").read_text(encoding="utf-8") == CODE["shop.py"]
    assert (folder / "server.conf.py").read_text(encoding="utf-8") == "workers = 2\n"
    assert json.loads((folder / RECORD).read_text(encoding="utf-8"))["version"] == str(site.code)
    command = [sys.executable, "-c", ""]
    systemd = ["systemd-run", f"--property=EnvironmentFile={folder}/env", "--", *command]
    variables = read_systemd_run(systemd).environment
    assert variables["MAIL_PASSWORD"] == "hunter $2"
    assert variables["FLASK_APP"] == "shop:app"
    assert variables["FLASKHOST_RELEASE"] == folder.name
    # The keys are in no release: to go back must not bring one back that was replaced.
    assert not any("SECRET_KEY" in name for name in variables)
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))
    assert f'SECRET_KEY="{keys.read()[0]}"' in keys.variables_file.read_text(encoding="utf-8")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_who_may_do_what(site: Site, umask: int) -> None:
    os.umask(umask)
    site.host.quick = False
    site.options["persistent"] = ["instance", "deep/er/uploads"]
    (site.code / "static/img").mkdir()
    (site.code / "static/img/cat.png").write_text("cat", encoding="utf-8")
    folder = site.path(site.deploy())

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.lstat().st_mode)

    root, etc = site.root, site.folder / "etc/flaskhost"
    for path in (root, root / "releases", folder, root / "slots", etc, folder / "static", folder / "static/img"):
        assert (path, mode(path)) == (path, 0o755)
    assert (mode(root / "venvs"), site.owners[root / "venvs"]) == (0o750, (0, GID))
    assert (mode(root / "data"), site.owners[root / "data"]) == (0o700, (UID, GID))
    assert (mode(etc / "shop"), site.owners.get(etc / "shop", (0, 0))) == (0o700, (0, 0))
    assert mode(etc / "shop/secret_key") == mode(folder / "env") == mode(folder / RECORD) == 0o600
    assert mode(root / ".lock") == 0o600
    assert (mode(folder / "src"), site.owners[folder / "src"]) == (0o750, (0, GID))
    assert (mode(folder / "src/shop.py"), site.owners[folder / "src/shop.py"]) == (0o640, (0, GID))
    assert mode(folder / "static/img/cat.png") == 0o644
    assert mode(folder / "src/deep/er") & 0o755 == 0o755
    assert os.umask(0o022) == 0o022


def test_what_the_app_may_write_is_linked_into_its_code(site: Site) -> None:
    site.change({"deep/uploads/welcome.txt": "hello", "instance/dev.db": "the developer's"})
    site.options["persistent"] = ["instance", "./deep/uploads/"]
    outcome = site.deploy()
    app = site.path(outcome) / "app"
    for name in ("instance", "deep/uploads"):
        assert (app / name).is_symlink()
        assert (app / name).resolve() == site.root / "data" / name
    assert list((site.root / "data/instance").iterdir()) == []


def test_code_is_in_a_folder_of_its_own(site: Site) -> None:
    for name in CODE:
        path = site.code / "services/shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (site.code / name).rename(path)
    outcome = site.deploy(source_subdir="services/shop")
    folder = site.path(outcome)
    assert str((folder / "app").readlink()) == "src/services/shop"
    assert (folder / "static/site.css").read_text(encoding="utf-8") == "body {}"
    assert (folder / "app/instance").resolve() == site.root / "data/instance"
    assert "no folder 'services/other'" in site.refused(source_subdir="services/other").reason


def test_nothing_to_do_is_nothing_done(site: Site) -> None:
    first = site.deploy()
    lock = str(site.root / ".lock")
    before = tree(site.root), list(site.host.history)
    site.host.calls.clear()
    again = site.deploy()
    assert not again.changed
    assert (again.release, again.slot, again.previous) == (first.release, "blue", first.release)
    # Who took the lock last is written into it each time.
    after = tree(site.root) | {lock: before[0][lock]}
    assert (after, site.host.history) == before
    assert {" ".join(call[:2]) for call in site.host.calls} <= {"systemctl is-active", "systemctl is-enabled"}


CHANGES: dict[str, Callable[[Site], object]] = {
    "code": lambda site: site.change({"shop.py": "app = 2\n"}),
    "environment": lambda site: site.options["environment"].update(MAIL_FROM="shop@example.com"),
    "secrets": lambda site: site.options["secrets"].update(MAIL_PASSWORD="another"),
    "server's settings": lambda site: site.config.write_text("workers = 3\n", encoding="utf-8"),
    "unit": lambda site: site.unit_file.write_text("[Service]\nRestart=no\n", encoding="utf-8"),
    "extra packages": lambda site: site.options.update(extra_packages=["driver==1.0"]),
    "release command": lambda site: site.options.update(release_command="true"),
    "persistent folders": lambda site: site.options.update(persistent=["uploads"]),
    "wsgi": lambda site: site.options.update(wsgi="shop:other"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_a_new_release_in_the_other_slot(site: Site, change: str) -> None:
    first = site.deploy()
    CHANGES[change](site)
    second = site.deploy()
    assert second.changed
    assert (second.slot, second.previous) == ("green", first.release)
    assert_in_order(site, second)
    assert site.host.history == ["start blue", "start green", "stop blue"]
    assert not site.deploy().changed


def test_the_slots_take_turns(site: Site) -> None:
    for number in range(4):
        site.change({"shop.py": f"app = {number}\n"})
        outcome = site.deploy()
        assert outcome.slot == SLOTS[number % 2]
        assert_in_order(site, outcome)


def test_releases_with_the_same_lock_share_an_environment(site: Site) -> None:
    one = site.record(site.deploy().release)
    site.change({"shop.py": "app = 2\n"})
    two = site.record(site.deploy().release)
    site.change({"requirements.txt": "flask==3.1.4\n"})
    three = site.record(site.deploy().release)
    assert one.venv == two.venv != three.venv
    built = [call for call in site.host.calls if call[0] == "systemd-run" and "venv" in call]
    assert len(built) == 2


def test_the_old_slot_is_stopped_only_after_the_flip_and_a_pause(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    served: list[tuple[str, str]] = []

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        if args[:2] == ["systemctl", "stop"] and "_task" not in args[-1]:
            served.append((args[-1], site.deployment().app.slots.live()))
        return site.host(args, **options)

    site.pauses.clear()
    digest = folders.digest(site.code)
    folders.pack(site.code, site.folder / "a.tar.gz")
    options = {**site.options, "source_digest": digest, "archive": str(site.folder / "a.tar.gz")}
    Deployment(run, options, pause=site.pauses.append).go()
    assert served == [("flask-shop@green.service", "blue"), ("flask-shop@blue.service", "green")]
    assert site.pauses == [slots.KEEPALIVE_SECONDS]


def test_two_releases_in_the_same_second_have_two_names(site: Site) -> None:
    names = set()
    for number in range(3):
        site.options["environment"]["NUMBER"] = str(number)
        names.add(site.deploy().release)
    assert len(names) == 3
    assert_in_order(site)


# -- a git repository -----------------------------------------------------------------------------------------------


def test_a_repository_is_deployed_and_its_data_is_taken_over_once(site: Site) -> None:
    site.host.quick = False
    site.change({"instance/start.db": "first rows", "instance/more/x": "x"})

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        command = ["git", *who, "-C", str(site.code), *arguments]
        return run_command(command, check_rc=True, environ_update={"GIT_CONFIG_GLOBAL": "/dev/null"})[1].strip()

    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message=one")
    site.options.update(source_path="", source_repo=f"file://{site.code}", source_version="main")
    first = site.deploy()
    assert first.revision == git("rev-parse", "HEAD")
    assert first.release.endswith(first.revision[:7])
    assert site.record(first.release).version == "main"
    assert stat.S_IMODE((site.root / "repository.git").lstat().st_mode) == 0o700
    data = site.root / "data/instance"
    assert (data / "start.db").read_text(encoding="utf-8") == "first rows"
    assert (data / "more/x").exists()
    assert [path.name for path in (site.root / "data").iterdir()] == ["instance"]
    assert not site.deploy().changed
    (data / "start.db").write_text("rows of the app", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    git("commit", "--quiet", "--all", "--message=two")
    second = site.deploy()
    assert_in_order(site, second)
    assert (site.path(second) / "app/instance/start.db").read_text(encoding="utf-8") == "rows of the app"
    assert "no branch or tag named 'v9'" in site.refused(source_version="v9").reason


# -- a deploy that does not -----------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, str], dict[str, Any], str, str]] = {
    "no requirements": ({}, {"requirements": "missing.txt"}, "Build the environment", "looked for missing.txt"),
    "build": ({"requirements.txt": "no-such-package==1\n"}, {}, "Build the environment", "no-such-package==1 was not"),
    "release command": ({}, {"release_command": "echo the table; exit 3"}, "Run the release command", "ended with 3"),
    "procfile": ({"Procfile": "release: echo no table >&2; false\n"}, {}, "Run the release command", "no table"),
    "start": ({"fails-to-start": ""}, {}, "Start the green slot", "a line of the journal"),
    "gate": ({"fails-the-gate": ""}, {}, "Ask the green slot for /healthz", "/healthz of www.shop.example does not"),
    "variable": ({}, {"secrets": {"BAD NAME": "x"}}, "Write the environment", "BAD NAME"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_fails_touches_nothing_and_is_no_obstacle(site: Site, fault: str) -> None:
    first = site.deploy()
    files, options, step, reason = FAULTS[fault]
    site.change(files)
    for _ in range(2):
        error = site.refused(**options)
        assert error.step == step
        assert reason in error.reason
        assert error.cure
    assert site.host.served() == first.release
    for name in files:
        (site.code / name).unlink()
    site.change(CODE)
    # What was refused after it had been built goes, and nothing else is done.
    built, went = len(site.ids()) > 1, list(site.host.history)
    assert site.deploy().changed == built
    assert site.ids() == [first.release]
    assert site.host.history == went
    assert not site.deploy().changed
    site.change({"shop.py": "app = 'mended'\n"})
    assert_in_order(site, site.deploy())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_release_that_fails_leaves_nothing_that_serves(site: Site, fault: str) -> None:
    files, options, _step, _reason = FAULTS[fault]
    site.change(files)
    with pytest.raises(ReleaseError):
        site.deploy(**options)
    assert site.host.running == {}
    assert site.host.enabled == set()
    assert not (site.root / "live.sock").is_symlink()
    assert not (site.root / "current").is_symlink()
    for name in files:
        (site.code / name).unlink()
    site.change(CODE)
    assert_in_order(site, site.deploy())


def test_a_release_that_failed_is_not_built_again(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n", "requirements.txt": "flask==3.1.4\n"})
    site.answer(lambda *_: (503, "the database is away"))
    site.refused()
    site.answer(site.host.probe)
    site.host.calls.clear()
    assert_in_order(site, site.deploy())
    assert not any(call[0] == "systemd-run" for call in site.host.calls)


def test_an_archive_that_leads_out_is_refused(site: Site) -> None:
    site.deploy()
    site.host.quick = False
    (site.code / "passwords").symlink_to("/etc/shadow")
    assert "passwords is a link to /etc/shadow" in site.refused().reason


# -- the release command --------------------------------------------------------------------------------------------


def test_the_release_command_is_the_apps_with_its_environment_and_its_rights(site: Site) -> None:
    command = (
        'printf "%s|%s|%s" "$MAIL_PASSWORD" "$HOME" "${FLASK_APP}" > "$HOME/said"; echo $((6 * 7)) >> "$HOME/said"'
    )
    outcome = site.deploy(release_command=command)
    data = site.root / "data"
    assert (data / "said").read_text(encoding="utf-8") == f"hunter $2|{data}|shop:app42\n"
    call = next(call for call in site.host.calls if "/bin/sh" in call)
    unit = read_systemd_run(call)
    assert unit.command[-1] == command
    assert unit.properties["ReadWritePaths"] == [str(data)]
    assert unit.properties["WorkingDirectory"] == [f"{site.path(outcome)}/app"]
    assert unit.environment["PATH"].startswith(f"{site.path(outcome)}/venv/bin:")
    assert {f"--uid={USER}", f"--gid={USER}"} <= set(call)
    assert not any("hunter" in item for item in itertools.chain(*site.host.calls))


def test_the_release_command_alone_owns_the_tables(site: Site, tmp_path: Path) -> None:
    owner = tmp_path / "database_owner.env"
    owner.write_text('DATABASE_URL="postgresql://shop-owner:sesame@/shop"\n')
    outcome = site.deploy(release_command="true", owner_file=str(owner))
    call = next(call for call in site.host.calls if "/bin/sh" in call)
    unit = read_systemd_run(call)
    assert unit.properties["EnvironmentFile"][-1] == str(owner), "the last one wins"
    # A group that no process of the app has, so that none may look into it; and the app's, to whom the packages are.
    assert {f"--uid={USER}", f"--gid={runner.OWNERS_GROUP}"} <= set(call)
    assert unit.properties["SupplementaryGroups"] == [USER]
    assert ["groupadd", "--system", "--force", runner.OWNERS_GROUP] in site.host.calls
    assert "sesame" not in (site.path(outcome) / "env").read_text()
    others = [call for call in site.host.calls if call != unit and str(owner) in " ".join(call)]
    assert len(others) == 1


def test_a_host_that_an_earlier_version_has_set_up_is_left_alone(site: Site) -> None:
    (site.folder / "journald@flask-shop.conf").unlink()
    refused = site.refused()
    assert "an earlier version of Flaskhost" in refused.reason
    assert "site.yml" in refused.cure
    assert not site.root.exists()
    assert not site.host.calls


def test_without_an_owner_on_the_host_no_release_command_is_run(site: Site, tmp_path: Path) -> None:
    refused = site.refused(release_command="true", owner_file=str(tmp_path / "database_owner.env"))
    assert "the owner of the app's tables has not been made here" in refused.reason
    assert "site.yml" in refused.cure
    assert not any("/bin/sh" in call for call in site.host.calls)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("psycopg.errors.InsufficientPrivilege: permission denied for schema public", True),
        ("ERROR:  must be owner of table entry", True),
        ("PermissionError: [Errno 13] Permission denied: '/srv'", False),
    ],
)
def test_an_app_that_may_not_make_tables_is_told_of_the_option(site: Site, said: str, hint: bool) -> None:
    refused = site.refused(release_command=f'echo "{said}"; false')
    assert ("database_owner: true" in refused.cure) is hint


@pytest.fixture
def backups(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program for backups, which notes what it is asked and ends as its first line says."""
    program = site.folder / "flaskhost-backup"
    program.write_text(f'#!/bin/sh\necho "$@" >> {site.folder}/asked\necho "$SAYS" >&2\nexit ${{ENDS:-0}}\n')
    program.chmod(0o755)
    monkeypatch.setattr("ansible.module_utils.flaskhost.deploy.migrate.BACKUPS", program)
    site.options["environment"]["DATABASE_URL"] = "postgresql:///shop"
    site.options["database_per_host"] = True
    # Whether or not there is a psql where the tests run.
    monkeypatch.setattr(database.Database, "lock", lambda *_arguments: nullcontext())
    monkeypatch.setattr(database.Database, "revision", lambda _self: "")
    return site.folder / "asked"


def test_a_migration_notes_where_the_database_could_go_back_to(site: Site, backups: Path) -> None:
    first = site.deploy(release_command="true")
    site.change({"shop.py": "app = 43\n"})
    second = site.deploy(release_command="true")
    asked = backups.read_text(encoding="utf-8").splitlines()
    assert asked == [
        f"point --app shop --release {first.release} --previous ",
        f"point --app shop --release {second.release} --previous {first.release}",
    ]
    assert site.record(second.release).restore_point == f"shop@{second.release}"


def test_a_point_that_cannot_be_noted_keeps_back_no_release(
    site: Site, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS", "1")
    monkeypatch.setenv("SAYS", "PostgreSQL does not run.")
    outcome = site.deploy(release_command="true")
    assert any("no point was noted" in warning and "does not run" in warning for warning in outcome.warnings)
    # Whoever wants no backups is not told at each deploy.
    monkeypatch.setenv("ENDS", "3")
    monkeypatch.setenv("SAYS", "There are no backups: backup.passphrase is not set.")
    site.change({"shop.py": "app = 43\n"})
    assert not any("no point" in warning for warning in site.deploy(release_command="true").warnings)


def test_of_a_database_elsewhere_the_time_of_the_migration_is_noted(
    site: Site, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that has failed half-way."""
    site.options["database_per_host"] = False
    monkeypatch.setattr(database.Database, "time", lambda _self: "2026-11-21T10:15:00.123456")
    first = site.deploy(release_command="true")
    site.change({"shop.py": "app = 43\n"})
    site.refused(release_command="false")
    records = {record.id: record for record in site.store.all_records()}
    assert records.pop(first.release).migrates_from == ""
    (second,) = records.values()
    assert (second.restore_time, second.migrates_from) == ("2026-11-21T10:15:00.123456", first.release)
    assert not backups.exists(), "the backups of this host have nothing to do with it"


def test_a_database_elsewhere_that_does_not_say_the_time_keeps_back_no_release(
    site: Site, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unanswered(_self: object) -> str:
        raise database.Unanswered("no route to host")

    site.options["database_per_host"] = False
    monkeypatch.setattr(database.Database, "time", lambda _self: "2026-11-21T10:15:00.123456")
    site.refused(release_command="test -e $HOME/second-try")
    (site.root / "data/second-try").touch()
    monkeypatch.setattr(database.Database, "time", unanswered)
    outcome = site.deploy(release_command="test -e $HOME/second-try")
    assert site.record(outcome.release).restore_time == "", "the first try's is too early by now"
    assert any("no point was noted" in warning and "no route" in warning for warning in outcome.warnings)
    assert not backups.exists()


@pytest.mark.parametrize("own", ["", "-c search_path=o'brien -c x=$HOME"])
def test_the_release_command_has_time_limits_beside_the_apps_own_options(site: Site, own: str) -> None:
    site.options["secrets"] |= {"PGOPTIONS": own} if own else {}
    site.deploy(release_command='printf %s "$PGOPTIONS" > "$HOME/said"', release_timeout=60, release_lock_timeout=3)
    limits = "-c lock_timeout=3s -c statement_timeout=60s"
    assert (site.root / "data/said").read_text(encoding="utf-8") == f"{limits} {own}".strip()
    assert not any("o'brien" in word for word in itertools.chain(*site.host.calls))


@pytest.mark.parametrize("alone", ["$HOME", "${HOME}", "~", "$$"])
def test_no_variable_of_roots_gets_into_a_command(site: Site, alone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    command = f"echo {alone} > data-of-command; false"
    with pytest.raises(ReleaseError) as caught:
        site.deploy(release_command=command)
    assert f"'{command}' ended with" in caught.value.reason
    unit = read_systemd_run(next(call for call in site.host.calls if "/bin/sh" in call))
    assert unit.command[-1] == command


def test_the_procfile_names_the_release_command(site: Site) -> None:
    text = "web: gunicorn shop:app\nrelease:   touch $HOME/released ; touch $HOME/twice\nreleases: false\nworker: x\n"
    site.change({"Procfile": text})
    site.deploy()
    assert {path.name for path in (site.root / "data").iterdir()} == {"instance", "released", "twice"}
    site.deploy(release_command="touch $HOME/option")
    assert (site.root / "data/option").exists()


@pytest.mark.parametrize("text", ["web: gunicorn shop:app\n", "release:\nweb: false\n", "# release: false\n", ""])
def test_a_procfile_without_one_runs_nothing(site: Site, text: str) -> None:
    site.change({"Procfile": text})
    site.deploy()
    assert not any("/bin/sh" in call for call in site.host.calls)


# -- static files ---------------------------------------------------------------------------------------------------


def test_static_files_are_published_beside_the_code(site: Site) -> None:
    shutil.rmtree(site.code / "static")
    site.change({"pkg/web/static/a.css": "a", "pkg/web/__init__.py": "", "pkg/web/static/deep/b.js": "b"})
    (site.code / "pkg/web/static/link.py").symlink_to("../__init__.py")
    folder = site.path(site.deploy(wsgi="pkg.web:create_app()"))
    assert sorted(str(path.relative_to(folder)) for path in (folder / "static").rglob("*.*")) == [
        "static/a.css",
        "static/deep/b.js",
    ]
    assert (folder / "static/a.css").samefile(folder / "app/pkg/web/static/a.css")
    assert (folder / "app/pkg/web/__init__.py").stat().st_mode & 0o777 == 0o640


def test_an_app_without_static_files_has_an_empty_folder(site: Site) -> None:
    shutil.rmtree(site.code / "static")
    assert list((site.path(site.deploy()) / "static").iterdir()) == []


@pytest.mark.parametrize("persistent", [["static"], ["public"]])
def test_a_folder_that_the_app_may_write_is_not_published(site: Site, persistent: list[str]) -> None:
    """Root would change the modes of files that the app exchanges for links meanwhile."""
    path = f"{persistent[0]}/static" if persistent == ["public"] else ""
    data = site.root / "data" / persistent[0] / ("static" if path else "")
    data.mkdir(parents=True)
    (data / "upload.css").write_text("x", encoding="utf-8")
    (data / "upload.css").chmod(0o600)
    folder = site.path(site.deploy(persistent=persistent, static_path=path))
    assert list((folder / "static").iterdir()) == []
    assert stat.S_IMODE((data / "upload.css").lstat().st_mode) == 0o600


# -- check mode -----------------------------------------------------------------------------------------------------


def test_check_mode_on_a_bare_host_touches_nothing(site: Site) -> None:
    before = tree(site.folder)
    outcome = site.deploy(check=True)
    assert outcome.changed
    assert not outcome.needs_source
    assert outcome.revision == folders.digest(site.code)
    assert tree(site.folder) == before
    assert site.host.calls == []


def test_check_mode_says_what_a_deploy_would_do_and_touches_nothing(site: Site) -> None:
    first = site.deploy()
    state = site.serving(), list(site.host.history)
    before = tree(site.folder)
    assert not site.deploy(check=True).changed
    assert tree(site.folder) == before
    site.change({"shop.py": "app = 2\n"})
    before = tree(site.folder)
    outcome = site.deploy(check=True)
    assert (outcome.changed, outcome.previous) == (True, first.release)
    assert tree(site.folder) == before
    assert (site.serving(), site.host.history) == state


def test_check_mode_tells_of_a_repair_and_leaves_it(site: Site) -> None:
    site.deploy()
    (site.root / "current").unlink()
    before = tree(site.folder)
    assert site.deploy(check=True).changed
    assert tree(site.folder) == before
    assert site.deploy().changed
    assert_in_order(site)


def test_check_mode_does_not_need_git_on_a_bare_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    outcome = site.deploy(check=True, source_repo="https://example.invalid/x.git", source_version="v1")
    assert (outcome.changed, outcome.revision) == (True, "v1")
    assert site.host.calls == []


# -- the source is sent where it is needed --------------------------------------------------------------------------


def test_the_code_is_asked_for_only_where_it_is_missing(site: Site) -> None:
    digest = folders.digest(site.code)
    asked = site.deployment(source_digest=digest).go()
    assert (asked.changed, asked.needs_source, asked.release) == (True, True, "")
    assert site.host.calls == []
    site.deploy()
    again = site.deployment(source_digest=digest).go()
    assert (again.changed, again.needs_source) == (False, False)


def test_a_release_that_is_there_already_is_served_without_the_code(site: Site) -> None:
    first = site.deploy()
    digest = folders.digest(site.code)
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    back = site.deployment(source_digest=digest).go()
    assert not back.needs_source
    assert back.release == first.release
    assert_in_order(site, back)


def test_a_release_whose_environment_is_gone_is_made_anew(site: Site) -> None:
    for _ in range(2):
        outcome = site.deploy()
        assert_in_order(site, outcome)
        shutil.rmtree(site.root / "venvs" / site.record(outcome.release).venv)
    assert site.deploy().changed
    assert_in_order(site)


# -- one at a time --------------------------------------------------------------------------------------------------


def test_a_second_deploy_is_refused_and_told_who_is_at_it(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            held = Lock(site.root / ".lock", deploy="run-0", by="grace@desk")
            held.acquire()
            os.write(writer, b"!")
            signal.pause()
        os._exit(1)
    os.close(writer)
    try:
        os.read(reader, 1)
        error = site.refused()
        assert error.step == "Lock the app"
        assert re.search(r"grace@desk since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", error.reason)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # A lock of a process that was killed is none.
    assert_in_order(site, site.deploy())


def test_the_lock_is_held_to_the_end_and_by_nothing_that_is_started(site: Site) -> None:
    held: list[str] = []

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        with (site.root / ".lock").open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(f"free at {args}")
            except BlockingIOError:
                assert not os.get_inheritable(stream.fileno())
        return site.host(args, **options)

    digest = folders.digest(site.code)
    folders.pack(site.code, site.folder / "a.tar.gz")
    options = {**site.options, "source_digest": digest, "archive": str(site.folder / "a.tar.gz")}
    Deployment(run, options, pause=site.pauses.append).go()
    assert held == []
    assert len(site.host.calls) > 10


# -- killed at any moment -------------------------------------------------------------------------------------------


def first_release(_site: Site) -> None:
    """Nothing serves yet."""


def next_release(site: Site) -> None:
    """Two releases are there, and the next one has other code, another lock and more data, and drives the first out."""
    site.deploy()
    site.change({"shop.py": "app = 2\n", "requirements.txt": "flask==3.1.4\n"})
    site.deploy()
    site.change({"shop.py": "app = 3\n", "requirements.txt": "flask==3.1.5\nclick==8\n"})
    site.options.update(persistent=["instance", "uploads"], keep_releases=1)
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


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: hundreds of sites take a disk its time."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(params=[first_release, next_release, back_again], ids=lambda item: item.__name__)
def yard(memory: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Yard:
    return Yard(memory, monkeypatch, request.param)


def test_killed_after_any_command(yard: Yard) -> None:
    assert len(yard.commands) > 5
    for number in range(1, len(yard.commands) + 1):
        killed_at(yard, number, "after")


@pytest.mark.parametrize("situation", [first_release, next_release])
def test_killed_amid_the_build(memory: Path, monkeypatch: pytest.MonkeyPatch, situation: Callable[..., object]) -> None:
    """Of the other commands there is no half that differs from nothing and from the whole."""
    yard = Yard(memory, monkeypatch, situation)
    numbers = [number for number, call in enumerate(yard.commands, 1) if yard.the_site.options["uv"] in call]
    assert len(numbers) > 1
    for number in numbers:
        killed_at(yard, number, "amid")


def killed_at(yard: Yard, number: int, when: str) -> None:
    site = yard.site()
    site.host.kill_at, site.host.kill_when = number, when
    with pytest.raises(KeyboardInterrupt):
        site.deploy()
    yard.check(site, f"{when} command {number}, {' '.join(site.host.calls[-1])}")


def test_killed_before_any_change_to_the_disk(yard: Yard) -> None:
    # The build goes the same way in all situations: once through each of its changes is enough.
    but = "" if yard.situation is next_release else "build.py"
    site = yard.site()
    with Killer(but=but) as killer:
        site.deploy()
    assert killer.count > 8
    for number in range(1, killer.count + 1):
        site = yard.site()
        with pytest.raises(KeyboardInterrupt), Killer(number, but) as killer:
            site.deploy()
        yard.check(site, f"before change {number}, {killer.last}")


# -- put right ------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[Site], object]] = {
    "stopped": lambda site: site.host.running.pop("green"),
    "disabled": lambda site: site.host.enabled.discard("green"),
    "old slot running": lambda site: site.host.running.update(blue="old"),
    "old slot enabled": lambda site: site.host.enabled.add("blue"),
    "current elsewhere": lambda site: atomic.link(site.root / "current", "releases/other"),
    "current missing": lambda site: (site.root / "current").unlink(),
    "live link missing": lambda site: (site.root / "live.sock").unlink(),
    "live link missing and stopped": lambda site: (
        (site.root / "live.sock").unlink(),
        site.host.running.pop("green"),
    ),
    "rebooted into both": lambda site: (site.host.enabled.add("blue"), site.host.reboot()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_serves_is_put_right_without_a_new_release(site: Site, damage: str) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    releases = site.ids()
    DAMAGES[damage](site)
    outcome = site.deploy()
    assert outcome.changed
    assert (outcome.release, outcome.previous) == (second.release, second.release)
    assert_in_order(site, outcome)
    assert site.ids() == releases
    assert not site.deploy().changed


@pytest.mark.parametrize("verb", ["deploy", "rollback", "restart", "phases"])
def test_a_live_link_that_somebody_has_removed_is_restored_and_is_no_fault_of_the_release(
    site: Site, verb: str
) -> None:
    first, second = two(site)
    site.change({"shop.py": "app = 3\n"})
    (site.root / "live.sock").unlink()
    plan = site.deploy(check=True)
    assert not (site.root / "live.sock").is_symlink()
    assert plan.previous == second.release
    # Before the new release has been gated: until then visitors get 502.
    seen: list[str] = []
    site.answer(lambda *asked: (seen.append(site.host.served()), site.host.probe(*asked))[1])
    went = list(site.host.history)
    if verb == "phases":
        outcome = site.phases()
    else:
        outcome = site.deploy() if verb == "deploy" else site.deployment(verb=verb).go()
    assert seen[0] == second.release
    assert site.host.history[len(went) :] == ["start blue", "stop green"]
    wanted = {"rollback": first.release, "restart": second.release}.get(verb, site.ids()[-1])
    assert outcome.release == site.host.served() == wanted
    assert_in_order(site)


def test_a_restored_live_link_is_told(site: Site) -> None:
    _first, second = two(site)
    (site.root / "live.sock").unlink()
    outcome = site.deploy()
    assert outcome.changed
    assert any("live.sock was missing" in item and second.release in item for item in outcome.warnings)
    assert not site.deploy().warnings


def test_a_link_that_is_not_there_yet_is_not_restored(site: Site) -> None:
    site.change({"fails-the-gate": ""})
    for _ in range(2):
        site.refused()
    assert not (site.root / "live.sock").is_symlink()


def test_a_refused_change_of_the_unit_leaves_the_slot_that_serves_with_its_own(site: Site) -> None:
    """systemd applies a lower limit of memory to what runs at the next daemon-reload, and a sandbox at its restart."""
    held = {slot: site.unit_file.with_name(f"flask-shop@{slot}.service") for slot in SLOTS}
    site.deploy()
    assert held["blue"].read_text() == "[Service]\n"
    assert stat.S_IMODE(held["blue"].stat().st_mode) == 0o644
    site.unit_file.write_text("[Service]\nMemoryMax=1M\n", encoding="utf-8")
    site.change({"fails-the-gate": ""})
    site.refused()
    assert held["blue"].read_text() == "[Service]\n"
    assert held["green"].read_text() == "[Service]\nMemoryMax=1M\n"
    (site.code / "fails-the-gate").unlink()
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    assert {path.read_text() for path in held.values()} == {"[Service]\nMemoryMax=1M\n"}
    reloads = [index for index, call in enumerate(site.host.calls) if call == ["systemctl", "daemon-reload"]]
    starts = [index for index, call in enumerate(site.host.calls) if "start" in call]
    assert len(reloads) == 3, "only where the slot's own has changed"
    assert reloads[0] < starts[0]


def test_a_reboot_brings_back_what_served(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    site.host.reboot()
    assert site.host.served() == second.release
    assert not site.deploy().changed


def test_nothing_is_migrated_for_a_gate_that_nginx_has_no_listener_for(site: Site) -> None:
    """It is stopped, or has the settings of an earlier version of Flaskhost, whose gate was a port."""
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})
    site.host.nginx = False
    with pytest.raises(ReleaseError, match="nginx does not listen on unix:") as caught:
        site.deploy(release_command="touch $HOME/upgraded")
    assert "--tags nginx" in caught.value.cure
    assert "What served before still serves." in caught.value.cure
    assert site.host.served() == first.release
    assert not (site.root / "data/upgraded").exists()
    site.host.nginx = True
    assert_in_order(site, site.deploy(release_command="touch $HOME/upgraded"))
    assert (site.root / "data/upgraded").exists()


def test_a_gate_that_a_killed_run_left_open_is_closed(site: Site) -> None:
    site.deploy()
    for verb in ("deploy", "rollback"):
        (site.root / "gate.sock").symlink_to("anywhere")
        with suppress(ReleaseError):
            site.deploy(verb=verb)
        assert not os.path.lexists(site.root / "gate.sock")


def test_the_slot_that_should_serve_is_not_switched_off_for_a_bad_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may be away. Better some pages than none, and systemd and the next boot go on trying."""
    site.deploy()
    site.host.running.clear()
    with monkeypatch.context() as patch:
        patch.setattr(slots, "probe", lambda *_: (503, "the database is away"))
        with pytest.raises(ReleaseError, match="the database is away"):
            site.deploy()
    assert set(site.host.running) == site.host.enabled == {"blue"}


# -- what is kept ---------------------------------------------------------------------------------------------------


def release_number(site: Site, number: int) -> Outcome:
    site.change({"shop.py": f"app = {number}\n", "requirements.txt": f"flask==3.1.{number}\n"})
    return site.deploy(keep_releases=3)


def test_so_many_releases_are_kept_with_their_environments(site: Site) -> None:
    made = [release_number(site, number).release for number in range(6)]
    assert site.ids() == sorted(made[-3:])
    venvs = {site.record(name).venv for name in made[-3:]}
    assert {path.name for path in (site.root / "venvs").iterdir()} == venvs
    assert_in_order(site)


def test_a_release_that_a_slot_holds_is_kept_however_old(site: Site) -> None:
    made = [release_number(site, number).release for number in range(3)]
    site.change({"shop.py": "app = 0\n", "requirements.txt": "flask==3.1.0\n"})
    back = site.deploy(keep_releases=1)
    assert back.release == made[0]
    assert site.ids() == [made[0], made[2]]
    assert_in_order(site, back)


def test_a_release_that_was_removed_in_part_is_not_served_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = release_number(site, 0)
    release_number(site, 1)

    def killed(path: Path) -> None:
        assert path == site.path(first)
        (path / "src/shop.py").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            site.change({"shop.py": "app = 2\n"})
            site.deploy(keep_releases=1)
    again = release_number(site, 0)
    assert_in_order(site, again)
    assert (site.path(again) / "app/shop.py").exists()


def test_a_release_that_was_never_healthy_goes_with_the_next_one_that_is(site: Site) -> None:
    first = site.deploy()
    site.change({"fails-the-gate": "", "requirements.txt": "flask==9\n"})
    site.refused()
    assert len(site.ids()) == len(list((site.root / "venvs").iterdir())) == 2
    (site.code / "fails-the-gate").unlink()
    second = site.deploy()
    assert site.ids() == sorted([first.release, second.release])


def test_a_refused_release_goes_with_a_deploy_that_has_nothing_else_to_do(site: Site) -> None:
    """The operator went back to the former code: no release is built, and the refused one is removed."""
    first = site.deploy()
    site.change({"fails-the-gate": "", "requirements.txt": "flask==9\n"})
    site.refused()
    assert len(site.ids()) == len(list((site.root / "venvs").iterdir())) == 2
    (site.code / "fails-the-gate").unlink()
    site.change(CODE)
    assert site.deploy(check=True).changed
    assert len(site.ids()) == 2
    outcome = site.deploy()
    assert (outcome.changed, outcome.release) == (True, first.release)
    assert site.ids() == [first.release]
    assert [path.name for path in (site.root / "venvs").iterdir()] == [site.record(first.release).venv]
    assert_in_order(site, first)
    assert not site.deploy().changed


def test_a_release_that_serves_is_kept_whatever_its_record_says(site: Site) -> None:
    first = site.deploy()
    for damage in ("{", None):
        record = site.path(first) / RECORD
        record.write_text(damage, encoding="utf-8") if damage else record.unlink()
        site.change({"shop.py": f"app = {damage!r}\n", "requirements.txt": f"flask=={bool(damage) + 1}\n"})
        before = tree(site.path(first) / "src")
        venv = (site.path(first) / "venv").resolve()
        second = site.deploy()
        assert_in_order(site, second)
        assert tree(site.path(first) / "src") == before
        assert venv.is_dir()
        first = second


def test_a_release_whose_record_is_damaged_goes_with_its_environment(site: Site) -> None:
    made = [release_number(site, number) for number in range(3)]
    (site.path(made[0]) / RECORD).write_text("{", encoding="utf-8")
    (site.path(made[1]) / RECORD).write_text('{"id": 1}', encoding="utf-8")
    last = release_number(site, 3)
    assert site.ids() == sorted([made[2].release, last.release])
    assert len(list((site.root / "venvs").iterdir())) == 2


def test_what_is_no_release_is_left_alone(site: Site) -> None:
    site.deploy()
    for folder in ("releases", "venvs"):
        (site.root / folder / "README").write_text("a hand's", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    site.deploy(keep_releases=1)
    assert (site.root / "releases/README").exists()
    assert (site.root / "venvs/README").exists()


def test_a_record_that_another_version_wrote_is_no_reason_to_stop(site: Site) -> None:
    first = site.deploy()
    record = site.path(first) / RECORD
    content = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**content, "of_tomorrow": "abc"}), encoding="utf-8")
    assert not site.deploy().changed
    # One that Flaskhost of yesterday wrote.
    older = {name: content[name] for name in ("id", "identity", "version", "revision", "venv", "created", "healthy")}
    record.write_text(json.dumps(older), encoding="utf-8")
    assert not site.deploy().changed
    site.change({"shop.py": "app = 2\n"})
    assert_in_order(site, site.deploy())
    assert site.rollback().release == first.release


# -- killed in the phases of a fleet, and while the release is watched ------------------------------------------------


def test_killed_at_any_command_of_any_phase(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(memory, monkeypatch, next_release)
    site = yard.site()
    site.phases()
    commands = len(site.host.calls)
    assert yard.state(site) == yard.end
    site = yard.site()
    site.deploy(phases=["prepare"], deploy="run-1")
    # Within the first phase it makes no difference what was to follow.
    prepared = len(site.host.calls)
    assert 5 < prepared < commands - 5
    for number in range(prepared, commands + 1):
        site = yard.site()
        site.host.kill_at = number
        with pytest.raises(KeyboardInterrupt):
            site.phases()
        yard.check(site, f"after command {number}, {' '.join(site.host.calls[-1])}")


def killed() -> None:
    raise KeyboardInterrupt


def test_killed_while_it_is_watched_a_good_release_stays(site: Site) -> None:
    site.deploy()
    second = killed_in_the_watch(site, {"shop.py": "app = 2\n"})
    assert set(site.host.running) == {"blue", "green"}
    assert not site.record(second).healthy
    outcome = site.deploy(watch=2)
    assert outcome.release == second
    assert_in_order(site, outcome)
    assert not site.deploy(watch=2).changed


def test_killed_while_it_is_watched_a_bad_release_is_taken_back_by_the_next_run(site: Site) -> None:
    first = site.deploy()
    second = killed_in_the_watch(site, {"shop.py": "app = 2\n"})
    site.meanwhile = lambda: visits(site, second, 500)
    with pytest.raises(ReleaseError, match="server error"):
        site.deploy(watch=2)
    assert site.host.served() == first.release
    assert_in_order(site)


def killed_in_the_watch(site: Site, files: dict[str, str]) -> str:
    site.change(files)
    site.meanwhile = killed
    with pytest.raises(KeyboardInterrupt):
        site.deploy(watch=2)
    site.meanwhile = lambda: None
    return site.host.served()


# -- a full disk ------------------------------------------------------------------------------------------------------


class FullDisk(Killer):
    """A disk that is full from the nth change on; what is only removed or renamed still works."""

    CHANGES = ("link", "mkdir", "symlink")
    failed = ""

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name == "mkdir" and Path(arguments[0]).exists():
                # There is one: that is found out first.
                return function(*arguments, **options)
            self.count += 1
            if self.count == self.number:
                self.failed = f"{name} {arguments}"
                raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))
            return function(*arguments, **options)

        return call


def test_a_full_disk_is_told_and_what_served_serves(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(memory, monkeypatch, next_release)
    real = atomic.write

    def counting(path: Path, text: str, **more: Any) -> None:
        counted(path)
        real(path, text, **more)

    def counted(path: Path) -> None:
        # A write counts as one more change.
        os.mkdir(path.with_name(f"{path.name}.probe"))  # noqa: PTH102 - the one that is watched
        os.rmdir(path.with_name(f"{path.name}.probe"))  # noqa: PTH106

    monkeypatch.setattr(atomic, "write", counting)
    site = yard.site()
    with FullDisk() as disk:
        site.deploy()
    assert disk.count > 20
    for number in range(1, disk.count + 1):
        site = yard.site()
        served = site.host.served()
        disk = FullDisk(number)
        with pytest.raises(ReleaseError) as caught, disk:
            site.deploy()
            pytest.fail(f"{disk.failed} could not be made, and nobody said so")
        where = f"change {number}, {disk.failed}"
        assert "Make room on the disk" in caught.value.cure, where
        assert "No space left on device" in caught.value.reason, where
        finished = f"{site.host.served()} serves." in caught.value.cure
        assert site.host.served() == served or finished, where
        assert set(site.host.running) == {site.deployment().app.slots.live()} or finished, where
        assert not [path for path in (site.root / "releases").iterdir() if not (path / RECORD).exists()], where
        yard.check(site, where)


def test_a_rollback_does_not_need_a_note_of_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two(site)
    real = atomic.write

    def full(path: Path, _text: str, mode: int = 0) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "write", full)
    outcome = site.rollback()
    assert (outcome.release, site.host.served()) == (first.release, first.release)
    assert any("No space left on device" in item and "Make room" in item for item in outcome.warnings)
    assert set(site.host.running) == {site.deployment().app.slots.live()}
    # The next run makes up for it.
    monkeypatch.setattr(atomic, "write", real)
    assert site.rollback(release=first.release).release == first.release
    assert site.history[-1] == ("rollback", second.release, first.release)


def test_a_rollback_works_on_a_disk_that_is_full(site: Site) -> None:
    site.root.mkdir(parents=True)
    if run_command(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(site.root)])[0]:
        pytest.skip("needs a disk of its own to fill")
    try:
        first, second = two(site)
        with suppress(OSError), (site.root / "full").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
        site.change({"shop.py": "app = 3\n"})
        with pytest.raises(ReleaseError, match="No space left on device") as caught:
            site.deploy()
        assert "Make room" in caught.value.cure
        assert site.host.served() == second.release
        outcome = site.rollback()
        assert (outcome.release, site.host.served()) == (first.release, first.release)
        assert any("No space left on device" in item for item in outcome.warnings)
        (site.root / "full").unlink()
        assert site.rollback(release=first.release).changed
        assert_in_order(site, first)
    finally:
        run_command(["umount", "--lazy", str(site.root)])


# -- phases, as a fleet runs them -------------------------------------------------------------------------------------


def test_phases_one_by_one_are_the_same_as_all_at_once(site: Site) -> None:
    first = site.phases()
    assert_in_order(site, first)
    site.change({"shop.py": "app = 2\n"})
    asked = site.deploy(phases=["prepare"], deploy="run-1")
    assert (asked.pending, asked.previous) == (True, first.release)
    seen = []
    for name in PHASES[1:]:
        outcome = site.phase(name, release=asked.release, previous=asked.previous)
        seen.append((name, outcome.pending, site.host.served() == asked.release, sorted(site.host.running)))
    assert seen == [
        ("migrate", True, False, ["blue"]),
        ("gate", True, False, ["blue", "green"]),
        ("flip", True, True, ["blue", "green"]),
        ("finish", False, True, ["green"]),
    ]
    assert_in_order(site, outcome)
    assert not site.deploy().changed
    assert site.history == [("deploy", "", first.release), ("deploy", first.release, asked.release)]


def to(site: Site, last: str, **options: Any) -> Outcome:
    """Run the phases up to one of them."""
    asked = site.deploy(phases=["prepare"], deploy="run-1", **options)
    for name in PHASES[1 : PHASES.index(last) + 1]:
        site.phase(name, release=asked.release, previous=asked.previous, **options)
    return asked


@pytest.mark.parametrize("last", ["prepare", "migrate", "gate", "flip"])
def test_a_host_is_taken_back_after_any_phase(site: Site, last: str) -> None:
    first = site.deploy(processes={"worker": "old"})
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, last, processes={"worker": "new"})
    outcome = site.phase(RETURN, release=asked.release, previous=asked.previous)
    assert outcome.changed == (last in ("gate", "flip"))
    assert outcome.release == first.release
    assert_in_order(site)
    assert set(site.host.workers.values()) == {first.release}
    assert bool(site.record(asked.release).failed) == (last == "flip")
    if last == "flip":
        assert site.history[-1] == (RETURN, asked.release, first.release)
    # Once more is nothing more, and a release that was refused is gone back to by nobody.
    assert not site.phase(RETURN, release=asked.release, previous=asked.previous).changed
    with pytest.raises(ReleaseError, match="no other release has served well"):
        site.rollback()


def test_there_is_nothing_to_take_back(site: Site) -> None:
    first = site.deploy()
    for release_id, previous in (("", ""), ("x", ""), (first.release, first.release), ("x", first.release)):
        assert not site.phase(RETURN, release=release_id, previous=previous).changed
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    # Finished: the slot that served before is cold. And what the host has noted counts as much as what it is told.
    for previous in (first.release, ""):
        assert not site.phase(RETURN, release=second.release, previous=previous).changed
    assert_in_order(site, second)


@pytest.mark.parametrize("last", ["prepare", "migrate", "gate", "flip"])
def test_a_host_that_served_nothing_serves_nothing_again(site: Site, last: str) -> None:
    """Like a host of the same fleet on which the release has never served."""
    timers = {"nightly": {"command": "tidy", "on_calendar": "daily"}}
    asked = to(site, last, processes={"worker": "x"}, timers=timers)
    outcome = site.phase(RETURN, release=asked.release, previous="", processes={"worker": "x"}, timers=timers)
    assert outcome.changed == (last in ("gate", "flip"))
    assert outcome.release == ""
    assert (site.host.running, site.host.enabled, site.host.workers, site.host.timers) == ({}, set(), {}, set())
    assert not any((site.root / name).is_symlink() for name in ("live.sock", "current"))
    assert [path for path in site.units.rglob("*") if not path.is_dir()] == []
    if last == "flip":
        assert site.history[-1] == (RETURN, asked.release, "")
        assert "nothing served here before it" in outcome.warnings[0]
        assert site.record(asked.release).failed
    assert not site.phase(RETURN, release=asked.release, previous="").changed
    site.host.calls.clear()
    assert_in_order(site, site.deploy(processes={"worker": "x"}, timers=timers))
    assert site.record(asked.release).failed == ""


def test_a_first_release_that_does_badly_on_several_hosts_says_that_it_is_stopped(site: Site) -> None:
    asked = to(site, "gate", watch=2)
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    with pytest.raises(ReleaseError) as caught:
        site.phase("flip", release=asked.release, watch=2)
    assert "Nothing served here before" in caught.value.cure
    assert site.phase(RETURN, release=asked.release, previous="").changed
    assert site.host.running == {}


def test_it_is_told_where_the_way_back_to_nothing_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = to(site, "flip")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.Store, "remember", full)
    with pytest.raises(ReleaseError) as caught:
        site.phase(RETURN, release=asked.release, previous="")
    assert "Nothing serves here" in caught.value.cure
    assert site.host.running == {}


def test_what_serves_is_returned_to_whatever_its_record_says(site: Site) -> None:
    first = site.deploy()
    (site.path(first) / RECORD).write_text("{", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, "flip")
    assert site.phase(RETURN, release=asked.release, previous=asked.previous).changed
    assert site.host.served() == first.release
    assert set(site.host.running) == {"blue"}


def test_a_rollback_that_is_refused_elsewhere_leaves_no_stain(site: Site) -> None:
    first, second = two(site)
    site.phase("prepare", verb="rollback")
    for name in ("gate", "flip"):
        site.phase(name, verb="rollback", release=first.release)
    assert site.record(second.release).failed
    assert site.phase(RETURN, verb="rollback", release=first.release, previous=second.release).changed
    assert site.host.served() == second.release
    assert site.record(second.release).failed == ""
    assert_in_order(site, second)


def test_another_deploy_that_came_in_between_is_noticed(site: Site) -> None:
    first, _second = two(site)
    site.change({"shop.py": "app = 3\n"})
    asked = to(site, "gate")
    site.deployment().app.slots.start("blue", first.release, 1)
    for name in ("flip", "finish"):
        with pytest.raises(ReleaseError, match="another deploy has come in between"):
            site.phase(name, release=asked.release)
    with pytest.raises(ReleaseError, match="no longer on this host"):
        site.phase("gate", release="20200101T000000Z-abcdef0")


def test_a_slot_that_has_died_while_it_waited_for_other_hosts_does_not_serve(site: Site) -> None:
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, "gate")
    site.host.mute.add("green")
    with pytest.raises(ReleaseError, match="no answer"):
        site.phase("flip", release=asked.release)
    assert site.host.served() == first.release
    assert_in_order(site, first)


def test_a_host_that_has_it_already_takes_no_part(locked: Site) -> None:
    site = locked
    site.deploy()
    outcome = site.deploy(phases=["prepare"], deploy="run-1")
    assert (outcome.changed, outcome.pending) == (False, False)
    assert processes_with(site.root / ".lock") == []


# -- the lock between phases ------------------------------------------------------------------------------------------


def test_the_lock_is_kept_between_phases_for_the_same_run_alone(locked: Site) -> None:
    site = locked
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, "gate")
    assert len(processes_with(site.root / ".lock")) == 1
    with pytest.raises(Locked) as caught:
        site.deploy(deploy="run-2", by="grace@desk")
    assert "ada@laptop since " in caught.value.reason
    assert caught.value.holder["deploy"] == "run-1"
    # A return of a run that does not have it takes nothing back.
    assert not site.phase(RETURN, deploy="run-2", release=asked.release, previous=asked.previous).changed
    assert set(site.host.running) == {"blue", "green"}
    for name in ("flip", "finish"):
        site.phase(name, release=asked.release)
    assert processes_with(site.root / ".lock") == []
    assert_in_order(site)


def test_the_lock_of_a_dead_run_is_taken_over(locked: Site) -> None:
    site = locked
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    to(site, "gate")
    outcome = site.deploy(deploy="run-2", takeover="run-1")
    assert_in_order(site, outcome)
    assert processes_with(site.root / ".lock") == []


@pytest.mark.parametrize(("timeout", "kept"), [(100, "300"), (900, "960")])
def test_the_lock_is_kept_as_long_as_the_release_command_of_another_host_may_take(
    locked: Site, timeout: int, kept: str
) -> None:
    to(locked, "prepare", release_timeout=timeout)
    (process,) = processes_with(locked.root / ".lock")
    command = Path(f"/proc/{process}/cmdline")
    # Empty while the kernel is starting the program.
    while not (words := command.read_text(encoding="utf-8")):
        time.sleep(0.01)
    assert words.split("\0")[1] == kept


def test_a_phase_that_fails_lets_go_of_the_lock(locked: Site) -> None:
    site = locked
    site.deploy()
    site.change({"fails-the-gate": ""})
    asked = to(site, "migrate")
    assert len(processes_with(site.root / ".lock")) == 1
    with pytest.raises(ReleaseError):
        site.phase("gate", release=asked.release)
    assert processes_with(site.root / ".lock") == []


# -- going back -------------------------------------------------------------------------------------------------------


def two(site: Site) -> tuple[Outcome, Outcome]:
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})
    return first, site.deploy()


def test_back_to_the_last_healthy_release_without_building_anything(site: Site) -> None:
    first, second = two(site)
    site.host.calls.clear()
    plan = site.rollback(check=True)
    assert (plan.changed, plan.release, plan.plan[0]) == (True, first.release, f"go back to {first.release}")
    assert site.host.served() == second.release
    outcome = site.rollback()
    assert (outcome.changed, outcome.release, outcome.previous) == (True, first.release, second.release)
    assert_in_order(site, outcome)
    assert not any(call[0] == "systemd-run" for call in site.host.calls)
    assert site.history[-1] == ("rollback", second.release, first.release)
    assert "ada@laptop" in site.record(second.release).failed


def test_twice_back_does_not_return_to_what_was_gone_back_from(site: Site) -> None:
    first, second = two(site)
    site.rollback()
    with pytest.raises(ReleaseError) as caught:
        site.rollback()
    assert second.release in caught.value.reason
    assert_in_order(site, first)
    # By its name, or by a deploy of the same code, it serves again, and is as good as any.
    assert site.rollback(release=second.release).release == second.release
    assert site.record(second.release).failed == ""
    site.rollback(release=first.release)
    back = site.deploy()
    assert back.release == second.release
    assert site.record(second.release).failed == ""


def test_what_is_left_for_a_newer_release_can_be_gone_back_to(site: Site) -> None:
    first, second = two(site)
    site.rollback()
    assert site.rollback(release=second.release).release == second.release
    assert site.record(first.release).failed == ""
    assert site.rollback().release == first.release
    assert site.record(second.release).failed


def test_what_is_left_for_an_older_release_is_not_gone_back_to_however_long_ago_it_was_made(site: Site) -> None:
    """A, B and A again: it is B that served before."""
    first, second = two(site)
    site.change(CODE)
    assert site.deploy().release == first.release
    assert site.rollback().release == second.release
    assert site.record(first.release).failed
    with pytest.raises(ReleaseError, match="no other release has served well"):
        site.rollback()


def test_three_releases_back_is_named(site: Site) -> None:
    first = site.deploy()
    for number in (2, 3):
        site.change({"shop.py": f"app = {number}\n"})
        site.deploy()
    outcome = site.rollback(release=first.release)
    assert outcome.release == first.release
    assert_in_order(site, outcome)
    again = site.rollback(release=first.release)
    assert (again.changed, again.release) == (False, first.release)


def test_a_release_that_is_not_there_is_refused(site: Site) -> None:
    first, second = two(site)
    with pytest.raises(ReleaseError) as caught:
        site.rollback(release="20200101T000000Z-abcdef0")
    assert first.release in caught.value.reason
    assert second.release in caught.value.reason
    shutil.rmtree(site.root / "venvs" / site.record(first.release).venv)
    with pytest.raises(ReleaseError, match="there is no release"):
        site.rollback(release=first.release)
    assert site.host.served() == second.release


def test_a_release_that_does_not_pass_the_gate_any_more_is_not_gone_back_to(site: Site) -> None:
    first, second = two(site)
    (site.path(first) / "app/fails-the-gate").touch()
    with pytest.raises(ReleaseError, match="does not work"):
        site.rollback()
    assert_in_order(site, second)


class Schema:
    """A database whose client is a small script that prints what is in a file."""

    def __init__(self, site: Site) -> None:
        self.revision = site.folder / "revision"
        self.set("one")
        psql = site.folder / "psql"
        psql.write_text(
            f"#!/bin/sh\nread first\nread second\ncase $second in *advisory*) echo; read third; echo locked; cat;;\n"
            f"*) cat {self.revision} || {{ echo no pg_hba.conf entry >&2; exit 2; }};; esac\n",
            encoding="utf-8",
        )
        psql.chmod(0o755)
        real = database.Database.__init__
        site.monkeypatch.setattr(database.Database, "__init__", functools.partialmethod(real, psql=[str(psql)]))
        site.options["environment"]["DATABASE_URL"] = "postgresql:///shop"
        site.change(self.migration("one"))

    @staticmethod
    def migration(name: str) -> dict[str, str]:
        return {f"migrations/versions/{name}.py": f"revision = '{name}'\n"}

    def refuse(self) -> None:
        """Lock only, and tell nothing."""
        self.revision.unlink()

    def set(self, revision: str) -> None:
        self.revision.write_text(f"{revision}\n", encoding="utf-8")


def test_a_schema_that_the_target_does_not_know_is_refused_and_can_be_forced(site: Site) -> None:
    schema = Schema(site)
    first = site.deploy()
    site.change({"shop.py": "app = 2\n", **schema.migration("two")})
    second = site.deploy(release_command=f"echo two > {schema.revision}")
    record = site.record(second.release)
    assert (record.schema_before, record.schema_after) == (second.schema_before, second.schema_after) == ("one", "two")
    for check in (True, False):
        with pytest.raises(ReleaseError) as caught:
            site.rollback(check=check)
        assert "revision two" in caught.value.reason
        assert "force=true" in caught.value.cure
    assert_in_order(site, second)
    outcome = site.rollback(force=True)
    assert outcome.release == first.release
    assert any("revision two" in warning for warning in outcome.warnings)


def test_a_schema_that_nobody_tells_is_a_reason_to_stop_and_can_be_forced(site: Site) -> None:
    schema = Schema(site)
    first, second = two(site)
    schema.refuse()
    for check in (True, False):
        with pytest.raises(ReleaseError) as caught:
            site.rollback(check=check)
        assert caught.value.step == "Compare the schema"
        assert "could not be asked" in caught.value.reason
        assert "no pg_hba.conf entry" in caught.value.reason
        assert "force=true" in caught.value.cure
    assert_in_order(site, second)
    outcome = site.rollback(force=True)
    assert outcome.release == first.release
    assert any("could not be asked" in warning for warning in outcome.warnings)


def test_an_app_without_migrations_is_gone_back_to_without_its_database(site: Site) -> None:
    schema = Schema(site)
    shutil.rmtree(site.code / "migrations")
    first, _second = two(site)
    schema.refuse()
    assert site.rollback().release == first.release


def test_a_database_without_migrations_yet_is_no_obstacle(site: Site) -> None:
    schema = Schema(site)
    first, _second = two(site)
    schema.set("")
    assert site.rollback().release == first.release


def test_a_deploy_only_warns_where_the_schema_is_not_to_be_had(site: Site) -> None:
    schema = Schema(site)
    schema.refuse()
    outcome = site.deploy(release_command="touch $HOME/released")
    assert_in_order(site, outcome)
    assert (site.root / "data/released").exists()
    schema_warning, time_warning = outcome.warnings
    assert "could not be asked" in schema_warning
    assert "no point was noted" in time_warning
    assert (outcome.schema_before, outcome.schema_after) == ("", "")


def test_a_schema_that_the_target_knows_is_no_obstacle(site: Site) -> None:
    schema = Schema(site)
    site.change(schema.migration("two"))
    first, _second = two(site)
    schema.set("two")
    assert site.rollback().release == first.release


def test_a_command_that_ran_on_another_host_is_noted_here(site: Site) -> None:
    asked = to(site, "prepare")
    site.phase("gate", release=asked.release, schema_before="one", schema_after="two")
    record = site.record(asked.release)
    assert (record.schema_before, record.schema_after) == ("one", "two")


# -- a restart --------------------------------------------------------------------------------------------------------


def test_a_restart_brings_the_same_release_into_the_other_slot(site: Site) -> None:
    first = site.deploy()
    outcome = site.deployment(verb="restart").go()
    assert (outcome.release, outcome.slot) == (first.release, "green")
    assert_in_order(site, outcome)
    assert not site.deploy().changed


@pytest.mark.parametrize("last", ["gate", "flip"])
def test_a_restart_that_is_refused_elsewhere_leaves_no_stain(site: Site, last: str) -> None:
    first = site.deploy()
    asked = site.phase("prepare", verb="restart")
    for name in PHASES[2 : PHASES.index(last) + 1]:
        site.phase(name, verb="restart", release=asked.release)
    assert site.phase(RETURN, verb="restart", release=asked.release, previous=asked.previous).changed
    assert site.host.served() == first.release
    assert_in_order(site)
    assert site.record(first.release).failed == ""


def test_a_restart_whose_processes_do_not_start_leaves_no_stain(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site.deploy(processes={"worker": "x"})
    tries = []

    def switch(*_: Any, **_more: Any) -> bool:
        tries.append(site.deployment().app.slots.live())
        raise ReleaseError("Start the processes and timers", "worker says no", "")

    with monkeypatch.context() as patch:
        patch.setattr(processes.Units, "switch", switch)
        with pytest.raises(ReleaseError, match="worker says no") as caught:
            site.deployment(verb="restart").go()
    # What does not go well on the way back is told, and keeps nobody from being served.
    assert tries == ["green", "blue"]
    assert "processes were not started: worker says no" in caught.value.cure
    assert_in_order(site, first)


def test_keys_that_were_exchanged_are_a_restart_and_no_new_release(site: Site) -> None:
    first = site.deploy()
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))
    keys.write(["new", *keys.read()])
    outcome = site.deployment(verb="restart").go()
    assert outcome.release == first.release
    assert not site.deploy().changed
    # Those who could not be started with the new ones are not taken for it.
    keys.write(["newest", *keys.read()])
    site.answer(lambda *_: (500, "no"))
    with pytest.raises(ReleaseError):
        site.deployment(verb="restart").go()
    site.answer(site.host.probe)
    assert site.deploy(check=True).changed


# -- the watch --------------------------------------------------------------------------------------------------------


def visits(site: Site, release_id: str, status: int, seconds: str = "0.050", number: int = 4) -> None:
    entry = json.dumps({"status": status, "release": release_id, "upstream_time": seconds})
    with site.access_log.open("a", encoding="utf-8") as stream:
        stream.write(f"{entry}\n" * number)


BAD_WATCHES: dict[str, tuple[Callable[[Site, str], object], str]] = {
    "errors": (lambda site, new: visits(site, new, 500), "server error"),
    "no answer": (lambda site, _new: visits(site, "", 502), "server error"),
    "slow": (lambda site, new: visits(site, new, 200, "2.5"), "half of the answers take more than 2.50 s"),
    "health": (lambda site, _new: site.host.mute.add("green"), "/healthz answered nothing 2 times in a row"),
    "crash": (lambda site, _new: site.host.crash("green"), "crashed and was started again"),
}


@pytest.mark.parametrize("what", BAD_WATCHES)
def test_a_release_that_does_worse_is_taken_back(site: Site, what: str) -> None:
    happens, reason = BAD_WATCHES[what]
    first = site.deploy(processes={"worker": "old"})
    visits(site, first.release, 200, number=50)
    site.change({"shop.py": "app = 2\n"})
    seen: list[str] = []

    def meanwhile() -> None:
        seen.append(site.host.served())
        if site.host.served() not in (first.release, ""):
            happens(site, site.host.served())

    site.meanwhile = meanwhile
    with pytest.raises(ReleaseError) as caught:
        site.deploy(processes={"worker": "new"}, watch=3)
    new = next(name for name in site.ids() if name != first.release)
    assert new in seen
    assert caught.value.step == "Watch the release"
    assert reason in caught.value.reason
    assert "a line of the journal" in caught.value.reason
    assert f"{first.release} serves again" in caught.value.cure
    assert_in_order(site, first)
    assert set(site.host.workers.values()) == {first.release}
    record = site.record(new)
    assert not record.healthy
    assert reason in record.failed
    assert "\n" not in record.failed
    assert site.history[-2:] == [("deploy", first.release, new), (RETURN, new, first.release)]


def test_a_site_that_is_down_is_mended_by_a_deploy_while_it_has_visitors(site: Site) -> None:
    """The visitors' errors of before counted against the new release, and it went back to the slot that is down."""
    site.deploy()
    down(site)
    visits(site, "", 502, number=50)
    site.change({"shop.py": "app = 2\n"})
    live = site.host.served()
    late = iter([20])

    def meanwhile() -> None:
        # nginx writes the last lines of those who came before when the release serves already.
        visits(site, "", 502, number=next(late, 0))
        visits(site, site.host.served(), 200)

    site.meanwhile = meanwhile
    outcome = site.deploy(watch=2)
    assert site.host.served() == outcome.release != live
    assert_in_order(site, outcome)


def test_a_slot_that_nobody_can_reach_is_started_again(site: Site) -> None:
    """Its service ran, so that the deploy said all is well, and visitors got 502."""
    first = site.deploy()
    site.host.socket("blue").unlink()
    assert site.host.served() == ""
    assert site.deploy(check=True).changed
    assert site.host.served() == ""
    assert site.deploy().changed
    assert site.host.served() == first.release
    assert_in_order(site)
    assert not site.deploy().changed


def test_nobody_goes_back_to_a_slot_that_does_not_run(site: Site) -> None:
    first = site.deploy()
    down(site)
    site.change({"shop.py": "app = 2\n"})
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    with pytest.raises(ReleaseError, match="server error") as caught:
        site.deploy(watch=2)
    assert "Nothing else runs here to go back to: it goes on serving." in caught.value.cure
    assert site.host.served() not in ("", first.release)


def down(site: Site) -> None:
    """Let the slot that serves be down, as after a crash that systemd does not heal."""
    slot = next(iter(site.host.running))
    site.host.running.pop(slot)


def test_a_process_that_does_not_stay_up_takes_the_release_back(site: Site) -> None:
    first = site.deploy(processes={"worker": "old"})
    site.change({"fails-as-worker": ""})
    with pytest.raises(ReleaseError, match=r"flask-shop_process@worker\.service"):
        site.deploy(processes={"worker": "new"}, watch=2)
    assert_in_order(site, first)
    assert set(site.host.workers.values()) == {first.release}


def test_a_release_that_does_well_stays_and_is_watched_as_long_as_asked(site: Site) -> None:
    first = site.deploy()
    visits(site, first.release, 500, number=50)
    site.change({"shop.py": "app = 2\n"})
    site.meanwhile = lambda: (visits(site, site.host.served(), 200), visits(site, first.release, 500))
    site.pauses.clear()
    assert_in_order(site, site.deploy(watch=2))
    assert site.pauses == [flip.WATCH_INTERVAL] * 8 + [slots.KEEPALIVE_SECONDS]


def test_one_bad_answer_is_chance(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    looks = itertools.count(1)
    site.meanwhile = lambda: site.host.mute.add("green") if next(looks) == 3 else None
    real = site.host.probe

    def probe(*arguments: Any) -> tuple[int, str]:
        answer = real(*arguments)
        site.host.mute.clear()
        return answer

    site.answer(probe)
    assert_in_order(site, site.deploy(watch=3))


def test_a_first_release_has_nothing_to_go_back_to(site: Site) -> None:
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    for _ in range(2):
        with pytest.raises(ReleaseError) as caught:
            site.deploy(watch=2)
        assert "goes on serving" in caught.value.cure
        assert site.host.served() == max(site.ids())
        assert set(site.host.running) == site.host.enabled == {"blue"}
        assert not site.record(max(site.ids())).healthy
    site.meanwhile = lambda: None
    assert_in_order(site, site.deploy(watch=2))


def test_a_release_with_a_damaged_record_is_gone_back_to(site: Site) -> None:
    first = site.deploy()
    (site.path(first) / RECORD).write_text("{", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    with pytest.raises(ReleaseError, match="server error"):
        site.deploy(watch=2)
    assert site.host.served() == first.release
    assert set(site.host.running) == site.host.enabled == {"blue"}


def test_a_rollback_is_not_watched(site: Site) -> None:
    first, _second = two(site)
    site.meanwhile = lambda: visits(site, first.release, 500)
    assert site.rollback(watch=5).release == first.release


# -- a freeze ---------------------------------------------------------------------------------------------------------


def test_a_freeze_refuses_what_would_change_something(site: Site) -> None:
    site.deploy()
    path = freeze.check.__defaults__[0]
    until = time.time() + 999
    freeze.write({"*": {"reason": "audit", "until": until, "since": 1.0, "by": "grace@desk"}}, path)
    assert not site.deploy().changed
    (site.root / "current").unlink()
    assert site.deploy().changed
    site.change({"shop.py": "app = 2\n"})
    assert "grace@desk: audit" in site.refused().reason
    with pytest.raises(ReleaseError, match="audit"):
        site.deployment(verb="restart").go()
    freeze.write({}, path)
    site.deploy()
    freeze.write({"shop": {"reason": "audit", "until": until, "since": 1.0, "by": "grace@desk"}}, path)
    with pytest.raises(ReleaseError, match="audit"):
        site.rollback()
    assert site.rollback(passes_freeze=True).changed, "of a restore whose operator has said so"


# -- processes and timers ---------------------------------------------------------------------------------------------


def test_processes_and_timers_follow_the_release(site: Site) -> None:
    site.change({"Procfile": "web: x\nworker: celery worker\nbeat: celery beat\n"})
    timers = {"nightly": {"command": "flask tidy", "on_calendar": "daily"}}
    first = site.deploy(timers=timers, processes={"beat": ""})
    assert site.host.workers == {"flask-shop_process@worker.service": first.release}
    assert site.host.timers == {"flask-shop_timer@nightly.timer"}
    scripts = site.path(first) / "processes"
    assert sorted(path.name for path in scripts.iterdir()) == ["timer-nightly", "worker"]
    assert "exec celery worker" in (scripts / "worker").read_text(encoding="utf-8")
    site.host.workers.clear()
    assert site.deploy(timers=timers, processes={"beat": ""}).changed
    assert set(site.host.workers.values()) == {first.release}
    second = site.deploy()
    assert set(site.host.workers.values()) == {second.release}
    assert len(site.host.workers) == 2
    assert site.host.timers == set()
    site.rollback()
    assert site.host.workers == {"flask-shop_process@worker.service": first.release}
    assert site.host.timers == {"flask-shop_timer@nightly.timer"}


def test_a_timer_that_systemd_does_not_understand_is_refused_before_anything_is_built(site: Site) -> None:
    site.deploy()
    error = site.refused(timers={"nightly": {"command": "x", "on_calendar": "someday"}})
    assert "flask_apps.shop.timers.nightly.on_calendar" in error.reason
    assert len(site.ids()) == 1


# -- static files of other releases -----------------------------------------------------------------------------------


def test_each_release_has_the_static_files_of_the_others(site: Site) -> None:
    first = site.deploy()
    site.change({"static/site.css": "new", "static/new.css": "n"})
    asked = to(site, "gate")
    old, new = site.path(first) / "static", site.root / "releases" / asked.release / "static"
    # Before the flip already: with several hosts a page of the new release may ask an old one for its files.
    assert (old / "new.css").read_text(encoding="utf-8") == "n"
    assert (old / "site.css").read_text(encoding="utf-8") == "body {}"
    assert (new / "site.css").read_text(encoding="utf-8") == "new"
    (site.code / "static/new.css").unlink()
    for name in ("flip", "finish"):
        site.phase(name, release=asked.release)
    third = site.path(site.deploy()) / "static"
    assert (third / "new.css").read_text(encoding="utf-8") == "n"


# -- check mode names what differs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "part"),
    [("code", "code"), ("secrets", "variables"), ("extra packages", "packages"), ("unit", "application server")],
)
def test_check_mode_names_what_is_different(site: Site, change: str, part: str) -> None:
    site.deploy()
    CHANGES[change](site)
    plan = site.deploy(check=True).plan
    assert plan[0].endswith(f"differs in: {part}")
    assert plan[1] == "fetch and build it"


# -- the module itself ------------------------------------------------------------------------------------------------


def run_module(site: Site, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """Run plugins/modules/flask_release.py as Ansible does, with its own command runner replaced."""
    spec = MODULE.ARGUMENT_SPEC
    digest = {"source_digest": folders.digest(site.code, site.options["persistent"])}
    arguments = {name: value for name, value in {**site.options, **digest, **options}.items() if name in spec}
    capsys.readouterr()
    site.monkeypatch.setattr(MODULE, "Deployment", functools.partial(Deployment, pause=site.pause))
    site.monkeypatch.setattr(MODULE.AnsibleModule, "run_command", lambda _self, args, **more: site.host(args, **more))
    with patch_module_args({**arguments, "_ansible_diff": True}), pytest.raises(SystemExit):
        MODULE.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_says_what_it_did_and_no_secret(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    asked = run_module(site, capsys)
    assert asked["needs_source"]
    folders.pack(site.code, site.folder / "a.tar.gz", ["instance"])
    site.change({"fails-the-gate": ""})
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))
    site.answer(lambda *_: (500, f"{site.options['secrets']['MAIL_PASSWORD']} and {keys.read()[0]}"))
    archive = str(site.folder / "a.tar.gz")
    refused = run_module(site, capsys, archive=archive)
    assert refused["failed"]
    assert refused["step"] == "Ask the blue slot for /healthz"
    site.answer(site.host.probe)
    (site.code / "fails-the-gate").unlink()
    done = run_module(site, capsys, archive=archive)
    assert (done["changed"], done["release"]) == (True, site.host.served())
    assert site.host.served() in done["diff"]["after"]
    site.change({"shop.py": "app = 2\n"})
    held = Lock(site.root / ".lock", deploy="run-0", by="grace@desk", controller={"pid": 7})
    held.acquire()
    other = run_module(site, capsys)
    held.release()
    assert other["lock_holder"]["controller"] == {"pid": 7}
    for result in (asked, refused, done, other):
        text = json.dumps({name: value for name, value in result.items() if name != "invocation"})
        assert "hunter" not in text
        assert keys.read()[0] not in text
    assert "hunter" not in json.dumps(refused["invocation"])


def test_no_secret_is_in_an_argument_of_any_command(site: Site) -> None:
    site.deploy(release_command="true", processes={"worker": "x"}, watch=1)
    key = environment.SecretKeys(Path(site.options["secrets_dir"])).read()[0]
    words = list(itertools.chain(*site.host.calls))
    assert not any("hunter" in word or key in word for word in words)
