"""The phase migrate: the release command, its rights, and the point to go back to that is noted before it."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import (
    database,
)
from ansible.module_utils.flaskhost.host import runner
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import USER, read_systemd_run
from release_site import Site


def test_the_release_command_is_the_apps_with_its_environment_and_its_rights(site: Site) -> None:
    command = (
        'printf "%s|%s|%s" "$MAIL_PASSWORD" "$HOME" "${FLASK_APP}" > "$HOME/said"; echo $((6 * 7)) >> "$HOME/said"'
    )
    outcome = site.deploy(release_command=command)
    data = site.root / "data"
    assert (data / "said").read_text(encoding="utf-8") == f"hunter $2|{data}|shop:app42\n"
    call = next(call for call in site.host.calls if "/bin/sh" in call)
    unit = read_systemd_run(call)
    assert unit.command[-1] == command
    assert unit.properties["ReadWritePaths"] == [str(data)]
    assert unit.properties["WorkingDirectory"] == [f"{site.path(outcome)}/app"]
    assert unit.environment["PATH"].startswith(f"{site.path(outcome)}/venv/bin:")
    assert {f"--uid={USER}", f"--gid={USER}"} <= set(call)
    assert not any("hunter" in item for item in itertools.chain(*site.host.calls))


def test_the_release_command_alone_owns_the_tables(site: Site, tmp_path: Path) -> None:
    owner = tmp_path / "database_owner.env"
    owner.write_text('DATABASE_URL="postgresql://shop-owner:sesame@/shop"\n')
    outcome = site.deploy(release_command="true", owner_file=str(owner))
    call = next(call for call in site.host.calls if "/bin/sh" in call)
    unit = read_systemd_run(call)
    assert unit.properties["EnvironmentFile"][-1] == str(owner), "the last one wins"
    # A group that no process of the app has, so that none may look into it; and the app's, to whom the packages are.
    assert {f"--uid={USER}", f"--gid={runner.OWNERS_GROUP}"} <= set(call)
    assert unit.properties["SupplementaryGroups"] == [USER]
    assert ["groupadd", "--system", "--force", runner.OWNERS_GROUP] in site.host.calls
    assert "sesame" not in (site.path(outcome) / "env").read_text()
    others = [call for call in site.host.calls if call != unit and str(owner) in " ".join(call)]
    assert len(others) == 1


def test_without_an_owner_on_the_host_no_release_command_is_run(site: Site, tmp_path: Path) -> None:
    refused = site.refused(release_command="true", owner_file=str(tmp_path / "database_owner.env"))
    assert "the owner of the app's tables does not exist on this host" in refused.reason
    assert "site.yml" in refused.cure
    assert not any("/bin/sh" in call for call in site.host.calls)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("psycopg.errors.InsufficientPrivilege: permission denied for schema public", True),
        ("ERROR:  must be owner of table entry", True),
        ("PermissionError: [Errno 13] Permission denied: '/srv'", False),
    ],
)
def test_an_app_that_may_not_make_tables_is_told_of_the_option(site: Site, said: str, hint: bool) -> None:
    refused = site.refused(release_command=f'echo "{said}"; false')
    assert ("database_owner: true" in refused.cure) is hint


def test_a_command_is_told_without_what_may_be_a_secret(site: Site) -> None:
    command = "flask create-user --password sesame; false"
    refused = site.refused(release_command=command)
    assert refused.reason.startswith("'flask create-user --password ***; false' failed with status")
    plan = site.deploy(check=True, release_command=command, setup_command="TOKEN=sesame flask seed").plan
    assert "run its setup command: TOKEN=*** flask seed" in plan
    assert "run its release command: flask create-user --password ***; false" in plan


@pytest.fixture
def backups(site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program for backups, which notes what it is asked and ends as its first line says."""
    program = site.folder / "flaskhost-backup"
    program.write_text(f'#!/bin/sh\necho "$@" >> {site.folder}/asked\necho "$SAYS" >&2\nexit ${{ENDS:-0}}\n')
    program.chmod(0o755)
    monkeypatch.setattr("ansible.module_utils.flaskhost.deploy.migrate.BACKUPS", program)
    site.options["environment"]["DATABASE_URL"] = "postgresql:///shop"
    site.options["database_per_host"] = True
    # Whether or not there is a psql where the tests run.
    monkeypatch.setattr(database.Database, "lock", lambda *_arguments: nullcontext())
    monkeypatch.setattr(database.Database, "revision", lambda _self: "")
    return site.folder / "asked"


