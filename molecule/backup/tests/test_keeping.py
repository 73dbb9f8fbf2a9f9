"""What is kept where and for how long, each kind of run, whom a failure is told, and the timers."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from backups import APPS, SETTINGS, backup, name_of, now, play, settled, sql, utc
from runs import command, start

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
DAY = 86400
LOCKS = "/var/backups/flaskhost/files/locks"
#: pgBackRest by another clock. It asks PostgreSQL when a backup was made, and its own clock which are too old.
CLOCK = """#!/bin/sh
case " $*" in *" backup")
  export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1) FAKETIME=+{days}d
  export DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1 ;;
esac
exec /usr/bin/pgbackrest "$@"
"""
#: flaskhost-backup by another clock. With libfaketime Python's own waiting fails on Debian 12 (EINVAL).
AHEAD = """#!/usr/bin/python3 -I
import runpy, time
now = time.time
time.time = lambda: now() + {seconds}
runpy.run_path("/usr/local/sbin/flaskhost-backup-now", run_name="__main__")
"""
PROGRAM = "/usr/local/sbin/flaskhost-backup"
#: Seconds by which a timer may be late, so that not all hosts begin at once.
DELAYS = {"full": 1800, "diff": 1800, "drill": 3600}


def wait(host: Any, condition: str, seconds: float) -> bool:
    """Wait on the host until a command of the shell succeeds."""
    return host.run(f"for i in $(seq {seconds * 5:.0f}); do {condition} && exit; sleep 0.2; done; exit 1").rc == 0


def ended(unit: str) -> str:
    """A condition for the shell: a unit of one run is not at work. One that is, is not active but activating."""
    return f"systemctl show --property=ActiveState --value {unit} | grep -qE 'inactive|failed'"


def config(host: Any) -> dict[str, Any]:
    """The settings of flaskhost-backup."""
    return json.loads(host.file("/etc/flaskhost/backup.json").content_string)


def labels(host: Any) -> set[str]:
    """The backups of the database."""
    return {item["label"] for item in json.loads(backup(host, "list", "--json"))["backups"]}


def snapshots(host: Any, tag: str) -> set[tuple[str, str]]:
    """The snapshots of a kind, each with its repository."""
    found = json.loads(backup(host, "list", "--json"))["snapshots"]
    return {(item["repository"], item["id"]) for item in found if item["tag"] == tag}


def last(host: Any, kind: str) -> dict[str, Any]:
    """How the last run of a kind went."""
    return json.loads(backup(host, "status", "--json"))[f"{kind}_state"]["last"]


def restic(host: Any, repository: str) -> str:
    """The command restic for one of the host's repositories, as flaskhost-backup calls it."""
    options, login = [], {}
    if repository == config(host).get("second"):
        options = config(host)["second_options"]
        login = json.loads(host.file("/etc/flaskhost/backup/environment.json").content_string)
    words = ["env", *(f"{name}={value}" for name, value in login.items())]
    words += ["RESTIC_PASSWORD_FILE=/etc/flaskhost/backup/passphrase", "RESTIC_CACHE_DIR=/var/tmp/restic"]
    words += ["restic", "--repo", repository]
    return shlex.join([*words, *(word for option in options for word in ("-o", option))])


@contextlib.contextmanager
def later(host: Any, days: int) -> Iterator[None]:
    """Let pgBackRest expire backups as it would in so many days."""
    program = "/usr/local/sbin/pgbackrest"
    text = shlex.quote(CLOCK.format(days=days))
    host.run_expect([0], f"printf %s {text} > {program}; chmod 755 {program}")
    try:
        yield
    finally:
        host.run_expect([0], f"rm {program}")


@contextlib.contextmanager
def ahead(host: Any, seconds: float) -> Iterator[None]:
    """Let flaskhost-backup look at the clock as it will be in so many seconds."""
    text = shlex.quote(AHEAD.format(seconds=seconds))
    host.run_expect([0], f"mv {PROGRAM} {PROGRAM}-now; printf %s {text} > {PROGRAM}; chmod 755 {PROGRAM}")
    try:
        yield
    finally:
        host.run_expect([0], f"mv {PROGRAM}-now {PROGRAM}")


@contextlib.contextmanager
def unreachable(host: Any) -> Iterator[None]:
    """Let nobody find the second repository."""
    host.run("cp /etc/hosts /var/tmp/hosts; echo '127.0.0.9 fh-backup-store' | cat - /var/tmp/hosts > /etc/hosts")
    try:
        yield
    finally:
        host.run("cat /var/tmp/hosts > /etc/hosts")


