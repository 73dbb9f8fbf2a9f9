#!/usr/bin/env python3
"""Write the tables of options into the guides, from what the code itself goes by.

A role's table comes from its meta/argument_specs.yml, that of ``flask_apps`` from the app model. Each table stands
between two markers; the text around it is left alone. `make docs` writes them, and a unit test calls `--check`.
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

from flaskhost import app_model

BEGIN = "<!-- options: made by make docs -->"
END = "<!-- end of options -->"
HEAD = "| option | type | default | meaning |\n|---|---|---|---|"

#: The types of the app model, in the words of argument_specs.
APP_TYPES = {"list": "list of str", "options": "dict", "mapping": "dict"}


def cell(text: str) -> str:
    """Escape a text for a table: a bar would end the cell, and a tag would not be shown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(value: Any) -> str:
    """Show a value as YAML has it."""
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


def row(depth: int, name: str, kind: str, default: str, meaning: str) -> str:
    """Write one line of a table; an option inside of another one is indented."""
    return f"| {'&emsp;' * depth}`{name}` | {kind} | {default} | {meaning} |"


def sentence(text: str | list[str], more: list[str]) -> str:
    """Join a description and what else is known of the option."""
    parts = [text] if isinstance(text, str) else [*text]
    return cell(" ".join(parts + more))


def role_rows(options: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Write the lines of a role's options, as argument_specs have them.

    Args:
        options: the options by name.
        prefix: the name of the option that holds them, with its dot.
        depth: how deep they are inside of other options.
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


def app_rows(options: Mapping[str, app_model.Option], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Write the lines of an app's options, as the app model has them; arguments as in :func:`role_rows`."""
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
        # The example of a number or a switch tells nothing that its default does not.
        if option.type not in ("int", "bool", "options") and not option.choices and option.example != option.default:
            more.append(f"Example: {code(option.example)}")
        yield row(depth, prefix + name, kind, default, sentence(option.description, more))
        inside = f"{prefix}{name}.<name>." if option.type == "mapping" else f"{prefix}{name}."
        yield from app_rows(option.options, inside, depth + 1)


def role_table(specs: Path) -> str:
    """Write the table of a role from its argument_specs."""
    options = yaml.safe_load(specs.read_text(encoding="utf-8"))["argument_specs"]["main"].get("options") or {}
    return "\n".join([HEAD, *role_rows(options)])


def app_table() -> str:
    """Write the table of ``flask_apps``."""
    return "\n".join([HEAD, *app_rows(app_model.APP_OPTIONS)])


def with_table(guide: Path, table: str) -> str:
    """Return the text of a guide with a table between its markers.

    Raises:
        Problem: the guide has not exactly one pair of markers.
    """
    text = guide.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in before + after:
        raise Problem(f"{guide} needs one pair of markers: {BEGIN} and, below it, {END}.")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def guides(root: Path) -> Iterator[tuple[Path, str]]:
    """Find every guide with a table, and write its table.

    Args:
        root: the project's folder.
    """
    for specs in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        guide = specs.parents[1] / "README.md"
        if guide.is_file() and (BEGIN in (text := guide.read_text(encoding="utf-8")) or END in text):
            yield guide, role_table(specs)
    yield root / "docs" / "apps.md", app_table()


def main(root: Path = ROOT) -> int:
    """Write the tables, or only tell which are out of date."""
    parser = argparse.ArgumentParser(description="Write the tables of options into the guides.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a table is out of date")
    check = parser.parse_args().check
    stale = [
        (guide, text)
        for guide, table in guides(root)
        if (text := with_table(guide, table)) != guide.read_text(encoding="utf-8")
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
