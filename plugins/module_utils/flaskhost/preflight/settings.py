"""Check the settings of the site: administrators, SSH, the firewall, time, reboots, the CA, TLS, PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ..apps.schema import Option
from ..settings.acme import ACME_OPTIONS
from .backup import check_backup_setting
from .calendars import time_zones
from .network import check_clone_target, check_deploy_batch, check_package_index, check_private_address
from .postgres import check_extra_settings, check_logins, check_version
from .report import Report, Unreadable, closest, get, show, type_name
from .rules import RULES
from .rules.access import ADMIN_OPTIONS, EXAMPLE_IGNORE, EXAMPLE_PROXIES, EXAMPLE_RULE, FIREWALL_OPTIONS
from .rules.certificates import EXAMPLE_EMAIL, credential_fault, email_fault
from .rules.ssh_keys import EXAMPLE_ADMIN
from .schema import check_options, wrong_type
from .shared_address import check_web_address

_EXAMPLE_ACME = "acme: {directory: https://acme-staging-v02.api.letsencrypt.org/directory}"
_EXAMPLE_CREDENTIALS = 'acme: {dns: {plugin: rfc2136, credentials: {dns_rfc2136_secret: "{{ vault_dns_secret }}"}}}'
#: Mozilla's recommendations, https://wiki.mozilla.org/Security/Server_Side_TLS; its third, "old", is not supported.
TLS_POLICIES = ("intermediate", "modern")
_EXAMPLE_TIMEZONE = "timezone: Europe/Stockholm"
_EXAMPLE_SSH_PORT = "ssh_port: 2222"
#: YAML 1.1 parses 12:30 without quotes as the number 750.
_EXAMPLE_REBOOT = 'reboot_time: "04:30"'
_EXAMPLE_SERVERS = "time_servers: [ntp.example.com]"
_EXAMPLE_SWAP = "swap_mb: 1024"


def check_settings(report: Report, settings: Any) -> None:
    """Check all settings. Empty ones count as not set: a site can have no administrators besides the login user.

    Args:
        report: collects the problems.
        settings: the settings by name, as returned by :func:`report.read`.
    """
    if settings is None or isinstance(settings, Unreadable):
        return
    if not isinstance(settings, dict):
        problem = f"The settings must be a mapping of names to values, but are {type_name(settings)}."
        report.add("not_a_mapping", ("settings",), problem, _EXAMPLE_TIMEZONE)
        return
    for name, value in settings.items():
        if name not in SETTINGS:
            near = closest(name, SETTINGS)
            hint = f" Did you mean {near}?" if near else ""
            report.add("unknown_setting", (name,), f"There is no such setting.{hint}", f"one of: {', '.join(SETTINGS)}")
        elif value is not None and value not in ("", []) and not isinstance(value, Unreadable):
            SETTINGS[name](report, value)


def _check_admin_users(report: Report, value: Any) -> None:
    seen: dict[Any, int] = {}
    for index, user in _entries(report, "admin_users", value, ADMIN_OPTIONS, EXAMPLE_ADMIN):
        first = seen.setdefault(get(user, str, "name") or index, index)
        if first != index:
            problem = f"The user is already listed, at [{first}]. Put all keys into one entry."
            report.add("duplicate_admin", ("admin_users", index, "name"), problem, EXAMPLE_ADMIN)


def _check_firewall_allow(report: Report, value: Any) -> None:
    seen: dict[Any, int] = {}
    for index, rule in _entries(report, "firewall_allow", value, FIREWALL_OPTIONS, EXAMPLE_RULE):
        port, protocol = get(rule, int, "port"), get(rule, str, "protocol") or "tcp"
        first = seen.setdefault((port, protocol) if port else index, index)
        if first != index:
            problem = f"The port is already listed, at [{first}]. Put all networks into one entry."
            report.add("duplicate_port", ("firewall_allow", index, "port"), problem, EXAMPLE_RULE)


def _check_fail2ban_ignore(report: Report, value: Any) -> None:
    _check_networks(report, "fail2ban_ignore", value, EXAMPLE_IGNORE)


def _check_trusted_proxies(report: Report, value: Any) -> None:
    _check_networks(report, "trusted_proxies", value, EXAMPLE_PROXIES)


def _check_networks(report: Report, name: str, value: Any, example: str) -> None:
    """Check a list of networks with the rule for its name."""
    if not isinstance(value, list):
        report.add("wrong_type", (name,), wrong_type(value, "list"), example)
        return
    for index, network in enumerate(value):
        place = (name, index)
        if isinstance(network, Unreadable):
            continue
        if not isinstance(network, str):
            report.add("wrong_type", place, wrong_type(network, "str"), example)
        elif fault := RULES[(name,)](network):
            report.add(fault.kind, place, fault.problem, fault.example)


def _check_timezone(report: Report, value: Any) -> None:
    known = time_zones()
    if not isinstance(value, str):
        report.add("wrong_type", ("timezone",), wrong_type(value, "str"), _EXAMPLE_TIMEZONE)
    elif known and value not in known:
        city = next((name for name in sorted(known) if name.lower().endswith(f"/{value.lower()}")), "")
        near = city or closest(value, known)
        hint = f" Did you mean {near}?" if near else ""
        problem = f"{show(value)} is not a time zone of the tz database.{hint}"
        report.add("unknown_timezone", ("timezone",), problem, f"timezone: {near}" if near else _EXAMPLE_TIMEZONE)


def _check_ssh_port(report: Report, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        report.add("wrong_type", ("ssh_port",), wrong_type(value, "int"), _EXAMPLE_SSH_PORT)
    elif not 1 <= value <= 65535:
        report.add("bad_port", ("ssh_port",), f"{show(value)} is not a port: 1 to 65535.", _EXAMPLE_SSH_PORT)
    elif value in (80, 443):
        report.add("port_is_taken", ("ssh_port",), f"{value} is the web server's port.", _EXAMPLE_SSH_PORT)


def _check_reboot_time(report: Report, value: Any) -> None:
    if not isinstance(value, str):
        report.add("wrong_type", ("reboot_time",), wrong_type(value, "str"), _EXAMPLE_REBOOT)
    elif not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        problem = f"{show(value)} is not a time of day as HH:MM, from 00:00 to 23:59."
        report.add("bad_time", ("reboot_time",), problem, _EXAMPLE_REBOOT)


def _check_time_servers(report: Report, value: Any) -> None:
    if not isinstance(value, list):
        report.add("wrong_type", ("time_servers",), wrong_type(value, "list"), _EXAMPLE_SERVERS)
        return
    for index, server in enumerate(value):
        place = ("time_servers", index)
        if isinstance(server, Unreadable):
            continue
        if not isinstance(server, str):
            report.add("wrong_type", place, wrong_type(server, "str"), _EXAMPLE_SERVERS)
        elif not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?", server):
            problem = f"{show(server)} is neither the name nor the address of a server."
            report.add("bad_server", place, problem, _EXAMPLE_SERVERS)


def _check_swap_mb(report: Report, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        report.add("wrong_type", ("swap_mb",), wrong_type(value, "int"), _EXAMPLE_SWAP)
    elif value < 0 or 0 < value < 64:
        problem = f"{show(value)} is not a valid size of the swap file in MB: 64 or more, or 0 for none."
        report.add("bad_size", ("swap_mb",), problem, _EXAMPLE_SWAP)


def _check_acme_email(report: Report, value: Any) -> None:
    if not isinstance(value, str):
        report.add("wrong_type", ("acme_email",), wrong_type(value, "str"), EXAMPLE_EMAIL)
    elif fault := email_fault(value):
        report.add(fault.kind, ("acme_email",), fault.problem, fault.example)


def _check_acme(report: Report, value: Any) -> None:
    if not isinstance(value, dict):
        report.add("wrong_type", ("acme",), wrong_type(value, "options"), _EXAMPLE_ACME)
        return
    check_options(report, ("acme",), ("acme",), value, ACME_OPTIONS)
    for name, item in (get(value, dict, "dns", "credentials") or {}).items():
        problem = "" if isinstance(item, Unreadable) else credential_fault(name, item)
        if problem:
            report.add("bad_credential", ("acme", "dns", "credentials", name), problem, _EXAMPLE_CREDENTIALS)


def _check_tls_policy(report: Report, value: Any) -> None:
    example = f"tls_policy: {TLS_POLICIES[0]}"
    if not isinstance(value, str):
        report.add("wrong_type", ("tls_policy",), wrong_type(value, "str"), example)
    elif value not in TLS_POLICIES:
        near = closest(value, TLS_POLICIES)
        hint = f" Did you mean {near}?" if near else ""
        problem = f"{show(value)} is not one of {', '.join(TLS_POLICIES)}.{hint}"
        report.add("wrong_choice", ("tls_policy",), problem, f"tls_policy: {near}" if near else example)


def _check_http3(report: Report, value: Any) -> None:
    if not isinstance(value, bool):
        report.add("wrong_type", ("http3",), wrong_type(value, "bool"), "http3: true")


#: The checks, by the setting's name.
SETTINGS: dict[str, Callable[[Report, Any], None]] = {
    "admin_users": _check_admin_users,
    "firewall_allow": _check_firewall_allow,
    "fail2ban_ignore": _check_fail2ban_ignore,
    "trusted_proxies": _check_trusted_proxies,
    "ssh_port": _check_ssh_port,
    "timezone": _check_timezone,
    "time_servers": _check_time_servers,
    "reboot_time": _check_reboot_time,
    "swap_mb": _check_swap_mb,
    "acme_email": _check_acme_email,
    "acme": _check_acme,
    "tls_policy": _check_tls_policy,
    "http3": _check_http3,
    "postgres_version": check_version,
    "postgres_extra_settings": check_extra_settings,
    "postgres_logins": check_logins,
    "backup": check_backup_setting,
    "package_index": check_package_index,
    "private_address": check_private_address,
    "web_address": check_web_address,
    "deploy_batch": check_deploy_batch,
    "clone_target": check_clone_target,
}


def _entries(
    report: Report, name: str, value: Any, options: dict[str, Option], example: str
) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Check a list of mappings, and yield the entries that are mappings."""
    if not isinstance(value, list):
        report.add("wrong_type", (name,), wrong_type(value, "list"), example)
        return
    for index, entry in enumerate(value):
        if isinstance(entry, dict):
            check_options(report, (name, index), (name,), entry, options)
            yield index, entry
        elif not isinstance(entry, Unreadable):
            report.add("wrong_type", (name, index), wrong_type(entry, "options"), example)
