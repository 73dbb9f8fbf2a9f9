"""What the role hardening hands to its modules, worked out as Ansible does it, without a host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import pam_stack
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

ROLE = Path(__file__).resolve().parents[3] / "roles" / "hardening"
NEVER_STRICT: dict[str, Any] = {"level": "standard", "packages": []}
MACHINE = dict.fromkeys(("own_kernel", "audit", "apparmor", "modules", "mounts", "time", "boot_loader"), True)


@pytest.fixture(scope="module", autouse=True)
def lookups() -> None:
    """Ansible finds its lookup plugins only after this."""
    init_plugin_loader([])


def handed(name: str, can: dict[str, bool] | None = None, record: dict[str, Any] | None = None, **options: Any) -> Any:
    """One of the role's internal variables."""
    loader = DataLoader()
    loader.set_basedir(str(ROLE))
    known: dict[str, Any] = {
        "ansible_managed": "Ansible managed",
        "ansible_facts": {"packages": {"telnet": [], "cron": [], "avahi-daemon": []}},
        "ansible_search_path": [str(ROLE)],
        "__hardening_host": {"can": MACHINE if can is None else {**MACHINE, **can}, "record": record or NEVER_STRICT},
    }
    for folder in ("defaults", "vars"):
        known |= loader.load_from_file(str(ROLE / folder / "main.yml"), trusted_as_template=True)
    known |= options
    return Templar(loader=loader, variables=known).template(known[name])


def contents(**options: Any) -> dict[str, str]:
    return {file["path"]: file["content"] for file in handed("__hardening_files", **options)}


def kernel(**options: Any) -> dict[str, Any]:
    """The kernel settings that the role hands to its module."""
    tasks = DataLoader().load_from_file(str(ROLE / "tasks" / "kernel.yml"), trusted_as_template=True)
    settings: dict[str, Any] = handed("settings", settings=tasks[0]["kernel_settings"]["settings"], **options)
    return settings


def test_lost_connections_end_sooner_only_if_the_site_says_so() -> None:
    name = "net.ipv4.tcp_retries2"
    assert name not in kernel()
    assert kernel(hardening_tcp_retries=5) == {**kernel(), name: 5}
    assert kernel(hardening_tcp_retries=5, hardening_sysctl={name: 8})[name] == 8, "what the inventory says wins"


def test_a_file_is_written_once_or_taken_away() -> None:
    files = handed("__hardening_files", hardening_aide=True, hardening_tmp_noexec=True)
    paths = [file["path"] for file in files]
    assert len(paths) == len(set(paths))
    assert not set(paths) & set(handed("__hardening_absent", hardening_aide=True, hardening_tmp_noexec=True))
    assert all(file["content"].endswith("\n") or not file["content"] for file in files)


def test_a_host_with_a_shared_kernel_gets_no_audit_and_no_boot_loader() -> None:
    off = dict.fromkeys(MACHINE, False)
    assert not [path for path in contents(can=off) if "audit" in path or "grub" in path]
    assert "auditd" not in handed("__hardening_packages", can=off)


def test_every_run_writes_the_same() -> None:
    """A set of names has another order in each run of Python, and the file would be another one."""
    modules = handed("__hardening_modules_blocked", hardening_allowed_modules=["sctp"], hardening_blocked_modules=["x"])
    assert modules[:2] == ["cramfs", "freevxfs"]
    assert modules[-1] == "x"
    assert "sctp" not in modules


def test_only_what_is_there_and_not_wanted_is_removed() -> None:
    assert handed("__hardening_unwanted_here") == ["telnet", "avahi-daemon"]
    assert handed("__hardening_unwanted_here", hardening_wanted_packages=["telnet"]) == ["avahi-daemon"]


def test_services_are_not_recorded() -> None:
    """Every rule about calls that apps make all day is about people who logged in."""
    lines = contents()["/etc/audit/rules.d/60-flaskhost.rules"].splitlines()
    rules = [line for line in lines if line.startswith("-a always")]
    busy = re.compile(r"-S \S*\b(open|openat|chmod|chown|unlink|rename|setxattr|mount)\b")
    assert [rule for rule in rules if busy.search(rule) and "-F auid>=1000 -F auid!=unset " not in rule] == []
    assert all(re.search(r" -F key=\S+$", rule) for rule in rules)
    assert len(rules) == len(set(rules))


def test_installing_a_package_does_not_push_the_older_records_out() -> None:
    """The first rule that fits decides: dpkg is left out of the busy rules, and not of those about who may log in."""
    lines = contents()["/etc/audit/rules.d/60-flaskhost.rules"].splitlines()
    left_out = [number for number, line in enumerate(lines) if line.startswith("-a never")]
    assert all("-F exe=/usr/bin/" in lines[number] for number in left_out)
    assert sum("-F exe=/usr/bin/dpkg" in lines[number] for number in left_out) == 2
    busy = [number for number, line in enumerate(lines) if line.endswith(("key=delete", "key=perm_mod"))]
    kept = [number for number, line in enumerate(lines) if line.endswith(("identity", "actions", "logins", "units"))]
    assert max(kept) < min(left_out)
    assert max(left_out) < min(busy)
    assert any("path=/usr/bin/dpkg -F perm=x" in line for line in lines)


