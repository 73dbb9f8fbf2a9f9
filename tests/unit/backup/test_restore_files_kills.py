"""A restore of files that is killed at any moment: nothing is lost, it is told, and the same command heals it.

Files and processes are real; the repository is a folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import acl
from ansible.module_utils.flaskhost.host.reader import Reader
from flaskhost_backup import aside as aside_module
from flaskhost_backup import restic, restore_files
from flaskhost_backup.cli import _again, _parser
from flaskhost_backup.config import App, BackupError, Config
from flaskhost_backup.progress import unfinished
from flaskhost_backup.result import Result

NOW = 1_795_311_000.0
COMMAND = "flaskhost-backup restore-files --app shop --confirm shop"


class Repository:
    """A repository with one snapshot, in which the upload says ``restored``."""

    where = "The local repository of files"

    def __init__(self, path: Path, *, is_file: bool = False) -> None:
        self.path, self.is_file = path, is_file

    def snapshots(self, _tag: str, _hosts: list[str]) -> list[restic.Snapshot]:
        return [restic.Snapshot("aa", NOW - 60, "h1", (str(self.path),), ("files",))]

    def restore(self, _snapshot: str, target: Path, _include: list[str]) -> None:
        inside = target / self.path.relative_to("/")
        (inside.parent if self.is_file else inside).mkdir(parents=True)
        (inside if self.is_file else inside / "upload").write_text("restored")


def host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    data = folder / "srv" / "shop" / "data"
    data.mkdir(parents=True)
    (data / "upload").write_text("old")
    (folder / "state").mkdir()
    monkeypatch.setattr(restic, "local", lambda _config: Repository(data))
    return Config("h1", apps=(App("shop", data),), state=folder / "state", secrets=folder / "secrets")


def restore(config: Config, name: str = "shop") -> Result:
    return restore_files.files(
        config, name, when=None, where="local", host="", folder=None, now=NOW, command=COMMAND
    )  # fmt: skip


def test_web_server_reads_what_it_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup is from before the option protected_files, or from after it."""
    config, web = host(tmp_path, monkeypatch), pwd.getpwnam("nobody").pw_uid
    (shop,) = config.apps

    def rights(path: Path) -> int | None:
        descriptor = os.open(path, os.O_RDONLY)
        found = acl.read(descriptor).rights(web)
        os.close(descriptor)
        return found

    class WithFolder(Repository):
        def restore(self, snapshot: str, target: Path, include: list[str]) -> None:
            super().restore(snapshot, target, include)
            (target / self.path.relative_to("/") / "files").mkdir()
            (target / self.path.relative_to("/") / "files/a.txt").write_text("x")

    monkeypatch.setattr(restic, "local", lambda _config: WithFolder(shop.data))
    shared = replace(config, apps=(replace(shop, protected_folder="files", web_user="nobody"),))
    assert len(restore(shared).lines) == 2
    assert (rights(shop.data), rights(shop.data / "files/a.txt"), rights(shop.data / "upload")) == (1, 4, 0)
    Reader(web, os.getuid()).settle(shop.data, "")
    monkeypatch.setattr(restic, "local", lambda _config: Repository(shop.data))
    assert "cannot read" in restore(shared).lines[0], "the backup has no such folder"
    assert (shop.data / "upload").read_text() == "restored"
    # Without the option, rights from the backup go.
    monkeypatch.setattr(restore_files, "_translate", lambda restored, _there: share(restored))

    def share(restored: Path) -> None:
        (restored / "files").mkdir()
        Reader(web, os.getuid()).settle(restored, "files")

    restore(replace(config, apps=(replace(shop, web_user="nobody"),)))
    assert rights(shop.data) is rights(shop.data / "files") is None


