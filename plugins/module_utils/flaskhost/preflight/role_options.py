"""Check role options that a site sets directly: they end up in files that root, nft, auditctl and GRUB read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..apps.schema import Option
from .network import index_fault, mirror_fault
from .report import Place, Report, Unreadable, closest, show, snippet, type_name
from .schema import check_options, wrong_type

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Control characters that are invalid even in a text of several lines.
_CONTROL_OF_LINES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
#: Options that can have several lines.
_MULTILINE = frozenset({"hardening_banner", "audit_waivers"})
_BOOLEANS = frozenset("true false yes no on off y n t f 1 0".split())
_PACKAGE = r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+:~*-]+)?"
_ACCOUNT = r"[a-z_][a-z0-9_-]{0,31}"
_MODULE = r"[A-Za-z0-9][A-Za-z0-9_-]*"
#: An absolute path without characters that are special in a unit file, a shell or PostgreSQL.
_PATH = r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/+@=~-]*"
_PINNED = r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_-]+"

#: The options of a rule in firewall_egress_allow, as in roles/firewall; a unit test compares both.
EGRESS_OPTIONS = {
    "port": Option("int", "Port that connections can go to.", 587, required=True, minimum=1, maximum=65535),
    "protocol": Option("str", "Transport protocol.", "tcp", default="tcp", choices=("tcp", "udp")),
    "to": Option(
        "list",
        "Networks that connections can go to. If empty, every address is allowed.",
        ["203.0.113.0/24"],
        default=[],
    ),
}


#: The former names of options, which the wiring still reads, and their present names.
FORMER = {"gunicorn_journal_max_use": "slots_journal_max_use", "gunicorn_socket_group": "slots_socket_group"}


class Rule(NamedTuple):
    """The rule for an option's text, or for each entry of its list.

    Attributes:
        test: a pattern that must match the whole text, or a function that returns what is wrong.
        words: description of valid values, for the message.
        example: a valid value.
    """

    test: str | Callable[[str], str]
    words: str
    example: Any


class Range(NamedTuple):
    """The smallest and the largest number that an option accepts."""

    minimum: int
    maximum: int
    words: str
    example: int


def check_role_options(report: Report, options: Any, specs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the options of the roles.

    Args:
        report: collects the problems.
        options: the values by option name, as returned by :func:`report.read`.
        specs: the argument_specs of the roles, by option name.
    """
    for name, value in options.items() if isinstance(options, dict) else ():
        spec = specs.get(name)
        if spec is not None and value is not None and not isinstance(value, Unreadable):
            _check_option(report, name, value, spec)


def _check_option(report: Report, name: str, value: Any, spec: Mapping[str, Any]) -> None:
    kind = str(spec.get("type", "str"))
    if kind == "list" and isinstance(value, str):
        # Split it as Ansible does: -e audit_scanners=lynis,ports.
        value = value.split(",") if value else []
    if problem := _type_fault(value, kind):
        report.add("wrong_type", (name,), problem, _example(name, spec))
    elif kind == "list":
        _check_entries(report, name, value, spec)
    elif kind == "dict":
        _check_mapping(report, name, value, spec)
    elif kind == "int":
        _check_number(report, name, int(value))
    elif kind != "bool":
        _check_text(report, (name,), name, _as_text(value), spec)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def _type_fault(value: Any, kind: str) -> str:
    """Return what is wrong with the type. Ansible converts strings from the command line to numbers and booleans."""
    text = value.strip().lower() if isinstance(value, str) else ""
    if kind in ("str", "path"):
        return wrong_type(value, "str") if isinstance(value, (bool, dict, list)) else ""
    if kind == "int":
        wrong = isinstance(value, bool) or not (isinstance(value, int) or re.fullmatch(r"[+-]?\d{1,18}", text))
    elif kind == "bool":
        wrong = not (isinstance(value, bool) or text in _BOOLEANS or (isinstance(value, int) and value in (0, 1)))
    else:
        wrong = not isinstance(value, {"list": list, "dict": dict}.get(kind, object))
    return wrong_type(value, kind) if wrong else ""


