"""Settings that would reach root's files as they are written: refused together, before anything is touched."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tenants import hosts, playbook, with_app

testinfra_hosts = hosts("bookworm")

#: By the place that preflight has to name. No playbook took offense at any of these.
BAD = {
    "package_index": "--index-url=http://evil.test/simple",
    "private_address": "10.0.0.0/8",
    "firewall_allow": [{"port": 8443, "from": ["fe80::1%} accept; flush ruleset #"]}],
    "firewall_egress": "listed",
    "firewall_egress_allow": [{"port": 443, "to": ["0.0.0.0/0 } accept; flush ruleset #"]}],
    "firewall_ssh_rate": "30/minute; flush ruleset",
    "base_restart_never": ["x)} = 0; system('touch /root/pwned'); #"],
    "hardening_audit_rules": ["-w /etc/shop -p wa\n-D"],
    "hardening_sysctl": {"../../../etc/cron.d/x": 1, "vm.swappiness": "10\nkernel.x = 1"},
    "postgres_extra_settings": {"work_mem": "64 bananas", "wal_level": "logicl", "shared_preload_libraries": "nope"},
    "flask_appz": {},
}
#: systemd alone can say that there is no such hour.
TIMERS = {
    "moon": {"command": "true", "on_calendar": "every full moon"},
    "late": {"command": "true", "on_calendar": "*-*-* 30:00"},
    "good": {"command": "true", "on_calendar": "Mon..Fri 06:30 Europe/Stockholm"},
}
PLACES = (
    "flask_apps.mallory.timers.moon.on_calendar",
    "flask_apps.mallory.timers.late.on_calendar",
    "package_index",
    "private_address",
    "firewall_allow[0].from[0]",
    "firewall_egress_allow[0].to[0]",
    "firewall_ssh_rate",
    "base_restart_never[0]",
    "hardening_audit_rules[0]",
    'hardening_sysctl["../../../etc/cron.d/x"]',
    'hardening_sysctl["vm.swappiness"]',
    "postgres_extra_settings.work_mem",
    "postgres_extra_settings.wal_level",
    "postgres_extra_settings.shared_preload_libraries",
)
#: Where the roles write.
FILES = "/etc /usr/local /srv -xdev -newermt @%s -type f"


@pytest.fixture(scope="module")
def refused(host: Any) -> str:
    """What the whole site.yml says of the bad settings; it ends in preflight."""
    before = host.run("date +%s.%N").stdout.strip()
    status, output = playbook("site", host, **BAD, **with_app("mallory", timers=TIMERS))
    assert status == 2, output
    written = host.run(f"find {FILES}", before)
    assert written.stdout == "", written.stdout
    return output


def test_bad_settings_are_refused_all_at_once(refused: str) -> None:
    message = refused.partition("fatal: [")[2]
    found = re.findall(r" \d+\. (\S+) What is wrong: ", message)
    assert sorted(found) == sorted(PLACES), message
    assert "TASK [base" not in refused


def test_the_host_says_what_it_would_not_take(refused: str) -> None:
    assert "Failed to parse calendar specification '*-*-* 30:00'" in refused
    assert 'invalid value for parameter "work_mem": "64 bananas"' in refused
    assert "Available values: minimal, replica, logical." in refused
    assert "timers.good" not in refused


def test_a_misspelt_variable_is_named(refused: str) -> None:
    assert "The variable flask_appz is not a setting, and nothing reads it. Did you mean flask_apps?" in refused


def test_good_settings_pass_without_a_warning(host: Any) -> None:
    """The positive control: what is refused above is refused for what it says."""
    good: dict[str, Any] = {
        "package_index": "https://packages.internal.test/simple/",
        "private_address": "10.0.0.5",
        "firewall_egress_allow": [{"port": 443, "to": ["10.0.0.0/8", "2001:db8::/32"]}],
        "base_restart_never": ["^docker"],
        "hardening_audit_rules": ["-w /etc/shop -p wa -k shop"],
        "hardening_sysctl": {"vm.swappiness": 10},
        "postgres_extra_settings": {"work_mem": "64MB", "shared_preload_libraries": "pg_stat_statements, auto_explain"},
    }
    status, output = playbook("preflight", host, **good, **with_app("mallory", timers={"good": TIMERS["good"]}))
    assert status == 0, output
    assert "[WARNING]: The variable" not in output
