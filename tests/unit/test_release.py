"""A deploy either brings the wanted release into service or leaves what serves alone, and can always be repeated."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import environment, release, slots, source, virtualenv
from ansible.module_utils.flaskhost.app_model import SLOTS
from ansible.module_utils.flaskhost.release import RECORD, Deployment, Outcome
from ansible.module_utils.flaskhost.runner import ReleaseError
from fakes import GID, UID, USER, FakeHost, Killer, fake_owners, read_systemd_run, run_command, tree

CODE = {"shop.py": "app = 1\n", "requirements.txt": "flask==3.1.3\n", "static/site.css": "body {}"}


class Site:
    """One app on one host, and the folder of its code on the controller."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, owners: dict[Path, tuple[int, int]]) -> None:
        self.folder, self.root, self.code, self.owners = folder, folder / "srv/shop", folder / "code", owners
        self.host = FakeHost(self.root)
        monkeypatch.setattr(slots, "probe", self.host.probe)
        self.pauses: list[float] = []
        self.config = folder / "gunicorn.conf.py"
        self.config.write_text("workers = 2\n", encoding="utf-8")
        self.unit_file = folder / "flask-shop@.service"
        self.unit_file.write_text("[Service]\n", encoding="utf-8")
        self.change(CODE)
        self.options: dict[str, Any] = {
            "app": "shop",
            "user": USER,
            "root": str(self.root),
            "secrets_dir": str(folder / "etc/flaskhost/shop"),
            "cache_dir": str(folder / "cache"),
            "source_path": str(self.code),
            "source_digest": "",
            "archive": "",
            "source_repo": "",
            "source_version": "",
            "source_subdir": "",
            "wsgi": "shop:app",
            "requirements": "",
            "extra_packages": [],
            "server_package": "gunicorn==27.0.1",
            "uv": "/opt/uv/bin/uv",
            "python": "/usr/bin/python3",
            "index_url": "",
            "persistent": ["instance"],
            "static_path": "",
            "release_command": "",
            "environment": {"FLASK_APP": "shop:app"},
            "secrets": {"MAIL_PASSWORD": "hunter $2"},
            "unit": "flask-shop",
            "unit_files": [str(self.unit_file)],
            "server_config": str(self.config),
            "socket_dir": str(folder / "run"),
            "live_socket": str(self.root / "live.sock"),
            "host": "www.shop.example",
            "health": {"path": "/healthz", "status": 200, "probes": 3, "timeout": 0.2},
            "keep_releases": 5,
        }

    def change(self, files: dict[str, str]) -> None:
        """Write files of the code."""
        for name, content in files.items():
            path = self.code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")

    def deployment(self, check: bool = False, **options: Any) -> Deployment:
        return Deployment(self.host, {**self.options, **options}, check=check, pause=self.pauses.append)

    def deploy(self, check: bool = False, **options: Any) -> Outcome:
        """Deploy as the action plugin does: the code is sent where it is asked for."""
        if self.options["source_repo"] or options.get("source_repo"):
            return self.deployment(check, source_path="", **options).deploy()
        persistent = options.get("persistent", self.options["persistent"])
        options["source_digest"] = source.folder_digest(self.code, persistent)
        outcome = self.deployment(check, **options).deploy()
        if not outcome.needs_source:
            return outcome
        archive = self.folder / "source.tar.gz"
        source.pack_folder(self.code, archive, persistent)
        return self.deployment(check, archive=str(archive), **options).deploy()

    def refused(self, **options: Any) -> ReleaseError:
        """Deploy what cannot be, and see that what serves has not been touched."""
        before = self.serving()
        history = list(self.host.history)
        with pytest.raises(ReleaseError) as caught:
            self.deploy(**options)
        assert self.serving() == before
        other = self.deployment().slots.idle()
        assert [event for event in self.host.history[len(history) :] if not event.endswith(other)] == []
        assert other not in self.host.running
        assert other not in self.host.enabled
        return caught.value

    def serving(self) -> tuple[str, ...]:
        """All that decides what a visitor gets, now and after a reboot."""
        links = [self.root / "live.sock", self.root / "current"]
        targets = [str(link.readlink()) if link.is_symlink() else "" for link in links]
        slot = self.deployment().slots.live()
        held = self.root / "slots" / slot
        release_id = held.readlink().name if slot else ""
        return (*targets, slot, release_id, self.host.served(), str(slot in self.host.enabled))

    def record(self, release_id: str) -> release.Record:
        found = self.deployment().record(release_id)
        assert found
        return found

    def path(self, outcome: Outcome) -> Path:
        return self.root / "releases" / outcome.release

    def ids(self) -> list[str]:
        return sorted(path.name for path in (self.root / "releases").iterdir())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = os.umask(0o022)
    yield Site(tmp_path, monkeypatch, fake_owners(monkeypatch))
    os.umask(before)


def assert_in_order(site: Site, wanted: Outcome | None = None) -> None:
    """One slot serves, by every sign that there is, and the other one is off."""
    slot = site.deployment().slots.live()
    other = next(item for item in SLOTS if item != slot)
    served = site.host.served()
    assert served
    assert site.deployment().slots.release(slot) == served
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
    assert variables["SECRET_KEY"] == environment.secret_key(Path(site.options["secrets_dir"]))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_who_may_do_what(site: Site, umask: int) -> None:
    os.umask(umask)
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
            served.append((args[-1], site.deployment().slots.live()))
        return site.host(args, **options)

    site.pauses.clear()
    digest = source.folder_digest(site.code)
    source.pack_folder(site.code, site.folder / "a.tar.gz")
    options = {**site.options, "source_digest": digest, "archive": str(site.folder / "a.tar.gz")}
    Deployment(run, options, pause=site.pauses.append).deploy()
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
    broken = site.host.probe
    site.change({"shop.py": "app = 2\n", "requirements.txt": "flask==3.1.4\n"})
    slots.probe = lambda *_: (503, "the database is away")
    site.refused()
    slots.probe = broken
    site.host.calls.clear()
    assert_in_order(site, site.deploy())
    assert not any(call[0] == "systemd-run" for call in site.host.calls)


