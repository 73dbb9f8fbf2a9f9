"""The apps: check their names, options that depend on each other, and conflicts between apps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..apps.names import RESERVED_NAMES
from ..apps.options import APP_OPTIONS, ONE_PROCESS
from .app_files import check_files
from .calendars import EXAMPLE_TIMER
from .certificates import same_name
from .code_tree import check_code, check_source
from .protected_files import check_protected_files
from .report import Place, Report, Unreadable, get, path_parts, path_text, show, snippet, type_name
from .rules.domains import bare_domain
from .rules.http import EXAMPLE_BASIC_AUTH, EXAMPLE_HEADERS, basic_auth_fault, header_fault
from .rules.processes import process_command_fault, process_name_fault, unit_name_fault
from .schema import check_options
from .variables import check_variables

_APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}[a-z0-9]|[a-z]")
_EXAMPLE = """\
{}:
  shop:
    domains: [shop.localhost]
    source: {{path: sample_app}}
    wsgi: "guestbook:create_app()\""""
#: Minimum characters of a secret to search for. Commands contain shorter values by chance: a name, a number, a word.
SHORTEST_SECRET = 12
_COMMANDS = ("build_command", "setup_command", "release_command")
_EXAMPLE_PROCESSES = "processes: {worker: celery -A shop worker}"
_EXAMPLE_PERSISTENT = "persistent: [instance, uploads]"


def check_apps(report: Report, variable: str, apps: Any, project_dir: Path, facts: Any = None) -> None:
    """Check the whole mapping, app by app.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value, as returned by :func:`report.read`.
        project_dir: the base folder for a relative ``source.path``.
        facts: the host's facts.
    """
    example = _EXAMPLE.format(variable)
    if isinstance(apps, Unreadable):
        return
    if apps is None or apps in ("", {}, []):
        report.add("no_apps", (variable,), f"{variable} is not set or empty, so there is no app to deploy.", example)
        return
    if not isinstance(apps, dict):
        problem = f"Must be a mapping of app names to apps, but is {type_name(apps)}."
        report.add("not_a_mapping", (variable,), problem, example)
        return
    report.apps = list(apps)
    for name, app in apps.items():
        place = (variable, name)
        _check_name(report, place, name)
        if isinstance(app, dict):
            _check_app(report, place, app, project_dir, facts)
        elif not isinstance(app, Unreadable):
            problem = f"Must be a mapping of options, but is {type_name(app)}."
            report.add("not_a_mapping", place, problem, example)


def _check_name(report: Report, place: Place, name: Any) -> None:
    if not isinstance(name, str):
        hint = "YAML reads yes, no, on, off and digits as other types: write the name in quotes, or choose another one."
        report.add("bad_app_name", place, f"An app's name must be a string, but is {type_name(name)}. {hint}", "shop")
    elif not _APP_NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:31].strip("-")
        problem = (
            f"{show(name)} is not a valid app name, because it also names a user, folders and a database. Use at most "
            "31 lower-case letters, digits and hyphens, starting with a letter and not ending with a hyphen."
        )
        report.add("bad_app_name", place, problem, better or "shop")
    elif name in RESERVED_NAMES:
        problem = f"{name} is reserved for a user, group, database or folder of the system. Choose another name."
        report.add("reserved_app_name", place, problem, f"{name}-app")


def _check_app(report: Report, place: Place, app: dict[Any, Any], project_dir: Path, facts: Any) -> None:
    check_options(report, place, (), app, APP_OPTIONS)
    if code := check_source(report, place, app, project_dir):
        check_code(report, place, app, *code, facts=facts)
    check_variables(report, place, app)
    check_files(report, place, app)
    _check_background(report, place, app)
    _check_secrets_in_commands(report, place, app)
    _check_persistent(report, place, app)
    check_protected_files(report, place, app)
    _check_front(report, place, app)
    _check_server(report, place, app)


