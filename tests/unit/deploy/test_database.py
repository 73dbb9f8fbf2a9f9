"""The database's lock and its schema's revision, asked of a made-up psql; the real one is in molecule/deploy."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import database
from ansible.module_utils.flaskhost.deploy.database import (
    Database,
    Unanswered,
    connection_variables,
    known_revisions,
    limited,
    schema_problem,
)
from ansible.module_utils.flaskhost.host.runner import ReleaseError

URL = "postgresql://shop:hun%24ter@db.example:5433/orders?sslmode=require"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://shop@/shop?host=/var/run/postgresql", "PGUSER=shop PGDATABASE=shop PGHOST=/var/run/postgresql"),
        ("postgresql+psycopg2:///shop", "PGDATABASE=shop"),
        ("postgres://%2Fvar%2Frun%2Fpostgresql/shop", "PGHOST=/var/run/postgresql PGDATABASE=shop"),
        (
            "postgresql://shop:hun%24ter@db.example:5433/orders?sslmode=require&channel_binding=require&application_name=x",
            "PGUSER=shop PGPASSWORD=hun$ter PGHOST=db.example PGPORT=5433 PGDATABASE=orders PGSSLMODE=require"
            " PGCHANNELBINDING=require",
        ),
        ("sqlite:////srv/shop/data/shop.db", ""),
        ("mysql://shop@localhost/shop", ""),
        ("", ""),
        ("postgresql://shop:p[w@db/shop", ""),
        ("postgresql://shop:a/b@db/shop", ""),
    ],
)
def test_libpq_gets_what_the_url_says(url: str, wanted: str) -> None:
    assert connection_variables(url) == dict(item.split("=", 1) for item in wanted.split())


@pytest.fixture
def psql(tmp_path: Path) -> Callable[[str], Database]:
    """Make a client of some lines of shell; it writes down its arguments and its environment."""

    def make(script: str, url: str = URL) -> Database:
        path = tmp_path / "psql"
        path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nenv > {tmp_path}/environment\n{script}\n')
        path.chmod(0o755)
        return Database(url, "shop", "shop", psql=[str(path)])

    return make


Make = Callable[..., Database]


def test_the_revision_is_what_the_database_says(psql: Make) -> None:
    assert psql("cat > /dev/null; echo b; echo a").revision() == "b,a"
    # It was asked, and has no table of Alembic's.
    assert psql("cat > /dev/null").revision() == ""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("cat > /dev/null; echo a; echo 'psql: error: no route to host' >&2; exit 2", "no route to host"),
        ("cat > /dev/null; exit 1", "PostgreSQL reports: nothing"),
    ],
)
def test_not_to_be_told_is_not_the_same_as_none(psql: Make, script: str, reason: str) -> None:
    with pytest.raises(Unanswered, match=reason) as caught:
        psql(script).revision()
    assert "hun" not in str(caught.value)


def test_without_a_client_or_with_a_broken_url_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.shutil, "which", lambda _name: None)
    with pytest.raises(Unanswered, match="psql is not installed"):
        Database(URL, "shop", "shop").revision()
    with pytest.raises(Unanswered, match="psql does not understand its URL") as caught:
        Database("postgresql://shop:hun[ter@db/shop", "shop", "shop").revision()
    assert "hun" not in str(caught.value)
    for url in ("", "sqlite:///x", "mysql://shop@localhost/shop"):
        assert Database(url, "shop", "shop").revision() == ""


def test_the_time_is_the_databases(psql: Make, tmp_path: Path) -> None:
    said = tmp_path / "said"
    assert psql(f"cat > {said}; echo 2026-11-21T10:15:00.123456").time() == "2026-11-21T10:15:00.123456"
    assert "clock_timestamp() AT TIME ZONE 'UTC'" in said.read_text()
    assert psql("echo no", url="sqlite:///x").time() == ""
    with pytest.raises(Unanswered, match="no route to host"):
        psql("echo 'psql: error: no route to host' >&2; exit 2").time()


def test_a_warning_is_no_revision(psql: Make) -> None:
    assert psql("cat > /dev/null; echo WARNING: collation version mismatch >&2; echo a").revision() == "a"


def test_another_database_is_not_asked(psql: Make) -> None:
    other = psql("echo a", url="sqlite:///x")
    assert other.revision() == ""
    with other.lock("deploy", 1):
        pass


def test_the_password_is_in_the_environment_and_in_no_argument(psql: Make, tmp_path: Path) -> None:
    psql("cat > /dev/null").revision()
    assert "hun" not in (tmp_path / "arguments").read_text()
    environment = (tmp_path / "environment").read_text().splitlines()
    assert "PGPASSWORD=hun$ter" in environment
    # Nothing of root's own gets there.
    assert not any(line.startswith(("HOME=", "SSH_", "PYTEST")) for line in environment)


def test_a_client_that_does_not_answer_is_given_up(psql: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "TIMEOUT", 0.05)
    with pytest.raises(Unanswered, match="no response within"):
        psql("exec sleep 60").revision()


def test_the_lock_is_held_as_long_as_the_command_runs_and_no_longer(psql: Make, tmp_path: Path) -> None:
    said = tmp_path / "said"
    found = psql(f"echo $$ > {tmp_path}/pid; head -n 3 | tee {said}; echo locked; exec cat >> {said}")
    with found.lock("deploy of ada@laptop", 5):
        process = Path("/proc") / (tmp_path / "pid").read_text().strip()
        assert process.exists()
        text = said.read_text()
        assert "SET lock_timeout = '5s'" in text
        assert f"pg_advisory_lock({found.key})" in text
    assert not process.exists()
    with pytest.raises(ZeroDivisionError), found.lock("deploy", 5):
        process = Path("/proc") / (tmp_path / "pid").read_text().strip()
        raise ZeroDivisionError
    assert not process.exists()


def test_each_app_has_a_lock_of_its_own_which_stays_the_same() -> None:
    keys = [Database(URL, "x", app).key for app in ("shop", "shop", "blog")]
    assert keys[0] == keys[1] != keys[2]
    assert all(-(2**63) <= key < 2**63 for key in keys)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("cat >/dev/null & sleep 0.05; echo 'ERROR: canceling statement due to lock timeout'; exit 3", "more than 5 s"),
        ("echo 'psql: error: could not connect to server' >&2; exit 2", "could not connect to server"),
        ("exec true", "PostgreSQL reports"),
    ],
)
def test_without_the_lock_nothing_is_run(psql: Make, script: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason) as caught, psql(script).lock("deploy", 5):
        pytest.fail("it went on")
    assert "still serves" in caught.value.cure


def test_a_client_that_ends_before_it_is_asked_is_no_crash(psql: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = psql("echo 'psql: error: no' >&2; exit 2")
    real = found._start

    def started(*arguments: Any) -> Any:
        process = real(*arguments)
        process.wait()
        return process

    monkeypatch.setattr(found, "_start", started)
    with pytest.raises(ReleaseError, match="psql: error: no"), found.lock("deploy", 5):
        pytest.fail("it went on")


def test_revisions_are_read_from_the_code_without_running_it(tmp_path: Path) -> None:
    for name, text in {
        "migrations/versions/a.py": '"""x\n\nRevision ID: no\n"""\nrevision = \'a1\'\ndown_revision = \'no\'\n',
        "migrations/versions/b.py": 'revision: str = "b2"\nraise SystemExit\n',
        "other/c.py": "revision = 'no'\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert known_revisions(tmp_path) == {"a1", "b2"}


@pytest.mark.parametrize(
    ("there", "known", "noted", "named"),
    [
        ("", {"a"}, "", ""),
        ("a", {"a", "b"}, "", ""),
        ("c", {"a", "b"}, "b", "c"),
        ("c", {"a", "b"}, "c", ""),
        ("c,a,d", {"a"}, "", "c, d"),
        ("c", set(), "b", "c"),
    ],
)
def test_a_schema_is_a_problem_where_the_release_does_not_know_it(
    there: str, known: set[str], noted: str, named: str
) -> None:
    problem = schema_problem(there, known, noted)
    assert bool(problem) == bool(named)
    assert f"revision {named}," in problem or not named


def test_statements_of_a_release_command_have_limits() -> None:
    for own, wanted in ((None, ""), ("", ""), ("-c search_path=o'brien", " -c search_path=o'brien")):
        command = limited('printf "%s|%s" "$PGOPTIONS" "$0 $#"; exit 3', 5, 900)
        variables = {"PATH": "/usr/bin:/bin"} | ({} if own is None else {"PGOPTIONS": own})
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        # As if the shell had been given the command alone.
        assert done.stdout == f"-c lock_timeout=5s -c statement_timeout=900s{wanted}|/bin/sh 0"
        assert done.returncode == 3


def test_a_lock_is_never_held_by_way_of_a_pool() -> None:
    url = "postgresql://shop@/shop?host=/var/run/postgresql&port=6432"
    assert "PGPORT" not in database.Database(url, "shop", "shop").variables
    other = "postgresql://shop@db1:6432/shop"
    assert database.Database(other, "shop", "shop").variables["PGPORT"] == "6432", "of another's we know nothing"


def test_migrations_behind_a_link_are_not_read(tmp_path: Path) -> None:
    """The app could have put a pipe there, for which root would wait for ever with the deploy's lock in its hand."""
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data/pipe.py")
    (tmp_path / "data/b.py").write_text("revision = 'linked'\n")
    app = tmp_path / "app"
    (app / "migrations/versions").mkdir(parents=True)
    (app / "other").mkdir()
    (app / "other/versions").symlink_to(tmp_path / "data")
    (app / "migrations/versions/a.py").write_text("revision = 'a1'\n")
    (app / "migrations/versions/b.py").symlink_to(tmp_path / "data/b.py")
    os.mkfifo(app / "migrations/versions/pipe.py")
    assert known_revisions(app) == {"a1"}


