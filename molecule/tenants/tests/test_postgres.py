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
"""  # noqa: S608 - SQL is what the attack is made of
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
    assert "row by row as counted" in runs["drill"].stdout, runs["drill"].stdout
    assert "pg_amcheck finds no damage" in runs["drill"].stdout


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