@contextlib.contextmanager
def no_copies(host: Any) -> Iterator[None]:
    """Let the clock begin no copy meanwhile; one that is at work is waited for."""
    host.run_expect([0], "systemctl stop flaskhost-backup-copy.timer")
    try:
        assert wait(host, ended("flaskhost-backup@copy.service"), 120)
        yield
    finally:
        host.run_expect([0], "systemctl start flaskhost-backup-copy.timer")


def archived(host: Any) -> None:
    """Let the write-ahead log up to now arrive in the repository."""
    segment = sql(host, "SELECT pg_walfile_name(pg_switch_wal())")
    assert wait(host, f"ls /var/backups/flaskhost/postgres/archive/main/*/*/{segment}-* >/dev/null 2>&1", 30)


def test_a_backup_of_the_database_is_kept_as_long_as_was_said_and_no_longer(host: Any) -> None:
    settled(host)
    backup(host, "full")
    first, keep = max(labels(host)), SETTINGS["keep_days"]
    records = "/var/backups/flaskhost/records"
    with later(host, keep - 1):
        backup(host, "full")
    young = labels(host)
    assert first in young
    assert f"from the backup {first}" in backup(host, f"restore --beside --check --backup {first}")
    assert host.file(f"{records}/{first}.json").exists
    with later(host, keep + 1):
        backup(host, "full")
    # The newest is the one that all times of the last days are restored from.
    assert labels(host) == {max(labels(host))}
    assert not labels(host) & young
    assert f"The backup {first} does not exist" in backup(
        host, f"restore --beside --check --backup {first}", good=False
    )
    assert not host.file(f"{records}/{first}.json").exists
    assert "All is well" in backup(host, "drill")


def test_a_snapshot_of_files_is_kept_as_long_as_was_said_and_no_longer(host: Any) -> None:
    settled(host)
    settings = config(host)
    keep, repositories = SETTINGS["keep_days"], ["/var/backups/flaskhost/files", settings["second"]]
    host.run("mkdir -p /var/tmp/aged; date > /var/tmp/aged/file")
    # Three are kept whatever their age.
    for _number in range(3):
        backup(host, "files")
    before = snapshots(host, "files")
    aged = {}
    for days in (keep + 2, keep - 2):
        for repository in repositories:
            words = (
                f"backup --json --tag files --host {settings['host']} --time \"$(date -d '{days} days ago' +'%F %T')\""
            )
            host.run_expect([0], f"{restic(host, repository)} {words} /var/tmp/aged")
        aged[days] = snapshots(host, "files") - before
        before |= aged[days]
        assert {repository for repository, _name in aged[days]} == set(repositories)
    backup(host, "full")
    left = snapshots(host, "files")
    assert not aged[keep + 2] & left
    assert aged[keep - 2] <= left
    for repository, name in aged[keep - 2]:
        host.run_expect([0], f"{restic(host, repository)} forget {name}")


@pytest.mark.parametrize("kind", ["full", "diff", "files", "copy", "drill", "check", "list"])
def test_each_kind_of_backup_yml_does_its_part_and_no_other(host: Any, kind: str) -> None:
    settled(host)
    with no_copies(host):
        before = labels(host), snapshots(host, "files"), now(host)
        output = play("backup", name_of(host), kind=kind)
        after = {name: last(host, name) for name in ("database", "files", "second_files", "copy", "drill")}
    fresh = labels(host) - before[0]
    assert [label[-1] for label in fresh] == {"full": ["F"], "diff": ["D"]}.get(kind, [])
    files = {repository for repository, _name in snapshots(host, "files") - before[1]}
    assert len(files) == (2 if kind in ("full", "diff", "files") else 0)
    ran = {name for name, run in after.items() if run.get("at", 0) >= before[2]}
    every = {"database", "copy", "files", "second_files"}
    parts = {"full": every, "diff": every, "files": {"files", "second_files"}, "copy": {"copy"}, "drill": {"drill"}}
    assert ran == parts.get(kind, set())
    assert all(after[name]["ok"] for name in ran)
    said = {"drill": "All is well", "check": "All backups are up to date", "list": max(before[0])}
    assert said.get(kind, "") in output


def test_a_kind_that_there_is_not_is_refused(host: Any) -> None:
    assert "kind: 'half' is not one of full, diff" in play("backup", name_of(host), kind="half", good=False)


