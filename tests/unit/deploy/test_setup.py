"""The setup command: once in the life of an app's data, also if a run is killed, and never where there is data."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import database
from ansible.module_utils.flaskhost.deploy.database import Unanswered
from ansible.module_utils.flaskhost.deploy.setup import NOTE
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import Killer
from release_site import Site, assert_in_order

#: Notes each run, as a command does that adds rows; the release command comes after it.
SETUP, RELEASE = "echo setup >> $HOME/ran", "echo release >> $HOME/ran"


def ran(site: Site) -> list[str]:
    """The commands that have run, in their order."""
    path = site.root / "data/ran"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def note(site: Site) -> str:
    """The state in the note; empty if there is none."""
    path = site.root / "data" / NOTE
    return json.loads(path.read_text(encoding="utf-8"))["state"] if path.exists() else ""


@pytest.fixture
def wanted(site: Site) -> Site:
    site.options.update(setup_command=SETUP, release_command=RELEASE)
    return site


@pytest.fixture
def tables(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the app's database has tables."""
    found = [False]
    site.options["environment"]["DATABASE_URL"] = "postgresql:///shop"
    monkeypatch.setattr(database.Database, "lock", lambda *_arguments: nullcontext())
    monkeypatch.setattr(database.Database, "revision", lambda _self: "")
    monkeypatch.setattr(database.Database, "time", lambda _self: "")
    monkeypatch.setattr(database.Database, "has_tables", lambda _self: found[0])
    monkeypatch.setattr(database.Database, "identity", lambda _self: "7 16384")
    site.options["database_per_host"] = True
    return found


def test_it_runs_before_the_first_release_and_never_again(wanted: Site) -> None:
    assert wanted.deploy().warnings == []
    assert (ran(wanted), note(wanted)) == (["setup", "release"], "done")
    wanted.change({"shop.py": "app = 2\n"})
    wanted.options["setup_command"] = "echo another >> $HOME/ran"
    assert wanted.deploy().warnings == []
    assert ran(wanted) == ["setup", "release", "release"]


def test_it_runs_without_a_release_command_too(wanted: Site) -> None:
    wanted.options["release_command"] = ""
    wanted.deploy()
    assert (ran(wanted), note(wanted)) == (["setup"], "done")


def test_it_is_no_part_of_a_release(wanted: Site) -> None:
    wanted.deploy()
    wanted.options["setup_command"] = "true"
    assert not wanted.deploy().changed


def test_in_phases_it_runs_once_too(wanted: Site) -> None:
    assert_in_order(wanted, wanted.phases())
    assert ran(wanted) == ["setup", "release"]


def test_an_app_that_was_live_keeps_its_data(wanted: Site) -> None:
    wanted.deploy(setup_command="")
    wanted.change({"shop.py": "app = 2\n"})
    (warning,) = wanted.deploy().warnings
    assert "was not run, because the app has data: a release of it has been live here" in warning
    assert "playbooks/setup.yml -e app=shop" in warning
    assert (ran(wanted), note(wanted)) == (["release", "release"], "found")
    wanted.change({"shop.py": "app = 3\n"})
    assert wanted.deploy().warnings == [], "said once"


def test_its_warning_is_without_what_may_be_a_secret(wanted: Site) -> None:
    wanted.deploy(setup_command="")
    wanted.change({"shop.py": "app = 2\n"})
    (warning,) = wanted.deploy(setup_command="flask seed --password sesame").warnings
    assert "the setup command 'flask seed --password ***' was not run" in warning


@pytest.mark.parametrize("there", [True, False])
def test_a_database_with_tables_is_data(wanted: Site, tables: list[bool], there: bool) -> None:
    """Of another host of the fleet, or of a host that was lost."""
    tables[0] = there
    warnings = wanted.deploy().warnings
    assert any("because the app has data: its database has tables" in warning for warning in warnings) is there
    assert ran(wanted) == (["release"] if there else ["setup", "release"])


def test_where_the_database_does_not_answer_it_does_not_run(
    wanted: Site, tables: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: object) -> bool:
        raise Unanswered("PostgreSQL reports: nothing")

    monkeypatch.setattr(database.Database, "has_tables", fail)
    refused = wanted.refused()
    assert (refused.step, ran(wanted), note(wanted)) == ("Run the setup command", [], "")
    assert "could not be determined: PostgreSQL reports: nothing" in refused.reason


