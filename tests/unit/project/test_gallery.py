"""The gallery: each app needs at most eight lines of inventory, and knows nothing of Flaskhost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps import sizing
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.module_utils.flaskhost.deploy.server import is_enough
from loading import ROOT

GALLERY = ROOT / "molecule" / "gallery"
INVENTORY = GALLERY / "group_vars" / "all" / "apps.yml"
APPS: dict[str, Any] = yaml.safe_load(INVENTORY.read_text())["flask_apps"]
ADDED: dict[str, Any] = yaml.safe_load((GALLERY / "added.yml").read_text())[1]["vars"]["one_more"]
#: What a server of 4 GB tells of itself.
SERVER = {"memtotal_mb": 3900, "processor_vcpus": 2}
MOST_LINES = 8


def lines_of_each_app(text: str) -> dict[str, int]:
    """Count the lines of each entry in a file with flask_apps, with its name and without comments."""
    counts: dict[str, int] = {}
    for line in text.partition("flask_apps:\n")[2].splitlines():
        if found := re.match(r"  ([a-z][a-z0-9-]*):$", line):
            counts[found[1]] = 1
        elif line.strip() and not line.lstrip().startswith("#"):
            counts[list(counts)[-1]] += 1
    return counts


def test_each_app_needs_at_most_eight_lines():
    counts = lines_of_each_app(INVENTORY.read_text())
    assert counts.keys() == APPS.keys()
    assert len(counts) == 12
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}
    # By the number of its options, as it is written in a playbook.
    assert all(1 + len(app) <= MOST_LINES for app in ADDED.values())


def test_lines_are_counted_with_the_name_and_without_comments():
    text = "---\nflask_apps:\n  # The first.\n  one:\n    a: 1\n\n    b:\n      - 2\n  two:\n    a: 1\n"
    assert lines_of_each_app(text) == {"one": 4, "two": 2}


@pytest.mark.parametrize("name", [*APPS, *ADDED])
def test_app_knows_nothing_of_flaskhost(name):
    app = (APPS | ADDED)[name]
    assert app["source"] == {"path": f"tests/apps/{name}"}
    files = [path for path in (ROOT / "tests/apps" / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len([path for path in files if path.suffix == ".py"]) < 6
    assert [path.name for path in files if b"flaskhost" in path.read_bytes().lower()] == []


def test_twelve_apps_and_one_more_fit_a_server_of_four_gigabytes():
    # Options that this version does not have yet are reported, and nothing else is.
    unknown = {option for app in APPS.values() for option in app if option not in APP_OPTIONS}
    problems = preflight.find_problems(APPS | ADDED, {}, SERVER, ROOT)
    found = [f"{problem['path']}: {problem['problem']}" for problem in problems]
    assert [line for line in found if not any(f".{option}:" in line for option in unknown)] == []


@pytest.mark.parametrize("memory_mb", [3900, 7900, 24000, 64000])
def test_one_more_app_restarts_none_of_the_twelve(memory_mb):
    """Their share of the host shrinks by a thirteenth. The scenario shows that their processes are the same."""
    twelve, thirteen = (sizing.size_host(memory_mb, 2, apps, database=True) for apps in (APPS, APPS | ADDED))
    for name in APPS:
        old, new = twelve["apps"][name], thirteen["apps"][name]
        assert old["workers"] == new["workers"] == 1
        assert is_enough(old["memory_mb"], new["memory_mb"], follows_host=True)
    assert twelve["postgres"] == thirteen["postgres"]


def test_each_recipe_of_the_guide_names_an_app_of_the_gallery():
    guide = (ROOT / "docs" / "apps.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(\.\./tests/apps/([a-z]+)\)", guide))
    assert APPS.keys() - named == set()
    assert all((ROOT / "tests/apps" / name).is_dir() for name in named)


def test_second_release_has_changed_code_and_the_same_options(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, str(GALLERY / "changed.py"), str(tmp_path)], check=True, env=environment)
    apps = json.loads((tmp_path / "apps.json").read_text())
    assert {name: app | {"source": {}} for name, app in apps.items()} == {
        name: app | {"source": {}} for name, app in APPS.items()
    }
    for name, app in apps.items():
        copy = Path(app["source"]["path"])
        assert copy == tmp_path / name
        code = list(copy.rglob("*.py"))
        assert code
        assert all(path.read_text().endswith("\n# The second release.\n") for path in code)
        assert {path.relative_to(copy) for path in code} == {
            path.relative_to(ROOT / "tests/apps" / name) for path in (ROOT / "tests/apps" / name).rglob("*.py")
        }