def test_unlock_takes_away_the_lock_of_a_killed_run_and_not_that_of_one_at_work(host: Any) -> None:
    settled(host)
    start = "systemd-run --quiet --collect --unit=at-work --property=StandardInput=null"
    # It waits for the end of its input, and holds its lock meanwhile.
    command = f"sleep 300 | {restic(host, '/var/backups/flaskhost/files')} backup --stdin --tag test"
    with no_copies(host):
        host.run(f"{restic(host, '/var/backups/flaskhost/files')} unlock")
        try:
            host.run_expect([0], f"{start} sh -c {shlex.quote(command)}")
            assert wait(host, f'[ -n "$(ls {LOCKS})" ]', 30)
            held = host.run(f"ls {LOCKS}").stdout
            backup(host, "unlock")
            assert host.run(f"ls {LOCKS}").stdout == held
            host.run_expect([0], "systemctl kill --signal=KILL at-work.service")
            assert wait(host, "! systemctl is-active --quiet at-work.service", 10)
            assert host.run(f"ls {LOCKS}").stdout == held
            assert "The locks of ended runs were removed" in backup(host, "unlock")
            assert host.run(f"ls {LOCKS}").stdout == ""
        finally:
            host.run("systemctl stop at-work.service")


def test_a_copy_from_before_is_restored_where_the_newest_is_not_wanted(host: Any) -> None:
    settled(host)
    sql(host, "DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int); INSERT INTO copied VALUES (1)")
    archived(host)
    # The clock's own copy may be at work, and this one then has nothing to do.
    before = now(host)
    assert wait(host, f"flaskhost-backup copy >/dev/null && {newer('copy', before)}", 60)
    between = now(host)
    sql(host, "INSERT INTO copied VALUES (2)")
    archived(host)
    after = now(host)
    assert wait(host, f"flaskhost-backup copy >/dev/null && {newer('copy', after)}", 60)
    try:
        for given, rows in (({"copy_before": utc(between)}, "1"), ({}, "1\n2")):
            output = play("restore", name_of(host), beside=True, **{"from": "second"}, **given)
            look = output.partition("To query it: sudo -u postgres ")[2].partition(" DATABASE")[0]
            done = host.run(f"cd / && runuser -u postgres -- {look} guestbook -Atc 'TABLE copied'")
            assert done.stdout.strip() == rows, output
            backup(host, "remove")
        none = play("restore", name_of(host), beside=True, copy_before="2020-01-01", good=False, **{"from": "second"})
        assert "The second repository contains no backup of the database" in none
    finally:
        backup(host, "remove")
        sql(host, "DROP TABLE copied")


def newer(kind: str, at: float) -> str:
    """A condition for the shell: the last good run of a kind began after a time."""
    code = f"import json, sys; sys.exit(json.load(open('/var/lib/flaskhost/backup/{kind}.json'))['good']['at'] < {at})"
    return f"python3 -c {shlex.quote(code)} 2>/dev/null"


def test_a_restore_is_refused_while_a_deploy_is_under_way(host: Any) -> None:
    """The deploy is a real one, held up in its release command."""
    settled(host)
    name, folder = name_of(host), "/srv/guestbook/data"
    wanted = "restore --check --database guestbook --confirm guestbook"
    assert "can be restored" in backup(host, wanted)
    hold = f"sh -c 'touch {folder}/begun; while test -e {folder}/hold; do sleep 0.2; done'"
    apps = {**APPS, "guestbook": {**APPS["guestbook"], "release_command": hold, "env": {"HELD": utc(now(host))}}}
    host.run_expect([0], f"rm -f {folder}/begun; touch {folder}/hold")
    words = command("playbooks/deploy.yml", "--limit", f"{name},localhost", app="guestbook", flask_apps=apps)
    with start(words, start_new_session=True) as run:
        try:
            assert wait(host, f"test -e {folder}/begun", 120)
            before = sql(host, "SELECT oid FROM pg_database WHERE datname = 'guestbook'")
            output = play("restore", name, app="guestbook", confirm="guestbook", good=False)
            assert "A deploy has locked" in output
            assert "Wait until it has ended" in output
            assert "Show the maintenance page" not in output
            for words in (
                "restore --database guestbook --confirm guestbook",
                f"restore --confirm {name}",
                "restore-files --app guestbook --confirm guestbook",
            ):
                assert "A deploy has locked" in backup(host, words, good=False)
            assert sql(host, "SELECT oid FROM pg_database WHERE datname = 'guestbook'") == before
            host.run_expect([0], f"rm {folder}/hold")
            said, _none = run.communicate(timeout=180)
            assert run.returncode == 0, said
        finally:
            host.run(f"rm -f {folder}/hold {folder}/begun")
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert "can be restored" in backup(host, wanted)


