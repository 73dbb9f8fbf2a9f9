"""Every option of an app, of the site and of a role is set by a scenario, to something else than its default.

What is set is read from the scenarios themselves: the variables of their inventories and playbooks, and what their
tests hand to a playbook. That an option is set is no proof that it works; but one that nobody sets is surely not shown.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.module_utils.flaskhost.apps.schema import Option
from ansible.module_utils.flaskhost.preflight.role_options import EGRESS_OPTIONS
from ansible.module_utils.flaskhost.preflight.rules.access import ADMIN_OPTIONS, FIREWALL_OPTIONS
from ansible.module_utils.flaskhost.settings.acme import ACME_OPTIONS
from ansible.module_utils.flaskhost.settings.backup import BACKUP_OPTIONS

ROOT = Path(__file__).resolve().parents[3]
SCENARIOS = ROOT / "molecule"
WIRING = ROOT / "group_vars" / "all"

#: The steps to an option, without the names that a user chooses.
Place = tuple[str, ...]
#: The settings of the site that have options of their own.
SETTINGS: dict[str, dict[str, Option]] = {
    "acme": ACME_OPTIONS,
    "backup": BACKUP_OPTIONS,
    "admin_users": ADMIN_OPTIONS,
    "firewall_allow": FIREWALL_OPTIONS,
    "firewall_egress_allow": EGRESS_OPTIONS,
}
#: Options of an app whose values a test puts together, so that they are not to be read from it: the test.
SHOWN_BY: dict[str, str] = {
    "flask_apps.source.archive": "deploy/tests/test_sources.py::test_archive_of_the_controller_is_deployed",
    "flask_apps.source.checksum": "deploy/tests/test_broken.py::test_archive_with_another_checksum_is_refused",
    "flask_apps.source.known_hosts": (
        "deploy/tests/test_sources.py::test_key_of_the_server_that_is_named_is_the_one_it_must_have"
    ),
    "flask_apps.timers.command": "deploy/tests/test_processes.py::test_timer_fires_with_the_releases_environment",
    "flask_apps.timers.on_calendar": "deploy/tests/test_processes.py::test_timer_fires_with_the_releases_environment",
    "flask_apps.wheelhouse": (
        "deploy/tests/test_sources.py::test_environment_is_built_offline_from_a_wheelhouse_or_not_at_all"
    ),
}
#: What no scenario can set, and why.
CANNOT_BE_SHOWN: dict[str, str] = {
    "acme.dns.package": "a plugin that is not one of certbot's own needs an account with a provider of DNS",
}


# --- What there is ---------------------------------------------------------------------------------------------------


def places(options: Mapping[str, Option], before: Place = ()) -> Iterator[tuple[Place, Option]]:
    """Every option that holds a value itself, with the steps to it."""
    for name, option in options.items():
        if option.options:
            yield from places(option.options, (*before, name))
        else:
            yield (*before, name), option


def role_options() -> Iterator[tuple[str, Any]]:
    """Every option of a role that the wiring and the playbooks leave to the user, and its default.

    What group_vars/all gives a role comes from the settings and the apps, whose options are looked at by themselves.
    What a playbook gives it is the playbook's own.
    """
    files = [*WIRING.glob("*.yml"), *(ROOT / "playbooks").rglob("*.yml")]
    wired = {name for path in files for given in variables(yaml.safe_load(path.read_text())) for name in given}
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                if name not in wired and name not in SETTINGS:
                    yield name, option.get("default")


def settings() -> list[str]:
    """The settings of the site that have no options of their own."""
    wiring = yaml.safe_load((WIRING / "preflight.yml").read_text())
    return [name for name in wiring["preflight_settings_variables"] if name not in SETTINGS]


# --- What is set -----------------------------------------------------------------------------------------------------


def variables(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of variables in a file of a scenario: the file itself, or the ``vars`` of its plays and tasks."""
    if isinstance(tree, dict):
        yield tree
        for name, value in tree.items():
            if name in ("vars", "tasks", "block", "pre_tasks", "post_tasks"):
                yield from variables(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from variables(item)


def literal(node: ast.expr | None) -> Any:
    """The value of an expression of Python; where that is not to be read from it, its text, which no default equals."""
    if isinstance(node, ast.Dict):
        known = zip(node.keys, node.values, strict=True)
        return {key.value: literal(value) for key, value in known if isinstance(key, ast.Constant)}
    if isinstance(node, ast.List | ast.Tuple):
        return [literal(item) for item in node.elts]
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node) if node else None


