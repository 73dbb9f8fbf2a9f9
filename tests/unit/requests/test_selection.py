"""What the operator asks of a verb is understood, or refused with what to say instead."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.apps.names import RESERVED_NAMES
from ansible.module_utils.flaskhost.requests.selection import problem, select, setup_problem

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


@pytest.mark.parametrize("verb", ["deploy", "rollback", "rotate_secret"])
def test_the_playbooks_hand_over_what_was_lost(verb: str) -> None:
    plays = yaml.safe_load((PLAYBOOKS / f"{verb}.yml").read_text(encoding="utf-8"))
    asked = [text for play in plays for task in play.get("tasks", []) for text in task.get("vars", {}).values()]
    (question,) = [text for text in asked if "flask_verb_problem" in str(text)]
    assert "'_raw_params': _raw_params | default('')" in question


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
    assert words in setup_problem(given, {"shop": {"setup_command": "flask init-db"}, "blog": {}, "odd": None})


def test_a_setup_that_is_confirmed_has_no_problem() -> None:
    assert setup_problem({"confirm": "shop"}, {"shop": {"setup_command": "flask init-db"}}) == ""
    both = {"shop": {"setup_command": "flask init-db"}, "blog": {}}
    assert setup_problem({"app": "shop", "confirm": "shop"}, both) == ""