def told(host: Any, since: float) -> str:
    """What the hook of this scenario has written into the journal since a time."""
    return host.run(f"journalctl --quiet --no-pager -t told -o cat --since @{since:.3f}").stdout


def test_the_hook_is_told_of_a_failed_run_of_the_clocks_and_of_no_good_one(host: Any) -> None:
    settled(host)
    began = now(host)
    with unreachable(host):
        assert host.run("systemctl start flaskhost-backup@files.service").rc != 0
    assert wait(host, f'journalctl --quiet -t told --since @{began:.3f} | grep -q \'"verb": "files"\'', 10)
    lines = [line for line in told(host, began).splitlines() if "files" in line]
    variables, event = lines[0], json.loads(lines[1])
    assert variables.startswith(f"{name_of(host)} files: ")
    assert "cannot be reached" in variables
    assert (event["host"], event["verb"]) == (name_of(host), "files")
    assert event["problems"][0].startswith(variables.partition("files: ")[2][:100])
    assert "b0Zr7pSg1y" not in told(host, began)
    after = now(host)
    host.run_expect([0], "systemctl start flaskhost-backup@files.service")
    assert '"verb": "files"' not in told(host, after)


def test_what_is_too_old_is_told_to_the_hook_and_by_the_status(host: Any) -> None:
    """Half an hour before its time each is not yet, and half an hour after it is, by a clock that is ahead."""
    settled(host)
    backup(host, "full")
    backup(host, "drill")
    hours, days = SETTINGS["alert_hours"], SETTINGS["drill_days"]
    for kind, limit, what in (
        ("database", hours * 3600, f"backup of the database is {(hours + 0.5) / 24:.0f} days old"),
        ("second_files", hours * 3600, "copy of the files in the second repository is"),
        ("drill", days * DAY, f"good drill is {days} days old"),
    ):
        for offset in (-1800, 1800):
            began = now(host)
            with no_copies(host), ahead(host, last(host, kind)["at"] + limit + offset - began):
                assert host.run("systemctl start flaskhost-backup@check.service").rc != 0, "the copy is late anyhow"
                # The rest of the table is for other tests; here its clock goes wrong.
                status = play("status", name_of(host), good=False)
            assert wait(host, f'journalctl --quiet -t told --since @{began:.3f} | grep -q \'"verb": "check"\'', 10)
            event = json.loads(next(line for line in told(host, began).splitlines() if '"verb": "check"' in line))
            late = offset > 0
            assert any(f"The last {what}" in problem for problem in event["problems"]) is late, event
            assert (f"The last {what}" in status) is late, status
    host.run("systemctl reset-failed flaskhost-backup@check.service")
    assert "All backups are up to date" in backup(host, "check")


@pytest.mark.parametrize("source", ["local", "second"])
def test_what_is_excluded_does_not_come_back_and_what_is_kept_beside_the_apps_does(host: Any, source: str) -> None:
    settled(host)
    data, reports = "/srv/guestbook/data", SETTINGS["paths"][0]
    host.run_expect([0], f"mkdir -p {reports}/2026; chmod 750 {reports}; chown www-data {reports}")
    for folder in (data, f"{reports}/2026"):
        host.run_expect(
            [0], f"echo kept > {folder}/note.txt; echo left > {folder}/note.part; chmod 640 {folder}/note.txt"
        )
    backup(host, "files")
    host.run_expect([0], f"rm -r {reports} {data}/note.txt {data}/note.part")
    wanted = ("--app=guestbook", "--confirm=guestbook"), (f"--path={reports}", f"--confirm={reports}")
    try:
        assert "To confirm: --confirm" in backup(host, "restore-files", f"--path={reports}", good=False)
        assert f"Available: /etc/flaskhost, {reports}" in backup(
            host, "restore-files --path=/srv/other --confirm=/srv/other", good=False
        )
        for words in wanted:
            backup(host, "restore-files", f"--from={source}", *words)
        for folder in (data, f"{reports}/2026"):
            assert host.run(f"ls {folder} | grep note").stdout == "note.txt\n"
            note = host.file(f"{folder}/note.txt")
            assert (note.content_string, note.mode) == ("kept\n", 0o640)
        assert (host.file(reports).user, host.file(reports).mode) == ("www-data", 0o750)
    finally:
        host.run(f"rm -r {reports} {data}.before-* {reports}.before-*")