def changed_apps(tree: ast.AST) -> Iterator[dict[str, Any]]:
    """What a test changes in an app: ``with_app("hello", watch=8)``, or ``{**APPS["hello"], "watch": 8}``.

    The mapping that is spread has to be named in capitals, and so is a constant: the settings of a scenario.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("with_app", "deploy", "is_refused")):
            yield {word.arg: literal(word.value) for word in node.keywords if word.arg}
        elif isinstance(node, ast.Dict):
            spread = [ast.unparse(value) for key, value in zip(node.keys, node.values, strict=True) if key is None]
            if any(text.split("[")[0].isupper() for text in spread):
                yield literal(node)


def handed_over(tree: ast.AST) -> Iterator[dict[str, Any]]:
    """What a test hands to a playbook by name: keywords of calls, keys of mappings, texts such as ``name=value``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield {word.arg: literal(word.value) for word in node.keywords if word.arg}
        elif isinstance(node, ast.Dict):
            yield {name: value for name, value in literal(node).items() if isinstance(name, str)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield dict(word.split("=", 1) for word in node.value.split() if "=" in word)


def set_in(value: Any, options: Mapping[str, Option], before: Place = ()) -> Iterator[Place]:
    """The options that a value sets to something else than their default."""
    for given in value if isinstance(value, list) else [value]:
        for name, option in options.items():
            if not isinstance(given, dict) or name not in given:
                continue
            here = (*before, name)
            if option.type == "mapping" and isinstance(given[name], dict):
                for item in given[name].values():
                    yield from set_in(item, option.options, here)
            elif option.options:
                yield from set_in(given[name], option.options, here)
            elif given[name] != option.default:
                yield here


def scenario_variables(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the scenarios set.

    Returns:
        The mappings of variables, and the apps' options.
    """
    found: list[dict[str, Any]] = []
    apps: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.yml")):
        if path.name != "molecule.yml":
            found += variables(yaml.safe_load(path.read_text()))
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        found += handed_over(tree)
        apps += changed_apps(tree)
    for mapping in found:
        given = mapping.get("flask_apps")
        apps += [app for app in given.values() if isinstance(app, dict)] if isinstance(given, dict) else []
    return found, apps


def options_shown(folder: Path) -> set[str]:
    """The options that the scenarios of a folder set, by their names as :func:`all_options` has them."""
    found, apps = scenario_variables(folder)
    shown = {".".join(("flask_apps", *place)) for app in apps for place in set_in(app, APP_OPTIONS)}
    for name, options in SETTINGS.items():
        shown |= {".".join((name, *place)) for mapping in found for place in set_in(mapping.get(name), options)}
    defaults, of_the_site = dict(role_options()), settings()
    for mapping in found:
        shown |= {name for name in of_the_site if mapping.get(name) not in (None, "", [], {})}
        shown |= {name for name, default in defaults.items() if name in mapping and mapping[name] != default}
    return shown


def all_options() -> dict[str, str]:
    """Every option, by its name with its steps joined by dots, and what is said of it."""
    every = {".".join(("flask_apps", *place)): option.description for place, option in places(APP_OPTIONS)}
    for name, options in SETTINGS.items():
        every |= {".".join((name, *place)): option.description for place, option in places(options)}
    return every | dict.fromkeys(settings(), "") | dict.fromkeys(dict(role_options()), "")


# --- The rules -------------------------------------------------------------------------------------------------------

SHOWN = options_shown(SCENARIOS)


@pytest.mark.parametrize("name", sorted(all_options().keys() - CANNOT_BE_SHOWN.keys() - SHOWN_BY.keys()))
def test_option_is_set_by_a_scenario(name):
    assert name in SHOWN, f"no scenario sets {name}: set it in one, and assert what that does on the running host"


@pytest.mark.parametrize(("name", "test"), SHOWN_BY.items())
def test_test_that_shows_an_option_is_there_and_names_it(name, test):
    path, _colons, function = test.partition("::")
    text = (SCENARIOS / path).read_text()
    assert name in all_options()
    assert f"def {function}(" in text
    assert name.rpartition(".")[2] in text


def test_exceptions_are_options_that_no_scenario_sets():
    assert sorted(CANNOT_BE_SHOWN.keys() - all_options().keys()) == []
    assert sorted(CANNOT_BE_SHOWN.keys() & SHOWN) == [], "take it out of the list: it is shown now"


SCENARIO = {
    "one/group_vars/all/apps.yml": """
flask_apps:
  shop: {drain: 7, threads: 8, limits: {body: 1}, timers: {tick: {command: "true"}}, tls: {hsts: {preload: true}}}
swap_mb: 512
timezone: ""
admin_users: [{name: ada}]
""",
    "one/converge.yml": "- import_playbook: site.yml\n  vars: {base_packages: [tree], base_journal_max_use: 500M}\n",
    "one/molecule.yml": "reboot_time: '04:00'\n",
    "one/tests/test_one.py": """
def test_it(host):
    play(host, with_app("shop", watch=3), "-e", "deploy_batch=2", audit_strict=True)
    play(flask_apps={**APPS["shop"], "csp": "x", "static": {"path": where}})
    ask(keep_releases=3)
""",
}


def test_what_is_set_is_found_and_nothing_else(tmp_path):
    for name, text in SCENARIO.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    apps = ("drain", "limits.body", "timers.command", "tls.hsts.preload", "watch", "csp", "static.path")
    others = ("swap_mb", "admin_users.name", "base_packages", "deploy_batch", "audit_strict")
    assert options_shown(tmp_path) == {*(f"flask_apps.{name}" for name in apps), *others}
