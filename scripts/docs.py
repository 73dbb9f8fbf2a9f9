#!/usr/bin/env python3
"""Write the tables of options into the guides, generated from the code itself.

A role's table comes from its meta/argument_specs.yml, those of ``flask_apps`` and of the site's setting ``acme`` from
the app model, that of the setting ``backup`` from its own model. Each table is between two markers; the text around it
is not changed. `make docs` writes the tables, and a unit test runs `--check`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from common import ROOT, Problem, guarded, say

sys.path.append(str(ROOT / "plugins" / "module_utils"))
from flaskhost.apps.options import APP_OPTIONS
from flaskhost.apps.schema import Option
from flaskhost.settings import backup as backup_settings
from flaskhost.settings.acme import ACME_OPTIONS

#: The markers around a table, which contain its name.
BEGIN = "<!-- {}: made by make docs -->"
END = "<!-- end of {} -->"
#: The name of a role's table, and of the table of ``flask_apps``.
OPTIONS = "options"
HEAD = "| option | type | default | meaning |\n|---|---|---|---|"

#: The types of the app model in the terms of argument_specs.
APP_TYPES = {"list": "list of str", "options": "dict", "mapping": "dict"}


def cell(text: str) -> str:
    """Escape a text for a table: a vertical bar would end the cell, and a tag would not be displayed."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(value: Any) -> str:
    """Format a value as in YAML."""
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


def row(depth: int, name: str, kind: str, default: str, meaning: str) -> str:
    """Return one line of a table; nested options are indented."""
    return f"| {'&emsp;' * depth}`{name}` | {kind} | {default} | {meaning} |"


def sentence(text: str | list[str], more: list[str]) -> str:
    """Join a description with further sentences about the option."""
    parts = [text] if isinstance(text, str) else [*text]
    return cell(" ".join(parts + more))


def role_rows(options: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the table lines of a role's options, from argument_specs.

    Args:
        options: the options by name.
        prefix: the name of the parent option, with its dot.
        depth: nesting depth.
    """
    for name, option in options.items():
        kind = option["type"]
        if kind == "list":
            kind = f"list of {option['elements']}"
        more = [f"One of {', '.join(code(choice) for choice in option['choices'])}."] if "choices" in option else []
        if option.get("no_log"):
            more.append("Never shown or logged.")
        default = "**required**" if option.get("required") else code(option["default"]) if "default" in option else ""
        yield row(depth, prefix + name, kind, default, sentence(option["description"], more))
        inside = f"{prefix}{name}[]." if option["type"] == "list" else f"{prefix}{name}."
        yield from role_rows(option.get("options") or {}, inside, depth + 1)


def app_rows(options: Mapping[str, Option], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the table lines of options of the app model; the arguments are those of :func:`role_rows`."""
    for name, option in options.items():
        more = [f"One of {', '.join(code(choice) for choice in option.choices)}."] if option.choices else []
        if option.minimum is not None and option.maximum is not None:
            more.append(f"From {option.minimum} to {option.maximum}.")
        if option.required:
            default = "**required**"
        elif option.type == "options":
            default = ""
        else:
            default = "computed" if option.default is None else code(option.default)
        kind = APP_TYPES.get(option.type, option.type)
        # For numbers, booleans and choices, an example adds nothing to the default.
        if option.type not in ("int", "bool", "options") and not option.choices and option.example != option.default:
            more.append(f"Example: {code(option.example)}")
        yield row(depth, prefix + name, kind, default, sentence(option.description, more))
        inside = f"{prefix}{name}.<name>." if option.type == "mapping" else f"{prefix}{name}."
        yield from app_rows(option.options, inside, depth + 1)


def role_table(specs: Path) -> str:
    """Return the table of a role, from its argument_specs: the options of main, then those of other entry points."""
    entry_points = yaml.safe_load(specs.read_text(encoding="utf-8"))["argument_specs"]
    options = dict(entry_points["main"].get("options") or {})
    more: dict[str, list[str]] = {}
    for entry_point, spec in entry_points.items():
        for name, option in (spec.get("options") or {}).items():
            if name not in options or name in more:
                more.setdefault(name, []).append(f"`{entry_point}`")
                note = f"Only for the entry point{'s' * (len(more[name]) > 1)} {' and '.join(more[name])}."
                options[name] = {**option, "description": f"{option['description']} {note}"}
    return "\n".join([HEAD, *role_rows(options)])


def model_table(options: Mapping[str, Option], prefix: str = "") -> str:
    """Return the table of options of the app model, with the prefix before their names."""
    return "\n".join([HEAD, *app_rows(options, prefix)])


def with_tables(guide: Path, tables: Mapping[str, str]) -> str:
    """Return the text of a guide with its tables between their markers.

    Args:
        guide: the file.
        tables: the tables by name.

    Raises:
        Problem: the guide does not have exactly one pair of markers for each table.
    """
    text = guide.read_text(encoding="utf-8")
    for name, table in tables.items():
        opening, closing = BEGIN.format(name), END.format(name)
        before, begin, rest = text.partition(opening)
        _old, end, after = rest.partition(closing)
        if not (begin and end) or opening in after or closing in before + after:
            raise Problem(f"{guide} needs one pair of markers: {opening} and, below it, {closing}.")
        text = f"{before}{opening}\n\n{table}\n\n{closing}{after}"
    return text


def guides(root: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield every guide that has tables, with the tables.

    Args:
        root: the project's folder.
    """
    for specs in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        guide = specs.parents[1] / "README.md"
        markers = BEGIN.format(OPTIONS), END.format(OPTIONS)
        if guide.is_file() and any(marker in guide.read_text(encoding="utf-8") for marker in markers):
            yield guide, {OPTIONS: role_table(specs)}
    apps, acme = model_table(APP_OPTIONS), model_table(ACME_OPTIONS, "acme.")
    yield root / "docs" / "apps.md", {OPTIONS: apps, "acme": acme}
    backup = model_table(backup_settings.BACKUP_OPTIONS, "backup.")
    yield root / "docs" / "backup.md", {"backup": backup}


def main(root: Path = ROOT) -> int:
    """Write the tables, or only report which are out of date."""
    parser = argparse.ArgumentParser(description="Write the tables of options into the guides.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is out of date")
    check = parser.parse_args().check
    stale = [
        (guide, text)
        for guide, tables in guides(root)
        if (text := with_tables(guide, tables)) != guide.read_text(encoding="utf-8")
    ]
    if check and stale:
        names = ", ".join(str(guide.relative_to(root)) for guide, _text in stale)
        raise Problem(f"The table of options is out of date in {names}.", "make docs")
    for guide, text in stale:
        guide.write_text(text, encoding="utf-8")
        say(f"Wrote the table of options into {guide.relative_to(root)}")
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
