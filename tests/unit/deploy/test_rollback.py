"""A rollback, and the return of a host to what served before a release that was refused elsewhere."""

from __future__ import annotations

import errno
import functools
import shutil
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import (
    database,
    records,
    server,
)
from ansible.module_utils.flaskhost.deploy.app import RETURN
from ansible.module_utils.flaskhost.deploy.records import RECORD
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from release_site import CODE, Site, assert_in_order, to, two, visits

# -- going back -------------------------------------------------------------------------------------------------------


def test_back_to_the_last_healthy_release_without_building_anything(site: Site) -> None:
    first, second = two(site)
    site.host.calls.clear()
    plan = site.rollback(check=True)
    assert (plan.changed, plan.release, plan.plan[0]) == (True, first.release, f"roll back to {first.release}")
    assert site.host.served() == second.release
    outcome = site.rollback()
    assert (outcome.changed, outcome.release, outcome.previous) == (True, first.release, second.release)
    assert_in_order(site, outcome)
    assert not any(call[0] == "systemd-run" for call in site.host.calls)
    assert site.history[-1] == ("rollback", second.release, first.release)
    assert "ada@laptop" in site.record(second.release).failed


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "built by an earlier version"])
def test_back_to_a_release_of_another_application_server(site: Site, known: bool) -> None:
    """The unit file has the command of the server that the inventory names. A release has the one that it came with."""
    gunicorn = server.FIRST_COMMAND.format(slots=site.root / "slots")
    commands = {"gunicorn": gunicorn, "foo": r"/srv/shop/slots/%i/venv/bin/foo \1 ${FLASK_APP}"}

    def write(name: str, tasks: int) -> None:
        site.unit_file.write_text(f"[Service]\nExecStart={commands[name]}\nTasksMax={tasks}\n", encoding="utf-8")

    write("gunicorn", 1)
    first = site.deploy()
    assert site.record(first.release).command == gunicorn
    if not known:
        record = site.record(first.release)
        record.command = ""
        site.store.write(record)
    write("foo", 2)
    second = site.deploy()
    assert second.changed
    assert site.record(second.release).command == commands["foo"]
    held = {slot: site.unit_file.with_name(f"flask-shop@{slot}.service") for slot in SLOTS}
    assert commands["gunicorn"] in held[first.slot].read_text(), "until the switch, and if it crashes"
    assert commands["foo"] in held[second.slot].read_text()
    back = site.rollback()
    assert back.release == first.release
    # The rest of the unit is the current one, as for every rollback.
    assert held[back.slot].read_text() == f"[Service]\nExecStart={gunicorn}\nTasksMax=2\n"
    again = site.deploy()
    assert again.release == second.release
    assert held[again.slot].read_text() == site.unit_file.read_text()


def test_a_release_of_an_earlier_version_starts_as_it_did() -> None:
    """Its unit had this line, whatever gunicorn's is now."""
    line = "/srv/shop/slots/%i/venv/bin/gunicorn --config /srv/shop/slots/%i/server.conf.py ${FLASK_APP}"
    assert server.FIRST_COMMAND.format(slots="/srv/shop/slots") == line


def test_twice_back_does_not_return_to_what_was_gone_back_from(site: Site) -> None:
    first, second = two(site)
    site.rollback()
    with pytest.raises(ReleaseError) as caught:
        site.rollback()
    assert second.release in caught.value.reason
    assert_in_order(site, first)
    # By its name, or by a deploy of the same code, it serves again, and is as good as any.
    assert site.rollback(release=second.release).release == second.release
    assert site.record(second.release).failed == ""
    site.rollback(release=first.release)
    back = site.deploy()
    assert back.release == second.release
    assert site.record(second.release).failed == ""


def test_what_is_left_for_a_newer_release_can_be_gone_back_to(site: Site) -> None:
    first, second = two(site)
    site.rollback()
    assert site.rollback(release=second.release).release == second.release
    assert site.record(first.release).failed == ""
    assert site.rollback().release == first.release
    assert site.record(second.release).failed


def test_what_is_left_for_an_older_release_is_not_gone_back_to_however_long_ago_it_was_made(site: Site) -> None:
    """A, B and A again: it is B that served before."""
    first, second = two(site)
    site.change(CODE)
    assert site.deploy().release == first.release
    assert site.rollback().release == second.release
    assert site.record(first.release).failed
    with pytest.raises(ReleaseError, match="no other healthy release"):
        site.rollback()


def test_three_releases_back_is_named(site: Site) -> None:
    first = site.deploy()
    for number in (2, 3):
        site.change({"shop.py": f"app = {number}\n"})
        site.deploy()
    outcome = site.rollback(release=first.release)
    assert outcome.release == first.release
    assert_in_order(site, outcome)
    again = site.rollback(release=first.release)
    assert (again.changed, again.release) == (False, first.release)


