"""The report as a single HTML page. Only the control node renders it: hosts have no Jinja."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

#: Everything in a report is escaped: a scanned host is hostile input.
ENVIRONMENT = Environment(
    autoescape=True,
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(report: Mapping[str, Any]) -> str:
    """Render the page of a report; see :func:`report.build`."""
    return ENVIRONMENT.get_template("page.html.j2").render(report=report)
