"""What is kept for how long, each kind of run, whom a failure is told, and the timer that begins a drill."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from backups import APPS, INVENTORY, PLAIN, PROJECT, backup, name_of, now, play, settled, sql, utc

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


def wait(host: Any, condition: str, seconds: float) -> bool:
    """Wait on the host until a command of the shell succeeds."""
    return host.run(f"for i in $(seq {seconds * 5:.0f}); do {condition} && exit; sleep 0.2; done; exit 1").rc == 0


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
    options = config(host)["second_options"] if repository == config(host).get("second") else []
    words = ["env", "RESTIC_PASSWORD_FILE=/etc/flaskhost/backup/passphrase", "RESTIC_CACHE_DIR=/var/tmp/restic"]
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
def unreachable(host: Any) -> Iterator[None]:
    """Let nobody find the second repository."""
    host.run("cp /etc/hosts /var/tmp/hosts; echo '127.0.0.9 fh-backup-store' | cat - /var/tmp/hosts > /etc/hosts")
    try:
        yield
    finally:
        host.run("cat /var/tmp/hosts > /etc/hosts")


def archived(host: Any) -> None:
    """Let the write-ahead log up to now arrive in the repository."""
    segment = sql(host, "SELECT pg_walfile_name(pg_switch_wal())")
    assert wait(host, f"ls /var/backups/flaskhost/postgres/archive/main/*/*/{segment}-* >/dev/null 2>&1", 30)


def test_a_backup_of_the_database_is_kept_as_long_as_was_said_and_no_longer(host: Any) -> None:
    settled(host)
    backup(host, "full")
    first, keep = max(labels(host)), config(host)["keep_days"]
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
    assert f"There is no backup {first}" in backup(host, f"restore --beside --check --backup {first}", good=False)
    assert not host.file(f"{records}/{first}.json").exists
    assert "All is well" in backup(host, "drill")


def test_a_snapshot_of_files_is_kept_as_long_as_was_said_and_no_longer(host: Any) -> None:
    settled(host)
    settings = config(host)
    keep, repositories = settings["keep_days"], ["/var/backups/flaskhost/files", settings["second"]]
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
    before = labels(host), snapshots(host, "files"), now(host)
    output = play("backup", name_of(host), kind=kind)
    fresh = labels(host) - before[0]
    assert [label[-1] for label in fresh] == {"full": ["F"], "diff": ["D"]}.get(kind, [])
    files = {repository for repository, _name in snapshots(host, "files") - before[1]}
    assert len(files) == (2 if kind in ("full", "diff", "files") else 0)
    ran = {name for name in ("database", "files", "second_files", "drill") if last(host, name)["at"] >= before[2]}
    both = {"files", "second_files"}
    assert ran == {"full": {"database", *both}, "diff": {"database", *both}, "files": both, "drill": {"drill"}}.get(
        kind, set()
    )
    if kind in ("full", "diff", "copy"):
        assert last(host, "copy")["at"] >= before[2]
        assert last(host, "copy")["ok"]
    said = {"drill": "All is well", "check": "All backups are as they should be", "list": max(before[0])}
    assert said.get(kind, "") in output


def test_a_kind_that_there_is_not_is_refused(host: Any) -> None:
    assert "kind: 'half' is none of full, diff" in play("backup", name_of(host), kind="half", good=False)


def test_unlock_takes_away_the_lock_of_a_killed_run_and_not_that_of_one_at_work(host: Any) -> None:
    settled(host)
    host.run(f"systemctl stop flaskhost-backup-copy.timer; {restic(host, '/var/backups/flaskhost/files')} unlock")
    start = "systemd-run --quiet --collect --unit=at-work --property=StandardInput=null"
    # It waits for the end of its input, and holds its lock meanwhile.
    command = f"sleep 300 | {restic(host, '/var/backups/flaskhost/files')} backup --stdin --tag test"
    try:
        host.run_expect([0], f"{start} sh -c {shlex.quote(command)}")
        assert wait(host, f'[ -n "$(ls {LOCKS})" ]', 30)
        held = host.run(f"ls {LOCKS}").stdout
        backup(host, "unlock")
        assert host.run(f"ls {LOCKS}").stdout == held
        host.run_expect([0], "systemctl kill --signal=KILL at-work.service")
        assert wait(host, "! systemctl is-active --quiet at-work.service", 10)
        assert host.run(f"ls {LOCKS}").stdout == held
        assert "Locks of runs that have ended are gone" in backup(host, "unlock")
        assert host.run(f"ls {LOCKS}").stdout == ""
    finally:
        host.run("systemctl stop at-work.service; systemctl start flaskhost-backup-copy.timer")


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
            look = output.partition("Look at it: sudo -u postgres ")[2].partition(" DATABASE")[0]
            done = host.run(f"cd / && runuser -u postgres -- {look} guestbook -Atc 'TABLE copied'")
            assert done.stdout.strip() == rows, output
            backup(host, "remove")
        none = play("restore", name_of(host), beside=True, copy_before="2020-01-01", good=False, **{"from": "second"})
        assert "The second repository holds no backup of the database" in none
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
    given = json.dumps({"app": "guestbook", "flask_apps": apps})
    host.run_expect([0], f"rm -f {folder}/begun; touch {folder}/hold")
    command = ["ansible-playbook", "--inventory", str(INVENTORY), "--limit", f"{name},localhost"]
    with subprocess.Popen(
        [*command, "playbooks/deploy.yml", "--extra-vars", given],
        cwd=PROJECT,
        env={**os.environ, **PLAIN},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as run:
        try:
            assert wait(host, f"test -e {folder}/begun", 120)
            before = sql(host, "SELECT oid FROM pg_database WHERE datname = 'guestbook'")
            output = play("restore", name, app="guestbook", confirm="guestbook", good=False)
            assert "A deploy holds" in output
            assert "Wait until it has ended" in output
            assert "Show the maintenance page" not in output
            for words in (
                "restore --database guestbook --confirm guestbook",
                f"restore --confirm {name}",
                "restore-files --app guestbook --confirm guestbook",
            ):
                assert "A deploy holds" in backup(host, words, good=False)
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


def test_the_timer_lets_the_drill_run_that_was_missed(host: Any) -> None:
    settled(host)
    timer = "flaskhost-backup-drill.timer"
    soon = f"/run/systemd/system/{timer}.d"
    before = now(host)
    assert last(host, "drill").get("at", 0) < before
    script = f"""
    systemctl is-enabled --quiet {timer} && systemctl is-active --quiet {timer} || exit 9
    mkdir -p {soon}; printf '[Timer]\\nRandomizedDelaySec=0\\nAccuracySec=1s\\n' > {soon}/soon.conf
    systemctl stop {timer}; touch -d '40 days ago' /var/lib/systemd/timers/stamp-{timer}
    systemctl daemon-reload; systemctl start {timer}
    """
    try:
        assert host.run(script).rc == 0
        assert wait(host, newer("drill", before), 120)
        assert wait(host, "! systemctl is-active --quiet flaskhost-backup@drill.service", 30)
        assert host.run("systemctl is-failed flaskhost-backup@drill.service").stdout.strip() == "inactive"
    finally:
        host.run(f"rm -r {soon}; systemctl daemon-reload; systemctl restart {timer}")
    # It waits for its next time.
    assert host.run(f"systemctl show --property=NextElapseUSecRealtime --value {timer}").stdout.strip()
