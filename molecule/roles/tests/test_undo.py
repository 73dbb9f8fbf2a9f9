"""The commands under "How to undo" in a role's README bring back the host as it was, and the role can be applied again.

The host of the role app has three more roles, which are undone after it, in the order in which README.md says to.
"""

from __future__ import annotations

import fnmatch
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import test_app
import test_backup
import test_base
import test_certbot
import test_fail2ban
import test_firewall
import test_gunicorn
import test_hardening
import test_memcached
import test_nginx
import test_postgres
import test_python
import test_redis
import test_slots
import test_uwsgi
import test_waitress
from undo import Command, apply, bare, blocks, left, listing, name_of, named, run

testinfra_hosts = ["ansible://all"]
pytestmark = pytest.mark.nightly

#: Files of other roles, in the folders that roles share.
SHARED = (
    "/etc/flaskhost", "/opt/flaskhost", "/usr/local/lib/flaskhost", "/var/lib/flaskhost", "/var/lib/flaskhost/guard",
)  # fmt: skip
OTHERS = [f"{folder}/other" for folder in SHARED]
OF_HARDENING = "/etc/ssh/sshd_config.d/00-flaskhost.conf"
#: What a comment of a README says, and whether it is so.
CONDITIONS: dict[str, Callable[[Any], bool]] = {
    "if there is a swap file": lambda host: host.file("/swapfile").exists,
    "if the role hardening is not in use": lambda host: not host.file(OF_HARDENING).exists,
    "if the role firewall is not in use": lambda host: not host.file("/etc/nftables-flaskhost.conf").exists,
    "if the host has no /var/log/auth.log": lambda host: not host.file("/var/log/auth.log").exists,
    "if nothing else needs them": lambda _host: True,
    "if it was the last app": lambda _host: True,
    "if the kernel has AppArmor": lambda host: host.file("/sys/kernel/security/apparmor").exists,
    "if the host has PostgreSQL": lambda host: host.package("postgresql-common").is_installed,
    "if the package certbot is installed": lambda host: host.package("certbot").is_installed,
    "if auditd is installed": lambda host: host.package("auditd").is_installed,
    "if the host starts with GRUB": lambda host: host.file("/etc/default/grub").exists,
    "if hardening_aide is on": lambda host: host.file("/etc/systemd/system/flaskhost-aide.timer").exists,
}


# -- what Debian has instead -----------------------------------------------------------------------------------------


def time_and_journal(host: Any) -> None:
    assert "SystemMaxUse" not in host.check_output("systemd-analyze cat-config systemd/journald.conf | grep -v '^#'")
    assert host.service("systemd-journald").is_running
    assert host.run("getent passwd ada").rc == 2
    assert host.run("apt-config shell on APT::Periodic::Unattended-Upgrade").stdout.strip() != "on='0'"


def open_ports(host: Any) -> None:
    assert "flaskhost" not in host.check_output("nft list tables")
    assert answers(host), "a port that the role has closed"


def answers(host: Any) -> bool:
    """Whether a port of the host that no rule names can be reached from outside."""
    port = 8123
    host.run_expect([0], f"systemd-run --quiet --collect --unit=listener python3 -m http.server {port}")
    try:
        host.run_expect([0], f"timeout 20 sh -c 'until ss -ltn | grep -q :{port}; do sleep 0.1; done'")
        address = host.check_output("hostname -I").split()[0]
        with socket.create_connection((address, port), timeout=3):
            return True
    except TimeoutError:
        return False
    finally:
        host.run("systemctl stop listener.service")


def jail_of_ssh(host: Any) -> None:
    assert host.service("fail2ban").is_running
    host.run_expect([0], "timeout 20 sh -c 'until fail2ban-client ping; do sleep 0.5; done'")
    assert "Jail list:\tsshd" in host.check_output("fail2ban-client status")
    assert host.check_output("fail2ban-client get sshd maxretry") == "5"


def page_of_debian(host: Any) -> None:
    assert "Welcome to nginx" in host.check_output("curl --silent http://127.0.0.1/")
    assert host.run("curl --silent --insecure https://127.0.0.1/").rc == 7, "nothing listens"


def python_of_debian(host: Any) -> None:
    host.run_expect([0], "/usr/bin/python3 --version")
    assert not host.package("python3-venv").is_installed


def no_units(host: Any) -> None:
    for what in ("list-units --all", "list-unit-files"):
        assert host.run(f"systemctl {what} --plain --no-legend 'flask-*' '*@flask-*'").stdout == ""


def no_timers(host: Any) -> None:
    assert "flaskhost" not in host.check_output("systemctl list-units --all --plain --no-legend 'flaskhost*'")


def postgres_of_debian(host: Any) -> None:
    assert test_postgres.ask(host, "show listen_addresses") == "localhost"
    assert test_postgres.ask(host, "select count(*) from before") == "1000"
    assert not test_postgres.ask(host, "select datname from pg_database where datname = 'shop'")


def no_postgres(host: Any) -> None:
    assert host.run("ls /usr/lib/postgresql/*/bin/postgres").rc == 2
    assert host.run("ss -ltnx | grep -i -e 5432 -e postgresql").rc == 1


def redis_of_debian(host: Any) -> None:
    host.run_expect([0], "timeout 20 sh -c 'until redis-cli ping; do sleep 0.5; done'")


def memcached_of_debian(host: Any) -> None:
    host.run_expect([0], "timeout 20 sh -c 'until ss -ltn | grep 127.0.0.1:11211; do sleep 0.5; done'")


def no_listener(host: Any) -> None:
    assert host.run("ss -ltn | grep -e 6379 -e 11211").rc == 1


