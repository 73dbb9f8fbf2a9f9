"""Backups: check the site's setting ``backup``, and its references to the apps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

from ..programs.backup import Refused, sftp_options
from ..settings.backup import BACKUP_OPTIONS
from .report import Report, Unreadable, closest, get, read_item, show, type_name
from .schema import check_options, wrong_type

#: Minimum characters. Anyone who copies the repository has unlimited time to guess: 20 from openssl are 120 bits.
PASSPHRASE_MINIMUM = 20
_EXAMPLE = (
    'backup: {passphrase: "{{ vault_backup_passphrase }}"}  # in vault.yml; to create it: openssl rand -base64 32'
)
_EXAMPLE_SECOND = (
    "backup: {second: {repository: sftp:backup@203.0.113.20:/flaskhost/production1, "
    'ssh_key: "{{ vault_backup_ssh_key }}",\n'
    "         known_hosts: the output of ssh-keyscan 203.0.113.20, after you have compared it}}"
)
_EXAMPLE_S3 = (
    "backup: {second: {repository: s3:https://s3.example.com/bucket/production1,\n"
    '         environment: {AWS_ACCESS_KEY_ID: backup, AWS_SECRET_ACCESS_KEY: "{{ vault_backup_s3_secret }}"}}}'
)
_EXAMPLE_REST = (
    "backup: {second: {repository: rest:https://backup.example.com/production1,\n"
    '         environment: {RESTIC_REST_USERNAME: web1, RESTIC_REST_PASSWORD: "{{ vault_backup_rest_secret }}"}}}'
)
#: The login variables, by the prefix of the repository.
_LOGINS = {
    "s3:": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "rest:": ("RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"),
}
_PLACEHOLDERS = ("change", "replace", "passphrase", "password", "secret", "example", "your")


def check_backup_setting(report: Report, value: Any) -> None:
    """Check the setting by itself.

    Args:
        report: collects the problems.
        value: the user's value.
    """
    if not isinstance(value, dict):
        report.add("wrong_type", ("backup",), wrong_type(value, "options"), _EXAMPLE)
        return
    check_options(report, ("backup",), ("backup",), value, BACKUP_OPTIONS)
    _check_passphrase(report, value)
    _check_second(report, value)
    for name, query in (get(value, dict, "assertions") or {}).items():
        if not isinstance(query, (str, Unreadable)):
            problem = f"Must be a query, but is {type_name(query)}."
            report.add("wrong_type", ("backup", "assertions", name), problem, "SELECT count(*) > 0 FROM entry")
    hook = get(value, str, "hook")
    if hook:
        try:
            shlex.split(hook)
        except ValueError:
            report.add(
                "malformed", ("backup", "hook"), "The command has an unclosed quote.", "hook: /usr/local/bin/tell"
            )


def _check_passphrase(report: Report, value: dict[Any, Any]) -> None:
    place, passphrase = ("backup", "passphrase"), get(value, str, "passphrase")
    if not passphrase:
        if value.get("passphrase") in (None, "") and len(value) > (1 if "passphrase" in value else 0):
            problem = "The passphrase is missing. Without it, nothing is backed up."
            report.add("missing", place, problem, _EXAMPLE)
        return
    if len(passphrase) < PASSPHRASE_MINIMUM:
        problem = (
            f"The passphrase has {len(passphrase)} characters and needs {PASSPHRASE_MINIMUM}: it is easy to guess."
        )
        report.add("short_passphrase", place, problem, _EXAMPLE)
    elif len(set(passphrase)) < 6 or any(word in passphrase.lower() for word in _PLACEHOLDERS[:2]):
        report.add("placeholder_secret", place, "The passphrase is a placeholder, or easy to guess.", _EXAMPLE)
    elif passphrase.strip() != passphrase:
        report.add("malformed", place, "The passphrase starts or ends with a space, which pgBackRest strips.", _EXAMPLE)


def _check_second(report: Report, value: dict[Any, Any]) -> None:
    second = get(value, dict, "second") or {}
    repository, place = get(second, str, "repository") or "", ("backup", "second")
    for name, item in (get(second, dict, "environment") or {}).items():
        # Messages never show the value.
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problem = "Not a valid variable name. Use letters, digits and _, and do not start with a digit."
            report.add("bad_variable_name", (*place, "environment", name), problem, _EXAMPLE_S3)
        elif isinstance(item, (dict, list)) or (isinstance(item, str) and re.search(r"[\x00-\x1f\x7f]", item)):
            problem = "Must be a string or a number, on one line."
            report.add("bad_variable_value", (*place, "environment", name), problem, _EXAMPLE_S3)
    if not repository:
        if second and "repository" not in second:
            report.add("missing", (*place, "repository"), "The second repository is missing.", _EXAMPLE_SECOND)
        return
    if repository.startswith("sftp:"):
        try:
            sftp_options({"repository": repository})
        except Refused:
            problem = f"{show(repository)} is not a valid SFTP repository."
            cure = "sftp:USER@HOST:/PATH, or with a port: sftp://USER@HOST:PORT//PATH"
            report.add("malformed", (*place, "repository"), problem, cure)
        if not get(second, str, "known_hosts") and not isinstance(second.get("known_hosts"), Unreadable):
            problem = "The host key is missing. Without it, the host cannot verify where its backups go."
            report.add("missing", (*place, "known_hosts"), problem, _EXAMPLE_SECOND)
    elif repository.startswith(tuple(_LOGINS)):
        _check_login(report, repository, second)
    elif repository.startswith("/"):
        path = get(value, str, "path") or str(BACKUP_OPTIONS["path"].default)
        if repository == path or repository.startswith(f"{path}/"):
            problem = "The second repository is inside the first: a failure that destroys one destroys both."
            report.add("malformed", (*place, "repository"), problem, _EXAMPLE_SECOND)


def _check_login(report: Report, repository: str, second: dict[Any, Any]) -> None:
    """Check the login of a storage service. It cannot be part of the URL, because URLs are not kept secret."""
    place, kind = ("backup", "second"), repository.partition(":")[0] + ":"
    example = _EXAMPLE_S3 if kind == "s3:" else _EXAMPLE_REST
    if "@" in repository.partition("://")[2].partition("/")[0]:
        problem = "The URL contains a password, which --diff shows and your inventory's history keeps."
        report.add("secret_in_repo", (*place, "repository"), problem, example)
        return
    given = get(second, dict, "environment") or {}
    absent = [name for name in _LOGINS[kind] if name not in given]
    # A private REST server can authenticate by certificate or by network instead.
    wanted = kind == "s3:" or len(absent) == 1
    if absent and wanted and not isinstance(second.get("environment"), Unreadable):
        problem = f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing: the login would fail."
        report.add("missing", (*place, "environment"), problem, example)


def hosts_with_repository(hosts: Iterable[str], host: str, variables: Any) -> list[str]:
    """Return the other hosts that have the same second repository as a host.

    Args:
        hosts: the names of the hosts to check.
        host: the host's own name.
        variables: each host's variables, whose templates are evaluated when they are read. Values that cannot be
            evaluated are ignored here, because the check of that host reports them.

    Returns:
        Their names; empty if the repository is a path, which each host has for itself.
    """
    own = _repository(variables, host)
    if not own or own.startswith("/"):
        return []
    return [str(other) for other in hosts if other != host and _repository(variables, other) == own]


def _repository(variables: Any, host: str) -> str:
    value = variables
    for step in (host, "backup", "second", "repository"):
        value = read_item(value, step)
    return value.rstrip("/") if isinstance(value, str) else ""


def check_own_repository(report: Report, others: Iterable[str]) -> None:
    """Check that no other host uses the same second repository.

    Args:
        report: collects the problems.
        others: the hosts with the same repository, from :func:`hosts_with_repository`.
    """
    if names := ", ".join(others):
        problem = f"{names} would use the same repository. Hosts that create one at the same time destroy it."
        cure = "repository: sftp:backup@203.0.113.20:/flaskhost/{{ inventory_hostname }}"
        report.add("shared_repository", ("backup", "second", "repository"), problem, cure)


def check_backup(report: Report, variable: str, apps: dict[Any, Any], settings: Any) -> None:
    """Check the setting's references to the apps.

    Args:
        report: collects the problems.
        variable: the name of the apps' variable.
        apps: the apps.
        settings: the settings by name.
    """
    assertions = get(settings, dict, "backup", "assertions") or {}
    with_database = [
        name for name, app in apps.items() if not isinstance(app, dict) or app.get("database") is not False
    ]
    for name in assertions:
        if name not in with_database:
            near = closest(name, with_database)
            hint = f" Did you mean {near}?" if near else ""
            problem = f"There is no app {show(name)} with a database in {variable}.{hint}"
            names = ", ".join(map(str, with_database)) or "none"
            report.add("unknown_app", ("backup", "assertions", name), problem, f"one of: {names}")
