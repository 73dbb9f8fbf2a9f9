"""Preflight: settings that reach the files of root, nft, auditctl, GRUB, systemd and PostgreSQL as they are written."""

from __future__ import annotations

import ast
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.host import questions as host_questions
from ansible.module_utils.flaskhost.postgres import server
from ansible.module_utils.flaskhost.preflight import calendars, names, role_options
from ansible.module_utils.flaskhost.preflight.report import Unreadable
from rendering import load_filters
from test_preflight import GOOD_FACTS, GOOD_SETTINGS, SCALARS, good_apps

ROOT = Path(__file__).resolve().parents[3]
SPECS = {
    name: spec
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml"))
    for name, spec in yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"].items()
}
INJECTION = "0.0.0.0/0 } accept; flush ruleset #"


def found(site: Any = None, options: Any = None, answers: Any = None, **app: Any) -> set[tuple[str, str]]:
    """The kinds and paths of the problems of a site whose only app is in order."""
    problems = preflight.find_problems(
        good_apps(app), site or {}, GOOD_FACTS, ROOT / "nowhere", options=options, specs=SPECS, answers=answers
    )
    # The code on the controller is not what is looked at here.
    return {(p["kind"], p["path"]) for p in problems if not p["path"].startswith("flask_apps.shop.source")}


# --- The site's settings ---------------------------------------------------------------------------------------------

SITE_FAULTS: list[tuple[str, str, Any]] = [
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
    problems = found({"backup": GOOD_SETTINGS["backup"] | {"second": second}})
    assert [found for found, path in problems if path.startswith("backup.second")] == [kind]


@pytest.mark.parametrize(("kind", "path", "value"), SITE_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_a_setting(kind: str, path: str, value: Any) -> None:
    assert found({path.partition("[")[0]: value}) == {(kind, path)}


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
    assert found({name: value}) == set()


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
]


@pytest.mark.parametrize(("kind", "path", "value"), OPTION_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_an_option(kind: str, path: str, value: Any) -> None:
    assert found(options={path.partition("[")[0].partition(".")[0]: value}) == {(kind, path)}


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
    assert found(options={name: value}) == set()


# A default that follows another option is a template: Ansible hands out its value.
@pytest.mark.parametrize("name", sorted(name for name in SPECS if "{{" not in str(SPECS[name].get("default"))))
def test_the_defaults_of_all_options_are_in_order(name: str) -> None:
    assert found(options={name: SPECS[name].get("default")}) == set()


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
    assert found(options=yaml.safe_load(example)) == set()


def test_a_template_of_an_option_that_fails_is_a_problem_among_others() -> None:
    assert found(options={"base_packages": Unreadable("'x' is undefined")}) == {("undefined", "base_packages")}


# --- Times -----------------------------------------------------------------------------------------------------------

TIMER = "flask_apps.shop.timers.t.on_calendar"
BAD_TIMES = ["every full moon", "daily please", "Moonday 03:00", "03:00 Mars/Phobos", "at 3", "$(id)", "Mon..Funday"]
GOOD_TIMES = [
    "daily", "Hourly", "*-*-* 03:00", "Mon..Fri 06:30", "Mon,Wed *-*-* 02:15:30", "Monday..Friday 06:30",
    "*:0/15", "03:00 Europe/Stockholm", "daily UTC", "*-*~1", "Sat *-*-1..7 18:00", "Mon-Fri 10:00",
]  # fmt: skip


def timers(value: str) -> dict[str, Any]:
    return {"timers": {"t": {"command": "true", "on_calendar": value}}}


@pytest.mark.parametrize("value", BAD_TIMES)
def test_what_is_no_time_is_refused_without_the_host(value: str) -> None:
    assert found(**timers(value)) == {("bad_calendar", TIMER)}


@pytest.mark.parametrize("value", GOOD_TIMES)
def test_what_systemd_can_read_passes(value: str) -> None:
    assert found(**timers(value)) == set()


def test_the_backups_times_are_times() -> None:
    backup = GOOD_SETTINGS["backup"] | {"full": "every full moon", "drill": "Wed *-*-* 04:15"}
    assert found({"backup": backup}) == {("bad_calendar", "backup.full")}
    answers = {"calendars": {"Wed *-*-* 04:15": "it says no"}}
    assert found({"backup": backup}, answers=answers) == {
        ("bad_calendar", "backup.full"),
        ("bad_calendar", "backup.drill"),
    }


def test_what_the_hosts_systemd_refuses_is_told() -> None:
    answers = {"calendars": {"*-*-* 30:00": "Failed to parse", "daily": ""}}
    assert found(answers=answers, **timers("*-*-* 30:00")) == {("bad_calendar", TIMER)}
    assert found(answers=answers, **timers("daily")) == set()


def test_without_a_tz_database_a_zone_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calendars, "_zones", frozenset)
    assert calendars.fault("daily Mars/Phobos") == ""
    assert calendars.fault("daily please")


# --- PostgreSQL's settings -------------------------------------------------------------------------------------------

EXTRA = "postgres_extra_settings."
VALUE_FAULTS: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("bad_setting_value", "work_mem", "64 bananas", {}),
    ("bad_setting_value", "work_mem", "64 mb", {}),
    ("bad_setting_value", "statement_timeout", "5sec", {}),
    ("bad_setting_value", "work_mem", "64MB", {"settings": {"work_mem": "it says no."}}),
    ("unknown_library", "shared_preload_libraries", "pg_stat_statement", {}),
    ("unknown_library", "shared_preload_libraries", "pg_stat_statements, nope", {}),
    ("unknown_library", "session_preload_libraries", "nope", {"libraries": ["auto_explain"]}),
]


