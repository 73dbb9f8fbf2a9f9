"""Preflight of the site's settings, and of what an app and the site say together: one minimal fault each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from preflight_cases import (
    BACKUP,
    CHAIN,
    DNS,
    EMAIL,
    GOOD_FACTS,
    GOOD_SETTINGS,
    HETZNER,
    KEY,
    OTHER_APP,
    PAIR,
    SECRET,
    SHARED_REPOSITORY,
    UV_OUTPUT,
    A,
    case_name,
    found,
    good_apps,
)
from rendering import load_filters

#: The kind, where it is told, and the settings.
SETTINGS_FAULTS: list[tuple[str, str, Any]] = [
    ("not_a_mapping", "settings", ["timezone"]),
    ("unknown_setting", "timezon", {"timezon": "UTC"}),
    ("undefined", "admin_users", {"admin_users": preflight.Unreadable("'admins' is undefined")}),
    ("wrong_type", "admin_users", {"admin_users": "ada"}),
    ("wrong_type", "admin_users[0]", {"admin_users": ["ada"]}),
    ("unknown_key", "admin_users[0].key", {"admin_users": [{"name": "ada", "keys": [KEY], "key": KEY}]}),
    ("missing", "admin_users[0].name", {"admin_users": [{"keys": [KEY]}]}),
    ("missing", "admin_users[0].keys", {"admin_users": [{"name": "ada", "keys": []}]}),
    ("bad_admin_name", "admin_users[0].name", {"admin_users": [{"name": "Ada L", "keys": [KEY]}]}),
    ("reserved_admin_name", "admin_users[0].name", {"admin_users": [{"name": "root", "keys": [KEY]}]}),
    ("duplicate_admin", "admin_users[1].name", {"admin_users": 2 * [{"name": "ada", "keys": [KEY]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": ["~/.ssh/id_ed25519.pub"]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [KEY[:40]]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [f"{KEY}\n{KEY}"]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [f"ssh-rsa {KEY[12:]}"]}]}),
    ("bad_ssh_key", "admin_users[0].keys[0]", {"admin_users": [{"name": "ada", "keys": [f"ssh-dss {SECRET}"]}]}),
    (
        "private_ssh_key",
        "admin_users[0].keys[0]",
        {"admin_users": [{"name": "ada", "keys": [f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END"]}]},
    ),
    ("missing", "firewall_allow[0].port", {"firewall_allow": [{"protocol": "tcp"}]}),
    ("out_of_range", "firewall_allow[0].port", {"firewall_allow": [{"port": 65536}]}),
    ("wrong_type", "firewall_allow[0].port", {"firewall_allow": [{"port": "443"}]}),
    ("wrong_choice", "firewall_allow[0].protocol", {"firewall_allow": [{"port": 1, "protocol": "icmp"}]}),
    ("bad_network", "firewall_allow[0].from[0]", {"firewall_allow": [{"port": 1, "from": ["10.0.0.300"]}]}),
    ("bad_network", "firewall_allow[0].from[0]", {"firewall_allow": [{"port": 1, "from": ["10.0.0.5/8"]}]}),
    ("duplicate_port", "firewall_allow[1].port", {"firewall_allow": [{"port": 1}, {"port": 1, "protocol": "tcp"}]}),
    ("wrong_type", "fail2ban_ignore", {"fail2ban_ignore": "10.0.0.0/8"}),
    ("wrong_type", "fail2ban_ignore[0]", {"fail2ban_ignore": [10]}),
    ("bad_network", "fail2ban_ignore[0]", {"fail2ban_ignore": ["office.shop.test"]}),
    ("bad_network", "fail2ban_ignore[0]", {"fail2ban_ignore": ["10.0.0.5/8"]}),
    ("bad_network", "fail2ban_ignore[1]", {"fail2ban_ignore": ["10.0.0.0/8", "0.0.0.0/0"]}),
    ("wrong_type", "timezone", {"timezone": 2}),
    ("unknown_timezone", "timezone", {"timezone": "Stockholm"}),
    ("wrong_type", "postgres_version", {"postgres_version": 15.0}),
    ("bad_version", "postgres_version", {"postgres_version": "15.4"}),
    ("wrong_type", "postgres_extra_settings", {"postgres_extra_settings": ["jit"]}),
    ("bad_setting", "postgres_extra_settings.work-mem", {"postgres_extra_settings": {"work-mem": "1MB"}}),
    ("bad_setting", "postgres_extra_settings.port", {"postgres_extra_settings": {"port": 5433}}),
    ("bad_setting", "postgres_extra_settings.fsync", {"postgres_extra_settings": {"fsync": False}}),
    ("wrong_type", "postgres_extra_settings.work_mem", {"postgres_extra_settings": {"work_mem": ["1MB"]}}),
    ("control_character", "postgres_extra_settings.work_mem", {"postgres_extra_settings": {"work_mem": "1MB\nport=1"}}),
    ("wrong_type", "postgres_logins", {"postgres_logins": ["shop"]}),
    ("wrong_type", "postgres_logins.shop", {"postgres_logins": {"shop": SECRET}}),
    ("bad_login", 'postgres_logins.shop["the a"]', {"postgres_logins": {"shop": {"the a": SECRET}}}),
    ("bad_login", "postgres_logins.shop.a", {"postgres_logins": {"shop": {"a": SECRET[:9]}}}),
    ("wrong_type", "postgres_logins.shop.a", {"postgres_logins": {"shop": {"a": 12345678901234567890}}}),
    ("unknown_app", "postgres_logins.shopp", {"postgres_logins": {"shopp": {}}}),
    ("wrong_type", "acme_email", {"acme_email": [EMAIL]}),
    ("bad_email", "acme_email", {"acme_email": "ops"}),
    ("bad_email", "acme_email", {"acme_email": "Ada <ada@shop.localhost>"}),
    ("bad_email", "acme_email", {"acme_email": "ada@shop.localhost\n"}),
    ("placeholder_email", "acme_email", {"acme_email": "ops@example.com"}),
    ("wrong_type", "acme", {"acme": "https://ca.test/directory"}),
    ("unknown_key", "acme.server", {"acme": {"server": "https://ca.test/directory"}}),
    ("unknown_key", "acme.plugin", {"acme": {"plugin": "rfc2136"}}),
    ("wrong_choice", "acme.key_type", {"acme": {"key_type": "p-256"}}),
    ("wrong_choice", "acme.certbot", {"acme": {"certbot": "pip"}}),
    ("wrong_type", "acme.strict", {"acme": {"strict": "yes"}}),
    ("malformed", "acme.profile", {"acme": {"profile": "short lived"}}),
    ("malformed", "acme.directory", {"acme": {"directory": "http://ca.test/directory"}}),
    ("malformed", "acme.directory", {"acme": {"directory": f"https://ada:{SECRET}@ca.test/directory"}}),
    ("placeholder_directory", "acme.directory", {"acme": {"directory": "https://acme.example.com:14000/dir"}}),
    ("bad_certificate", "acme.root", {"acme": {"root": "root.pem"}}),
    ("bad_certificate", "acme.root", {"acme": {"root": PAIR["key"]}}),
    ("malformed", "acme.external_account.key_id", {"acme": {"external_account": {"key_id": "a b", "hmac_key": "aa"}}}),
    (
        "bad_hmac_key",
        "acme.external_account.hmac_key",
        {"acme": {"external_account": {"key_id": "kid", "hmac_key": f"{SECRET}+/"}}},
    ),
    ("malformed", "acme.dns.plugin", {"acme": {"dns": {"plugin": "certbot-dns-rfc2136"}}}),
    ("malformed", "acme.dns.plugin", {"acme": {"dns": {"plugin": "a b"}}}),
    (
        "malformed",
        "acme.dns.package",
        {"acme": {"dns": {"plugin": "hetzner", "package": "certbot-dns-hetzner==3.0.0"}}},
    ),
    ("malformed", "acme.dns.package", {"acme": {"dns": {"plugin": "hetzner", "package": f"{HETZNER}\ntldextract==5"}}}),
    ("malformed", "acme.dns.package", {"acme": {"dns": {"plugin": "hetzner", "package": f"{HETZNER}\n-r x.txt"}}}),
    ("malformed", "acme.dns.package", {"acme": {"dns": {"plugin": "ovh", "package": "--index-url=https://a.test"}}}),
    ("out_of_range", "acme.dns.propagation", {"acme": {"dns": {"plugin": "ovh", "propagation": 9999}}}),
    ("wrong_type", "acme.dns.credentials", {"acme": {"dns": {"plugin": "ovh", "credentials": f"dns_x = {SECRET}"}}}),
    (
        "bad_credential",
        "acme.dns.credentials.dns_x",
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns_x": [SECRET]}}}},
    ),
    (
        "bad_credential",
        "acme.dns.credentials.dns_x",
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns_x": ""}}}},
    ),
    (
        "bad_credential",
        "acme.dns.credentials.dns_x",
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns_x": f"{SECRET}\ndns_y = 1"}}}},
    ),
    (
        "bad_credential",
        'acme.dns.credentials["dns x"]',
        {"acme": {"dns": {"plugin": "ovh", "credentials": {"dns x": SECRET}}}},
    ),
    ("undefined", "acme.root", {"acme": {"root": preflight.Unreadable("'v' is undefined")}}),
    ("wrong_choice", "tls_policy", {"tls_policy": "old"}),
    ("wrong_type", "trusted_proxies", {"trusted_proxies": "203.0.113.0/24"}),
    ("wrong_type", "trusted_proxies[0]", {"trusted_proxies": [4]}),
    ("bad_network", "trusted_proxies[0]", {"trusted_proxies": ["0.0.0.0/0"]}),
    ("bad_network", "trusted_proxies[0]", {"trusted_proxies": ["cdn.example.com"]}),
    ("wrong_type", "ssh_port", {"ssh_port": "2222"}),
    ("wrong_type", "ssh_port", {"ssh_port": True}),
    ("bad_port", "ssh_port", {"ssh_port": 0}),
    ("bad_port", "ssh_port", {"ssh_port": 65536}),
    ("port_is_taken", "ssh_port", {"ssh_port": 443}),
    ("wrong_type", "reboot_time", {"reboot_time": 750}),
    ("bad_time", "reboot_time", {"reboot_time": "24:00"}),
    ("bad_time", "reboot_time", {"reboot_time": "4:30"}),
    ("bad_time", "reboot_time", {"reboot_time": "now"}),
    ("wrong_type", "time_servers", {"time_servers": "ntp.example.com"}),
    ("wrong_type", "time_servers[1]", {"time_servers": ["ntp.example.com", 3]}),
    ("bad_server", "time_servers[0]", {"time_servers": ["ntp example"]}),
    ("wrong_type", "swap_mb", {"swap_mb": "1G"}),
    ("bad_size", "swap_mb", {"swap_mb": -1}),
    ("bad_size", "swap_mb", {"swap_mb": 1}),
    ("wrong_type", "tls_policy", {"tls_policy": True}),
    ("wrong_type", "http3", {"http3": "yes"}),
    ("wrong_type", "backup", {"backup": True}),
    ("unknown_key", "backup.password", {"backup": BACKUP | {"password": SECRET}}),
    ("missing", "backup.passphrase", {"backup": {"keep_days": 7}}),
    ("short_passphrase", "backup.passphrase", {"backup": {"passphrase": "hunter2"}}),
    ("placeholder_secret", "backup.passphrase", {"backup": {"passphrase": "change-me-change-me-change"}}),
    ("malformed", "backup.passphrase", {"backup": {"passphrase": f" {BACKUP['passphrase']}"}}),
    ("control_character", "backup.passphrase", {"backup": {"passphrase": f"{BACKUP['passphrase']}\nrepo1-path=/x"}}),
    ("out_of_range", "backup.keep_days", {"backup": BACKUP | {"keep_days": 0}}),
    ("wrong_type", "backup.keep_days", {"backup": BACKUP | {"keep_days": "14"}}),
    ("malformed", "backup.full", {"backup": BACKUP | {"full": "Sun\u00a002:15"}}),
    ("malformed", "backup.path", {"backup": BACKUP | {"path": "/var/../backups"}}),
    ("malformed", "backup.hook", {"backup": BACKUP | {"hook": "tell"}}),
    ("malformed", "backup.hook", {"backup": BACKUP | {"hook": "/usr/bin/tell 'me"}}),
    ("missing", "backup.second.repository", {"backup": BACKUP | {"second": {"every": 5}}}),
    ("malformed", "backup.second.repository", {"backup": BACKUP | {"second": {"repository": "ftp://host/x"}}}),
    (
        "malformed",
        "backup.second.repository",
        {"backup": BACKUP | {"second": {"repository": "sftp://host", "known_hosts": "host ssh-ed25519 AAAA"}}},
    ),
    ("missing", "backup.second.known_hosts", {"backup": BACKUP | {"second": {"repository": "sftp:ada@host:/x"}}}),
    ("missing", "backup.second.environment", {"backup": BACKUP | {"second": {"repository": "s3:https://host/x"}}}),
    (
        "missing",
        "backup.second.environment",
        {
            "backup": BACKUP
            | {"second": {"repository": "rest:https://host/x", "environment": {"RESTIC_REST_USERNAME": "ada"}}}
        },
    ),
    (
        "secret_in_repo",
        "backup.second.repository",
        {"backup": BACKUP | {"second": {"repository": f"rest:https://ada:{SECRET}@host/x"}}},
    ),
    (
        "malformed",
        "backup.second.repository",
        {"backup": BACKUP | {"second": {"repository": "/var/backups/flaskhost/b"}}},
    ),
    ("wrong_type", "backup.assertions.shop", {"backup": BACKUP | {"assertions": {"shop": 1}}}),
    ("undefined", "backup.passphrase", {"backup": {"passphrase": preflight.Unreadable("'v' is undefined")}}),
]


@pytest.mark.parametrize(("kind", "path", "changed"), SETTINGS_FAULTS, ids=case_name)
def test_one_fault_of_the_settings(project: Path, kind: str, path: str, changed: Any) -> None:
    problems = preflight.find_problems(good_apps(), changed, GOOD_FACTS, project)
    assert found(problems) == {(kind, path)}
    assert SECRET not in preflight.render(problems, "web1")


#: The kind, where it is told, what is changed in the good app, and the settings.
SITE_FAULTS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("acme_without_email", A + "tls.mode", {"tls": {"mode": "acme"}}, {"acme": {"strict": True}}),
    (
        "wildcard_without_dns",
        A + "domains[1]",
        {"domains": ["shop.localhost", "*.shop.localhost"]},
        {"acme_email": EMAIL, "acme": {"dns": DNS}},
    ),
    (
        "address_with_dns",
        A + "domains[1]",
        {"domains": ["shop.localhost", "10.0.0.7"], "tls": {"challenge": "dns"}},
        {"acme_email": EMAIL, "acme": {"dns": DNS, "profile": "shortlived"}},
    ),
    ("unknown_app", "backup.assertions.shopp", {}, {"backup": BACKUP | {"assertions": {"shopp": "SELECT true"}}}),
    (
        "unknown_app",
        "backup.assertions.shop",
        {"database": False},
        {"backup": BACKUP | {"assertions": {"shop": "true"}}},
    ),
    ("dns_without_plugin", A + "tls.challenge", {"tls": {"challenge": "dns"}}, {"acme_email": EMAIL}),
    ("address_without_profile", "acme.profile", {"domains": ["10.0.0.7"]}, {"acme_email": EMAIL}),
    ("half_account", "acme.external_account.hmac_key", {}, {"acme": {"external_account": {"key_id": "kid"}}}),
    ("half_account", "acme.external_account.key_id", {}, {"acme": {"external_account": {"hmac_key": SECRET}}}),
    ("dns_without_name", "acme.dns.plugin", {}, {"acme": {"dns": {"credentials": {"dns_x": SECRET}}}}),
    ("dns_without_hashes", "acme.dns.package", {}, {"acme": {"dns": {"plugin": "hetzner"}}}),
    ("http3_too_old", "http3", {}, {"http3": True}),
]


@pytest.mark.parametrize(("kind", "path", "changes", "site"), SITE_FAULTS, ids=case_name)
def test_one_fault_between_an_app_and_the_site(
    project: Path, kind: str, path: str, changes: dict[str, Any], site: dict[str, Any]
) -> None:
    problems = preflight.find_problems(good_apps(changes), site, GOOD_FACTS, project)
    assert found(problems) == {(kind, path)}
    assert SECRET not in preflight.render(problems, "web1")


@pytest.mark.parametrize(
    ("changes", "site"),
    [
        ({}, {"acme_email": EMAIL, "acme": {"profile": "shortlived", "certbot": "pinned"}}),
        ({"tls": {"challenge": "dns"}, "domains": ["shop.localhost", "*.shop.localhost"]}, {"acme": {"dns": DNS}}),
        ({"tls": {"mode": "acme"}, "domains": ["10.0.0.7"]}, {"acme": {"profile": "shortlived"}}),
        ({"domains": ["10.0.0.7"]}, {"acme": {"directory": "https://10.0.0.5:14000/dir", "root": CHAIN}}),
        ({}, {"acme": {"external_account": {"key_id": "kid", "hmac_key": SECRET}, "key_type": "rsa2048"}}),
        ({"tls": {"mode": "selfsigned", "challenge": "dns"}, "domains": ["10.0.0.7"]}, {"acme": {}}),
        ({"tls": PAIR}, {"acme": {"dns": DNS | {"package": HETZNER, "propagation": 0}}}),
        ({}, {"tls_policy": "modern", "http3": False, "acme": {"strict": True, "dns": None}}),
        ({"domains": ["10.0.0.7"]}, {"acme": {"certbot": "package", "profile": "shortlived"}}),
        ({}, {"acme": {"certbot": "package", "dns": {"plugin": "hetzner", "package": HETZNER}}}),
        ({}, {"acme": {"dns": {"plugin": "hetzner", "package": UV_OUTPUT}}}),
    ],
    ids=range(11),
)
def test_an_authority_that_is_in_order(project: Path, changes: dict[str, Any], site: dict[str, Any]) -> None:
    assert preflight.find_problems(good_apps(changes), {"acme_email": EMAIL} | site, GOOD_FACTS, project) == []


def test_what_a_web_host_lacks_is_told_of_web_hosts_alone(project: Path) -> None:
    site = {"http3": True}
    assert len(preflight.find_problems(good_apps(), site, GOOD_FACTS, project)) == 1
    assert preflight.find_problems(good_apps(), site, GOOD_FACTS, project, web=False) == []
    newer = GOOD_FACTS | {"distribution_major_version": "13"}
    assert preflight.find_problems(good_apps(), site, newer, project) == []


def test_the_distributions_certbot_is_no_problem_but_a_warning() -> None:
    def warn(acme: Any) -> list[str]:
        return list(load_filters()["flask_certbot_warnings"]([{}, acme], ["flask_apps", "acme"]))

    (warning,) = warn({"certbot": "package"})
    assert warning.startswith("acme.certbot: package no longer has an effect.")
    assert "the pinned one is. Remove the line." in warning
    for acme in ({"certbot": "pinned"}, {}, None, "package", {"certbot": ["package"]}, preflight.Unreadable("x")):
        assert warn(acme) == []
    assert load_filters()["flask_certbot_warnings"]([{}], ["flask_apps"]) == []


@pytest.mark.parametrize("name", ["acme", "acme_email"])
def test_what_is_not_known_of_the_authority_is_told_once(project: Path, name: str) -> None:
    site = {"acme_email": EMAIL, "acme": {}, name: preflight.Unreadable(f"cannot decode {SECRET}")}
    apps = good_apps({"tls": {"mode": "acme", "challenge": "dns" if name == "acme" else "http"}})
    apps["todo"]["domains"] = ["10.0.0.7"]
    problems = preflight.find_problems(apps, site, GOOD_FACTS, project)
    assert found(problems) == {("undefined", name)}
    assert name == "acme_email" or SECRET not in preflight.render(problems, "web1")


@pytest.mark.parametrize(
    ("shop", "todo", "told"),
    [
        (["a.test", "*.b.test"], ["*.b.test"], {"shared_domain", "wildcard_first"}),
        (["a.test", "*.b.test"], ["b.test", "c.b.test"], set()),
        (["a.test", "10.0.0.7"], ["10.0.0.7"], {"shared_domain", "addresses_of_two_apps"}),
        (["a.test", "10.0.0.7"], ["b.test", "10.0.0.8"], {"addresses_of_two_apps"}),
        (["a.test", "fd00::7"], ["b.test", "fd00::8"], {"addresses_of_two_apps"}),
        (["a.test", "10.0.0.7", "fd00::7"], ["b.test"], set()),
    ],
)
def test_what_two_apps_may_share_of_wildcards_and_addresses(
    project: Path, shop: list[str], todo: list[str], told: set[str]
) -> None:
    apps = good_apps({"domains": shop}) | {"todo": OTHER_APP | {"domains": todo}}
    assert {problem["kind"] for problem in preflight.find_problems(apps, {}, GOOD_FACTS, project)} == told


# --- The second repository of backups --------------------------------------------------------------------------------


def backing_up_to(repository: Any) -> dict[str, Any]:
    return {"backup": {"second": {"repository": repository}}}


def test_hosts_do_not_share_a_second_repository() -> None:
    one = "sftp:backup@203.0.113.20:/flaskhost"
    variables = {
        "web1": backing_up_to(one),
        "web2": backing_up_to(f"{one}/"),
        "web3": backing_up_to(f"{one}/web3"),
        "web4": {},
        "web5": {"backup": "yes"},
        "web6": backing_up_to(one),
    }
    assert preflight.hosts_with_repository(variables, "web1", variables) == ["web2", "web6"]
    assert preflight.hosts_with_repository(["web1", "web3"], "web1", variables) == []
    for host in ("web3", "web4", "web5"):
        assert preflight.hosts_with_repository(variables, host, variables) == []
    # A path is another place on each host.
    local = {"web1": backing_up_to("/mnt/disk"), "web2": backing_up_to("/mnt/disk")}
    assert preflight.hosts_with_repository(local, "web1", local) == []


def test_a_shared_second_repository_is_told_with_its_hosts(project: Path) -> None:
    shared = ["web2", "web6"]
    problems = preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS, project, same_repository=shared)
    assert found(problems) == {(SHARED_REPOSITORY, "backup.second.repository")}
    assert "web2, web6" in problems[0]["problem"]