def test_a_migration_notes_where_the_database_could_go_back_to(site: Site, backups: Path) -> None:
    first = site.deploy(release_command="true")
    site.change({"shop.py": "app = 43\n"})
    second = site.deploy(release_command="true")
    asked = backups.read_text(encoding="utf-8").splitlines()
    assert asked == [
        f"point --app shop --release {first.release} --previous ",
        f"point --app shop --release {second.release} --previous {first.release}",
    ]
    assert site.record(second.release).restore_point == f"shop@{second.release}"


def test_a_point_that_cannot_be_noted_keeps_back_no_release(
    site: Site, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS", "1")
    monkeypatch.setenv("SAYS", "PostgreSQL is not running.")
    outcome = site.deploy(release_command="true")
    assert any(
        "recovery point before this migration could not be recorded: PostgreSQL is not running" in warning
        for warning in outcome.warnings
    )
    # Whoever wants no backups is not told at each deploy.
    monkeypatch.setenv("ENDS", "3")
    monkeypatch.setenv("SAYS", "There are no backups: backup.passphrase is not set.")
    site.change({"shop.py": "app = 43\n"})
    assert not any("could not be recorded" in warning for warning in site.deploy(release_command="true").warnings)


def test_of_a_database_elsewhere_the_time_of_the_migration_is_noted(
    site: Site, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one that has failed half-way."""
    site.options["database_per_host"] = False
    monkeypatch.setattr(database.Database, "time", lambda _self: "2026-11-21T10:15:00.123456")
    first = site.deploy(release_command="true")
    site.change({"shop.py": "app = 43\n"})
    site.refused(release_command="false")
    records = {record.id: record for record in site.store.all_records()}
    assert records.pop(first.release).migrates_from == ""
    (second,) = records.values()
    assert (second.restore_time, second.migrates_from) == ("2026-11-21T10:15:00.123456", first.release)
    assert not backups.exists(), "the backups of this host have nothing to do with it"


def test_a_database_elsewhere_that_does_not_say_the_time_keeps_back_no_release(
    site: Site, backups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unanswered(_self: object) -> str:
        raise database.Unanswered("no route to host")

    site.options["database_per_host"] = False
    monkeypatch.setattr(database.Database, "time", lambda _self: "2026-11-21T10:15:00.123456")
    site.refused(release_command="test -e $HOME/second-try")
    (site.root / "data/second-try").touch()
    monkeypatch.setattr(database.Database, "time", unanswered)
    outcome = site.deploy(release_command="test -e $HOME/second-try")
    assert site.record(outcome.release).restore_time == "", "the first try's is too early by now"
    assert any(
        "before this migration could not be recorded" in warning and "no route" in warning
        for warning in outcome.warnings
    )
    assert not backups.exists()


@pytest.mark.parametrize("own", ["", "-c search_path=o'brien -c x=$HOME"])
def test_the_release_command_has_time_limits_beside_the_apps_own_options(site: Site, own: str) -> None:
    site.options["secrets"] |= {"PGOPTIONS": own} if own else {}
    site.deploy(release_command='printf %s "$PGOPTIONS" > "$HOME/said"', release_timeout=60, release_lock_timeout=3)
    limits = "-c lock_timeout=3s -c statement_timeout=60s"
    assert (site.root / "data/said").read_text(encoding="utf-8") == f"{limits} {own}".strip()
    assert not any("o'brien" in word for word in itertools.chain(*site.host.calls))


@pytest.mark.parametrize("alone", ["$HOME", "${HOME}", "~", "$$"])
def test_no_variable_of_roots_gets_into_a_command(site: Site, alone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/root")
    command = f"echo {alone} > data-of-command; false"
    with pytest.raises(ReleaseError) as caught:
        site.deploy(release_command=command)
    assert f"'{command}' failed with status" in caught.value.reason
    unit = read_systemd_run(next(call for call in site.host.calls if "/bin/sh" in call))
    assert unit.command[-1] == command


def test_the_procfile_names_the_release_command(site: Site) -> None:
    text = "web: gunicorn shop:app\nrelease:   touch $HOME/released ; touch $HOME/twice\nreleases: false\nworker: x\n"
    site.change({"Procfile": text})
    site.deploy()
    assert {path.name for path in (site.root / "data").iterdir()} == {"instance", "released", "twice"}
    site.deploy(release_command="touch $HOME/option")
    assert (site.root / "data/option").exists()


@pytest.mark.parametrize("text", ["web: gunicorn shop:app\n", "release:\nweb: false\n", "# release: false\n", ""])
def test_a_procfile_without_one_runs_nothing(site: Site, text: str) -> None:
    site.change({"Procfile": text})
    site.deploy()
    assert not any("/bin/sh" in call for call in site.host.calls)
