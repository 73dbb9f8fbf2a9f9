"""The apps' Python: compare the version with what the code on the control node declares to support."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..deploy import python_range, source_files
from .report import Report, get, show, snippet

#: The Python of each supported release of Debian.
DISTRIBUTIONS = {"12": "3.11", "13": "3.13"}


def check_python(
    report: Report, variable: str, apps: dict[Any, Any], facts: Mapping[Any, Any], project_dir: Path
) -> None:
    """Check the Python version of each app whose source is a folder.

    Args:
        report: collects the problems.
        variable: the name of the user's variable.
        apps: its value.
        facts: the facts of a host that runs the apps. If its release is unknown, only apps with the option ``python``
            are checked.
        project_dir: the base folder for a relative ``source.path``.
    """
    release = facts.get("distribution_major_version")
    distribution = DISTRIBUTIONS.get(show(release).strip('"'), "") if release is not None else ""
    for name, app in apps.items():
        place = (variable, name)
        known = all(report.clean((*place, *steps)) for steps in (("python",), ("source",), ("requirements",)))
        path, wanted = get(app, str, "source", "path"), get(app, str, "python") or ""
        version = wanted or distribution
        if not (known and path and version):
            continue
        top = project_dir / path
        code = top / (get(app, str, "source", "subdir") or "")
        try:
            found = source_files.find_requirements(code, get(app, str, "requirements") or "", top)
            chosen = bool(wanted) and wanted != distribution
            fault = python_range.find_fault(found, code, version, chosen=chosen)
        except (OSError, ValueError, source_files.ReleaseError):
            # Reported by the checks of the code.
            continue
        if fault:
            better = f"a range in the source that contains {version}"
            example = snippet(("python",), fault.better) if fault.better else better
            report.add("python_out_of_range", (*place, "python"), fault.problem, example)