@pytest.mark.parametrize(("kind", "name", "value", "said"), VALUE_FAULTS, ids=lambda value: str(value)[:60])
def test_one_fault_of_a_value(kind: str, name: str, value: Any, said: dict[str, Any]) -> None:
    site = {"postgres_extra_settings": {name: value}}
    assert found(site, answers={"postgres": said}) == {(kind, EXTRA + name)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("work_mem", "64MB"),
        ("work_mem", 65536),
        ("statement_timeout", "1.5 min"),
        ("random_page_cost", 1.1),
        ("cluster_name", "7 dwarfs"),
        ("log_line_prefix", "%m"),
        ("seq_page_cost", "1e3"),
        ("huge_page_size", "0x10"),
        ("jit", False),
        ("shared_preload_libraries", "pg_stat_statements,auto_explain"),
        ("shared_preload_libraries", '"$libdir/auto_explain.so"'),
    ],
)
def test_a_value_in_order(name: str, value: Any) -> None:
    assert found({"postgres_extra_settings": {name: value}}) == set()


def test_the_servers_word_on_a_value_is_the_last_one() -> None:
    site = {"postgres_extra_settings": {"my.motto": "7 dwarfs"}}
    assert found(site) == {("bad_setting_value", EXTRA.rstrip(".") + '["my.motto"]')}
    assert found(site, answers={"postgres": {"settings": {"my.motto": ""}}}) == set()


def test_a_library_may_come_with_a_package() -> None:
    site = {"postgres_extra_settings": {"shared_preload_libraries": "pgaudit"}}
    assert found(site, {"postgres_extra_packages": ["postgresql-17-pgaudit"]}) == set()
    assert found(site) == {("unknown_library", EXTRA + "shared_preload_libraries")}
    assert found(site, answers={"postgres": {"libraries": ["pgaudit"]}}) == set()