def _check_entries(report: Report, name: str, value: list[Any], spec: Mapping[str, Any]) -> None:
    elements = str(spec.get("elements", "str"))
    for index, item in enumerate(value):
        place = (name, index)
        if isinstance(item, Unreadable):
            continue
        if problem := _type_fault(item, elements):
            report.add("wrong_type", place, problem, _example(name, spec))
        elif name == "firewall_egress_allow":
            check_options(report, place, (name,), item, EGRESS_OPTIONS)
        elif elements in ("str", "path"):
            _check_text(report, place, name, _as_text(item), spec)
        elif elements == "int":
            _check_number(report, name, int(item), place)
        else:
            _check_lines(report, place, name, item, spec)


def _check_lines(report: Report, place: Place, name: str, value: Any, spec: Mapping[str, Any]) -> None:
    """Find control characters in all values below a place."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_lines(report, (*place, key), name, item, spec)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_lines(report, (*place, index), name, item, spec)
    elif isinstance(value, str):
        _check_control(report, place, name, value, spec)


def _check_control(report: Report, place: Place, name: str, value: str, spec: Mapping[str, Any]) -> bool:
    several = name in _MULTILINE
    if not (_CONTROL_OF_LINES if several else _CONTROL).search(value):
        return True
    shown = "a control character." if several else "a line break or another control character. Write it on one line."
    report.add("control_character", place, f"Contains {shown}", _example(name, spec))
    return False


def _check_text(report: Report, place: Place, name: str, value: str, spec: Mapping[str, Any]) -> None:
    choices = spec.get("choices")
    if not _check_control(report, place, name, value, spec):
        return
    if choices and value not in choices:
        near = closest(value, choices)
        hint = f" Did you mean {near}?" if near else ""
        problem = f"{show(value)} is not one of {', '.join(map(str, choices))}.{hint}"
        report.add("wrong_choice", place, problem, _example(name, spec))
    elif (rule := RULES.get(name)) and not (value == "" and spec.get("default") == ""):
        if isinstance(rule.test, str):
            problem = "" if re.fullmatch(rule.test, value) else f"{show(value)} is not {rule.words}."
        else:
            problem = rule.test(value)
        if problem:
            report.add("bad_option", place, problem, _example(name, spec))


def _check_number(report: Report, name: str, value: int, place: Place = ()) -> None:
    limits = RANGES.get(name)
    if limits and not limits.minimum <= value <= limits.maximum:
        problem = f"{show(value)} is not {limits.words}: {limits.minimum} to {limits.maximum}."
        report.add("bad_option", place or (name,), problem, snippet((name,), limits.example))


def _check_mapping(report: Report, name: str, value: dict[Any, Any], spec: Mapping[str, Any]) -> None:
    if name != "hardening_sysctl":
        _check_lines(report, (name,), name, value, spec)
        return
    example = snippet((name,), {"vm.swappiness": 10})
    for key, item in value.items():
        problem = "" if isinstance(item, Unreadable) else _sysctl_fault(key, item)
        if problem:
            report.add("bad_option", (name, key), problem, example)


def _example(name: str, spec: Mapping[str, Any]) -> str:
    rule = RULES.get(name)
    if name == "firewall_egress_allow":
        return snippet((name,), [{"port": 587, "protocol": "tcp", "to": ["203.0.113.0/24"]}])
    value = rule.example if rule else (spec.get("choices") or [spec.get("default")])[0]
    if spec.get("type") == "list" and not isinstance(value, list):
        value = [value] if value is not None else []
    return snippet((name,), value)


# --- What each option takes ------------------------------------------------------------------------------------------


def _sysctl_fault(name: Any, value: Any) -> str:
    """Return what is wrong with a kernel setting, whose name is a path below /proc/sys."""
    part = r"[A-Za-z0-9_*-]+"
    # In the form with slashes, parts can contain dots: net/ipv4/conf/eth0.10/rp_filter.
    dotted, slashed = rf"{part}(?:\.{part})+", rf"{part}(?:/(?!\.)[A-Za-z0-9_.*-]+)+"
    if not isinstance(name, str) or not re.fullmatch(f"{dotted}|{slashed}", name):
        return f"{show(name)} is not the name of a kernel setting. 'sysctl -a' lists them."
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return f"Must be a number or a string, but is {type_name(value)}. For yes and no, the kernel uses 1 and 0."
    if isinstance(value, str) and not re.fullmatch(r"[\x20-\x7e]+", value):
        return "Empty, or contains a line break or another character that no kernel setting has."
    return ""


def _restart_fault(value: str) -> str:
    """Return what is wrong with an expression that Perl evaluates as root between the brackets of qr(...)."""
    words = f"{show(value)} is not a valid regular expression for service names"
    allowed = r"(?:\\[.@\\|()$+*?^/\[\]dDwWsSbB-]|[A-Za-z0-9_.:,/^*+?|()\[\]-]|\$(?=$|[|)]))+"
    bare = re.sub(r"\\.", "", value)
    depth = 0
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if "@" in bare:
        return f"{words}: write \\@ instead of @, which Perl reads as an array."
    if not re.fullmatch(allowed, value) or depth or re.search(r"\(\?(?!:)", bare):
        return f"{words}: use letters, digits, . * + ? | ^ $ and balanced brackets."
    try:
        re.compile(value)
    except re.error as error:
        return f"{words}: {error}."
    return ""


_AUDIT_VALUES = {
    "-p": r"[rwxa]{1,4}",
    "-k": r"[\x21-\x7e]{1,31}",
    "-S": r"[a-z0-9_]+(?:,[a-z0-9_]+)*",
    "-F": r"[a-z_0-9]+(?:!=|<=|>=|&=|=|<|>|&)[^\s=<>!&]\S*",
    "-C": r"[a-z]+!?=[a-z]+",
}
_AUDIT_LIST = (
    r"(?:always|never),(?:task|exit|user|exclude|filesystem|io_uring)"
    r"|(?:task|exit|user|exclude|filesystem|io_uring),(?:always|never)"
)


def _audit_fault(value: str) -> str:
    """Return what is wrong with a rule of auditctl(8). Only rules that add something are valid: -D would delete all."""
    first, *rest = value.split() or [""]
    watch = first == "-w"
    problem = ""
    if first not in ("-w", "-a", "-A"):
        hint = " For -e 2, set hardening_audit_immutable." if first == "-e" else ""
        problem = f"a rule starts with -w, -a or -A.{hint}"
    elif len(rest) % 2 == 0:
        problem = "each flag needs one value."
    elif watch and not re.fullmatch(_PATH, rest[0]):
        problem = "-w needs an absolute path."
    elif not watch and not re.fullmatch(_AUDIT_LIST, rest[0]):
        problem = f"{rest[0]} is not a list and an action, such as always,exit."
    else:
        for flag, given in zip(rest[1::2], rest[2::2], strict=True):
            pattern = _AUDIT_VALUES.get(flag) if not watch or flag in ("-p", "-k") else None
            if not pattern or not re.fullmatch(pattern, given):
                problem = f"{flag} {given} is not valid in a rule that starts with {first}."
                break
    return f"{show(value)}: {problem}" if problem else ""


#: The rules for texts, by option name.
RULES: dict[str, Rule] = {
    "app_index_url": Rule(index_fault, "", "https://packages.internal.test/simple/"),
    "audit_gixy": Rule(_PINNED, "a pinned package", "gixy-ng==0.2.59"),
    "audit_ssh_audit": Rule(_PINNED, "a pinned package", "ssh-audit==3.9.0"),
    "base_journal_max_use": Rule(r"[1-9][0-9]{0,11}[KMGT]?", "a size, such as 500M or 2G", "500M"),
    "base_packages": Rule(_PACKAGE, "the name of a package", ["htop"]),
    "base_restart_never": Rule(_restart_fault, "", [r"^docker"]),
    "hardening_allowed_modules": Rule(_MODULE, "the name of a kernel module", ["usb-storage"]),
    "hardening_audit_rules": Rule(_audit_fault, "", ["-w /etc/shop -p wa -k shop"]),
    "hardening_blocked_modules": Rule(_MODULE, "the name of a kernel module", ["usb-storage"]),
    "hardening_cron_users": Rule(_ACCOUNT, "the name of a user", ["root"]),
    "hardening_kernel_arguments": Rule(
        r"[A-Za-z0-9_.-]+(?:=[A-Za-z0-9_.,:/@+%~=-]*)?",
        "a kernel argument without spaces and quotes",
        ["slab_nomerge"],
    ),
    "hardening_su_group": Rule(_ACCOUNT, "the name of a group", "sugroup"),
    "hardening_umask": Rule(r"0?[0-7]{3}", "a umask of three octal digits, in quotes", "027"),
    "hardening_unwanted_packages": Rule(_PACKAGE, "the name of a package", ["telnet"]),
    "hardening_wanted_packages": Rule(_PACKAGE, "the name of a package", ["telnet"]),
    "postgres_certificate_file": Rule(_PATH, "an absolute path on the host", "/etc/ssl/certs/db.pem"),
    "postgres_extra_packages": Rule(_PACKAGE, "the name of a package", ["postgresql-17-pgvector"]),
    "postgres_key_file": Rule(_PATH, "an absolute path on the host", "/etc/ssl/private/db.key"),
    "postgres_untrusted_extensions": Rule(r"[a-z][a-z0-9_-]{0,62}", "the name of an extension", ["postgis"]),
    "python_downloads_json_url": Rule(mirror_fault, "", "https://packages.internal.test/download-metadata.json"),
    "python_index_url": Rule(index_fault, "", "https://packages.internal.test/simple/"),
    "python_mirror": Rule(mirror_fault, "", "https://packages.internal.test/python-build-standalone"),
    "slots_journal_max_use": Rule(r"[1-9][0-9]{0,11}[KMGT]?", "a size, such as 100M or 1G", "100M"),
    "slots_socket_group": Rule(_ACCOUNT, "the name of a group", "www-data"),
}

#: The ranges of numbers, by option name.
RANGES: dict[str, Range] = {
    "audit_https_port": Range(1, 65535, "a port", 443),
    "audit_open_ports": Range(1, 65535, "a port", 22),
    "audit_ssh_port": Range(0, 65535, "a port, or 0 for the port of the connection", 22),
    "fail2ban_bantime": Range(1, 31536000, "a number of seconds", 600),
    "fail2ban_bantime_max": Range(1, 31536000, "a number of seconds", 604800),
    "fail2ban_findtime": Range(1, 31536000, "a number of seconds", 600),
    "fail2ban_maxretry": Range(1, 10000, "a number of failed logins", 5),
    "fail2ban_web_ports": Range(1, 65535, "a port", 443),
    "firewall_ssh_rate": Range(0, 100000, "a number of connections per minute, or 0 for no limit", 30),
    "hardening_password_length": Range(6, 128, "a number of characters", 15),
    "hardening_password_tries": Range(1, 1000, "a number of wrong passwords", 3),
    "hardening_shell_timeout": Range(0, 31536000, "a number of seconds, or 0 for no limit", 600),
    "postgres_archive_timeout": Range(0, 1073741823, "a number of seconds", 60),
    "postgres_log_slow_ms": Range(-1, 2147483647, "a number of milliseconds, or -1 for none", 500),
}