def test_what_an_app_prints_is_not_kept_in_memory(psql: Make) -> None:
    """A view named alembic_version can raise warnings until the time limit."""
    script = "head --bytes=50000000 /dev/zero | tr '\\0' x >&2; echo 'ERROR:  the end' >&2; exit 3"
    with pytest.raises(Unanswered, match="the end") as caught:
        psql(f"cat > /dev/null; {script}").revision()
    assert len(str(caught.value)) < 5000


def test_a_lock_that_is_never_answered_ends_the_deploy(psql: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the app's in the place of PostgreSQL's would not end by itself."""
    monkeypatch.setattr(database, "TIMEOUT", 0.1)
    began = time.monotonic()
    endless = psql("while echo 'WARNING:  of a tenant'; do sleep 0.01; done")
    with pytest.raises(ReleaseError) as caught, endless.lock("deploys", timeout=1):
        pytest.fail("it is not locked")
    assert time.monotonic() - began < 20
    assert caught.value.reason == "PostgreSQL reports: " + "\n".join(["WARNING:  of a tenant"] * 3)


def test_functions_of_the_app_are_not_called(psql: Make, tmp_path: Path) -> None:
    found = psql(f"cat > {tmp_path}/asked; echo x")
    for ask in (found.time, found.has_tables, found.identity):
        ask()
        assert (tmp_path / "asked").read_text().startswith("SET search_path = pg_catalog;\n")
    # The table is where the app's migrations have made it.
    found.revision()
    assert "search_path" not in (tmp_path / "asked").read_text()