def _check_server(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check that the application server has what the options set."""
    server, worker_class = get(app, str, "server") or "gunicorn", get(app, str, "worker_class")
    if worker_class and server != "gunicorn":
        problem = f"Only gunicorn has worker classes, and the app runs with {server}. Remove this option, or server."
        report.add("worker_class_without_gunicorn", (*place, "worker_class"), problem, "server: gunicorn")
    elif get(app, int, "threads") not in (None, 1) and worker_class not in (None, "gthread"):
        problem = f"Workers of the class {worker_class} have one thread, so threads has no effect."
        report.add("threads_without_gthread", (*place, "threads"), problem, "worker_class: gthread")
    if get(app, int, "workers") not in (None, 1) and server in ONE_PROCESS:
        problem = f"The server {server} is one process. Set threads instead, or use another server."
        report.add("workers_without_processes", (*place, "workers"), problem, "workers: 1")


def _check_background(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check the names of processes and timers, which become unit and file names, and the processes' commands."""
    for option, check, example in (
        ("processes", process_name_fault, _EXAMPLE_PROCESSES),
        ("timers", unit_name_fault, EXAMPLE_TIMER),
    ):
        for name in get(app, dict, option) or {}:
            if problem := check(name):
                report.add("bad_process_name", (*place, option, name), problem, example)
    for name, command in (get(app, dict, "processes") or {}).items():
        problem = "" if isinstance(command, Unreadable) else process_command_fault(command)
        if problem:
            report.add("bad_process_command", (*place, "processes", name), problem, _EXAMPLE_PROCESSES)


def _check_secrets_in_commands(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check that no command contains a secret: commands are visible in the process list and in the journal."""
    secrets = {
        name: value
        for name, value in (get(app, dict, "secrets") or {}).items()
        if isinstance(value, str) and len(value) >= SHORTEST_SECRET
    }
    commands: dict[Place, Any] = {(name,): get(app, str, name) for name in _COMMANDS}
    commands |= {("processes", name): command for name, command in (get(app, dict, "processes") or {}).items()}
    for name in get(app, dict, "timers") or {}:
        commands["timers", name, "command"] = get(app, str, "timers", name, "command")
    for where, command in commands.items():
        found = [name for name, value in secrets.items() if isinstance(command, str) and value in command]
        if found:
            problem = (
                f"The command contains the value of secrets.{found[0]}, and the process list and the journal show it."
            )
            cure = f'the command with "${found[0]}" instead, or code that reads {found[0]} from the environment'
            report.add("secret_in_command", (*place, *where), problem, cure)


def _check_front(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check nginx's part of the app's options: authentication, allowed methods, and added headers."""
    for option, check, example in (
        ("basic_auth", basic_auth_fault, EXAMPLE_BASIC_AUTH),
        ("headers", header_fault, EXAMPLE_HEADERS),
    ):
        kind = "bad_header" if option == "headers" else "bad_basic_auth"
        for name, value in (get(app, dict, option) or {}).items():
            if problem := "" if isinstance(value, Unreadable) else check(name, value):
                report.add(kind, (*place, option, name), problem, example)
    # Header names are case-insensitive.
    seen: dict[str, str] = {}
    for name in get(app, dict, "headers") or {}:
        known = seen.setdefault(name.lower(), name) if isinstance(name, str) else name
        if known != name and report.clean((*place, "headers", name)):
            report.add("bad_header", (*place, "headers", name), f"Already set, as {known}.", EXAMPLE_HEADERS)
    methods = get(app, list, "methods")
    # Health checks use GET, and so does every browser.
    if methods is not None and "GET" not in methods and report.clean((*place, "methods")):
        problem = "GET is missing. Browsers and health checks use it for every page."
        report.add("methods_without_get", (*place, "methods"), problem, "methods: [GET, HEAD, POST]")


def _check_persistent(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check that the data folders contain no code and no static files, and are not nested."""
    static = path_parts(get(app, str, "static", "path") or "")
    module = tuple((get(app, str, "wsgi") or "").partition(":")[0].split("."))
    earlier: list[tuple[str, ...]] = []
    for index, folder in enumerate(get(app, list, "persistent") or []):
        here = (*place, "persistent", index)
        parts = path_parts(folder) if isinstance(folder, str) else ()
        if not parts or not report.clean(here):
            continue
        if static and _holds(parts, static):
            problem = (
                f"{show(folder)} contains the static files, which are part of the code and change with each release."
            )
            report.add("persistent_over_static", here, problem, _EXAMPLE_PERSISTENT)
        elif _holds(parts, module) or _holds(parts, ("src", *module)):
            problem = f"{show(folder)} contains the app's code, which the data folder would hide."
            report.add("persistent_over_code", here, problem, _EXAMPLE_PERSISTENT)
        elif any(_holds(parts, other) or _holds(other, parts) for other in earlier):
            problem = f"{show(folder)} and another entry contain each other. Keep only the outer folder."
            report.add("persistent_overlap", here, problem, _EXAMPLE_PERSISTENT)
        earlier.append(parts)


def _holds(folder: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Check whether a path is the folder, or inside of it."""
    return path[: len(folder)] == folder


def check_between_apps(report: Report, variable: str, apps: dict[Any, Any], settings: Any) -> None:
    """Check for conflicts between two apps, or between an app and an administrator.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value.
        settings: the settings of the site.
    """
    admins = {get(user, str, "name") for user in get(settings, list, "admin_users") or []}
    owners: dict[str, Place] = {}
    for name, app in apps.items():
        if isinstance(name, str) and name in admins:
            problem = "An administrator in admin_users has the same name, so the app would run as that user."
            report.add("app_name_is_admin", (variable, name), problem, f"{name}-app")
        for index, domain in enumerate(get(app, list, "domains") or []):
            bare = same_name(domain, bare_domain(domain)) if isinstance(domain, str) else ""
            place = (variable, name, "domains", index)
            first = owners.setdefault(bare, place) if bare else place
            if first[1] != name:
                problem = f"{show(domain)} already belongs to another app, at {path_text(first)}. A domain has one app."
                works = bare_domain(name) if isinstance(name, str) else "shop.localhost"
                report.add("shared_domain", place, problem, snippet(("domains",), [works]))
