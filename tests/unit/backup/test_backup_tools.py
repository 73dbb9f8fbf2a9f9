"""flaskhost-backup: who connects to PostgreSQL, how programs are run, and what root does in folders of others."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest
from flaskhost_backup import (
    paths,
    sessions,
    tools,
)
from flaskhost_backup.config import BackupError, Cluster, parse

# --- Who connects, and what root does in folders of others ----------------------------------------------------------


def test_nothing_but_the_helpers_starts_a_client_of_postgresql() -> None:
    root = Path(__file__).resolve().parents[3]
    starts = re.compile(r"""["'/](?:psql|pg_dump|pg_dumpall|pg_restore|pg_amcheck|vacuumdb|reindexdb)["']""")
    found = {
        str(path.relative_to(root))
        for folder in ("roles", "plugins")
        for path in (root / folder).rglob("*.py")
        if starts.search(path.read_text(encoding="utf-8"))
    }
    assert found == {
        "roles/backup/files/flaskhost_backup/sessions.py",  # the helper
        "roles/backup/files/flaskhost_backup/dumps.py",  # names programs that the helper starts
        "roles/backup/files/flaskhost_backup/drill.py",  # likewise
        # The superuser, in the database postgres only: functions of shared memory, and the names in shared catalogs.
        "roles/postgres/files/flaskhost_postgres_limits.py",
        "plugins/module_utils/flaskhost/postgres/psql.py",  # the helper of the modules
        "plugins/module_utils/flaskhost/deploy/database.py",  # as the app's own user
        "plugins/modules/postgres_upgrade.py",  # vacuumdb, which analyzes as the tables' owners, as autovacuum does
    }


def test_every_setting_of_a_tenant_is_pinned() -> None:
    login = sessions.Login(Cluster("17", Path("/x"), (), ()), Path("/s"), 5432, "flaskhost_session_1", "shop", "secret")
    options = login.variables["PGOPTIONS"]
    for item in ("search_path= ", "role=none", "row_security=off", "standard_conforming_strings=on",
                 "default_transaction_isolation=read\\ committed", "transaction_timeout=0"):  # fmt: skip
        assert f"-c {item}" in options
    assert "log_statement" not in options, "only a superuser may set it"
    assert (
        "transaction_timeout"
        not in dataclasses.replace(login, cluster=Cluster("15", Path("/x"), (), ())).variables["PGOPTIONS"]
    )


def test_root_follows_no_link_of_another_user(tmp_path: Path) -> None:
    (tmp_path / "real" / "main").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.lchown(tmp_path / "link", 65534, 65534) if os.geteuid() == 0 else pytest.skip("needs root")
    for do in (
        lambda: tools.make_folder(tmp_path / "link" / "new", "nobody"),
        lambda: paths.remove(tmp_path / "link" / "main"),
        lambda: paths.move_aside(tmp_path / "link" / "main", "x"),
    ):
        with pytest.raises(BackupError, match="'link' in its path does not belong to root"):
            do()
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["main"]
    os.lchown(tmp_path / "link", 0, 0)
    tools.make_folder(tmp_path / "link" / "new", "nobody")
    assert (tmp_path / "real" / "new").stat().st_uid == 65534
    # What lies in a folder that is removed may be a link too.
    (tmp_path / "real" / "main" / "out").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    paths.remove(tmp_path / "real" / "main")
    assert (tmp_path / "kept").is_dir()
    (tmp_path / "pid").symlink_to("/etc/passwd")
    assert tools.head(tmp_path / "pid", 64) == ""


# --- The rest --------------------------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_or_hangs_is_no_stack_trace() -> None:
    assert tools.run(["/nowhere/program"]).status == 127
    assert tools.run(["sleep", "5"], timeout=0.1).status == 124


def test_a_scratch_cluster_reaches_nothing_of_the_real_one(tmp_path: Path) -> None:
    from flaskhost_backup.cluster import Scratch  # noqa: PLC0415 - only here

    scratch = Scratch(Cluster("15", tmp_path, (), ()), tmp_path / "scratch", 5434)
    told = scratch.settings()
    assert (told["archive_mode"], told["listen_addresses"], told["primary_conninfo"]) == ("off", "", "")
    assert told["unix_socket_directories"] == str(tmp_path / "scratch" / "socket")


@pytest.mark.parametrize("text", ["", "[]", '{"host": "h", "cluster": {"version": "15"}}', '{"host": "h", "more": 1}'])
def test_a_broken_configuration_is_one_sentence(text: str) -> None:
    with pytest.raises(BackupError, match="cannot be read"):
        parse(text)


def test_a_program_that_is_missing_or_takes_too_long_is_told_apart() -> None:
    assert (tools.run(["no-such-program"]).status, tools.run(["no-such-program"]).last) == (
        127,
        "no-such-program: there is no such program",
    )
    slow = tools.run(["sleep", "5"], timeout=0.2)
    assert (slow.status, slow.last) == (124, "sleep timed out after 0.2 s.")
    assert tools.run(["sh", "-c", "exit 127"]).status == 127


def test_what_a_program_writes_is_for_root_alone_and_what_is_no_text_stops_nothing(tmp_path: Path) -> None:
    assert tools.run(["sh", "-c", f"touch {tmp_path}/made; mkdir {tmp_path}/folder"]).status == 0
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "made", tmp_path / "folder")] == [0o600, 0o700]
    assert tools.run(["sh", "-c", "printf 'a\\377b'"]).out == "a\ufffdb"
    assert tools.run(["cat"], data="given").out == "given"
    assert tools.run(["cat"]).out == ""
    with (tmp_path / "out").open("wb") as out:
        assert tools.run(["sh", "-c", "echo here"], out=out).out == ""
    assert (tmp_path / "out").read_text() == "here\n"
