"""An app does not take over a user, a group, a role or a database that the host already has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from tenants import APPS, hosts, playbook

testinfra_hosts = hosts("bookworm")


@pytest.fixture
def neighbors(host: Any) -> Iterator[None]:
    """Carol works on the host, and a group gives rights to its members."""
    host.run_expect([0], "useradd --create-home carol && groupadd --system couriers")
    yield
    host.run("userdel --remove carol; groupdel couriers")


def test_an_account_of_the_host_is_no_apps(host: Any, neighbors: None) -> None:
    before = host.check_output("getent passwd carol"), host.check_output("getent group couriers")
    apps = {**APPS, "carol": APPS["alice"] | {"domains": ["carol.test"]}}
    apps["couriers"] = APPS["alice"] | {"domains": ["couriers.test"]}
    status, output = playbook("site", host, flask_apps=apps)
    assert status != 0
    # The apps of the host itself have their own accounts, of which nothing is said.
    assert "Preflight found 2 problems" in output, output
    assert "flask_apps.carol What is wrong: The host has a user carol with the home folder" in output
    assert "flask_apps.couriers What is wrong: The host has a group couriers that is not this app's" in output
    assert "Nothing has been changed" in output
    assert (host.check_output("getent passwd carol"), host.check_output("getent group couriers")) == before
    assert not host.file("/srv/carol").exists


@pytest.fixture
def strangers(host: Any) -> Iterator[None]:
    """Carol has a database named shop and a role named books; the role of an app that was removed is there, too."""
    sql = """
        CREATE ROLE carol LOGIN; CREATE DATABASE shop OWNER carol;
        CREATE ROLE books LOGIN CREATEDB; CREATE ROLE "mallory-former" LOGIN;
        COMMENT ON ROLE "mallory-former" IS 'Flaskhost: mallory';
    """
    superuser(host, sql)
    yield
    superuser(host, 'DROP DATABASE shop; DROP ROLE carol, books, "mallory-former"')


def superuser(host: Any, sql: str) -> str:
    """Run SQL as the superuser, each statement by itself."""
    arguments = " ".join(f"-c '{line}'" for line in sql.replace("'", "'\\''").split(";") if line.strip())
    return str(host.check_output(f"sudo -u postgres psql -XAtq -v ON_ERROR_STOP=1 {arguments}"))


CATALOG = "SELECT pg_authid.*, shobj_description(oid, 'pg_authid') FROM pg_authid ORDER BY 1; SELECT * FROM pg_database"


def test_a_role_or_a_database_of_postgresql_is_no_apps(host: Any, strangers: None) -> None:
    before = superuser(host, CATALOG)
    names = ("shop", "books", "mallory-former")
    apps = {**APPS, **{name: APPS["alice"] | {"domains": [f"{name}.test"]} for name in names}}
    status, output = playbook("site", host, "--tags", "postgres", flask_apps=apps)
    assert status != 0
    assert "Preflight found 3 problems" in output, output
    assert "flask_apps.shop What is wrong: PostgreSQL already has the database shop (owner: carol)" in output
    assert "flask_apps.books What is wrong: PostgreSQL already has the role books, which" in output
    assert 'PostgreSQL already has the role mallory-former (of the app "mallory")' in output
    assert "Nothing has been changed" in output
    assert superuser(host, CATALOG) == before


def test_a_host_of_an_earlier_version_is_not_refused_and_gets_its_marks(host: Any) -> None:
    marks = "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname ~ '^(alice|mallory)'"
    names = ("alice", "alice-owner", "mallory", "mallory-owner")
    marked = {f"{name}|Flaskhost: {name.partition('-')[0]}" for name in names}
    assert marked <= set(superuser(host, marks).splitlines())
    superuser(host, "; ".join(f'COMMENT ON ROLE "{name}" IS NULL' for name in names))
    status, output = playbook("site", host, "--tags", "postgres")
    assert status == 0, output
    assert marked <= set(superuser(host, marks).splitlines())
    # With the marks nothing else is needed, on a new host to which the cluster was moved for example.
    access = host.check_output("ls /etc/postgresql/*/main/pg_hba.conf")
    host.run_expect([0], f"mv {access} {access}.aside; mv /etc/flaskhost/alice/database_owner.env /root/")
    try:
        status, output = playbook("preflight", host)
        assert status == 0, output
    finally:
        host.run_expect([0], f"mv {access}.aside {access}; mv /root/database_owner.env /etc/flaskhost/alice/")


def test_no_app_can_mark_a_role_or_remove_a_mark(host: Any) -> None:
    owner = ". /etc/flaskhost/mallory/database_owner.env; export PGUSER PGPASSWORD; psql mallory"
    for name in ("mallory", "mallory-owner", "alice"):
        for comment in ("NULL", "'Flaskhost: mallory'"):
            sql = f'COMMENT ON ROLE "{name}" IS {comment}'
            for command in (f"sudo -u mallory psql mallory -c {shlex.quote(sql)}", f"{owner} -c {shlex.quote(sql)}"):
                done = host.run("sh -c %s", command)
                assert done.rc != 0
                assert "permission denied" in done.stderr or "must have" in done.stderr, done.stderr