def test_a_release_that_is_not_there_is_refused(site: Site) -> None:
    first, second = two(site)
    with pytest.raises(ReleaseError) as caught:
        site.rollback(release="20200101T000000Z-abcdef0")
    assert first.release in caught.value.reason
    assert second.release in caught.value.reason
    shutil.rmtree(site.root / "venvs" / site.record(first.release).venv)
    with pytest.raises(ReleaseError, match="there is no release"):
        site.rollback(release=first.release)
    assert site.host.served() == second.release


def test_a_release_that_does_not_pass_the_gate_any_more_is_not_gone_back_to(site: Site) -> None:
    first, second = two(site)
    (site.path(first) / "app/fails-the-gate").touch()
    with pytest.raises(ReleaseError, match="does not work"):
        site.rollback()
    assert_in_order(site, second)


class Schema:
    """A database whose client is a small script that prints what is in a file."""

    def __init__(self, site: Site) -> None:
        self.revision = site.folder / "revision"
        self.set("one")
        psql = site.folder / "psql"
        psql.write_text(
            "#!/bin/sh\nwhile read -r line; do\n"
            "case $line in *advisory*) echo; read -r line; echo locked; cat; exit;; esac; done\n"
            f"cat {self.revision} || {{ echo no pg_hba.conf entry >&2; exit 2; }}\n",
            encoding="utf-8",
        )
        psql.chmod(0o755)
        real = database.Database.__init__
        site.monkeypatch.setattr(database.Database, "__init__", functools.partialmethod(real, psql=[str(psql)]))
        site.options["environment"]["DATABASE_URL"] = "postgresql:///shop"
        site.change(self.migration("one"))

    @staticmethod
    def migration(name: str) -> dict[str, str]:
        return {f"migrations/versions/{name}.py": f"revision = '{name}'\n"}

    def refuse(self) -> None:
        """Lock only, and tell nothing."""
        self.revision.unlink()

    def set(self, revision: str) -> None:
        self.revision.write_text(f"{revision}\n", encoding="utf-8")


def test_a_schema_that_the_target_does_not_know_is_refused_and_can_be_forced(site: Site) -> None:
    schema = Schema(site)
    first = site.deploy()
    site.change({"shop.py": "app = 2\n", **schema.migration("two")})
    second = site.deploy(release_command=f"echo two > {schema.revision}")
    record = site.record(second.release)
    assert (record.schema_before, record.schema_after) == (second.schema_before, second.schema_after) == ("one", "two")
    for check in (True, False):
        with pytest.raises(ReleaseError) as caught:
            site.rollback(check=check)
        assert "revision two" in caught.value.reason
        assert "force=true" in caught.value.cure
    assert_in_order(site, second)
    outcome = site.rollback(force=True)
    assert outcome.release == first.release
    assert any("revision two" in warning for warning in outcome.warnings)


def test_a_schema_that_nobody_tells_is_a_reason_to_stop_and_can_be_forced(site: Site) -> None:
    schema = Schema(site)
    first, second = two(site)
    schema.refuse()
    for check in (True, False):
        with pytest.raises(ReleaseError) as caught:
            site.rollback(check=check)
        assert caught.value.step == "Compare the schema"
        assert "could not be read" in caught.value.reason
        assert "no pg_hba.conf entry" in caught.value.reason
        assert "force=true" in caught.value.cure
    assert_in_order(site, second)
    outcome = site.rollback(force=True)
    assert outcome.release == first.release
    assert any("could not be read" in warning for warning in outcome.warnings)


def test_an_app_without_migrations_is_gone_back_to_without_its_database(site: Site) -> None:
    schema = Schema(site)
    shutil.rmtree(site.code / "migrations")
    first, _second = two(site)
    schema.refuse()
    assert site.rollback().release == first.release


def test_a_database_without_migrations_yet_is_no_obstacle(site: Site) -> None:
    schema = Schema(site)
    first, _second = two(site)
    schema.set("")
    assert site.rollback().release == first.release


def test_a_deploy_only_warns_where_the_schema_is_not_to_be_had(site: Site) -> None:
    schema = Schema(site)
    schema.refuse()
    outcome = site.deploy(release_command="touch $HOME/released")
    assert_in_order(site, outcome)
    assert (site.root / "data/released").exists()
    schema_warning, time_warning = outcome.warnings
    assert "could not be read" in schema_warning
    assert "the recovery point before this migration could not be recorded" in time_warning
    assert (outcome.schema_before, outcome.schema_after) == ("", "")


