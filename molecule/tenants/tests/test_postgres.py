"""A hostile owner of a database: functions of its own wherever PostgreSQL runs some, and what then runs as whom."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

#: Written by whatever gets a superuser's rights, on the host itself: COPY ... TO PROGRAM.
MARKER = "/var/lib/postgresql/flaskhost-trap"
#: What a release command of a hostile app can run, as the owner of its database.
TRAPS = f"""
CREATE SCHEMA trap;
CREATE FUNCTION trap.spring(place text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE attempt text;
BEGIN
  FOREACH attempt IN ARRAY ARRAY['', 'none', 'postgres'] LOOP
    BEGIN
      IF attempt <> '' THEN PERFORM set_config('role', attempt, true); END IF;
      EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', place || ' as ' || session_user, 'cat >> {MARKER}');
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
      IF attempt <> '' THEN PERFORM set_config('role', attempt, true); END IF;
      EXECUTE 'ALTER ROLE mallory SUPERUSER';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RAISE LOG 'trap: % ran as %', place, session_user;
  RETURN true;
END $$;
CREATE FUNCTION trap.spring(place text, value integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM trap.spring(place); RETURN value; END $$;
CREATE FUNCTION trap.spring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM trap.spring('trigger'); RETURN NEW; END $$;
CREATE FUNCTION trap.same(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM trap.spring('operator'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE DOMAIN trap.checked AS integer CHECK (trap.spring('domain', VALUE) IS NOT NULL);
CREATE TABLE public.trapped (
  id integer PRIMARY KEY DEFAULT trap.spring('default', 7) CHECK (trap.spring('check', id) IS NOT NULL),
  twice integer GENERATED ALWAYS AS (trap.spring('generated', id * 2)) STORED,
  word trap.checked
);
INSERT INTO public.trapped (id, word) SELECT number, number FROM generate_series(1, 9) AS number;
CREATE TRIGGER trigger BEFORE INSERT ON public.trapped FOR EACH ROW EXECUTE FUNCTION trap.spring();
CREATE INDEX folded ON public.trapped ((trap.spring('folded', 42) + id));
CREATE INDEX filtered ON public.trapped (id) WHERE trap.spring('filter', id) > 3;
CREATE TABLE public.guarded (id integer);
INSERT INTO public.guarded VALUES (1), (2);
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY guard ON public.guarded USING (trap.spring('policy'));
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.same);
CREATE VIEW public.pg_namespace AS SELECT * FROM pg_catalog.pg_namespace WHERE trap.spring('pg_namespace');
CREATE VIEW public.pg_class AS SELECT * FROM pg_catalog.pg_class WHERE trap.spring('pg_class');
CREATE TABLE public."a
\\! touch {MARKER}
b\x1fc" (id integer);
ALTER DATABASE mallory SET search_path = public, pg_catalog;
ALTER DATABASE mallory SET default_transaction_isolation = serializable;
ALTER DATABASE mallory SET standard_conforming_strings = off;
ALTER DATABASE mallory SET row_security = off;
ALTER DATABASE mallory SET role = 'mallory-owner';
"""
NO_TRAPS = """
SET default_transaction_read_only = off;
BEGIN READ WRITE;
DROP SCHEMA trap CASCADE;
DROP TABLE IF EXISTS public.trapped, public.guarded CASCADE;
DROP TABLE IF EXISTS public."a
\\! touch /var/lib/postgresql/flaskhost-trap
b\x1fc";
DROP VIEW IF EXISTS public.pg_namespace, public.pg_class;
COMMIT;
"""

#: Pairs of a table and a view with a trap, which take each other's names again and again: a program that has seen, and
#: locked, the table can then count the view. One pair at a time, so that there are tables and views at any moment. With
#: tags between the dollars: systemd makes one of two.
PAIRS = 20
SWAP = "flaskhost-test-swap"
PREPARE_SWAP = f"""
SET search_path = pg_catalog;
DO $do$ BEGIN FOR pair IN 1..{PAIRS} LOOP
  EXECUTE format('CREATE TABLE public.swapped_%s (id integer)', pair);
  EXECUTE format('CREATE VIEW public.decoy_%s AS SELECT 1 AS id WHERE trap.spring(%L)', pair, 'swap');
END LOOP; END $do$;
"""
DO_SWAP = f"""
DO $do$ DECLARE pair integer; BEGIN LOOP
  pair := 1 + floor(random() * {PAIRS});
  EXECUTE format('ALTER TABLE public.swapped_%s RENAME TO spare_%s', pair, pair);
  EXECUTE format('ALTER TABLE public.decoy_%s RENAME TO swapped_%s', pair, pair);
  EXECUTE format('ALTER TABLE public.spare_%s RENAME TO decoy_%s', pair, pair);
  COMMIT;
  PERFORM pg_sleep(0.005);
END LOOP; END $do$;
"""
NO_SWAP = """
SET search_path = pg_catalog;
DO $do$ DECLARE kind text; name text; BEGIN
  FOR kind, name IN SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname ~ '^(swapped|decoy)_' LOOP
    EXECUTE format('DROP %s public.%I', kind, name);
  END LOOP;
END $do$;
"""


def owner(host: Any, sql: str) -> Any:
    """Run SQL as the hostile app's release command could: as its user, with the variables of its database's owner."""
    text = base64.b64encode(sql.encode()).decode()
    command = "set -a; . /etc/flaskhost/mallory/database_owner.env; PGHOST=/var/run/postgresql PGDATABASE=mallory"
    client = "setpriv --reuid=mallory --regid=mallory --clear-groups psql --no-psqlrc -qAt -v ON_ERROR_STOP=1"
    options = "PGOPTIONS='-c default_transaction_read_only=off'"
    return host.run(f"cd /; echo {text} | base64 -d | ({command} {options} {client})")


def admin(host: Any, sql: str, database: str = "postgres") -> str:
    """Ask PostgreSQL's own catalogs, as its superuser."""
    client = "PGOPTIONS='-c search_path= -c role=none -c standard_conforming_strings=on' psql --no-psqlrc -qAt"
    done = host.run(f"cd / && runuser -u postgres -- env {client} -v ON_ERROR_STOP=1 -d {database} -c %s", sql)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def runs(host: Any) -> Iterator[dict[str, Any]]:
    """Everything that the backup program does with a database, while the database is full of traps."""
    host.run(f"rm -f {MARKER}")
    assert admin(host, "SELECT count(*) FROM pg_roles WHERE rolsuper") == "1"
    since = host.run("date +%s.%N").stdout.strip()
    set_up = owner(host, TRAPS)
    try:
        assert set_up.rc == 0, set_up.stderr
        done = {name: host.run(f"flaskhost-backup {name}") for name in ("full", "drill")}
        done["restore"] = host.run("flaskhost-backup restore --database mallory --confirm mallory")
        log = host.run(f"journalctl --quiet --no-pager --output=cat --since=@{since} --grep='trap: '").stdout
        yield {**done, "log": log}
    finally:
        admin(host, "ALTER DATABASE mallory RESET ALL; ALTER ROLE mallory NOSUPERUSER")
        owner(host, NO_TRAPS)
        for name in admin(host, "SELECT datname FROM pg_database WHERE datname ~ '^mallory_before_'").split():
            admin(host, f"DROP DATABASE {name}")
        host.run(f"rm -f {MARKER}")


def test_nothing_of_an_owners_runs_as_a_superuser(host: Any, runs: dict[str, Any]) -> None:
    marker = host.run(f"sort {MARKER} | uniq -c")
    assert marker.rc != 0 or not marker.stdout, marker.stdout
    assert not host.file(MARKER).exists
    assert admin(host, "SELECT rolname FROM pg_roles WHERE rolsuper") == "postgres"
    ran = {line.split(" ran as ")[1] for line in runs["log"].splitlines() if " ran as " in line}
    assert "postgres" not in ran, runs["log"]
    # The positive control: the functions of the restored table did run, and say who they were.
    assert any("trap: check ran as flaskhost_session" in line for line in runs["log"].splitlines()), runs["log"]


def test_the_backup_the_drill_and_the_restore_do_their_work(host: Any, runs: dict[str, Any]) -> None:
    for name in ("full", "drill", "restore"):
        assert runs[name].rc == 0, runs[name].stdout + runs[name].stderr
    assert "not exactly" not in runs["full"].stdout
    assert "the same number of rows" in runs["drill"].stdout, runs["drill"].stdout
    assert "pg_amcheck found no damage" in runs["drill"].stdout


def test_what_is_restored_is_the_same_and_belongs_to_the_same(host: Any, runs: dict[str, Any]) -> None:
    assert runs["restore"].rc == 0
    before = admin(host, "SELECT datname FROM pg_database WHERE datname ~ '^mallory_before_'")
    question = (
        "SELECT n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner),"
        " (SELECT array_agg(item::text ORDER BY item::text) FROM unnest(c.relacl) AS item) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_|^information' ORDER BY 1, 2"
    )
    assert admin(host, question, "mallory") == admin(host, question, before)
    assert owner(host, "SELECT count(*), sum(id), sum(twice), sum(word) FROM public.trapped").stdout == "9|45|90|45\n"
    rights = (
        "SELECT pg_get_userbyid(datdba), datacl, setconfig FROM pg_database, pg_db_role_setting"
        " WHERE datname = %s AND setdatabase = oid"
    )
    assert admin(host, rights.replace("%s", "'mallory'")) == admin(host, rights.replace("%s", f"'{before}'"))


def test_no_session_role_is_left(host: Any, runs: dict[str, Any]) -> None:
    assert runs["full"].rc == 0
    assert admin(host, "SELECT rolname FROM pg_roles WHERE rolname ~ '^flaskhost_session_'") == ""


@pytest.fixture
def swapping(host: Any, runs: dict[str, Any]) -> Iterator[str]:
    """A session of the owner's that exchanges tables and views all the time; yields when it began."""
    assert runs["restore"].rc == 0
    committed = "-c default_transaction_isolation=read\\ committed"
    options = f"-c default_transaction_read_only=off -c search_path=pg_catalog {committed}"
    set_up = owner(host, PREPARE_SWAP)
    assert set_up.rc == 0, set_up.stderr
    since = host.check_output("date +%s.%N")
    login = "-p User=mallory -p EnvironmentFile=/etc/flaskhost/mallory/database_owner.env"
    environment = f"env PGHOST=/var/run/postgresql PGDATABASE=mallory 'PGOPTIONS={options}'"
    psql = "psql --no-psqlrc -qAt -c %s"
    try:
        host.run_expect([0], f"systemd-run --quiet --collect --unit={SWAP} {login} {environment} {psql}", DO_SWAP)
        yield since
    finally:
        host.run(f"systemctl stop {SWAP}.service")
        # It would go on until it looks for its client.
        admin(host, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'mallory-owner'")
        done = owner(host, NO_SWAP)
    assert done.rc == 0, done.stderr


def test_a_view_in_the_place_of_a_counted_table_runs_as_no_superuser(host: Any, swapping: str) -> None:
    command = f"journalctl --quiet --no-pager --output=cat --since=@{swapping} --grep='trap: swap'"
    backup = host.run("flaskhost-backup full")
    assert host.run(f"systemctl is-active {SWAP}.service").stdout.strip() == "active", "it has swapped all the time"
    ran = host.run(command).stdout
    # The positive control: a view was counted that was a table when the program looked.
    assert "trap: swap ran as flaskhost_session" in ran, ran
    assert "ran as postgres" not in ran, ran
    assert not host.file(MARKER).exists
    assert backup.rc == 0, backup.stdout + backup.stderr


@pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end", "sql_drop", "table_rewrite", "login"])
def test_an_owner_has_no_event_triggers(host: Any, event: str) -> None:
    # They would run in every session in the database, a superuser's too.
    function = "CREATE FUNCTION public.fires() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RETURN; END $$;"
    trigger = f"CREATE EVENT TRIGGER fires ON {event} EXECUTE FUNCTION public.fires();"
    done = owner(host, f"BEGIN; {function} SAVEPOINT made; {trigger}")
    assert done.rc != 0
    # PostgreSQL asks who it is before it asks whether there is such an event.
    assert "permission denied to create event trigger" in done.stderr, done.stderr


def test_what_was_restored_and_counted_has_no_event_trigger(host: Any, runs: dict[str, Any]) -> None:
    assert runs["restore"].rc == 0
    names = admin(host, "SELECT datname FROM pg_database WHERE datname ~ '^mallory'").split()
    assert len(names) == 2, names
    for name in [*names, "postgres", "template1"]:
        assert admin(host, "SELECT count(*) FROM pg_event_trigger", name) == "0"