def killed_before(step: int, do: Callable[[], Any]) -> bool:
    """Do something in a process that is killed before it renames a file for the so-manieth time."""
    child = os.fork()
    if not child:
        left = [step]

        def count(real: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*arguments, **options)

            return counted

        os.rename, os.replace, os.unlink = count(os.rename), count(os.replace), count(os.unlink)
        restore_files.exchange = count(restore_files.exchange)
        try:
            do()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def aside(config: Config) -> list[Path]:
    return [path for path in config.apps[0].data.parent.glob("data.before-*") if (path / "upload").read_text() == "old"]


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two-renames"])
@pytest.mark.parametrize("heal", ["again", "abandon"])
def test_a_killed_restore_of_files_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heal: str, exchanges: bool
) -> None:
    if not exchanges:  # as on a file system that cannot
        monkeypatch.setattr(restore_files, "exchange", lambda _one, _other: False)
    moments = set()
    for step in range(20):
        folder = tmp_path / str(step)
        config = host(folder, monkeypatch)
        data = config.apps[0].data
        if not killed_before(step, lambda config=config: restore(config)):
            break
        there = (data / "upload").read_text() if data.exists() else ""
        moments.add(there)
        old = aside(config)
        assert there == "old" or old, "the only copy is gone"
        if not there or list(data.parent.glob(".data*")):
            (told,) = unfinished(config)
            assert f"sudo {COMMAND}" in told
            assert "sudo flaskhost-backup abandon" in told
        if heal == "again":
            result = restore(config)
            assert (data / "upload").read_text() == "restored"
            (kept,) = aside(config)
            assert any(str(kept) in line for line in result.lines), "the operator is told where it is"
        elif unfinished(config):
            result = restore_files.abandon(config)
            kept = aside(config)
            assert (data / "upload").read_text() == ("restored" if there == "restored" else "old")
            assert all(any(str(path) in line for line in result.lines) for path in kept)
        assert unfinished(config) == []
        assert not list(data.parent.glob(".data*"))
        shutil.rmtree(folder)
    # Where the two change names in one step, nobody ever finds the folder missing.
    assert moments == ({"old", "restored"} if exchanges else {"old", "", "restored"})
    assert restore_files.abandon(config).lines == []


@pytest.mark.parametrize("heal", ["again", "abandon"])
def test_a_killed_restore_of_a_folder_that_was_not_there_is_healed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heal: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for step in range(20):
        folder = tmp_path / str(step)
        config = host(folder, monkeypatch)
        data = config.apps[0].data
        shutil.rmtree(data)
        if not killed_before(step, lambda config=config: restore(config)):
            break
        if heal == "again":
            restore(config)
            assert (data / "upload").read_text() == "restored"
        else:
            assert not any(".before" in line for line in restore_files.abandon(config).lines)
        assert unfinished(config) == []
        assert not list(data.parent.glob(".data*"))
    assert step > 2


def test_what_cannot_be_put_in_place_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = host(tmp_path, monkeypatch)
    data = config.apps[0].data

    def refuse(_self: Path, _there: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        restore(config)
    assert (data / "upload").read_text() == "old"
    assert unfinished(config) == []


def test_a_folder_and_a_file_that_are_kept_beside_the_apps_are_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "reports", tmp_path / "notes"
    folder.mkdir()
    (folder / "upload").write_text("old")
    file.write_text("old")
    config = replace(host(tmp_path, monkeypatch), paths=(folder, file))
    monkeypatch.setattr(restic, "local", lambda _config: Repository(folder))
    (line, put_aside) = restore(config, str(folder)).lines
    assert (folder / "upload").read_text() == "restored"
    assert str(folder) in line
    assert aside_module.find(config).as_data()[0]["name"] in put_aside
    monkeypatch.setattr(restic, "local", lambda _config: Repository(file, is_file=True))
    restore(config, str(file))
    assert file.read_text() == "restored"
    assert [path.read_text() for path in tmp_path.glob("notes.before-*")] == ["old"]


def test_the_passphrase_stays_where_the_folder_above_it_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = host(tmp_path, monkeypatch)
    above = tmp_path / "etc"
    config = replace(config, paths=(above,), secrets=above / "flaskhost" / "backup")
    config.secrets.mkdir(parents=True)
    (config.secrets / "passphrase").write_text("secret")
    monkeypatch.setattr(restic, "local", lambda _config: Repository(above))
    restore(config, str(above))
    assert (above / "upload").read_text() == "restored"
    assert (config.secrets / "passphrase").read_text() == "secret"


def test_a_path_that_is_not_kept_and_one_that_an_app_writes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = host(tmp_path, monkeypatch)
    inside = config.apps[0].data / "reports"
    config = replace(config, paths=(inside,))
    with pytest.raises(BackupError, match=r"/srv/other is not in backup\.paths\. Available: .*/reports\."):
        restore(config, "/srv/other")
    with pytest.raises(BackupError, match="Restore all of it: --app shop"):
        restore(config, str(inside))


@pytest.mark.parametrize("what", [["--app", "shop", "--confirm", "shop"], ["--path", "/srv/a", "--confirm", "/srv/a"]])
def test_the_command_that_finishes_it_is_the_one_that_was_given(what: list[str]) -> None:
    words = ["restore-files", *what, "--to", "2026-11-21T10:00:00", "--from", "second"]
    options = _parser().parse_args(words)
    assert _parser().parse_args(_again(options).split()[1:]) == options
