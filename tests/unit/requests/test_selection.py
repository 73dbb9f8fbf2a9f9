"""What the operator asks of a verb is understood, or refused with what to say instead."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.names import RESERVED_NAMES
from ansible.module_utils.flaskhost.requests.selection import problem, select

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
APPS: dict[str, Any] = {
    "shop": {"source": {"repo": "https://git.example.com/shop.git", "version": "v1"}},
    "blog": {"source": {"path": "../blog"}},
}
ONE = {"shop": APPS["shop"]}
RELEASE = "20261121T101500Z-1a2b3c4"


@pytest.mark.parametrize(
    ("given", "apps", "verb"),
    [
        ({}, APPS, "deploy"),
        ({"app": "blog"}, APPS, "deploy"),
        ({"app": " shop ", "version": "feature/x"}, APPS, "deploy"),
        ({"version": "v1.5.0"}, ONE, "deploy"),
        ({"app": None, "version": None, "release": None, "_raw_params": None}, APPS, "deploy"),
        ({}, ONE, "rollback"),
        ({"app": "blog"}, APPS, "rollback"),
        ({"app": "shop", "release": RELEASE}, APPS, "rollback"),
        ({"app": "shop", "release": f"{RELEASE}-2"}, APPS, "rollback"),
        ({"app": "shop", "_raw_params": " "}, APPS, "rotate_secret"),
        ({}, {}, "deploy"),
    ],
)
def test_what_is_clear_is_accepted(given: dict[str, Any], apps: Any, verb: str) -> None:
    assert problem(given, apps, verb) == ""


@pytest.mark.parametrize(
    ("given", "apps", "verb", "says"),
    [
        ({"app": "shopp"}, APPS, "deploy", "app: there is no app 'shopp' in flask_apps. Available: blog, shop."),
        ({"app": "shop"}, None, "deploy", "Available: none."),
        ({}, APPS, "rollback", "app: name one app (one at a time): -e app=NAME. Available: blog, shop."),
        ({}, APPS, "rotate_secret", "one at a time"),
        ({}, APPS, "run", "one at a time"),
        ({}, {}, "rollback", "Available: none."),
        ({"version": "v2"}, APPS, "deploy", "version belongs to one app"),
        ({"release": RELEASE}, APPS, "rollback", "release belongs to one app"),
        ({"app": "blog", "version": "v2"}, APPS, "deploy", "blog does not come from a git repository"),
        ({"version": "v2"}, {"blog": {}}, "deploy", "blog does not come from a git repository"),
        ({"app": "shop", "version": "--upload-pack=x"}, APPS, "deploy", "is not a branch, tag or commit"),
        ({"app": "shop", "version": "v1 v2"}, APPS, "deploy", "is not a branch, tag or commit"),
        (
            {"version": "v2"},
            {"a": {"source": {"repo": "http://h.test/a"}}},
            "deploy",
            "Name a full commit hash (40 digits)",
        ),
        ({"app": "shop", "release": "../../etc"}, APPS, "rollback", "is not a release name"),
        ({"app": "shop", "release": "v1"}, APPS, "rollback", RELEASE),
    ],
)
def test_what_is_not_is_refused_with_the_variable_and_the_cure(
    given: dict[str, Any], apps: Any, verb: str, says: str
) -> None:
    found = problem(given, apps, verb)
    assert says in found
    assert found.partition(":")[0] in ("app", "version", "release")


@pytest.mark.parametrize(("verb", "name"), [("deploy", "version"), ("rollback", "release"), ("rotate_secret", "app")])
def test_words_that_were_lost_are_told_and_not_shown(verb: str, name: str) -> None:
    found = problem({"app": "shop", "_raw_params": "horse battery"}, APPS, verb)
    assert found.startswith(f"{name}: words were lost")
    assert found.endswith(f"Quote the value twice: -e \"{name}='...'\"")
    assert "horse" not in found


ASKS = re.compile(r"flask_\w+_(problem|request)\(")
ASKING = sorted(path for path in PLAYBOOKS.glob("*.yml") if ASKS.search(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("playbook", ASKING, ids=lambda path: path.stem)
def test_the_playbooks_hand_over_what_was_lost(playbook: Path) -> None:
    assert re.search(r"'?_raw_params'?: (\"{{ )?_raw_params \| default\(''\)", playbook.read_text(encoding="utf-8"))


def test_all_verbs_ask() -> None:
    silent = {"audit", "certificates", "limit", "preflight", "site", "upgrade_postgres"}
    assert {path.stem for path in PLAYBOOKS.glob("*.yml")} - {path.stem for path in ASKING} == silent


@pytest.mark.parametrize(
    ("given", "verb", "says"),
    [
        ({"kind": "drill"}, "backup", ""),
        ({"kind": "ful"}, "backup", "kind: 'ful' is not one of full, diff"),
        ({"command": "flask db current"}, "run", ""),
        ({"command": " "}, "run", "command: it is missing."),
        ({"command": "x", "timeout": 60, "force": True, "owner": "yes", "run_secrets": {"A": "b"}}, "run", ""),
        ({"command": "x", "timeout": "0"}, "run", "timeout: '0' is not a number of seconds. Example: -e timeout=900"),
        ({"command": "x", "timeout": "an hour"}, "run", "timeout: 'an hour' is not"),
        ({"command": "x", "owner": "ture"}, "run", "owner: 'ture' is neither on nor off. Example: -e owner=on"),
        ({"command": "x", "run_secrets": "A=b"}, "run", "run_secrets: it must be a mapping"),
        ({"command": "flask", "_raw_params": "db"}, "run", "command: words were lost"),
        ({"force": "maybe"}, "rollback", "force: 'maybe' is neither on nor off."),
    ],
)
def test_each_playbooks_own_variables(given: dict[str, Any], verb: str, says: str) -> None:
    found = problem(given, ONE, verb)
    assert found.startswith(says)
    assert bool(found) is bool(says)


def test_records_are_chosen_and_the_given_ones_are_left() -> None:
    records = [{"name": name, "source": {"version": "v1"}} for name in ("shop", "blog")]
    before = copy.deepcopy(records)
    assert select(records) == records
    assert [record["name"] for record in select(records, "blog")] == ["blog"]
    assert select(records, "shop", "v2") == [{"name": "shop", "source": {"version": "v2"}}]
    assert select(records, "none") == []
    assert records == before


def test_no_app_may_have_the_name_that_means_every_app() -> None:
    assert "all" in RESERVED_NAMES
    assert "shop" not in RESERVED_NAMES


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "app: name one app (one at a time)"),
        ({"app": "shop"}, "confirm: this runs 'flask init-db' again, which can delete the data of shop."),
        ({"app": "shop", "confirm": "true"}, "-e confirm=shop"),
        ({"app": "blog", "confirm": "blog"}, "app: blog has no setup_command."),
        ({"app": "nope"}, "there is no app 'nope'"),
        ({"app": "odd"}, "app: odd has no setup_command."),
        ({"app": "shop", "confirm": "shop", "_raw_params": "x"}, "words were lost"),
    ],
)
def test_a_setup_wants_an_app_that_has_one_and_its_name_again(given: dict[str, str], words: str) -> None:
    assert words in problem(given, {"shop": {"setup_command": "flask init-db"}, "blog": {}, "odd": None}, "setup")


def test_a_setup_that_is_confirmed_has_no_problem() -> None:
    assert problem({"confirm": "shop"}, {"shop": {"setup_command": "flask init-db"}}, "setup") == ""
    both = {"shop": {"setup_command": "flask init-db"}, "blog": {}}
    assert problem({"app": "shop", "confirm": "shop"}, both, "setup") == ""