def test_an_archive_that_leads_out_is_refused(site: Site) -> None:
    site.deploy()
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
    assert unit.command == ["/bin/sh", "-c", command]
    assert unit.properties["ReadWritePaths"] == [str(data)]
    assert unit.properties["WorkingDirectory"] == [f"{site.path(outcome)}/app"]
    assert unit.environment["PATH"].startswith(f"{site.path(outcome)}/venv/bin:")
    assert {f"--uid={USER}", f"--gid={USER}"} <= set(call)
    assert not any("hunter" in item for item in itertools.chain(*site.host.calls))


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
    assert outcome.revision == source.folder_digest(site.code)
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
    digest = source.folder_digest(site.code)
    asked = site.deployment(source_digest=digest).deploy()
    assert (asked.changed, asked.needs_source, asked.release) == (True, True, "")
    assert site.host.calls == []
    site.deploy()
    again = site.deployment(source_digest=digest).deploy()
    assert (again.changed, again.needs_source) == (False, False)


def test_a_release_that_is_there_already_is_served_without_the_code(site: Site) -> None:
    first = site.deploy()
    digest = source.folder_digest(site.code)
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    back = site.deployment(source_digest=digest).deploy()
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
        with site.deployment()._lock():
            os.write(writer, b"!")
            signal.pause()
    try:
        os.read(reader, 1)
        error = site.refused()
        assert error.step == "Lock the app"
        assert re.search(rf"process {child} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", error.reason)
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

    digest = source.folder_digest(site.code)
    source.pack_folder(site.code, site.folder / "a.tar.gz")
    options = {**site.options, "source_digest": digest, "archive": str(site.folder / "a.tar.gz")}
    Deployment(run, options, pause=site.pauses.append).deploy()
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


def back_again(site: Site) -> None:
    """Two releases are there, and the first one is wanted again."""
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    site.change(CODE)


class Yard:
    """Makes one site after the other, each in the same situation, and sees what a kill does to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, situation: Callable[[Site], object]) -> None:
        self.folder, self.monkeypatch, self.situation = folder, monkeypatch, situation
        self.owners, self.number = fake_owners(monkeypatch), 0
        # Nobody pulls the plug here, and hundreds of runs would wait for the disk.
        monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
        #: What served before, what is wanted, how many commands that takes, and what it leaves.
        site = self.site()
        self.old = self.revision(site)
        self.wanted = site.deploy().revision
        self.commands = len(site.host.calls)
        assert_in_order(site)
        assert self.revision(site) == self.wanted != self.old
        self.end = self.state(site)

    def site(self) -> Site:
        self.number += 1
        folder = self.folder / str(self.number)
        folder.mkdir()
        site = Site(folder, self.monkeypatch, self.owners)
        site.options["release_command"] = "touch $HOME/released"
        site.host.quick = True
        self.situation(site)
        site.host.calls.clear()
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
        shutil.rmtree(site.folder)

    def state(self, site: Site) -> tuple[Any, ...]:
        """What must be the same whether a run was disturbed or not."""
        served = site.root / "releases" / site.host.served()
        files = {
            str(path.relative_to(served)): stat.S_IMODE(path.lstat().st_mode)
            for path in served.rglob("*")
            if not path.is_symlink()
        }
        data = sorted(str(path.relative_to(site.root)) for path in (site.root / "data").rglob("*"))
        packages = sorted(path.name for path in (served / "venv").resolve().rglob("*"))
        return files, data, packages, site.owners[site.root / "data"], sorted(site.host.running)


@pytest.fixture(params=[first_release, next_release, back_again], ids=lambda item: item.__name__)
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Yard:
    return Yard(tmp_path, monkeypatch, request.param)


@pytest.mark.parametrize("when", ["amid", "after"])
def test_killed_at_any_command(yard: Yard, when: str) -> None:
    assert yard.commands > 5
    for number in range(1, yard.commands + 1):
        site = yard.site()
        site.host.kill_at, site.host.kill_when = number, when
        with pytest.raises(KeyboardInterrupt):
            site.deploy()
        yard.check(site, f"{when} command {number}, {' '.join(site.host.calls[-1])}")


def test_killed_before_any_change_to_the_disk(yard: Yard) -> None:
    site = yard.site()
    with Killer() as killer:
        site.deploy()
    assert killer.count > 8
    for number in range(1, killer.count + 1):
        site = yard.site()
        with pytest.raises(KeyboardInterrupt), Killer(number) as killer:
            site.deploy()
        yard.check(site, f"before change {number}, {killer.last}")


# -- put right ------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[Site], object]] = {
    "stopped": lambda site: site.host.running.pop("green"),
    "disabled": lambda site: site.host.enabled.discard("green"),
    "old slot running": lambda site: site.host.running.update(blue="old"),
    "old slot enabled": lambda site: site.host.enabled.add("blue"),
    "current elsewhere": lambda site: slots.replace_link(site.root / "current", "releases/other"),
    "current missing": lambda site: (site.root / "current").unlink(),
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


def test_a_reboot_brings_back_what_served(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    site.host.reboot()
    assert site.host.served() == second.release
    assert not site.deploy().changed


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
        patch.setattr(release.shutil, "rmtree", killed)
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
    record.write_text(json.dumps({**content, "schema_before": "abc"}), encoding="utf-8")
    outcome = site.deploy()
    assert outcome.changed
    assert_in_order(site, outcome)
