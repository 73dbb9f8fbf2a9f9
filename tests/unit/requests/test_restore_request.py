"""What an operator asks of restore.yml becomes the program's arguments, or is refused before anything is touched."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.flaskhost.requests.restore import request

APPS = {"shop": {}, "blog": {}}


def ask(**given: Any) -> dict[str, Any]:
    return request(given, APPS, ["production1", "production2"])


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"confirm": "production1"}, ["restore", "--confirm=production1"]),
        (
            {"confirm": "production1", "from": "second", "of": "old1", "to": "2026-11-21T10:15:00"},
            ["restore", "--from=second", "--of=old1", "--to=2026-11-21T10:15:00", "--confirm=production1"],
        ),
        (
            {"confirm": "shop", "app": "shop", "release": "20261121T101500Z-1a2b3c4"},
            ["restore", "--release=20261121T101500Z-1a2b3c4", "--app=shop", "--no-start", "--database=shop",
             "--confirm=shop"],
        ),
        ({"beside": True, "accept_gap": "true"}, ["restore", "--accept-gap", "--beside"]),
    ],
)  # fmt: skip
def test_a_restore_that_is_clear_is_handed_on(given: dict[str, Any], arguments: list[str]) -> None:
    found = ask(**given)
    assert (found["problem"], found["database"]) == ("", arguments)
    assert found["replaces"] is not bool(given.get("beside"))


def test_where_an_apps_host_knows_the_time_of_a_migration_it_is_gone_back_to() -> None:
    given = {"confirm": "shop", "app": "shop", "release": "20261121T101500Z-1a2b3c4"}
    found = request(given, APPS, ["production1"], "2026-11-21T10:15:00.123456")
    assert found["database"] == [
        "restore", "--to=2026-11-21T10:15:00.123456", "--no-start", "--database=shop", "--confirm=shop",
    ]  # fmt: skip
    assert (found["release_app"], ask(beside=True)["release_app"]) == ("shop", "")


@pytest.mark.parametrize(("given", "force"), [({}, False), ({"force": "true"}, True), ({"force": "no"}, False)])
def test_a_freeze_is_passed_by_a_word(given: dict[str, str], force: bool) -> None:
    assert ask(confirm="shop", app="shop", **given)["force"] is force


def test_of_several_clusters_the_one_that_was_named_is_replaced() -> None:
    assert ask(confirm="production2")["database_hosts"] == ["production2"]
    assert ask(confirm="shop", app="shop")["database_hosts"] == ["production1", "production2"]
    assert ask(beside=True)["database_hosts"] == ["production1", "production2"]
    assert ask(confirm="shop", app="shop", what="files")["database_hosts"] == []


def test_without_a_database_host_only_files_can_be_restored() -> None:
    assert "--limit" in request({"beside": True}, APPS, [])["problem"]
    found = request({"app": "shop", "what": "files", "confirm": "shop"}, APPS, [])
    assert (found["problem"], found["files"]) == ("", ["restore-files", "--app=shop", "--confirm=shop"])


def test_files_are_restored_beside_the_database_or_alone() -> None:
    both = ask(confirm="shop", app="shop", what="both", to="2026-11-21")
    assert both["files"] == ["restore-files", "--app=shop", "--to=2026-11-21", "--confirm=shop"]
    assert both["database"] == ["restore", "--to=2026-11-21", "--database=shop", "--confirm=shop"]
    alone = ask(confirm="shop", app="shop", what="files")
    assert (alone["database"], alone["apps"]) == ([], ["shop"])


@pytest.mark.parametrize("part", ["data", "queue"])
def test_one_part_of_the_files_is_restored_without_a_database_host(part: str) -> None:
    found = request({"app": "shop", "what": part, "confirm": "shop"}, APPS, [])
    assert (found["problem"], found["database"], found["database_hosts"]) == ("", [], [])
    assert found["files"] == ["restore-files", "--app=shop", f"--part={part}", "--confirm=shop"]
    assert "app: files are restored for one app" in ask(what=part, confirm="shop")["problem"]
    said = request({"app": "shop", "what": part}, APPS, ["production1"])["problem"]
    assert said.startswith("confirm: this replaces the data of shop. The")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "confirm: this replaces the whole PostgreSQL cluster of production1"),
        ({"confirm": "shop"}, "-e confirm=production1"),
        ({"app": "shop", "confirm": "production1"}, "-e confirm=shop"),
        ({"app": "shop"}, "confirm: this replaces the data of shop on production1, production2."),
        ({"app": "shpo", "confirm": "shpo"}, "app: there is no app 'shpo'"),
        ({"to": "2026-11-21", "_raw_params": "10:15"}, "to: words were lost"),
        ({"to": "2026-11-21", "release": "20261121T101500Z-1a2b3c4"}, "release: to already names the point"),
        ({"what": "everything"}, "what: 'everything' is not one of"),
        ({"what": "files"}, "app: files are restored for one app"),
        ({"what": "files", "app": "shop", "beside": True}, "what: files can only be restored"),
        ({"release": "v1.4"}, "release: 'v1.4' is not a release name"),
        ({"release": "20261121T101500Z-1a2b3c4"}, "app: name the app of the release"),
        ({"label": "newest"}, "label: 'newest' is not a backup label"),
        ({"beside": "ture"}, "beside: 'ture' is neither on nor off. Example: -e beside=on"),
        ({"from": "third"}, "from: 'third' is not one of"),
        (
            {"timeout": "an hour", "beside": True},
            "timeout: 'an hour' is not a number of seconds. Example: -e timeout=3600",
        ),
    ],
)
def test_a_restore_that_is_not_clear_touches_nothing(given: dict[str, Any], says: str) -> None:
    found = ask(**given)
    assert says in found["problem"]
    assert (found["database"], found["files"], found["replaces"]) == ([], [], False)
