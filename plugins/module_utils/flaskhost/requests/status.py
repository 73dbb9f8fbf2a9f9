"""What playbooks/status.yml asks of the hosts, and the table and the report that it makes of their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..apps.record import app_record
from ..deploy.freeze import utc
from ..operate.status import clip

#: The columns of the table: the row's key and what stands above it.
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
    "backup": "backup",
    "drill": "drill",
    "notes": "notes",
}
#: What is noted of a host that Ansible cannot log in to. A port of SSH that has moved is the cause that is overlooked.
UNREACHABLE = "unreachable: is it up, and is ansible_port in the inventory the port that SSH is on?"
#: What stands where there is nothing to tell.
NOTHING = "-"


def apps_to_ask(apps: Any, app: str = "") -> list[dict[str, Any]]:
    """Say what a host has to know to tell about the apps. Nothing is read but domains and health: no secret.

    Args:
        apps: ``flask_apps``, which nobody has checked.
        app: the app's name; empty for all.

    Returns:
        For each app ``app``, ``root``, ``unit``, ``socket_dir``, ``live_socket``, ``certificate``, ``maintenance``,
        ``host`` and ``health``.
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
    }


def rows(results: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Put the answers of all hosts together.

    Args:
        results: for each host its name and what the module flask_status has returned, or why it could not.

    Returns:
        Rows as :func:`operate.status.read` makes them, each with its ``host``; a single one for a host that could not
        be asked.
    """
    found: list[dict[str, Any]] = []
    for host, result in results:
        answer = result if isinstance(result, Mapping) else {}
        if isinstance(answer.get("rows"), Sequence):
            found += [{"host": str(host), **row} for row in answer["rows"]]
            continue
        reason = clip(str(answer.get("msg") or "no answer"))
        note = UNREACHABLE if answer.get("unreachable") else f"cannot be asked: {reason}"
        found.append({"host": str(host), "notes": [note], "host_problems": [note]})
    return found


def report(rows: Sequence[Mapping[str, Any]], now: float) -> dict[str, Any]:
    """Put the rows together for a script.

    Args:
        rows: what :func:`rows` returns.
        now: seconds since 1970.

    Returns:
        ``ok``, whether nothing has to be seen to; ``at``, when that was; ``problems``, a text each that begins with the
        host, and with the app if it is about one; ``rows``; and ``aside``, what restores have put aside, each with its
        ``host``.
    """
    problems: list[str] = []
    aside: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        host = str(row["host"])
        problems += [f"{host}: {row['app']}: {text}" for text in row.get("problems") or []]
        # What is true of the host is in each of its rows.
        problems += [text for item in row.get("host_problems") or [] if (text := f"{host}: {item}") not in problems]
        aside.setdefault(host, list(row.get("aside") or []))
    return {
        "ok": not problems,
        "at": now,
        "problems": problems,
        "aside": [{"host": host, **thing} for host, things in aside.items() for thing in things],
        "rows": [{key: value for key, value in row.items() if key != "aside"} for row in rows],
    }


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write the table.

    Args:
        rows: what :func:`rows` returns; a key that is missing has nothing to tell.

    Returns:
        Lines of equal columns, each no wider than it has to be, without spaces at their ends; below them what restores
        have put aside.
    """
    rows = list(rows)
    lines = [list(COLUMNS.values()), *([_cell(row, key) for key in COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    aside = report(rows, 0.0)["aside"]
    below = [f"Put aside by a restore on {_plain(item['host'])}: {_plain(_aside(item))}" for item in aside]
    return "\n".join([*(line.rstrip() for line in padded), *([""] if below else []), *below])


def _aside(item: Mapping[str, Any]) -> str:
    megabytes = float(item["bytes"]) / 1e6
    size = f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.1f} MB"
    return f"{item['name']}, {size}, {utc(item['at'])}. When it is not needed any more: {item['remove']}"


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if key == "notes":
        value = "; ".join(value or [])
    elif key == "since":
        value = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M}" if value else ""
    text = _plain(value)
    return NOTHING if value is None or not text else text


def _plain(value: Any) -> str:
    """A text on one line: nothing of another's may move the terminal's cursor, or the columns."""
    return " ".join("".join(item if item.isprintable() else " " for item in str(value)).split())