def way_in_of_debian(host: Any) -> None:
    port = host.ansible.get_variables()["ansible_port"]
    assert test_hardening.log_in(port, "true").returncode == 0
    assert "agent=/" in test_hardening.log_in(port, "echo agent=$SSH_AUTH_SOCK", "-A", agent=True).stdout
    assert "ecdsa" in test_hardening.scan(host, "ecdsa")
    # fh-role-base has the distribution's own.
    assert test_hardening.log_in(port, "bash -lc umask").stdout == test_hardening.log_in(22031, "bash -lc umask").stdout
    host.run_expect([0], "sudo -u debian sudo -n true")
    host.run_expect([0], f"useradd --create-home --password '{test_hardening.OPEN_SESAME}' tester")
    try:
        for _try in range(6):
            assert not test_hardening.become(host, "wrong")
        assert test_hardening.become(host, "open sesame"), "by anybody, and however many wrong passwords there were"
    finally:
        host.run("userdel --remove tester")


# -- the roles -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """What there is to know about a role.

    Attributes:
        works: its own test.
        debian: what has to hold when it is undone.
        names: what stands in the README for what is on the host.
        gone: what has to hold after the last block of commands, which removes more than the role has brought.
    """

    works: Callable[[Any], None]
    debian: Callable[[Any], None]
    names: dict[str, str] = field(default_factory=dict)
    gone: Callable[[Any], None] | None = None


ROLES: dict[str, Role] = {
    "base": Role(test_base.test_base, time_and_journal),
    "firewall": Role(test_firewall.test_firewall, open_ports),
    "fail2ban": Role(test_fail2ban.test_fail2ban, jail_of_ssh),
    "hardening": Role(test_hardening.test_hardening, way_in_of_debian, {"sugroup": "operators"}),
    "nginx": Role(test_nginx.test_nginx, page_of_debian),
    "python": Role(test_python.test_python, python_of_debian),
    "slots": Role(test_slots.test_slots, no_units),
    "gunicorn": Role(test_gunicorn.test_gunicorn, no_units),
    "uwsgi": Role(test_uwsgi.test_uwsgi, no_units),
    "waitress": Role(test_waitress.test_waitress, no_units),
    "app": Role(test_app.test_app, no_units, {"shop": "hello"}),
    "certbot": Role(test_certbot.test_certbot, no_timers, {"/etc/flaskhost/tls": "/etc/own"}),
    "postgres": Role(test_postgres.test_postgres, postgres_of_debian, gone=no_postgres),
    "redis": Role(test_redis.test_redis, redis_of_debian, gone=no_listener),
    "memcached": Role(test_memcached.test_memcached, memcached_of_debian, gone=no_listener),
    "backup": Role(test_backup.test_backup, no_timers),
}


@dataclass
class Undone:
    """A host whose roles were undone.

    Attributes:
        role: the role that it is there for.
        applied: what the roles had made of the host.
        after: what was there when the roles were undone.
        failures: what went wrong.
        others: the files of other roles that are still there.
    """

    role: str
    applied: dict[str, str]
    after: dict[str, str]
    failures: list[str]
    others: list[str]


@pytest.fixture(scope="module")
def undone(host: Any) -> Undone:
    """The host, with the commands of the READMEs run on it, but for those that remove more."""
    role = name_of(host).removeprefix("fh-role-")
    applied = listing(host)
    host.run_expect([0], f"mkdir -p {' '.join(SHARED)} && touch {' '.join(OTHERS)}")
    failures = [failure for command in to_run(host, role) if (failure := run(host, command))]
    others = host.run(f"ls --directory {' '.join(OTHERS)}; rm -f {' '.join(OTHERS)}").stdout.split()
    return Undone(role, applied, listing(host), failures, others)


def to_run(host: Any, role: str) -> list[Command]:
    """The commands that undo what is on the host: of the role, and of those that it needed."""
    found = []
    for name in reversed(["python", "slots", "gunicorn", "app"]) if role == "app" else [role]:
        wanted = blocks(name, names_of(host, role))
        found += [command for block in wanted[: -1 if ROLES[name].gone else None] for command in block]
    return [command for command in found if not command.condition or CONDITIONS[command.condition](host)]


def names_of(host: Any, role: str) -> dict[str, str]:
    """What stands in the READMEs for what is on the host."""
    return {**ROLES[role].names, **({"17": test_postgres.version(host)} if role == "postgres" else {})}


# -- the tests -------------------------------------------------------------------------------------------------------


def test_each_command_of_the_readme_works(undone):
    assert undone.failures == []


def test_nothing_of_the_role_is_left_but_what_the_readme_names(host, undone):
    before = bare(host)
    assert left(before, undone.applied), "control: what the role has made is seen"
    stays = [pattern for name in ({"app": ["app", "gunicorn", "slots", "python"]}.get(undone.role, [undone.role]))
             for pattern in named(name, names_of(host, undone.role))]  # fmt: skip
    found = left(before, undone.after)
    assert {path: what for path, what in found.items() if not any(fnmatch.fnmatchcase(path, p) for p in stays)} == {}
    assert sorted(undone.others) == sorted(OTHERS), "what is another role's stays"


def test_debians_own_works_again(host, undone):
    assert host.check_output("systemctl is-system-running --wait") == "running"
    ROLES[undone.role].debian(host)


def test_role_works_again_and_a_second_run_changes_nothing(host, undone):
    if gone := ROLES[undone.role].gone:
        for command in blocks(undone.role, names_of(host, undone.role))[-1]:
            assert run(host, command) == ""
        gone(host)
    assert apply(host) > 0
    ROLES[undone.role].works(host)
    assert apply(host) == 0
