"""The templates of PostgreSQL, rendered as Ansible does it: who logs in, and what is written of settings."""

from __future__ import annotations

from typing import Any

import pytest
from nginx_config import DEBIAN
from rendering import render


def hba(**variables: Any) -> list[list[str]]:
    """The lines after the one of the backup program's session roles, which is always the second."""
    text = render("postgres", "pg_hba.conf.j2", DEBIAN["13"], **variables)
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    # Without quotes: they would make the group's name a role's.
    assert lines.pop(1) == ["local", "all", "+flaskhost_session", "scram-sha-256"]
    return lines


def test_a_role_logs_in_to_its_own_database_and_nothing_else() -> None:
    """The first line that fits decides, so that an "all" before the others would open every database."""
    lines = hba(postgres_databases=[{"name": "shop"}, {"name": "my-blog"}])
    assert lines == [
        ["local", "all", "postgres", "peer"],
        ["local", '"shop"', '"shop"', "peer"],
        ["local", '"my-blog"', '"my-blog"', "peer"],
    ]


def test_an_app_keeps_its_login_and_its_pool_until_a_release_serves_that_does_without() -> None:
    databases, leaving = [{"name": "blog", "pool": 0}], [{"name": "shop", "pool": 0}, {"name": "blog", "pool": 4}]
    known = {"postgres_databases": databases, "__postgres_access_now": {"leaving": leaving}}
    lines = hba(**known, postgres_networks=["192.0.2.1/32"])
    assert lines == [
        ["local", "all", "postgres", "peer"],
        ["local", '"blog"', '"blog"', "peer", "map=flaskhost"],
        ["local", '"shop"', '"shop"', "peer"],
        ["hostssl", "all", "postgres", "all", "reject"],
        ["hostssl", '"blog"', '"blog"', "192.0.2.1/32", "scram-sha-256"],
        ["hostssl", '"shop"', '"shop"', "192.0.2.1/32", "scram-sha-256"],
    ]
    assert '"postgres" "blog"' in render("postgres", "pg_ident.conf.j2", DEBIAN["13"], **known)
    pools = render("postgres", "pgbouncer.ini.j2", DEBIAN["13"], **known)
    assert "blog = host=/var/run/postgresql pool_size=4\n" in pools
    assert "shop" not in pools


def test_the_network_comes_last_and_needs_a_password() -> None:
    databases = [{"name": "shop", "owner": "shop-owner", "owner_file": "/etc/x.env"}, {"name": "blog"}]
    networks, logins = ["192.0.2.1/32", "2001:db8::/64"], {"shop": {"owner": "x", "a": "y"}}
    lines = hba(postgres_databases=databases, postgres_networks=networks, postgres_logins=logins)
    assert [line[0] for line in lines] == [*["local"] * 4, *["hostssl"] * 9], "never without TLS"
    assert lines[4] == ["hostssl", "all", "postgres", "all", "reject"]
    assert [line[1:4] for line in lines[5:]] == [
        [f'"{database}"', f'"{role}"', network]
        for database, roles in (("shop", ("shop", "shop-a", "shop-owner")), ("blog", ("blog",)))
        for role in roles
        for network in networks
    ]
    assert {line[-1] for line in lines[5:]} == {"scram-sha-256"}


def test_a_pool_logs_in_as_the_app_and_as_nobody_else() -> None:
    databases = [{"name": "shop", "pool": 8}, {"name": "blog", "pool": 0}, {"name": "wiki"}]
    lines = hba(postgres_databases=databases)
    assert [line[-1] for line in lines] == ["peer", "map=flaskhost", "peer", "peer"]
    text = render("postgres", "pg_ident.conf.j2", DEBIAN["13"], postgres_databases=databases)
    names = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert names == [["flaskhost", '"postgres"', '"shop"'], ["flaskhost", '"shop"', '"shop"']]


@pytest.mark.parametrize(("release", "prepared"), [("12", False), ("13", True)])
def test_pgbouncer_is_on_the_local_socket_alone(release: str, prepared: bool) -> None:
    databases = [{"name": "shop", "pool": 8}, {"name": "blog", "pool": 0}]
    lines = render("postgres", "pgbouncer.ini.j2", DEBIAN[release], postgres_databases=databases).splitlines()
    assert "shop = host=/var/run/postgresql pool_size=8" in lines
    assert not any(line.startswith("blog") for line in lines)
    assert "listen_addr =" in lines
    # Version 1.18 does not start with a setting that it does not know.
    assert any(line.startswith("max_prepared_statements") for line in lines) is prepared


def test_an_owner_logs_in_by_password_where_one_was_made() -> None:
    apart = {"name": "shop", "owner": "shop-owner", "owner_file": "/etc/x.env"}
    assert ["local", '"shop"', '"shop-owner"', "scram-sha-256"] in hba(postgres_databases=[apart])
    for other in ({**apart, "owner_file": ""}, {**apart, "owner": ""}, {**apart, "owner": "shop"}):
        assert {line[-1] for line in hba(postgres_databases=[other])} == {"peer"}


@pytest.mark.parametrize(
    ("addresses", "line"),
    [
        ([], "listen_addresses = ''"),
        (["192.0.2.1"], "listen_addresses = '192.0.2.1'"),
        (["192.0.2.1", "2001:db8::1"], "listen_addresses = '192.0.2.1, 2001:db8::1'"),
    ],
)
def test_postgresql_listens_where_it_is_told_to(addresses: list[str], line: str) -> None:
    text = render("postgres", "flaskhost.conf.j2", DEBIAN["12"], postgres_listen_addresses=addresses)
    assert line in text.splitlines()
    assert "password_encryption = 'scram-sha-256'" in text.splitlines()


def test_settings_are_written_as_postgresql_reads_them() -> None:
    given = {"work_mem": "8MB", "shared_preload_libraries": "a, b", "jit": False, "random_page_cost": 1.1, "x": "it's"}
    text = render(
        "postgres", "flaskhost.conf.j2", DEBIAN["13"], postgres_settings=given, postgres_extra_settings={"x": 0}
    )
    lines = text.splitlines()
    for line in ("work_mem = '8MB'", "shared_preload_libraries = 'a, b'", "jit = 'off'", "random_page_cost = '1.1'"):
        assert line in lines
    assert "x = '0'" in lines, "the operator's own win"
    text = render("postgres", "flaskhost.conf.j2", DEBIAN["13"], postgres_settings=given)
    assert "x = 'it''s'" in text.splitlines()


@pytest.mark.parametrize("command", ["", "pgbackrest --stanza=main archive-push %p"])
def test_the_log_is_archived_where_there_is_a_command(command: str) -> None:
    lines = render("postgres", "flaskhost.conf.j2", DEBIAN["12"], postgres_archive_command=command).splitlines()
    wanted = {
        "archive_mode = 'on'",
        f"archive_command = '{command}'",
        "archive_timeout = '60s'",
        "wal_level = 'replica'",
    }
    assert wanted & set(lines) == (wanted if command else set())