def scheduled(kind: str, at: float) -> tuple[float, float]:
    """The last time before now, and the first after it, that the scenario has set for a kind of run."""
    days, _date, clock = SETTINGS[kind].split()
    hour, minute = (int(part) for part in clock.split(":"))
    midnight = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    times = [midnight + timedelta(days=day, hours=hour, minutes=minute) for day in range(-8, 9)]
    stamps = [time.timestamp() for time in times if time.strftime("%a") in days.split(",")]
    return max(stamp for stamp in stamps if stamp <= at), min(stamp for stamp in stamps if stamp > at)


def next_run(host: Any, timer: str) -> float:
    """When systemd lets a timer fire."""
    shown = host.run(f'date +%s.%N -d "$(systemctl show --property=NextElapseUSecRealtime --value {timer})"')
    return float(shown.stdout)


@pytest.mark.parametrize("kind", ["full", "diff", "drill"])
def test_a_timer_fires_at_the_time_that_was_set_for_it(host: Any, kind: str) -> None:
    """It makes up for a run that the host has slept through, which is how one is had without waiting for days."""
    settled(host)
    timer, unit = f"flaskhost-backup-{kind}.timer", f"flaskhost-backup@{kind}.service"
    soon, state = f"/run/systemd/system/{timer}.d", "drill" if kind == "drill" else "database"
    before = now(host)
    past, future = scheduled(kind, before)
    assert host.run(f"systemctl is-enabled {timer} && systemctl is-active {timer}").rc == 0
    assert future <= next_run(host, timer) <= future + DELAYS[kind] + 60
    assert last(host, state).get("at", 0) < before
    host.run_expect(
        [0], f"mkdir -p {soon}; printf '[Timer]\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' > {soon}/soon.conf"
    )
    stamp = "touch -d @{1} /var/lib/systemd/timers/stamp-{0}"
    again = f"systemctl stop {{0}}; {stamp}; systemctl daemon-reload; systemctl start {{0}}"
    try:
        # It has run since then.
        host.run_expect([0], again.format(timer, past + 60))
        assert next_run(host, timer) == future
        assert host.run(f"systemctl is-active {unit}").stdout.strip() == "inactive"
        # It has not.
        host.run_expect([0], again.format(timer, past - 60))
        assert wait(host, newer(state, before), 300)
        assert wait(host, ended(unit), 120)
        assert host.run(f"systemctl is-failed {unit}").stdout.strip() == "inactive"
        assert last(host, state).get("kind", "drill") == kind
    finally:
        host.run(f"rm -r {soon}; systemctl daemon-reload; systemctl restart {timer}")
    assert future <= next_run(host, timer) <= future + DELAYS[kind] + 60


def test_a_repository_elsewhere_is_written_and_restored_from(host: Any) -> None:
    settled(host)
    name, usual, elsewhere = name_of(host), "/var/backups/flaskhost", "/srv/kept/backups"
    sql(host, "DROP TABLE IF EXISTS elsewhere; CREATE TABLE elsewhere (a int)")
    host.run("echo kept > /srv/guestbook/data/elsewhere")
    try:
        # PostgreSQL's sandbox lets it write there.
        play("site", name, "--tags=postgres,backup", backup={**SETTINGS, "path": elsewhere})
        settled(host)
        # Nothing can come from there.
        host.run_expect([0], f"mv {usual} {usual}-away")
        sql(host, "INSERT INTO elsewhere VALUES (7)")
        segment = sql(host, "SELECT pg_walfile_name(pg_switch_wal())")
        assert wait(host, f"ls {elsewhere}/postgres/archive/main/*/*/{segment}-* >/dev/null 2>&1", 60)
        backup(host, "files")
        at = now(host)
        sql(host, "DROP TABLE elsewhere")
        host.run_expect([0], "rm /srv/guestbook/data/elsewhere")
        play(
            "restore",
            name,
            app="guestbook",
            what="both",
            confirm="guestbook",
            to=utc(at),
            backup={**SETTINGS, "path": elsewhere},
        )
        assert sql(host, "SELECT a FROM elsewhere") == "7"
        assert host.file("/srv/guestbook/data/elsewhere").content_string == "kept\n"
        settled(host)
        assert "All is well" in backup(host, "drill")
        assert not host.file(usual).exists
    finally:
        host.run(f"test -e {usual}-away && {{ rm -rf {usual}; mv {usual}-away {usual}; }}")
        play("site", name, "--tags=postgres,backup")
        host.run(f"rm -r {elsewhere} /srv/guestbook/data.before-*")
        sql(host, "DROP TABLE IF EXISTS elsewhere")
        backup(host, "full")