def test_a_library_that_is_not_there_is_found_before_a_restart(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    for name in ("auto_explain", "plugins/mine", "own"):
        (tmp_path / f"{name}.so").touch()
    text = (
        f"shared_preload_libraries = 'auto_explain,\"$libdir/own.so\", {tmp_path}/own, nope'\n"
        "session_preload_libraries = 'mine'\nlocal_preload_libraries = 'mine'\nwork_mem = '1MB'\n"
    )
    assert server.missing_libraries(text, tmp_path) == ["nope", "mine"]
    assert server.missing_libraries(f"dynamic_library_path = '/x'\n{text}", tmp_path) == []


# --- What the host is asked ------------------------------------------------------------------------------------------


class Host:
    """A host whose programs answer what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, list[list[str]]()
        for version in ("9.6", "15", "17"):
            for place in ("bin/postgres", "lib/auto_explain.so"):
                path = folder / version / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        if command[0] == "systemd-analyze":
            bad = "every full moon" in command
            return int(bad), "", "Failed to parse it: Invalid argument\n" if bad else ""
        bad = any(word.endswith("bananas") for word in command)
        return int(bad), "", "x LOG:  y\nx FATAL:  it is no size\nx HINT:  Valid units." if bad else ""

    def ask(self, *arguments: Any) -> dict[str, Any]:
        return dict(host_questions.answer(self.run, *arguments, programs=self.folder))


def test_the_host_is_asked_for_all_times_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.ask(["daily", "-x"], {})["calendars"] == {"-x": "", "daily": ""}
    assert host.calls == [["systemd-analyze", "calendar", "--", "-x", "daily"]]
    assert host.ask(["daily", "every full moon"], {})["calendars"] == {
        "daily": "",
        "every full moon": "Failed to parse it: Invalid argument",
    }
    assert host_questions.answer(lambda _command: (127, "", "none"), ["x"], {})["calendars"] == {"x": ""}


def test_an_app_that_runs_and_is_no_longer_in_the_inventory_is_warned_about(tmp_path: Path) -> None:
    """It was renamed, or taken out: its data stays under the old name, and its workers go on."""
    listed = "flask-old@blue.service\nflask-old@blue.socket\nflask-old_timer@nightly.timer\nflask-shop@green.service\n"
    for name in ("old/slots", "shop/slots", "quiet/slots", "older/data"):
        (tmp_path / name).mkdir(parents=True)
    asked: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return 0, "".join(f"{line} loaded active running x\n" for line in listed.splitlines()), ""

    def warnings(apps: list[str] | None) -> list[str]:
        places = {"programs": tmp_path, "backups": tmp_path / "none", "apps": apps, "root": tmp_path}
        found = host_questions.answer(run, [], {}, **places)["others"]
        return list(load_filters()["flask_host_warnings"]({"answers": {"others": found}}, "web1"))

    (text,) = warnings(["shop"])
    assert text.startswith("web1: the app old runs here and is not in flask_apps")
    stop = "sudo systemctl disable --now flask-old@blue.service flask-old@blue.socket flask-old_timer@nightly.timer"
    assert text.endswith(stop)
    asked.clear()
    assert warnings(["shop", "old", "quiet"]) == warnings(None) == []
    assert asked == []
    for nothing in (None, {}, {"answers": None}, {"answers": {}}, {"answers": {"others": "x"}}):
        assert load_filters()["flask_host_warnings"](nothing, "web1") == []


def test_restores_that_were_killed_are_warned_about(tmp_path: Path) -> None:
    program = tmp_path / "flaskhost-backup"
    program.touch()
    told = "A restore was killed. Finish it: sudo flaskhost-backup restore --confirm h1"

    def ask(status: int, out: str) -> list[str]:
        places = {"programs": tmp_path, "backups": program}
        found = host_questions.answer(lambda _command: (status, out, ""), [], {}, **places)["restores"]
        warn = load_filters()["flask_host_warnings"]
        return list(warn({"answers": {"restores": found}}, "web1"))

    assert ask(0, json.dumps({"unfinished": [told], "problems": [told]})) == [f"web1: {told}"]
    # A program of an earlier version, one that fails, and a host without any.
    assert ask(0, json.dumps({"problems": []})) == []
    assert ask(1, "Traceback") == []
    program.unlink()
    assert ask(0, json.dumps({"unfinished": [told]})) == []
    assert load_filters()["flask_host_warnings"]({"skipped": True}, "web1") == []


def test_a_restart_for_backups_that_are_switched_is_told_before(tmp_path: Path) -> None:
    def ask(backup: Any) -> list[str]:
        found = host_questions.answer(lambda _command: (1, "", ""), [], {}, "15", programs=tmp_path, clusters=tmp_path)
        return list(warn([{}, backup], ["flask_apps", "backup"], {"answers": found}, "db1"))

    secret, warn = {"passphrase": "a secret"}, load_filters()["flask_archive_warnings"]
    assert ask(secret) == [], "a bare host has nothing to restart"
    file = tmp_path / "15/main/conf.d/60-flaskhost.conf"
    file.parent.mkdir(parents=True)
    file.write_text("jit = 'off'\n", encoding="utf-8")
    assert ask(secret)[0].startswith("db1: backups are switched on, for which this run restarts PostgreSQL once")
    assert ask("") == ask({"keep_days": 3}) == []
    file.write_text("archive_command = 'x'\narchive_mode = 'on'\n", encoding="utf-8")
    assert ask(secret) == []
    assert "are switched off" in ask("")[0]
    assert "are switched off" in ask({"passphrase": ""})[0]
    assert ask({"passphrase": preflight.Unreadable("'v' is undefined")}) == []
    assert warn([{}, secret], ["flask_apps", "backup"], {"skipped": True}, "db1") == []


def test_postgres_is_asked_as_its_own_user_and_without_a_cluster(tmp_path: Path) -> None:
    host = Host(tmp_path)
    found = host.ask([], {"work_mem": "64 bananas", "jit": "on"})["postgres"]
    assert found == {
        "settings": {"work_mem": "it is no size. Valid units.", "jit": ""},
        "libraries": ["auto_explain"],
    }
    silent = host_questions.answer(lambda _command: (124, "", ""), [], {"jit": "on"}, programs=tmp_path)
    assert silent["postgres"]["settings"] == {}
    command = host.calls[0]
    assert str(tmp_path / "17/bin/postgres") in command
    assert command.index("--reuid=postgres") < command.index(str(tmp_path / "17/bin/postgres"))
    assert "config_file=/dev/null" in command
    assert command[-4:] == ["-c", "jit=on", "-C", "jit"]
    host.calls.clear()
    assert host.ask([], {"jit": "on"}, "15")["postgres"]
    assert str(tmp_path / "15/bin/postgres") in host.calls[0]
    assert host.ask([], {"jit": "on"}, "16")["postgres"] == {}
    assert host_questions.answer(host.run, [], {"jit": "on"}, programs=tmp_path / "none")["postgres"] == {}


def test_the_host_is_asked_nothing_that_is_already_wrong() -> None:
    site = {
        "postgres_extra_settings": {"work_mem": "1MB", "x y": "1", "jit": True, "a": "b\nc", "b": [1]},
        "backup": {"full": "Sun 02:15", "diff": 7},
        "postgres_version": "15",
    }
    asked = load_filters()["flask_host_questions"]([good_apps(timers("daily\n")), *site.values()], ["apps", *site])
    assert asked == {
        "apps": ["shop", "todo"],
        "names": ["shop", "todo"],
        "databases": {
            "shop": {
                "roles": ["shop", "shop-owner"],
                "owner_file": "/etc/flaskhost/shop/database_owner.env",
                "home": "/srv/shop/data",
            },
        },
        "calendars": ["Sun 02:15"],
        "postgres_settings": {"work_mem": "1MB", "jit": "on"},
        "postgres_version": "15",
    }
    assert preflight.host_questions(None, None)["calendars"] == []


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("flask_appz", "flask_apps"),
        ("firewal_allow", "firewall_allow"),
        ("time_zone", "timezone"),
        ("postgres_extra_setting", "postgres_extra_settings"),
        ("hardening_sysctls", "hardening_sysctl"),
        ("nginx_tls_polic", "nginx_tls_policy"),
        ("backups", "backup"),
    ],
)
def test_a_misspelt_variable_is_warned_about(name: str, near: str) -> None:
    site = ["flask_apps", "firewall_allow", "timezone", "postgres_extra_settings", "backup"]
    (warning,) = load_filters()["flask_setting_warnings"]([name], site)
    assert f"The variable {name} " in warning
    assert warning.endswith(f"Did you mean {near}?")


def test_a_variable_that_begins_like_an_option_is_warned_about() -> None:
    (warning,) = names.warnings(["nginx_fancy"], ["nginx_http3"], [], ["nginx_"])
    assert "the role nginx, which has no such option" in warning


def test_variables_of_ones_own_are_not_warned_about() -> None:
    own = ["vault_flask_appz", "my_own", "app", "version", "domain", "shop_secret", "ansible_user", "__nginx_x", "vars"]
    known = {**SPECS, "flask_apps": 1, "backup": 1, "acme": 1, "timezone": 1}
    assert names.warnings([*own, *known, "nginx_sites"], known, ["nginx_sites"], ["nginx_"]) == []


def test_the_demo_and_the_shipped_inventories_get_no_warning() -> None:
    filters = load_filters()
    wiring = [name for path in (ROOT / "group_vars/all").glob("*.yml") for name in yaml.safe_load(path.read_text())]
    settings = yaml.safe_load((ROOT / "group_vars/all/preflight.yml").read_text())["preflight_settings_variables"]
    for folder in ("demo", "staging", "production"):
        files = sorted((ROOT / "inventories" / folder / "group_vars/all").glob("[a-z]*.yml"))
        given = [name for path in files for name in yaml.safe_load(path.read_text()) or {}]
        assert filters["flask_setting_warnings"]([*wiring, *given], ["flask_apps", *settings]) == []


def test_an_option_is_checked_once_and_wiring_is_not_the_users() -> None:
    given = ["hardening_sysctl", "firewall_allow", "firewall_ssh_ports", "mine", "preflight_web"]
    assert load_filters()["flask_role_options"](given, ["firewall_allow"]) == ["hardening_sysctl"]


# --- Anything at all -------------------------------------------------------------------------------------------------

#: The kinds that are tried here; test_preflight.py has the others.
KINDS = {kind for kind, *_rest in [*SITE_FAULTS, *OPTION_FAULTS, *VALUE_FAULTS]} | {"bad_calendar"}


def test_no_value_raises() -> None:
    generator = random.Random(20261123)

    def junk(depth: int = 0) -> Any:
        kind = generator.random()
        if depth > 3 or kind < 0.5:
            return generator.choice(SCALARS)
        if kind < 0.75:
            return [junk(depth + 1) for _ in range(generator.randrange(4))]
        keys = [scalar for scalar in [*SCALARS, *role_options.EGRESS_OPTIONS] if scalar.__hash__]
        return {generator.choice(keys): junk(depth + 1) for _ in range(generator.randrange(5))}

    for _round in range(300):
        options = {name: junk() for name in SPECS}
        site = {"postgres_extra_settings": {"work_mem": junk(), "shared_preload_libraries": junk()}, "backup": junk()}
        site |= {name: junk() for name in ("package_index", "private_address", "deploy_batch", "clone_target")}
        apps = good_apps({"timers": junk()})
        problems = preflight.find_problems(apps, site, {}, ROOT, options=options, specs=SPECS, answers=junk())
        preflight.render(problems, "web1").encode()
        preflight.host_questions(apps, site)


def test_the_module_runs_where_preflight_has_yet_to_refuse() -> None:
    """On an old Python it has to run, so that preflight can say that it is too old."""
    for path in ("module_utils/flaskhost/host/questions.py", "modules/preflight_host.py"):
        ast.parse((ROOT / "plugins" / path).read_text(), feature_version=(3, 7))
    assert sys.version_info >= (3, 11)