def test_rules_that_cannot_be_changed_come_last() -> None:
    text = contents(hardening_audit_immutable=True, hardening_audit_rules=["-w /srv -p wa -k apps"])
    lines = [line for line in text["/etc/audit/rules.d/60-flaskhost.rules"].splitlines() if line]
    assert lines[-2:] == ["-w /srv -p wa -k apps", "-e 2"]


@pytest.mark.parametrize(("allowed", "expected"), [(True, "pam_wheel.so use_uid group=sugroup"), (False, "")])
def test_su_is_given_back(allowed: bool, expected: str) -> None:
    line = handed("__hardening_lines", hardening_restrict_su=allowed)[-1]
    assert line["path"] == "/etc/pam.d/su"
    assert line["line"].endswith(expected)
    assert bool(line["line"]) is allowed
    assert not allowed or re.search(line["pattern"], line["line"])


def test_the_profiles_bring_what_they_are_named_for() -> None:
    lines = [found for item in handed("__hardening_pam_profiles") for found in pam_stack.profile_lines(item["content"])]
    assert sorted({(kind, module) for kind, module, _arguments in lines}) == [
        ("account", "pam_faillock.so"),
        ("auth", "pam_faillock.so"),
        ("password", "pam_pwhistory.so"),
    ]
    assert len(lines) == 5


# --- strict ----------------------------------------------------------------------------------------------------------

STRICT: dict[str, Any] = {"level": "strict", "packages": ["aide", "aide-common", "cron"]}


def test_strict_is_taken_back() -> None:
    """Whatever strict alone writes goes, and its lines in Debian's files become Debian's again."""
    plain, strict = contents(), contents(hardening_level="strict")
    alone = set(strict) - set(plain)
    assert "/etc/sudoers.d/51-flaskhost-strict" in alone
    assert alone <= set(handed("__hardening_absent", record=STRICT))
    there = {
        (item["path"], item["pattern"]): item["line"] for item in handed("__hardening_lines", hardening_level="strict")
    }
    back = {(item["path"], item["pattern"]): item["line"] for item in handed("__hardening_lines", record=STRICT)}
    assert there.keys() == back.keys()
    changed = {path for (path, pattern), line in there.items() if back[path, pattern] != line}
    assert {"/etc/logrotate.conf", "/etc/login.defs", "/etc/systemd/journald.conf"} <= changed


def test_a_host_that_was_never_strict_keeps_its_own_lines() -> None:
    assert not {"/etc/logrotate.conf", "/etc/aide/aide.conf"} & {item["path"] for item in handed("__hardening_lines")}
    assert "/etc/securetty" not in handed("__hardening_absent")


def test_only_packages_that_the_role_has_installed_go() -> None:
    facts = {"packages": {"aide": [], "aide-common": [], "cron": [], "debsums": []}}
    strict = {"hardening_level": "strict", "ansible_facts": facts}
    new = handed("__hardening_packages_new", **strict)
    assert "cron" not in new
    assert "apt-listchanges" in new
    assert handed("__hardening_packages_gone", record=STRICT, **strict) == []
    assert handed("__hardening_packages_gone", record=STRICT, ansible_facts=facts) == ["aide", "aide-common", "cron"]
    # Of a run that was killed before it had removed them, the next one still knows.
    assert handed("__hardening_record_first", record=STRICT, ansible_facts=facts) == STRICT
    assert handed("__hardening_record_last", record=STRICT, ansible_facts=facts) == NEVER_STRICT
    # Without the list of packages it claims none.
    assert handed("__hardening_packages_new", hardening_level="strict", ansible_facts={}) == []


def test_a_setting_of_its_own_is_stronger_than_the_level() -> None:
    assert handed("hardening_aide", hardening_level="strict") is True
    assert handed("hardening_ssh_tcp_forwarding", hardening_level="strict") is False
    assert "aide" not in handed("__hardening_packages_optional", hardening_level="strict", hardening_aide=False)


@pytest.mark.parametrize("operator", ["debian", "root"])
def test_administrators_need_no_terminal_for_sudo(operator: str) -> None:
    facts = {"packages": {}, "env": {"USER": operator}}
    text = contents(hardening_level="strict", ansible_facts=facts)["/etc/sudoers.d/51-flaskhost-strict"]
    lines = [line for line in text.splitlines() if line.startswith("Defaults")]
    assert lines[0] == "Defaults requiretty"
    assert "%sudo" in lines[1]
    assert ("Defaults:debian !requiretty" in lines) is (operator == "debian")
    assert all("!requiretty" in line for line in lines[1:])
