"""Prepare the input of playbooks/status.yml, and turn the results of the hosts into its table and report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..apps import instances
from ..apps.record import app_record
from ..deploy.freeze import utc
from ..operate.status import clip

#: The columns of the table: key in the row, and heading.
COLUMNS = {
    "host": "host",
    "app": "app",
    "release": "live release",
    "commit": "commit",
    "version": "version",
    "since": "since (UTC)",
    "by": "by",
    "slot": "slot",
    "health": "health",
    "previous": "previous healthy release",
    "certificate": "cert days",
    "cache": "cache",
    "queue": "queue",
    "backup": "backup",
    "drill": "drill",
    "notes": "notes",
}
#: The note for a host that Ansible cannot log in to. A changed SSH port is the cause that is most often overlooked.
UNREACHABLE = "unreachable: is the host up, and is ansible_port in the inventory its SSH port?"
#: The text of an empty cell.
NOTHING = "-"


def apps_to_ask(apps: Any, app: str = "") -> list[dict[str, Any]]:
    """Return what a host needs to report the status of the apps: only domains and health checks, no secrets.

    Args:
        apps: ``flask_apps``, not validated.
        app: the app's name; empty for all apps.

    Returns:
        For each app ``app``, ``root``, ``unit``, ``socket_dir``, ``live_socket``, ``certificate``, ``maintenance``,
        ``host``, ``health`` and ``instances``.
    """
    names = sorted(str(name) for name in apps) if isinstance(apps, Mapping) else []
    return [_to_ask(name, apps[name]) for name in names if app in ("", name)]


def _to_ask(name: str, app: Any) -> dict[str, Any]:
    app = app if isinstance(app, Mapping) else {}
    plain = {"domains": app.get("domains") or [name], "health": app.get("health"), "source": {}, "wsgi": ""}
    record = app_record(name, plain)
    fields = ("root", "unit", "socket_dir", "live_socket", "certificate", "maintenance")
    health = {key: record["health"][key] for key in ("path", "status", "body") if key in record["health"]}
    return {
        "app": name,
        **{key: record[key] for key in fields},
        "host": record["canonical_domain"],
        "health": health,
        "instances": _instances(name, app),
    }


def _instances(name: str, app: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the app's cache and queue, as far as its options are valid."""
    kinds = [kind for kind in instances.KINDS if app.get(kind) in instances.ENGINES[kind]]
    fields = ("kind", "engine", "unit", "user", "socket")
    found = (instances.instance(name, kind, app[kind]) for kind in kinds)
    return [{field: item[field] for field in fields} for item in found]


def rows(results: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Collect the rows of all hosts.

    Args:
        results: for each host, its name and the result of the module flask_status, or its error.

    Returns:
        Rows as returned by :func:`operate.status.read`, each with its ``host``; one row for a host that did not return
        any.
    """
    found: list[dict[str, Any]] = []
    for host, result in results:
        answer = result if isinstance(result, Mapping) else {}
        if isinstance(answer.get("rows"), Sequence):
            found += [{"host": str(host), **row} for row in answer["rows"]]
            continue
        reason = clip(str(answer.get("msg") or "no result"))
        note = UNREACHABLE if answer.get("unreachable") else f"status not available: {reason}"
        found.append({"host": str(host), "notes": [note], "host_problems": [note]})
    return found


def report(rows: Sequence[Mapping[str, Any]], now: float) -> dict[str, Any]:
    """Build the report for scripts.

    Args:
        rows: the result of :func:`rows`.
        now: current time in seconds since 1970.

    Returns:
        ``ok``, whether nothing needs attention; ``at``, the time of the report; ``problems``, texts that begin with the
        host, followed by the app if they concern one; ``rows``; and ``aside``, the data that restores have set aside,
        each with its ``host``.
    """
    problems: list[str] = []
    aside: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        host = str(row["host"])
        problems += [f"{host}: {row['app']}: {text}" for text in row.get("problems") or []]
        # Problems of the host are in each of its rows.
        problems += [text for item in row.get("host_problems") or [] if (text := f"{host}: {item}") not in problems]
        aside.setdefault(host, list(row.get("aside") or []))
    problems += _address_problems(rows)
    return {
        "ok": not problems,
        "at": now,
        "problems": problems,
        "aside": [{"host": host, **thing} for host, things in aside.items() for thing in things],
        "rows": [{key: value for key, value in row.items() if key != "aside"} for row in rows],
    }


def _address_problems(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check that exactly one web host has the address that moves between them."""
    shared = {str(row["host"]): row["shared_address"] for row in rows if row.get("shared_address")}
    having = [host for host, found in shared.items() if found["here"]]
    address = next((found["address"] for found in shared.values()), "")
    if len(having) > 1:
        return [f"{address}: {' and '.join(having)} have it at once. Can they reach each other (VRRP)?"]
    # A host that did not answer may have it.
    if shared and not having and all("app" in row for row in rows):
        return [f"{address}: no web host has it. On one of {', '.join(shared)}: sudo journalctl -u keepalived -u nginx"]
    return []


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Format the table.

    Args:
        rows: the result of :func:`rows`; missing keys become empty cells.

    Returns:
        Lines with aligned columns, each as narrow as possible, without trailing spaces; below them, the data that
        restores have set aside.
    """
    rows = list(rows)
    lines = [list(COLUMNS.values()), *([_cell(row, key) for key in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    aside = report(rows, 0.0)["aside"]
    below = [f"Kept by a restore on {_plain(item['host'])}: {_plain(_aside(item))}" for item in aside]
    return "\n".join([*(line.rstrip() for line in padded), *([""] if below else []), *below])


def _aside(item: Mapping[str, Any]) -> str:
    megabytes = float(item["bytes"]) / 1e6
    size = f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.1f} MB"
    return f"{item['name']}, {size}, {utc(item['at'])}. To delete it: {item['remove']}"


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if key == "notes":
        value = "; ".join(value or [])
    elif key == "since":
        value = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M}" if value else ""
    text = _plain(value)
    return NOTHING if value is None or not text else text


def _plain(value: Any) -> str:
    """Return a text on one line without control characters, which could move the terminal's cursor or the columns."""
    return " ".join("".join(item if item.isprintable() else " " for item in str(value)).split())
