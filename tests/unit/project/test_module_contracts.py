"""What a module's documentation promises, against what it takes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from loading import ROOT, load_plugin
from role_rules import MODULES, ROLES, role_at


def specification(option: dict[str, Any], inner: str) -> dict[str, Any]:
    """What documentation and code have to agree on."""
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "default": option.get("default"),
        "required": option.get("required", False),
        "choices": option.get("choices"),
        "options": {name: specification(item, inner) for name, item in (option.get(inner) or {}).items()},
    }


def differences(documented: dict[str, Any], real: dict[str, Any]) -> list[str]:
    found = [f"{name} is only in one of both" for name in sorted(documented.keys() ^ real.keys())]
    for name in sorted(documented.keys() & real.keys()):
        if specification(documented[name], "suboptions") != specification(real[name], "options"):
            found.append(f"{name} is another in the documentation")
        if not documented[name].get("description"):
            found.append(f"{name} has no description")
    return found


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, Any]]:
    """What ansible-doc shows of the modules, with the options that flaskhost_service.py adds."""
    names = [path.stem for path in MODULES]
    command = [Path(sys.executable).with_name("ansible-doc"), "--json", "--type", "module", *names]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return {name: shown["doc"] for name, shown in json.loads(done.stdout).items()}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_documented_as_it_is(path: Path, documented: dict[str, dict[str, Any]]) -> None:
    specified = load_plugin(str(path.relative_to(ROOT))).ARGUMENT_SPEC
    assert documented[path.stem]["module"] == path.stem
    assert differences(documented[path.stem]["options"], specified) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_examples_of_a_module_work(path: Path) -> None:
    module = load_plugin(str(path.relative_to(ROOT)))
    for task in yaml.safe_load(module.EXAMPLES):
        result = ArgumentSpecValidator(module.ARGUMENT_SPEC).validate(task[path.stem])
        assert result.error_messages == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_runs_and_knows_check_mode(path: Path) -> None:
    """Ansible skips a module that does not, and `--check` would say nothing about it."""
    tree = ast.parse(path.read_text())
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "AnsibleModule"
    ]
    given = [{word.arg: ast.unparse(word.value) for word in call.keywords} for call in calls]
    assert [words.get("supports_check_mode") for words in given] == ["True"]
    assert ast.unparse(tree.body[-1]) == "if __name__ == '__main__':\n    main()"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_has_a_unit_test_that_runs_it(path: Path) -> None:
    """Its logic may have tests, and nobody notices what the module makes of it."""
    name = str(path.relative_to(ROOT))
    tests = (ROOT / "tests" / "unit").rglob("test_*.py")
    assert [test.name for test in tests if name in test.read_text(encoding="utf-8")] != []


#: Options that are named like a secret and are none.
NO_SECRETS = {
    ("flask_certificates", "key_type"), ("flask_secret_key", "by_host"), ("flask_secret_key", "candidate"),
}  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_hides_its_secrets(path: Path) -> None:
    for name, option in load_plugin(str(path.relative_to(ROOT))).ARGUMENT_SPEC.items():
        word = re.search(r"secret|passw|passphrase|token|credential|(^|_)keys?(_|$)|login", name)
        if word and option["type"] not in ("bool", "path") and (path.stem, name) not in NO_SECRETS:
            assert option.get("no_log") is True, f"{name} may hold a secret, and would be shown"


def test_plugins_know_nothing_of_tests() -> None:
    """As roles: nothing behaves otherwise where it is tested. Reserved names are something else."""
    reserved = {("names.py", "docker"), ("role_options.py", "docker"), ("names.py", "molecule")}
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for found in re.findall(r"(?i:molecule|testinfra|docker)|\bCI\b", path.read_text()):
            assert (path.name, found) in reserved, f"{path.name} mentions {found}"


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ({"a": {"description": "x", "type": "str"}}, {}),
        ({}, {"a": {"type": "str"}}),
        ({"a": {"description": "x", "type": "str"}}, {"a": {"type": "int"}}),
        ({"a": {"description": "x", "type": "int", "default": 5}}, {"a": {"type": "int", "default": 6}}),
        ({"a": {"description": "x", "type": "str"}}, {"a": {"type": "str", "required": True}}),
        (
            {"a": {"description": "x", "type": "list", "elements": "str"}},
            {"a": {"type": "list", "elements": "path"}},
        ),
        (
            {"a": {"description": "x", "type": "dict"}},
            {"a": {"type": "dict", "options": {"b": {"type": "str"}}}},
        ),
        ({"a": {"type": "str"}}, {"a": {"type": "str"}}),
    ],
)
def test_a_wrong_documentation_is_found(shown: dict[str, Any], real: dict[str, Any]) -> None:
    assert len(differences(shown, real)) == 1


def test_the_options_of_an_app_are_those_of_the_module() -> None:
    """The role hands them over as they are, so their types and defaults are the module's."""
    module = load_plugin("plugins/modules/flask_release.py").ARGUMENT_SPEC
    role = role_at(ROOT / "roles" / "app", ROLES).options["app_apps"]["options"]
    for name, option in role.items():
        wanted = {**specification(option, "options"), "options": {}}
        assert wanted == {**specification(module[name], "options"), "options": {}}, name
    missing = {name for name, option in module.items() if option.get("required")} - role.keys()
    assert missing == {"uv"}, "what the role has for all apps at once"
