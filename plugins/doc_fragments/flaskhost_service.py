"""Documentation of the options of a service, which several modules take: ``OPTIONS`` of host/services.py."""

from __future__ import annotations

from textwrap import indent

_OPTIONS = """\
name: {description: Name of the unit., type: str, required: true}
enabled: {description: Whether it starts at boot., type: bool, default: true}
reload_files: {description: Files and folders that a reload applies., type: list, elements: path, default: []}
restart_files: {description: Files and folders that only a restart applies., type: list, elements: path, default: []}
test:
  description: Command with its arguments that must succeed before anything is done.
  type: list
  elements: str
  default: []
"""


def _option(name: str, description: str) -> str:
    """Return the documentation of an option with a list of services."""
    head = f"description: {description}\ntype: list\nelements: dict\nsuboptions:\n"
    return f"options:\n  {name}:\n{indent(head + indent(_OPTIONS, '  '), '    ')}"


class ModuleDocFragment:
    """The fragments. A module that has an option itself overrides what the fragment says about it."""

    DOCUMENTATION = "options:\n" + indent(_OPTIONS, "  ")
    SERVICES = _option("services", "Services to run with the files on the disk.")
    TIMERS = _option("timers", "Timers to run, as the module configured_service takes them.")
