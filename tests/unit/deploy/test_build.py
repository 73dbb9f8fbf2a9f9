"""Making a release: named alike on all hosts, whole or not at all, with the commands that it brings along."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import assets
from ansible.module_utils.flaskhost.deploy.build import Build
from ansible.module_utils.flaskhost.deploy.records import RECORD, Record, Store
from ansible.module_utils.flaskhost.deploy.sources import folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import USER, FakeHost, fake_owners

STAMP = 1_800_000_000.0


class Bench:
    """A build of one app, aside from any slot."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_owners(monkeypatch)
        monkeypatch.setattr(os, "sync", lambda: None)
        self.folder, self.root = folder, folder / "shop"
        self.host, self.store, self.notes = FakeHost(self.root), Store(self.root), []
        self.host.quick = True
        for path in (self.store.releases, self.store.venvs, self.root / "data"):
            path.mkdir(parents=True)
        self.files = {"shop.py": "app = 1\n", "requirements.txt": "flask==3.1.3\n"}
        names = "source_subdir source_archive source_repo requirements wheelhouse index_url static_path release_command"
        self.options: dict[str, Any] = {
            **dict.fromkeys(names.split(), ""),
            "app": "shop",
            "user": USER,
            "by": "ada@laptop",
            "stamp": STAMP,
            "source_version": "",
            "source_path": "/home/ada/shop",
            "wsgi": "shop:app",
            "persistent": [],
            "extra_packages": [],
            "build_packages": [],
            "build_command": "",
            "build_timeout": 60,
            "environment": {},
            "secrets": {},
            "install": {},
            "server_package": "gunicorn==27.0.1",
            "server_lock": "gunicorn==27.0.1 --hash=sha256:" + "0" * 64,
            "uv": "/opt/uv/bin/uv",
            "python": "/usr/bin/python3",
            "cache_dir": str(folder / "cache"),
            "server_config": str(folder / "gunicorn.conf.py"),
            "secrets_dir": str(folder / "etc"),
            "memory_mb": 512,
            "drain": 30,
            "processes": {},
            "timers": {},
            "host": "shop.test",
            "files": {},
        }

    def make(self, run: Callable[..., tuple[int, str, str]] | None = None, **options: Any) -> Record:
        code = self.folder / "code"
        for name, text in self.files.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text(text, encoding="utf-8")
        folders.pack(code, self.folder / "a.tar.gz")
        values = {**self.options, "archive": str(self.folder / "a.tar.gz"), **options}
        build = Build(run or self.host, values, self.store, self.notes.append)
        return build.make("identity", {"code": "1"}, "abcdef0123", {"NAME": "value"})


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_the_record_says_what_was_made(bench: Bench) -> None:
    record = bench.make()
    assert bench.store.record(record.id) == record
    assert (record.identity, record.revision, record.version) == ("identity", "abcdef0123", "/home/ada/shop")
    assert (record.by, record.parts, record.healthy, record.failed) == ("ada@laptop", {"code": "1"}, False, "")
    assert bench.store.has_environment(record)


def test_it_has_one_name_on_all_hosts(bench: Bench) -> None:
    assert bench.make().id == "20270115T080000Z-abcdef0"
    assert bench.make().id == "20270115T080000Z-abcdef0-2"
    assert bench.make().id == "20270115T080000Z-abcdef0-3"


def test_its_variables_are_roots_alone(bench: Bench) -> None:
    folder = bench.store.path(bench.make().id)
    assert stat.S_IMODE((folder / "env").stat().st_mode) == 0o600
    assert (folder / "env").read_text() == (
        f'FLASKHOST_RELEASE="{folder.name}"\nFLASKHOST_RELEASE_DIR="{folder}/app"\nNAME="value"\n'
    )


def test_the_commands_of_the_procfile_and_of_the_options(bench: Bench) -> None:
    bench.files["Procfile"] = "web: x\nrelease: flask db upgrade\nworker: celery worker\nmailer: mail\n"
    timers = {"nightly": {"command": "flask tidy", "on_calendar": "daily"}}
    record = bench.make(processes={"worker": "rq worker", "mailer": ""}, timers=timers)
    assert record.processes == {"worker": "rq worker"}
    assert record.timers == timers
    assert record.release_command == "flask db upgrade"
    scripts = bench.store.path(record.id) / "processes"
    assert sorted(path.name for path in scripts.iterdir()) == ["timer-nightly", "worker"]
    assert "rq worker" in (scripts / "worker").read_text()
    assert "flask tidy" in (scripts / "timer-nightly").read_text()
    assert bench.make(release_command="own").release_command == "own"


