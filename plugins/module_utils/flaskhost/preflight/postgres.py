"""The site's PostgreSQL settings: check its version, its settings, and the passwords of roles with remote logins."""

from __future__ import annotations

import re
from typing import Any

from ..apps import placeholders
from .report import Report, Unreadable, get, show
from .schema import wrong_type

EXAMPLE_VERSION = 'postgres_version: "15"'
EXAMPLE_SETTINGS = "postgres_extra_settings: {work_mem: 64MB}"
EXAMPLE_LOGINS = 'postgres_logins: {shop: {a: "{{ vault_shop_database_a }}"}}'
EXAMPLE_ELSEWHERE = 'secrets: {DATABASE_URL: "{{ vault_shop_database_url }}"}'
#: Settings that Flaskhost depends on, and the consequence of a change.
OWN_SETTINGS = {
    "config_file": "Debian's tools expect it in its place.",
    "data_directory": "Debian's tools expect it in its place.",
    "external_pid_file": "Debian's tools expect it in its place.",
    "hba_file": "PostgreSQL would not read the rules for logins.",
    "ident_file": "Debian's tools expect it in its place.",
    "port": "The apps would not find PostgreSQL.",
    "unix_socket_directories": "The apps would not find PostgreSQL.",
    "fsync": "A power failure would destroy the data.",
    "full_page_writes": "A power failure would destroy the data.",
    "archive_command": "The backups set it (postgres_archive_command).",
    "archive_mode": "The backups set it (postgres_archive_command).",
}
#: 16 random letters and digits are 95 bits. SCRAM prevents offline guesses, but nothing slows down login attempts.
SHORTEST_PASSWORD = 16


def check_version(report: Report, value: Any) -> None:
    """Check ``postgres_version``."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        report.add("wrong_type", ("postgres_version",), wrong_type(value, "str"), EXAMPLE_VERSION)
    elif not (13 <= value < 100 if isinstance(value, int) else re.fullmatch(r"1[3-9]|[2-9]\d", value)):
        problem = f"{show(value)} is not a major version of PostgreSQL, such as 15 or 17."
        report.add("bad_version", ("postgres_version",), problem, EXAMPLE_VERSION)


def check_extra_settings(report: Report, value: Any) -> None:
    """Check ``postgres_extra_settings``. PostgreSQL itself validates the values before they are applied."""
    if not isinstance(value, dict):
        report.add("wrong_type", ("postgres_extra_settings",), wrong_type(value, "dict"), EXAMPLE_SETTINGS)
        return
    for name, item in value.items():
        place = ("postgres_extra_settings", name)
        if not isinstance(name, str) or not re.fullmatch(r"[a-z_]+(?:\.[a-z_]+)?", name):
            report.add("bad_setting", place, f"{show(name)} is not the name of a setting.", EXAMPLE_SETTINGS)
        elif name in OWN_SETTINGS:
            report.add("bad_setting", place, f"This setting cannot be changed. {OWN_SETTINGS[name]}", EXAMPLE_SETTINGS)
        elif isinstance(item, Unreadable):
            continue
        elif not isinstance(item, str | int | float):
            report.add("wrong_type", place, wrong_type(item, "str"), EXAMPLE_SETTINGS)
        elif isinstance(item, str) and re.search(r"[\x00-\x1f\x7f]", item):
            problem = "Contains a line break or another control character. Write it on one line."
            report.add("control_character", place, problem, EXAMPLE_SETTINGS)


def check_logins(report: Report, value: Any) -> None:
    """Check ``postgres_logins``. No message shows a password."""
    if not isinstance(value, dict):
        report.add("wrong_type", ("postgres_logins",), wrong_type(value, "dict"), EXAMPLE_LOGINS)
        return
    for name, words in value.items():
        place = ("postgres_logins", name)
        if isinstance(words, Unreadable):
            continue
        if not isinstance(words, dict):
            report.add("wrong_type", place, wrong_type(words, "dict"), EXAMPLE_LOGINS)
            continue
        for word, password in words.items():
            here = (*place, word)
            if not isinstance(word, str) or not re.fullmatch(r"[a-z][a-z0-9]{0,15}", word):
                problem = f"{show(word)} cannot end a role's name. Use up to 16 lower-case letters and digits."
                report.add("bad_login", here, problem, EXAMPLE_LOGINS)
            elif isinstance(password, Unreadable) or password in (None, ""):
                continue
            elif not isinstance(password, str):
                report.add("wrong_type", here, wrong_type(password, "str"), EXAMPLE_LOGINS)
            elif not re.fullmatch(rf"[\x21-\x7e]{{{SHORTEST_PASSWORD},256}}", password):
                problem = (
                    f"The password must have at least {SHORTEST_PASSWORD} letters, digits and symbols, without spaces."
                )
                report.add("bad_login", here, problem, "the output of openssl rand -base64 32, in ansible-vault")


def check_database_elsewhere(report: Report, variable: str, apps: dict[Any, Any]) -> None:
    """Check that each app has a database URL, on a host without PostgreSQL.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value.
    """
    for name, app in apps.items():
        given = {**(get(app, dict, "env") or {}), **(get(app, dict, "secrets") or {})}
        own = placeholders.own_database(given)
        if isinstance(app, dict) and get(app, bool, "database") is not False and not own:
            problem = (
                "This host runs the app but is not in the group db, so it has no PostgreSQL of its own. "
                "Set the URL of the database (docs/postgres.md), or database: false."
            )
            report.add("database_elsewhere", (variable, name, "secrets"), problem, EXAMPLE_ELSEWHERE)


def check_role_names(report: Report, variable: str, apps: dict[Any, Any], settings: Any) -> None:
    """Check that no app has the name of another app's PostgreSQL role.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value.
        settings: the settings of the site.
    """
    logins = get(settings, dict, "postgres_logins") or {}
    for name in (name for name in apps if isinstance(name, str)):
        words = {"owner", *(get(logins, dict, name) or {})}
        for word in sorted(word for word in words if isinstance(word, str)):
            other = f"{name}-{word}"
            if other in apps:
                problem = f"The app {name} has a PostgreSQL role with this name. Choose another name."
                report.add("app_name_is_role", (variable, other), problem, f"{other}-app")
    for name in logins:
        if name not in apps:
            problem = f"There is no app {show(name)} in {variable}."
            report.add("unknown_app", ("postgres_logins", name), problem, EXAMPLE_LOGINS)