def test_a_schema_that_the_target_knows_is_no_obstacle(site: Site) -> None:
    schema = Schema(site)
    site.change(schema.migration("two"))
    first, _second = two(site)
    schema.set("two")
    assert site.rollback().release == first.release


def test_a_command_that_ran_on_another_host_is_noted_here(site: Site) -> None:
    asked = to(site, "prepare")
    site.phase("gate", release=asked.release, schema_before="one", schema_after="two")
    record = site.record(asked.release)
    assert (record.schema_before, record.schema_after) == ("one", "two")


# -- phases, as a fleet runs them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["prepare", "migrate", "gate", "flip"])
def test_a_host_is_taken_back_after_any_phase(site: Site, last: str) -> None:
    first = site.deploy(processes={"worker": "old"})
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, last, processes={"worker": "new"})
    outcome = site.phase(RETURN, release=asked.release, previous=asked.previous)
    assert outcome.changed == (last in ("gate", "flip"))
    assert outcome.release == first.release
    assert_in_order(site)
    assert set(site.host.workers.values()) == {first.release}
    assert bool(site.record(asked.release).failed) == (last == "flip")
    if last == "flip":
        assert site.history[-1] == (RETURN, asked.release, first.release)
    # A second return changes nothing, and no rollback chooses a refused release.
    assert not site.phase(RETURN, release=asked.release, previous=asked.previous).changed
    with pytest.raises(ReleaseError, match="no other healthy release"):
        site.rollback()


def test_there_is_nothing_to_take_back(site: Site) -> None:
    first = site.deploy()
    for release_id, previous in (("", ""), ("x", ""), (first.release, first.release), ("x", first.release)):
        assert not site.phase(RETURN, release=release_id, previous=previous).changed
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    # Finished: the slot that served before is cold. And what the host has noted counts as much as what it is told.
    for previous in (first.release, ""):
        assert not site.phase(RETURN, release=second.release, previous=previous).changed
    assert_in_order(site, second)


@pytest.mark.parametrize("last", ["prepare", "migrate", "gate", "flip"])
def test_a_host_that_served_nothing_serves_nothing_again(site: Site, last: str) -> None:
    """Like a host of the same fleet on which the release has never served."""
    timers = {"nightly": {"command": "tidy", "on_calendar": "daily"}}
    asked = to(site, last, processes={"worker": "x"}, timers=timers)
    outcome = site.phase(RETURN, release=asked.release, previous="", processes={"worker": "x"}, timers=timers)
    assert outcome.changed == (last in ("gate", "flip"))
    assert outcome.release == ""
    assert (site.host.running, site.host.enabled, site.host.workers, site.host.timers) == ({}, set(), {}, set())
    assert not any((site.root / name).is_symlink() for name in ("live.sock", "current"))
    assert [path for path in site.units.rglob("*") if not path.is_dir()] == []
    if last == "flip":
        assert site.history[-1] == (RETURN, asked.release, "")
        assert "no release was live here before" in outcome.warnings[0]
        assert site.record(asked.release).failed
    assert not site.phase(RETURN, release=asked.release, previous="").changed
    site.host.calls.clear()
    assert_in_order(site, site.deploy(processes={"worker": "x"}, timers=timers))
    assert site.record(asked.release).failed == ""


def test_a_first_release_that_does_badly_on_several_hosts_says_that_it_is_stopped(site: Site) -> None:
    asked = to(site, "gate", watch=2)
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    with pytest.raises(ReleaseError) as caught:
        site.phase("flip", release=asked.release, watch=2)
    assert "No release was live here before" in caught.value.cure
    assert site.phase(RETURN, release=asked.release, previous="").changed
    assert site.host.running == {}


def test_it_is_told_where_the_way_back_to_nothing_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = to(site, "flip")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.Store, "remember", full)
    with pytest.raises(ReleaseError) as caught:
        site.phase(RETURN, release=asked.release, previous="")
    assert "The app is down on this host" in caught.value.cure
    assert site.host.running == {}


def test_what_serves_is_returned_to_whatever_its_record_says(site: Site) -> None:
    first = site.deploy()
    (site.path(first) / RECORD).write_text("{", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, "flip")
    assert site.phase(RETURN, release=asked.release, previous=asked.previous).changed
    assert site.host.served() == first.release
    assert set(site.host.running) == {"blue"}


def test_a_rollback_that_is_refused_elsewhere_leaves_no_stain(site: Site) -> None:
    first, second = two(site)
    site.phase("prepare", verb="rollback")
    for name in ("gate", "flip"):
        site.phase(name, verb="rollback", release=first.release)
    assert site.record(second.release).failed
    assert site.phase(RETURN, verb="rollback", release=first.release, previous=second.release).changed
    assert site.host.served() == second.release
    assert site.record(second.release).failed == ""
    assert_in_order(site, second)