def test_one_that_fails_is_said_and_runs_again(wanted: Site, tables: list[bool]) -> None:
    refused = wanted.refused(setup_command=f"{SETUP}; echo no such table; exit 3")
    assert refused.step == "Run the setup command"
    assert "failed with status 3" in refused.reason
    assert "no such table" in refused.reason
    assert note(wanted) == "begun"
    # It has made some of its tables.
    tables[0] = True
    wanted.deploy()
    assert (ran(wanted), note(wanted)) == (["setup", "setup", "release"], "done")


@pytest.mark.parametrize("filled_by", ["another host", "a restore", "nobody"])
def test_one_that_failed_does_not_run_again_where_somebody_else_may_have_filled_the_database(
    wanted: Site, tables: list[bool], monkeypatch: pytest.MonkeyPatch, filled_by: str
) -> None:
    wanted.refused(setup_command=f"{SETUP}; false")
    tables[0] = filled_by != "nobody"
    if filled_by == "another host":
        wanted.options["database_per_host"] = False
    else:
        # A restore puts another database in the place of the one that was there.
        monkeypatch.setattr(database.Database, "identity", lambda _self: "7 20000")
    if filled_by == "nobody":
        wanted.deploy()
        assert ran(wanted) == ["setup", "setup", "release"]
        return
    refused = wanted.refused()
    assert "it began here once and did not end, and the database has tables" in refused.reason
    path = wanted.root / "data" / NOTE
    assert f"remove {path}" in refused.cure
    assert ran(wanted) == ["setup"]
    path.unlink()
    assert any("was not run" in warning for warning in wanted.deploy().warnings)
    assert ran(wanted) == ["setup", "release"]


def test_one_that_is_refused_later_has_run(wanted: Site) -> None:
    wanted.host.mute.add("blue")
    with pytest.raises(ReleaseError, match="no response"):
        wanted.deploy()
    assert note(wanted) == "done"
    wanted.host.mute.clear()
    wanted.deploy()
    assert ran(wanted).count("setup") == 1


def test_a_run_that_is_killed_runs_it_again_only_if_it_had_not_ended(wanted: Site) -> None:
    killed, number, states = True, 0, set()
    while killed:
        number += 1
        with Killer(number):
            try:
                wanted.deploy()
                killed = False
            except KeyboardInterrupt:
                pass
        states.add(state := note(wanted))
        before = ran(wanted).count("setup")
        wanted.deploy()
        assert note(wanted) == "done"
        assert ran(wanted).count("setup") == (before if state == "done" else before + 1)
        shutil.rmtree(wanted.root)
        wanted.host.running.clear()
    assert states == {"", "begun", "done"}


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_half_note_that_the_app_has_made_is_not_written_through(wanted: Site, kind: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept", encoding="utf-8")
    (wanted.root / "data").mkdir(parents=True)
    partial = wanted.root / "data" / f".{NOTE}.partial"
    partial.symlink_to(elsewhere) if kind == "link" else partial.write_text("half", encoding="utf-8")
    wanted.deploy()
    assert (ran(wanted), note(wanted)) == (["setup", "release"], "done")
    assert elsewhere.read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("damage", ["link", "folder", "pipe", "text", "list", "deep"])
def test_a_note_that_the_app_has_replaced_harms_only_its_own_data(wanted: Site, damage: str, tmp_path: Path) -> None:
    wanted.deploy(setup_command="")
    path, elsewhere = wanted.root / "data" / NOTE, tmp_path / "elsewhere"
    elsewhere.write_text('{"state": "done"}', encoding="utf-8")
    {
        "link": lambda: path.symlink_to(elsewhere),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "text": lambda: path.write_text("done"),
        "list": lambda: path.write_text("[]"),
        "deep": lambda: path.write_text("[" * 5000),
    }[damage]()
    wanted.change({"shop.py": "app = 2\n"})
    (warning,) = wanted.deploy().warnings
    assert "was not run" in warning
    assert damage == "folder" or note(wanted) == "found", "not what the link leads to"
    assert not path.is_symlink()
    assert elsewhere.read_text(encoding="utf-8") == '{"state": "done"}'
    assert "setup" not in ran(wanted)
