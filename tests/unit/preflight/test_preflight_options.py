"""Preflight: settings that reach the files of root, nft, auditctl and GRUB as they are written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.preflight import role_options
from ansible.module_utils.flaskhost.preflight.report import Unreadable
from loading import ROOT
from preflight_cases import GOOD_SETTINGS, INJECTION, SPECS, case_name, good_apps, problems_of

# --- The site's settings ---------------------------------------------------------------------------------------------


FILE_FAULTS: list[tuple[str, str, Any]] = [
    ("wrong_type", "package_index", 7),
    ("bad_index", "package_index", "--index-url=http://evil.test/simple"),
    ("bad_index", "package_index", "-r/etc/shadow"),
    ("bad_index", "package_index", "packages.internal.test/simple/"),
    ("bad_index", "package_index", "file:///srv/packages"),
    ("bad_index", "package_index", "https://ada:hunter2@packages.internal.test/simple/"),
    ("bad_index", "package_index", "https://token@packages.internal.test/simple/"),
    ("bad_index", "package_index", "https://packages.internal.test/simple/ --trusted-host *"),
    ("bad_index", "package_index", "https://packages.internal.test/simple/\n--extra-index-url https://evil.test"),
    ("bad_index", "package_index", "https://packages.internal.test/'$(id)'"),
    ("bad_index", "package_index", "https:///simple/"),
    ("bad_index", "package_index", "https://packages.internal.test:seven/"),
    ("bad_index", "package_index", "http://packages.internal.test/simple/"),
    ("bad_index", "package_index", "https://packages.example.com/simple/"),
    ("wrong_type", "private_address", 10),
    ("bad_address", "private_address", "10.0.0.0/8"),
    ("bad_address", "private_address", "db1.internal.test"),
    ("bad_address", "private_address", "10.0.0.5,0.0.0.0"),
    ("bad_address", "private_address", "10.0.0.5\n"),
    ("bad_address", "private_address", "127.0.0.1"),
    ("bad_address", "private_address", "::"),
    ("bad_address", "private_address", "fe80::1%'; drop"),
    ("bad_size", "deploy_batch", -1),
    ("bad_size", "deploy_batch", "half"),
    ("wrong_type", "clone_target", "perhaps"),
    # Python takes what follows the % for the name of an interface; nft takes it for rules.
    ("bad_network", "firewall_allow[0].from[0]", [{"port": 8443, "from": ["fe80::1%} accept; flush ruleset #"]}]),
    ("bad_network", "firewall_allow[0].from[0]", [{"port": 8443, "from": ["10.0.0.0/255.0.0.0"]}]),
    ("bad_network", "trusted_proxies[0]", ["::1%x; deny all"]),
    ("bad_network", "fail2ban_ignore[0]", ["fe80::1%(x)s"]),
]


@pytest.mark.parametrize(("kind", "name", "value"), [
    ("bad_variable_name", "A B", "x"),
    ("bad_variable_value", "RESTIC_X", "x\0y"),
    ("bad_variable_value", "RESTIC_X", "x\ny"),
    ("bad_variable_value", "RESTIC_X", ["x"]),
])  # fmt: skip
def test_one_fault_of_the_variables_of_restic(kind: str, name: str, value: Any) -> None:
    second = {"repository": "rest:https://b.test/x", "environment": {name: value}}
    problems = problems_of({"backup": GOOD_SETTINGS["backup"] | {"second": second}})
    assert [found for found, path in problems if path.startswith("backup.second")] == [kind]


@pytest.mark.parametrize(("kind", "path", "value"), FILE_FAULTS, ids=case_name)
def test_one_fault_of_a_setting(kind: str, path: str, value: Any) -> None:
    assert problems_of({path.partition("[")[0]: value}) == {(kind, path)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("package_index", "https://packages.internal.test/simple/"),
        ("package_index", "https://packages.internal.test:8443/root/pypi/+simple/"),
        ("package_index", "https://[2001:470::1]/simple"),
        ("package_index", "http://127.0.0.1:3141/root/pypi/+simple/"),
        ("package_index", "http://localhost:3141/"),
        ("private_address", "10.0.0.5"),
        ("private_address", "fd00::5"),
        ("deploy_batch", 1),
        ("deploy_batch", "2"),
        ("clone_target", True),
        ("clone_target", "true"),
    ],
)
def test_a_setting_in_order(name: str, value: Any) -> None:
    assert problems_of({name: value}) == set()


def test_a_password_in_the_url_of_an_index_is_not_shown() -> None:
    (problem,) = preflight.find_problems({"a": Unreadable()}, {"package_index": "https://a:hunter2@b.test/"}, {}, ROOT)
    assert "hunter2" not in str(problem)


# --- The roles' options ----------------------------------------------------------------------------------------------


OPTION_FAULTS: list[tuple[str, str, Any]] = [
    ("wrong_type", "firewall_ssh_rate", "30/minute; flush ruleset"),
    ("bad_option", "firewall_ssh_rate", -1),
    ("wrong_choice", "firewall_egress", "closed"),
    ("control_character", "firewall_egress", "open\nlisted"),
    ("wrong_type", "firewall_egress_allow", {"port": 443}),
    ("wrong_type", "firewall_egress_allow[0]", [443]),
    ("unknown_key", "firewall_egress_allow[0].from", [{"port": 443, "from": ["10.0.0.0/8"]}]),
    ("out_of_range", "firewall_egress_allow[0].port", [{"port": 70000}]),
    ("wrong_type", "firewall_egress_allow[0].port", [{"port": "443 accept; flush ruleset"}]),
    ("wrong_choice", "firewall_egress_allow[0].protocol", [{"port": 443, "protocol": "tcp accept;"}]),
    ("bad_network", "firewall_egress_allow[0].to[0]", [{"port": 443, "to": [INJECTION]}]),
    ("bad_network", "firewall_egress_allow[0].to[0]", [{"port": 443, "to": ["fe80::1%} accept; flush ruleset #"]}]),
    ("control_character", "firewall_egress_allow[0].to[0]", [{"port": 443, "to": ["10.0.0.0/8\nflush ruleset"]}]),
    ("bad_option", "base_restart_never[0]", ["x)} = 0; system('id'); #"]),
    ("bad_option", "base_restart_never[0]", ["(?{ system 'id' })"]),
    ("bad_option", "base_restart_never[0]", ["@{[ `id` ]}"]),
    ("bad_option", "base_restart_never[0]", ["postgresql@17-main"]),
    ("bad_option", "base_restart_never[0]", ["docker)"]),
    ("bad_option", "base_restart_never[0]", ["a)(b"]),
    ("bad_option", "base_restart_never[0]", ["$0"]),
    ("bad_option", "base_restart_never[0]", ["*nginx"]),
    ("bad_option", "base_restart_never[0]", ["nginx\\"]),
    ("control_character", "base_restart_never[0]", ["nginx\n"]),
    ("bad_option", "base_journal_max_use", "64 bananas"),
    ("control_character", "base_journal_max_use", "500M\nStorage=none"),
    ("bad_option", "base_packages[0]", ["--allow-downgrades"]),
    ("bad_option", "base_packages[1]", ["htop", "htop; id"]),
    ("wrong_type", "base_unattended_upgrades", "sometimes"),
    ("control_character", "hardening_audit_rules[0]", ["-w /etc/shop -p wa -k shop\n-D"]),
    ("bad_option", "hardening_audit_rules[0]", ["-D"]),
    ("bad_option", "hardening_audit_rules[0]", ["-e 0"]),
    ("bad_option", "hardening_audit_rules[0]", ["-d always,exit -S all"]),
    ("bad_option", "hardening_audit_rules[0]", ["-a never,exit -S all -D x"]),
    ("bad_option", "hardening_audit_rules[0]", ["-w etc/shop"]),
    ("bad_option", "hardening_audit_rules[0]", ["-w /etc/shop -p rwxz"]),
    ("bad_option", "hardening_audit_rules[0]", ["-w /etc/shop -S open"]),
    ("bad_option", "hardening_audit_rules[0]", ["-a always,sometimes -S open"]),
    ("bad_option", "hardening_audit_rules[0]", ["-a always,exit -F auid"]),
    ("bad_option", "hardening_audit_rules[0]", ["-a always,exit -F"]),
    ("bad_option", "hardening_audit_rules[0]", ["watch /etc/shop"]),
    ("wrong_type", "hardening_audit_rules[0]", [{"path": "/etc/shop"}]),
    ("bad_option", 'hardening_sysctl["../../../etc/cron.d/x"]', {"../../../etc/cron.d/x": 1}),
    ("bad_option", 'hardening_sysctl["net/ipv4/../x"]', {"net/ipv4/../x": 1}),
    ("bad_option", "hardening_sysctl.swappiness", {"swappiness": 1}),
    ("bad_option", 'hardening_sysctl["vm.x = 1\\nkernel.y"]', {"vm.x = 1\nkernel.y": 1}),
    ("bad_option", 'hardening_sysctl["vm.swappiness"]', {"vm.swappiness": "10\nkernel.x = 1"}),
    ("bad_option", 'hardening_sysctl["vm.swappiness"]', {"vm.swappiness": True}),
    ("bad_option", 'hardening_sysctl["vm.swappiness"]', {"vm.swappiness": ""}),
    ("bad_option", 'hardening_sysctl["vm.swappiness"]', {"vm.swappiness": [10]}),
    ("bad_option", "hardening_kernel_arguments[0]", ['quiet"; touch /pwned; "']),
    ("bad_option", "hardening_kernel_arguments[0]", ["quiet$(id)"]),
    ("bad_option", "hardening_kernel_arguments[0]", ["a b"]),
    ("control_character", "hardening_blocked_modules[0]", ["usb-storage\ninstall x /bin/sh"]),
    ("bad_option", "hardening_blocked_modules[0]", ["usb-storage /bin/true"]),
    ("bad_option", "hardening_allowed_modules[0]", ["../x"]),
    ("bad_option", "hardening_umask", 27),
    ("bad_option", "hardening_umask", "027; id"),
    ("bad_option", "hardening_su_group", "sugroup root"),
    ("bad_option", "hardening_cron_users[0]", ["root:x"]),
    ("control_character", "hardening_banner", "Hello\x1b[2J"),
    ("bad_option", "hardening_password_length", 1),
    ("bad_option", "hardening_password_tries", 0),
    ("wrong_choice", "hardening_ssh_host_keys[0]", ["dsa"]),
    ("wrong_type", "hardening_shell_timeout", "ten"),
    ("bad_option", "hardening_shell_timeout", -1),
    ("bad_option", "fail2ban_maxretry", 0),
    ("bad_option", "fail2ban_web_ports[0]", [0]),
    ("wrong_type", "fail2ban_web_ports[0]", ["80, 443; x"]),
    ("wrong_type", "fail2ban_bantime", "1h\nignoreip = 0.0.0.0/0"),
    ("bad_option", "postgres_extra_packages[0]", ["-o=Dpkg::Pre-Invoke::=id"]),
    ("bad_option", "postgres_untrusted_extensions[0]", ['x"; DROP ROLE postgres']),
    ("bad_option", "postgres_key_file", "/etc/ssl/../shadow"),
    ("bad_option", "postgres_certificate_file", "/etc/x' \n"[:-2] + "'"),
    ("bad_option", "postgres_log_slow_ms", -2),
    ("bad_option", "audit_gixy", "gixy-ng"),
    ("wrong_choice", "audit_scanners[0]", ["linis"]),
    ("control_character", "audit_exposure[0].unit", [{"unit": "x\ny", "most": 1}]),
    ("control_character", "audit_exposure[0].unit[1]", [{"unit": ["x", "x\ny"], "most": 1}]),
    ("control_character", "backup_assertions.shop", {"shop": "SELECT 1\n\\! id"}),
    ("control_character", "backup_second.environment.A", {"environment": {"A": "x\ny"}}),
]


@pytest.mark.parametrize(("kind", "path", "value"), OPTION_FAULTS, ids=case_name)
def test_one_fault_of_an_option(kind: str, path: str, value: Any) -> None:
    assert problems_of(options={path.partition("[")[0].partition(".")[0]: value}) == {(kind, path)}


#: The smallest and the largest number that an option takes.
LIMITS: dict[str, tuple[int, int]] = {
    "audit_https_port": (1, 65535), "audit_open_ports": (1, 65535), "audit_ssh_port": (0, 65535),
    "fail2ban_bantime": (1, 31536000), "fail2ban_bantime_max": (1, 31536000), "fail2ban_findtime": (1, 31536000),
    "fail2ban_maxretry": (1, 10000), "fail2ban_web_ports": (1, 65535), "firewall_ssh_rate": (0, 100000),
    "hardening_password_length": (6, 128), "hardening_password_tries": (1, 1000),
    "hardening_shell_timeout": (0, 31536000), "postgres_archive_timeout": (0, 1073741823),
    "postgres_log_slow_ms": (-1, 2147483647),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(role_options.RANGES))
def test_a_number_has_its_limits(name: str) -> None:
    least, most = LIMITS[name]
    listed = SPECS[name]["type"] == "list"

    def problems(number: int) -> list[dict[str, str]]:
        options = {name: [number] if listed else number}
        return preflight.find_problems({"a": Unreadable()}, {}, {}, ROOT, options=options, specs=SPECS)

    assert problems(least) == problems(most) == []
    for number in (least - 1, most + 1):
        (problem,) = problems(number)
        assert problem["kind"] == "bad_option"
        assert f"{number} is not a" in problem["problem"]
        assert f": {least} to {most}." in problem["problem"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("firewall_ssh_rate", 0),
        ("firewall_ssh_rate", "30"),
        ("firewall_egress_allow", [{"port": 53, "protocol": "udp", "to": ["10.0.0.0/8", "2001:db8::1"]}, {"port": 1}]),
        ("base_restart_never", [r"^docker", r"^postgresql\@", "(?:a|b)$", r"nginx\.service$|x", "[a-c]+[0-9]?"]),
        ("base_journal_max_use", "2G"),
        ("base_packages", ["htop", "libstdc++6", "python3=3.11.2-*", "libc6:amd64"]),
        ("hardening_audit_rules", ["-w /etc/shop -p wa -k shop", "-w /srv/x"]),
        ("hardening_audit_rules", ["-a always,exit -F arch=b64 -S open,openat -F exit=-EACCES -F auid>=1000 -k x"]),
        ("hardening_audit_rules", ["-a exit,always -F path=/usr/bin/x -F perm=x -F auid!=unset -F key=x"]),
        ("hardening_audit_rules", ["-A never,exclude -F msgtype=CWD", "-a always,exit -C auid!=uid -S execve"]),
        ("hardening_sysctl", {"vm.swappiness": 10, "net/ipv4/conf/eth0.100/rp_filter": "2", "net.ipv4.x": "1 2 3"}),
        ("hardening_sysctl", {"net.ipv4.conf.*.rp_filter": 1, "kernel.core_pattern": "|/bin/false"}),
        ("hardening_kernel_arguments", ["slab_nomerge", "isolcpus=1-3,5", "root=UUID=ab-cd", "console=ttyS0,115200n8"]),
        ("hardening_umask", "027"),
        ("hardening_umask", "0077"),
        ("hardening_banner", "Two\nlines\n"),
        ("hardening_restrict_su", "false"),
        ("audit_scanners", "lynis,ports"),
        ("audit_waivers", [{"scanner": "lynis", "id": "X", "reason": "two\nlines"}]),
        ("postgres_key_file", "/etc/ssl/private/db.key"),
        ("postgres_key_file", ""),
    ],
)  # fmt: skip
def test_an_option_in_order(name: str, value: Any) -> None:
    assert problems_of(options={name: value}) == set()


# A default that follows another option is a template: Ansible hands out its value.
@pytest.mark.parametrize("name", sorted(name for name in SPECS if "{{" not in str(SPECS[name].get("default"))))
def test_the_defaults_of_all_options_are_in_order(name: str) -> None:
    assert problems_of(options={name: SPECS[name].get("default")}) == set()


def test_the_rules_are_for_options_that_there_are() -> None:
    assert {*role_options.RULES, *role_options.RANGES} <= SPECS.keys()
    egress = SPECS["firewall_egress_allow"]["options"]
    assert {name: (option.type, option.required) for name, option in role_options.EGRESS_OPTIONS.items()} == {
        name: (option["type"], option.get("required", False)) for name, option in egress.items()
    }


@pytest.mark.parametrize("name", sorted({*role_options.RULES, *role_options.RANGES, "firewall_egress_allow"}))
def test_the_examples_of_options_work(name: str) -> None:
    wrong: Any = {"list": [[1]], "int": "x"}.get(SPECS[name]["type"], ["\n"])
    problems = preflight.find_problems(good_apps({}), {}, {}, ROOT, options={name: wrong}, specs=SPECS)
    (example,) = {problem["example"] for problem in problems if problem["path"].startswith(name)}
    assert problems_of(options=yaml.safe_load(example)) == set()


def test_a_template_of_an_option_that_fails_is_a_problem_among_others() -> None:
    assert problems_of(options={"base_packages": Unreadable("'x' is undefined")}) == {("undefined", "base_packages")}
