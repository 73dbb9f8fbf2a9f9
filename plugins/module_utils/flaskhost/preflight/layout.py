"""Check that the hosts of the inventory can work together: the groups, and the addresses that the hosts need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apps.options import APP_OPTIONS
from .report import Report, get, read

EXAMPLE_WEB = "web: {children: {app: }}, so that each app host serves visitors; or, behind your own load balancer,\n"
EXAMPLE_WEB += "trusted_proxies: [10.0.0.0/24], with the network of the load balancer"
EXAMPLE_APART = "web: {hosts: {web1: }} and app: {hosts: {app1: , app2: }}"
EXAMPLE_ONE_DATABASE = "db: {hosts: {db1: }}, with one host"
EXAMPLE_ADDRESS = "private_address: 10.0.0.5, in the host's lines of hosts.yml"


def check_layout(report: Report, hosts: Any, settings: Any) -> None:
    """Check all hosts together.

    Args:
        report: collects the problems.
        hosts: the result of :func:`settings.layout.describe_hosts`.
        settings: the site's settings.
    """
    web, app, db = ([host["name"] for host in hosts if group in host["groups"]] for group in ("web", "app", "db"))
    _check_web(report, web, app, bool(get(settings, list, "trusted_proxies")))
    _check_databases(report, app, db)
    remote = [name for name in app if name not in db] if db else []
    apart = _apart(hosts)
    # The hosts that connect to each other: app hosts without PostgreSQL and the database hosts, and web hosts and app
    # hosts. nginx listens on its private address, so that another one will not do.
    needed = {*remote, *(db if remote else []), *apart}
    _check_addresses(report, [host for host in hosts if host["name"] in needed], apart)


def check_apps_apart(report: Report, variable: str, apps: Mapping[Any, Any], hosts: Any) -> None:
    """Check that no app has an option that needs nginx and the app on the same host, if the groups are apart.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: the apps by name.
        hosts: the result of :func:`settings.layout.describe_hosts`.
    """
    for name in apps if _apart(hosts) else ():
        place = (variable, name, "protected_files")
        if get(apps[name], dict, "protected_files") and report.clean(place):
            problem = "The web hosts cannot send files that are on the app hosts."
            report.add("protected_files_apart", place, problem, "no protected_files; the app sends these files itself")


def _apart(hosts: Any) -> list[str]:
    """Return the web hosts and app hosts if no host is both."""
    web, app = ([host["name"] for host in hosts if group in host["groups"]] for group in ("web", "app"))
    return [*web, *app] if web and app and not set(web) & set(app) else []


def _check_web(report: Report, web: list[str], app: list[str], behind_own_balancer: bool) -> None:
    if app and not web and not behind_own_balancer:
        problem = f"No host is in the group web, so visitors cannot reach the apps on {', '.join(app)}."
        report.add("no_web_host", ("groups", "web"), problem, EXAMPLE_WEB)
    elif web and not app:
        problem = f"No host is in the group app, so {', '.join(web)} would have no app to serve."
        report.add("no_app_host", ("groups", "app"), problem, "app: {children: {server: }}")
    elif set(web) & set(app) and set(web) != set(app):
        both, some = (", ".join(sorted(found)) for found in (set(web) & set(app), set(web) ^ set(app)))
        problem = (
            f"{both} would serve visitors from its own apps, and so forward no visitor to or from {some}. Either every "
            "host is in both groups, or no host is."
        )
        report.add("mixed_groups", ("groups", "web"), problem, EXAMPLE_APART)


def _check_databases(report: Report, app: list[str], db: list[str]) -> None:
    # If each host has its own apps and its own database, they are separate servers of one inventory.
    if len(db) > 1 and set(db) != set(app):
        problem = (
            f"{', '.join(db)} would be separate database servers, and nothing copies data between them. "
            "Flaskhost does not replicate databases."
        )
        report.add("several_databases", ("groups", "db"), problem, EXAMPLE_ONE_DATABASE)


def _check_addresses(report: Report, hosts: list[dict[str, Any]], apart: list[str]) -> None:
    seen: dict[str, str] = {}
    for host in hosts:
        name, address = host["name"], host["address"]
        if name in apart:
            address = host["private_address"]
        place = ("hosts", name, "private_address")
        if not address:
            problem = f"Other hosts connect to {name} or accept connections from it, and need its private address."
            report.add("no_private_address", place, problem, EXAMPLE_ADDRESS)
        elif first := seen.get(address):
            problem = f"{name} has the same address as {first}, {address}."
            report.add("shared_address", place, problem, EXAMPLE_ADDRESS)
        else:
            seen[address] = name


def layout_warnings(apps: Any, hosts: Any) -> list[str]:
    """Warn about what each app host keeps for itself, although visitors reach any of them.

    Args:
        apps: the user's ``flask_apps``, of any type.
        hosts: the result of :func:`settings.layout.describe_hosts`.
    """
    web, app = ([host["name"] for host in hosts if group in host["groups"]] for group in ("web", "app"))
    apps = read(Report([]), (), apps)
    # Servers that are complete each are separate sites.
    if len(app) < 2 or set(app) == set(web) or not isinstance(apps, dict):
        return []
    found = []
    for name, given in apps.items():
        folders = get(given, list, "persistent")
        kept = APP_OPTIONS["persistent"].default if folders is None else folders
        if kept and isinstance(given, dict):
            found.append(
                f"flask_apps.{name}.persistent: each of {', '.join(app)} keeps its own {' and '.join(map(str, kept))}, "
                "and a visitor's next request can reach another host. Store files in object storage, and set "
                "persistent: []"
            )
    return found
