#!/usr/bin/env python3
"""Copy the apps of the gallery with changed code, and write flask_apps for the copies: apps.json in the same folder."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "molecule" / "gallery" / "group_vars" / "all" / "apps.yml"
#: What the second release has at the end of each file in Python.
CHANGE = "\n# The second release.\n"


def main() -> None:
    """Write the copies and the mapping into a folder."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    apps = yaml.safe_load(APPS.read_text(encoding="utf-8"))["flask_apps"]
    for name, app in apps.items():
        copy = folder / name
        shutil.copytree(ROOT / app["source"]["path"], copy, ignore=shutil.ignore_patterns("__pycache__"))
        for path in copy.rglob("*.py"):
            with path.open("a", encoding="utf-8") as file:
                file.write(CHANGE)
        app["source"] = {"path": str(copy)}
    (folder / "apps.json").write_text(json.dumps(apps), encoding="utf-8")


if __name__ == "__main__":
    main()