def test_a_procfile_that_is_a_link_is_not_read(bench: Bench) -> None:
    bench.files["other"] = "release: false\n"
    (bench.folder / "code").mkdir()
    (bench.folder / "code/Procfile").symlink_to("other")
    assert bench.make().release_command == ""


FAULTS: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "folder": ({}, {"source_subdir": "missing"}, "Unpack the code"),
    "requirements": ({}, {"requirements": "missing.txt"}, "Build the virtual environment"),
    "package": ({"requirements.txt": "no-such-package==1\n"}, {}, "Build the virtual environment"),
    "archive": ({}, {"archive": "/dev/null"}, "Unpack the code"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_made_leaves_nothing(bench: Bench, fault: str) -> None:
    whole = bench.make()
    files, options, step = FAULTS[fault]
    bench.files |= files
    bench.host.quick = fault != "archive"
    with pytest.raises(ReleaseError) as caught:
        bench.make(**options)
    assert caught.value.step == step
    assert [path.name for path in bench.store.releases.iterdir()] == [whole.id]
    assert [path.name for path in bench.store.venvs.iterdir()] == [whole.venv]


@pytest.mark.parametrize("where", ["mkdir", "symlink", "link", "sync"])
def test_a_full_disk_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    bench.files["static/a.css"] = "a"
    real: Callable[..., Any] = getattr(os, where)

    def full(*arguments: Any, **options: Any) -> Any:
        # By a path, or by the descriptor of a folder and a name.
        folders = [
            Path(f"/proc/self/fd/{item}").readlink() for name, item in options.items() if name.endswith("dir_fd")
        ]
        inside = not arguments or any("releases/2" in str(item) for item in (*arguments, *folders))
        if inside and (bench.store.releases / "20270115T080000Z-abcdef0").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(OSError, match="No space"):
            bench.make()
    assert list(bench.store.releases.iterdir()) == []
    assert list(bench.store.venvs.iterdir()) == []
    assert bench.notes[-1] == ""
    bench.make()


def test_half_a_release_of_a_killed_run_goes(bench: Bench) -> None:
    half = bench.store.path("20200101T000000Z-1234567")
    (half / "src").mkdir(parents=True)
    record = bench.make()
    assert [path.name for path in bench.store.releases.iterdir()] == [record.id]
    assert bench.host.calls[0] == ["systemctl", "stop", f"flask-{USER}_task-*.service"]
    assert (bench.store.path(record.id) / RECORD).exists()


# -- a source, or a running app, that wants more than its own ---------------------------------------------------------


def test_static_files_behind_a_persistent_folder_are_not_published(bench: Bench) -> None:
    """The link passes, since it stays in the code as it is shipped; what it leads to is then the app's to exchange."""
    victim = bench.folder / "victim"
    victim.mkdir()
    (victim / "secret").write_text("the victim's")
    (victim / "secret").chmod(0o600)
    data = bench.root / "data/instance"
    data.mkdir()
    # In the new release's code while root looks, so that the path is fine; it is known beforehand, but for the second.
    (data / "x").symlink_to("../../releases/20270115T080000Z-abcdef0/src/shop/public")
    bench.files |= {"instance/x/a.css": "a", "shop/public/b.css": "b"}
    (bench.folder / "code/shop").mkdir(parents=True)
    (bench.folder / "code/shop/static").symlink_to("../instance/x")
    record = bench.make(persistent=["instance"])
    (data / "x").unlink()
    (data / "x").symlink_to(victim)
    folder = bench.store.path(record.id)
    assert (folder / "src/shop/static").resolve() == victim
    other = bench.make()
    assets.share(bench.store, other.id, record.id)
    assert record.static == ""
    assert not list(bench.store.releases.glob("*/static/secret"))
    assert stat.S_IMODE((victim / "secret").stat().st_mode) == 0o600


def test_static_files_behind_a_link_in_the_code_are_published(bench: Bench) -> None:
    bench.files |= {"assets/build/a.css": "a"}
    (bench.folder / "code/shop").mkdir(parents=True)
    (bench.folder / "code/shop/static").symlink_to("../assets/build")
    record = bench.make(persistent=["instance", "assets/build/uploads"])
    assert record.static == "src/assets/build"
    assert (bench.store.path(record.id) / "static/a.css").read_text() == "a"


@pytest.mark.parametrize("link", ["../instance", "../media"])
def test_a_persistent_folder_behind_a_link_is_refused(bench: Bench, link: str) -> None:
    """Root would remove and make folders through a path that the app points where it likes."""
    victim = bench.folder / "victim"
    (victim / "uploads").mkdir(parents=True)
    (victim / "uploads/file").write_text("the victim's")
    (bench.root / "data/instance").symlink_to(victim)
    (bench.root / "data/app/static/uploads").mkdir(parents=True)
    bench.files |= {"instance/uploads/a": "a", "media/uploads/a": "a"}
    (bench.folder / "code/app").mkdir(parents=True)
    (bench.folder / "code/app/static").symlink_to(link)
    with pytest.raises(ReleaseError, match="app/static/uploads, but app/static is a link to"):
        bench.make(persistent=["instance", "app/static/uploads"])
    assert (victim / "uploads/file").read_text() == "the victim's"
    assert not (victim / "uploads").is_symlink()
    assert list(bench.store.releases.iterdir()) == []


def test_the_apps_links_in_its_data_are_not_followed(bench: Bench) -> None:
    """Not even to see what is there: root may look where the app may not."""
    data = bench.root / "data"
    (data / "instance").symlink_to("/nowhere")
    (data / "media").symlink_to(bench.folder)
    record = bench.make(persistent=["instance", "media/uploads"])
    app = bench.store.path(record.id) / "app"
    assert (app / "instance").readlink() == data / "instance"
    assert (app / "media/uploads").readlink() == data / "media/uploads"
    assert ["test", "-e", str(data / "media/uploads")] in [
        call[call.index("--") + 1 :] for call in bench.host.calls if "--" in call
    ]


def test_packages_and_locks_come_from_the_code_and_not_from_the_apps_data(bench: Bench) -> None:
    """The app could put a package of its own there, or exchange the file while root reads it."""
    data = bench.root / "data/instance"
    (data / "wheels").mkdir(parents=True)
    (data / "wheels/evil-1-py3-none-any.whl").touch()
    os.mkfifo(data / "requirements.txt")
    bench.files |= {"instance/wheels/good-1-py3-none-any.whl": "", "instance/requirements.txt": "flask==3.1.3\n"}
    seen: list[list[str]] = []

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        if "--find-links" in args:
            seen.append([path.name for path in Path(args[args.index("--find-links") + 1]).iterdir()])
        return bench.host(args, **options)

    options = {"wheelhouse": "instance/wheels", "requirements": "instance/requirements.txt"}
    record = bench.make(persistent=["instance"], run=run, **options)
    assert seen
    assert all(names == ["good-1-py3-none-any.whl"] for names in seen)
    assert (bench.store.path(record.id) / "app/instance").resolve() == data


def test_code_is_closed_to_others_until_it_is_sealed(bench: Bench) -> None:
    """Meanwhile it has the modes of the archive, which may give a file to everybody or let it run as root."""
    modes: list[int] = []

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        answer = bench.host(args, **options)
        if "--extract" in args:
            folder = next(item for item in args if item.startswith("--directory="))
            modes.append(stat.S_IMODE(Path(folder.partition("=")[2]).parent.stat().st_mode))
        return answer

    record = bench.make(run=run)
    assert modes == [0o700]
    assert stat.S_IMODE(bench.store.path(record.id).stat().st_mode) == 0o755


def test_a_subdir_that_is_a_link_is_resolved(bench: Bench) -> None:
    bench.files |= {"web/shop.py": "app = 1\n", "web/requirements.txt": "flask==3.1.3\n"}
    (bench.folder / "code").mkdir()
    (bench.folder / "code/present").symlink_to("web")
    record = bench.make(source_subdir="present", persistent=["instance"])
    assert (bench.store.path(record.id) / "app").readlink() == Path("src/web")


def test_a_procfile_without_end_is_refused(bench: Bench) -> None:
    bench.files["Procfile"] = "worker: " + "x" * 70_000
    with pytest.raises(ReleaseError, match="Procfile is longer than 64 KB"):
        bench.make()
