"""The files that nginx sends if the app allows it, ``protected_files``: check their folder and their URL."""

from __future__ import annotations

from typing import Any

from ..apps.options import APP_OPTIONS
from .report import Place, Report, get, path_parts, show, snippet

_EXAMPLE = snippet(("protected_files",), APP_OPTIONS["protected_files"].example)


def check_protected_files(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check ``protected_files`` of one app.

    Args:
        report: collects the problems.
        place: the steps to the app.
        app: its options.
    """
    given = get(app, dict, "protected_files")
    if not given:
        return
    here = (*place, "protected_files")
    folder, url = get(given, str, "folder") or "", get(given, str, "url")
    if not folder and report.clean((*here, "folder")) and "folder" not in given:
        problem = "The folder is missing, so nginx sends no files. Name a persistent folder, or one in it."
        report.add("missing", (*here, "folder"), problem, _EXAMPLE)
    elif folder and report.clean((*here, "folder")) and report.clean((*place, "persistent")):
        _check_folder(report, (*here, "folder"), app, folder)
    default = APP_OPTIONS["protected_files"].options["url"].default
    if folder and report.clean((*here, "url")) and (other := _neighbor(app, url or default)):
        problem = f"{show(url or default)} and {other} overlap, but visitors who request a protected URL get 404."
        example = snippet(("protected_files",), {"folder": folder, "url": "/protected-files/"})
        report.add("protected_url_taken", (*here, "url"), problem, example)


def _check_folder(report: Report, here: Place, app: dict[Any, Any], folder: str) -> None:
    """Check that a folder is in the data, which outlasts releases, and is not the place of a file of ``files``."""
    parts, persistent = path_parts(folder), get(app, list, "persistent")
    kept = [
        path_parts(item)
        for item in (APP_OPTIONS["persistent"].default if persistent is None else persistent)
        if isinstance(item, str)
    ]
    if not any(item and parts[: len(item)] == item for item in kept):
        names = ", ".join("/".join(item) for item in kept) or "none"
        problem = f"{show(folder)} is not in a folder of persistent ({names}), where the app can write."
        works = "/".join(kept[0]) if kept else "uploads"
        cure = snippet(("protected_files",), {"folder": works}) if kept else snippet(("persistent",), ["/".join(parts)])
        report.add("protected_outside_data", here, problem, cure)


def _neighbor(app: dict[Any, Any], url: str) -> str:
    """Return the option whose URL is in this one, or contains it; empty if there is none."""
    static, health, login = (APP_OPTIONS[name].options for name in ("static", "health", "login"))
    taken = {
        "static.url": [get(app, str, "static", "url") or static["url"].default],
        "health.path": [get(app, str, "health", "path") or health["path"].default],
        "login.paths": get(app, list, "login", "paths") or login["paths"].default,
    }
    for name, paths in taken.items():
        for path in paths:
            if not isinstance(path, str):
                continue
            # The other paths are those of one page each.
            if f"{path.rstrip('/')}/".startswith(url) or (name == "static.url" and url.startswith(path)):
                return name
    return ""
