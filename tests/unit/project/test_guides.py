"""What the guides show: tables of options that are up to date, and examples that work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from loading import ROOT


def run_docs(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "docs.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_tables_of_options_are_up_to_date() -> None:
    result = run_docs(ROOT, "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("guide", ["roles/nginx/README.md", "docs/apps.md"])
def test_a_table_that_is_out_of_date_is_named(guide: str, tmp_path: Path) -> None:
    for name in ("scripts", "docs", "plugins/module_utils/flaskhost", "roles/nginx"):
        shutil.copytree(ROOT / name, tmp_path / name)
    assert run_docs(tmp_path, "--check").returncode == 0
    path = tmp_path / guide
    good = path.read_text()
    path.write_text(good.replace("| int |", "| str |", 1))
    stale = run_docs(tmp_path, "--check")
    assert stale.returncode == 1
    assert guide in stale.stderr
    assert path.read_text() != good
    assert run_docs(tmp_path).returncode == 0
    assert path.read_text() == good


def examples(guide: str) -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / guide).read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in map(yaml.safe_load, blocks) if "flask_apps" in block]


EXAMPLES = examples("docs/apps.md") + examples("docs/uploads.md")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: ",".join(example["flask_apps"]))
def test_an_example_of_the_guide_would_pass_preflight(example: dict[str, Any]) -> None:
    # What the vault holds: preflight looks at the key itself.
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{'A' * 64}\n-----END RSA PRIVATE KEY-----"
    apps = json.loads(json.dumps(example["flask_apps"]).replace("{{ vault_shop_deploy_key }}", json.dumps(key)[1:-1]))
    problems = preflight.find_problems(apps, {}, {}, ROOT)
    assert [f"{problem['path']}: {problem['problem']}" for problem in problems] == []


def test_the_guide_explains_the_demo_as_it_is() -> None:
    demo = yaml.safe_load((ROOT / "inventories/demo/group_vars/all/apps.yml").read_text())
    assert demo in examples("docs/apps.md")


def test_the_guide_knows_every_option() -> None:
    """The text before the table, that is: the table is made by a program."""
    text = (ROOT / "docs" / "apps.md").read_text().partition("## All options")[0]
    assert [name for name in APP_OPTIONS if f"`{name}" not in text] == []


def test_the_recipe_for_uploads_is_the_one_that_the_scenario_tests() -> None:
    """molecule/servers runs this function behind each application server."""
    app = (ROOT / "tests/apps/waiter/app.py").read_text()
    (recipe,) = re.findall(r"^def send_protected.*?^    return response\n", app, re.MULTILINE | re.DOTALL)
    assert recipe in (ROOT / "docs/uploads.md").read_text()
