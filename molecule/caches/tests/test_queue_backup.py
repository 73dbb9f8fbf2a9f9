"""Queues are backed up, restored and drilled with the files of their app, whatever the app does. Caches are not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import BOTH, CACHE, MEMCACHED, QUEUE, enqueue, main_process, play, redis, result, until

testinfra_hosts = BOTH
WORKERS = "flask-larder_process@rq.service flask-larder_process@celery.service"
STATE = "/var/lib/flask-larder_queue"
PARTS = f"{STATE}/appendonlydir"
COPY = "/var/lib/flaskhost/backup/queues/larder"
RESTORE = "flaskhost-backup restore-files --app larder --confirm larder"
#: restic, with the host's own repository.
RESTIC = "restic --repo /var/backups/flaskhost/files --password-file /etc/flaskhost/backup/passphrase --no-cache"
UNIT = "killed-restore"


def backup(host: Any, *arguments: str, good: bool = True) -> str:
    """Run flaskhost-backup on the host, in the unit of its timers if that runs it too."""
    done = host.run(f"flaskhost-backup {' '.join(arguments)}")
    assert (done.rc == 0) is good, done.stdout + done.stderr
    return done.stdout + done.stderr


def is_active(host: Any, units: str) -> list[str]:
    return host.run(f"systemctl is-active {units}").stdout.split()


def keys(host: Any) -> str:
    """The numbers of keys in all databases."""
    lines = [line.partition(",avg_ttl")[0] for line in redis(host, "info keyspace").splitlines()]
    return "\n".join(line for line in lines if line.startswith("db"))


def settled(host: Any) -> None:
    """Wait for the full backup that a restore begins in the background."""
    until(120, lambda: is_active(host, "flaskhost-backup@full.service") != ["activating"])


@pytest.fixture(autouse=True)
def _idle(host: Any) -> Iterator[None]:
    """Without the workers, which would do the jobs. At the end, the queue answers, and what was moved is gone."""
    host.check_output(f"systemctl stop {WORKERS}")
    yield
    settled(host)
    host.run(f"systemctl reset-failed {QUEUE}")
    host.check_output(f"systemctl start {QUEUE} {WORKERS}")
    assert redis(host, "ping") == "PONG"
    host.check_output(f"rm -rf {STATE}.before-* /srv/larder/data.before-*")
    assert not host.file("/var/lib/flaskhost/backup/queues").exists
    assert not host.file("/var/lib/flaskhost/backup/queue-check").exists
    assert "was killed" not in host.run("flaskhost-backup status").stdout


@contextlib.contextmanager
def stopped(host: Any) -> Iterator[None]:
    """Keep the queue stopped, with a copy of its folder that is put back at the end."""
    host.check_output(f"systemctl stop {QUEUE} && rm -rf /root/queue && cp -a {STATE} /root/queue")
    try:
        yield
    finally:
        host.check_output(f"systemctl stop {QUEUE}; rm -rf {STATE} && mv /root/queue {STATE}")
        host.check_output(f"systemctl reset-failed {QUEUE}; systemctl start {QUEUE}")


def test_jobs_come_back_with_the_files_and_are_done(host, visitor):
    jobs = {kind: [enqueue(visitor, kind, f"word{n}") for n in range(10)] for kind in ("rq", "celery")}
    host.check_output("runuser -u larder -- sh -c 'echo before > /srv/larder/data/note'")
    redis(host, "set lasting-key 1")
    # By the unit that the timers run, in its sandbox.
    host.check_output("systemctl start flaskhost-backup@files.service")
    said = host.check_output("journalctl --unit=flaskhost-backup@files.service --output=cat --quiet --lines=20")
    assert "Queue of larder: " in said
    counted = keys(host)
    redis(host, "flushdb")
    late = enqueue(visitor, "rq", "late")
    host.check_output("runuser -u larder -- sh -c 'echo after > /srv/larder/data/note'")
    said = play("restore", host, app="larder", what="files", confirm="larder")
    assert "The queue of larder was restored with " in said
    assert keys(host) == counted
    assert visitor.ask("https://larder.test/rq").json == {"waiting": 10}
    assert host.file("/srv/larder/data/note").content_string == "before\n"
    # What came later is in the copies of what was replaced, and nobody but root can read it.
    (aside,) = host.check_output(f"ls --directory {STATE}.before-*").split()
    assert host.check_output("stat --format='%%U %%a' %s", aside) == "root 700"
    assert host.run("grep --recursive --quiet %s %s", late, aside).rc == 0
    assert aside in play("status", host, good=None)
    host.check_output(f"systemctl start {WORKERS}")
    for kind, names in jobs.items():
        for job in names:
            until(60, lambda: result(visitor, kind, job))  # noqa: B023


def test_one_part_is_restored_without_the_other(host):
    for part, note, value in (("queue", "after\n", "before"), ("data", "before\n", "after")):
        settled(host)
        host.check_output("runuser -u larder -- sh -c 'echo before > /srv/larder/data/note'")
        redis(host, "set part before")
        backup(host, "files")
        host.check_output("runuser -u larder -- sh -c 'echo after > /srv/larder/data/note'")
        redis(host, "set part after")
        queue = main_process(host, QUEUE)
        play("restore", host, app="larder", what=part, confirm="larder")
        assert host.file("/srv/larder/data/note").content_string == note
        assert redis(host, "get part") == value
        assert (main_process(host, QUEUE) == queue) is (part == "data")


def test_keys_are_counted_when_all_are_loaded(host):
    """Redis answers while it loads, with the keys that it has read so far."""
    fill = """python3 -c 'for n in range(100000): print("set", n, n)'"""
    try:
        host.check_output(f"{fill} | runuser -u larder -- redis-cli -s /run/flask-larder_queue/queue.sock -n 7")
        for _attempt in range(3):
            said = backup(host, "files")
            assert int(said.partition("Queue of larder: ")[2].split()[0]) >= 100_000
    finally:
        redis(host, "-n 7 flushdb")


def test_caches_are_not_in_a_backup(host):
    redis(host, "set nowhere-to-be-found 1", "cache")
    backup(host, "files")
    listed = host.check_output(f"{RESTIC} ls latest").splitlines()
    assert f"{COPY}/appendonlydir/appendonly.aof.manifest" in listed
    # The files of its settings are among those of the host.
    assert not [line for line in listed if "_cache" in line and not line.startswith("/etc/flaskhost/")]
    assert main_process(host, CACHE) != "0"


def test_expired_keys_do_not_fail_the_drill(host):
    redis(host, "set short 1 px 700")
    backup(host, "files")
    until(10, lambda: redis(host, "exists short") == "0")
    assert "The queue of larder was loaded: the same " in backup(host, "drill")
    assert "The queue of larder was restored" in backup(host, *RESTORE.split()[1:])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        # Redis finds a command that is none, one that ends too early, and a snapshot with another checksum.
        ("sed -i '1s/.*/damaged/' appendonlydir/*.incr.aof", "cannot be loaded: Bad file format"),
        ("truncate -s -3 appendonlydir/*.incr.aof", "cannot be loaded: Unexpected end of file"),
        ("rm appendonlydir/*.manifest", "keys"),
        ("sed -i 's/lasting-key/lasted-key!/' appendonlydir/*.base.rdb", "cannot be loaded: "),
        # One key less than were counted: every command in it is whole.
        ("printf '*2\\r\\n$3\\r\\nDEL\\r\\n$11\\r\\nlasting-key\\r\\n' >> $(ls appendonlydir/*.incr.aof)", "keys ("),
        ("rm record.json", "does not say how many keys"),
    ],
)
def test_drill_finds_damage_and_a_restore_of_it_stops_nothing(host, damage, says):
    redis(host, "set lasting-key 1")
    redis(host, "set other-key 1")
    # So that the key is in the snapshot that the file begins with.
    host.check_output(f"systemctl restart {QUEUE}")
    if "base.rdb" in damage:
        with rewritten(host):
            pass
    redis(host, "set third-key 1")
    backup(host, "files")
    host.check_output(f"rm -rf /root/damaged && {RESTIC} restore latest --target /root/damaged --include {COPY}")
    host.check_output(f"mkdir -p {COPY} && cp -a /root/damaged{COPY}/. {COPY}/ && cd {COPY} && {damage}")
    name = host.ansible.get_variables()["inventory_hostname"]
    host.check_output(f"{RESTIC} backup --tag files --host {name} /srv/larder/data {COPY} && rm -rf {COPY}")
    try:
        said = backup(host, "drill", good=False)
        assert says in said
        assert "queue of larder" in said
        before = main_process(host, QUEUE)
        assert says in backup(host, *RESTORE.split()[1:], good=False)
        assert main_process(host, QUEUE) == before
        assert redis(host, "get third-key") == "1"
    finally:
        host.check_output(f"{RESTIC} forget latest; rm -rf /root/damaged /var/lib/flaskhost/backup/queues")


@contextlib.contextmanager
def rewritten(host: Any) -> Iterator[None]:
    """Make Redis write its file anew."""
    fill = """python3 -c 'for n in range(9000): print("set filler", "x" * 2048)'"""
    host.check_output(f"{fill} | runuser -u larder -- redis-cli -s /run/flask-larder_queue/queue.sock -n 6")
    until(20, lambda: "aof_rewrite_in_progress:0" in redis(host, "info persistence"))
    redis(host, "-n 6 flushdb")
    yield


# --- What an app, or a Redis that was taken over, can do to its queue ------------------------------------------------


def test_busy_queue_is_backed_up(host):
    redis(host, "set busy-key 1")
    endless = """eval 'while true do end' 0"""
    client = f"redis-cli -s /run/flask-larder_queue/queue.sock {endless}"
    host.check_output("runuser -u larder -- sh -c %s", f"{client} >/dev/null 2>&1 </dev/null &")
    until(20, lambda: "BUSY" in redis(host, "get busy-key"))
    assert "Queue of larder: " in backup(host, "files")
    assert "queue does not answer" in play("status", host, good=False)
    assert "SCRIPT KILL" in redis(host, "get busy-key"), "the control: it was busy all the time"
    assert redis(host, "script kill") == "OK"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("mv $INCR /var/lib/flask-larder_queue/x && ln -s /etc/shadow $INCR", "Too many levels of symbolic links"),
        ("ln $INCR /var/lib/flask-larder_queue/x", "has another name"),
        ("rm $INCR && mkfifo $INCR", "is not a regular file"),
        ("mv $PARTS $PARTS.x && ln -s /etc $PARTS", "Not a directory"),
        ("echo 'file ../../../../etc/shadow seq 1 type b' > $PARTS/appendonly.aof.manifest", "cannot be understood"),
        ("truncate -s 100G $INCR", "is too large to be backed up"),
        ("echo damaged > $INCR", "cannot be loaded: Bad file format"),
    ],
)
def test_what_is_no_file_of_the_queue_is_refused_and_the_files_are_backed_up(host, make, says):
    with stopped(host):
        names = f"PARTS={PARTS}; INCR=$(ls {PARTS}/*.incr.aof)"
        host.check_output("runuser -u larder_queue -- sh -c %s", f"{names}; {make}")
        host.check_output("runuser -u larder -- touch /srv/larder/data/marker")
        said = backup(host, "files", good=False)
        assert f"The queue of larder {'cannot' if 'damaged' in make else ''}"[:20] in said
        assert says in said
        assert "The local repository of files" in said
        listed = host.check_output(f"{RESTIC} ls latest")
        assert "/srv/larder/data/marker" in listed
        assert COPY not in listed
        assert "of the queue of larder" in host.run("flaskhost-backup check").stderr
    assert "Queue of larder: " in backup(host, "files")


def test_damaged_queue_is_healed_by_a_restore(host):
    redis(host, "set healed 1")
    backup(host, "files")
    host.check_output(f"systemctl stop {QUEUE} && sh -c 'echo damaged > $(ls {PARTS}/*.incr.aof)'")
    assert host.run(f"systemctl start {QUEUE}").rc
    assert "queue down" in play("status", host, good=False)
    play("restore", host, app="larder", what="queue", confirm="larder")
    assert redis(host, "get healed") == "1"


# --- Killed ----------------------------------------------------------------------------------------------------------


def killed(host: Any, command: str, when: str) -> None:
    """Begin a command on the host, and kill it as soon as a condition of the shell holds."""
    loop = (
        f"for i in $(seq 3000); do if {when}; then systemctl kill -s KILL {UNIT}; exit 0; fi; sleep 0.02; done; exit 9"
    )
    done = host.run(f"systemd-run --quiet --collect --unit={UNIT} --property=KillMode=process {command} && ({loop})")
    assert done.rc == 0, done.stderr


@pytest.mark.parametrize("heal", ["again", "abandon"])
def test_killed_restore_is_finished_by_the_same_command(host, heal):
    host.check_output(f"systemctl start {WORKERS}")
    redis(host, "set when before")
    backup(host, "files")
    redis(host, "set when after")
    # It takes a while to stop, so that the kill comes in time.
    slow = f"/run/systemd/system/{QUEUE}.d"
    host.check_output(f"mkdir {slow} && printf '[Service]\\nExecStopPost=/usr/bin/sleep 9\\n' > {slow}/slow.conf")
    host.check_output("systemctl daemon-reload")
    try:
        killed(host, RESTORE, f"systemctl is-active {QUEUE} | grep --quiet deactivating")
        until(30, lambda: is_active(host, QUEUE) == ["inactive"])
    finally:
        host.check_output(f"rm -r {slow} && systemctl daemon-reload")
    assert set(is_active(host, WORKERS)) == {"inactive"}, "the workers wait"
    assert "was killed and is not finished" in host.run("flaskhost-backup status").stderr
    if heal == "again":
        backup(host, *RESTORE.split()[1:])
        assert redis(host, "get when") == "before"
    else:
        backup(host, "abandon")
        assert redis(host, "get when") in ("before", "after")
    assert set(is_active(host, f"{QUEUE} {WORKERS}")) == {"active"}


def test_killed_backup_leaves_nothing_behind_after_the_next_one(host):
    killed(host, "flaskhost-backup files", "systemctl is-active --quiet flaskhost-queue-check.service")
    assert "Queue of larder: " in backup(host, "files")
    assert is_active(host, "flaskhost-queue-check.service") == ["inactive"]


# --- What operators see ----------------------------------------------------------------------------------------------


def test_status_and_audit_know_caches_and_queues(host, tmp_path):
    backup(host, "files")
    backup(host, "drill")
    file = tmp_path / "status.json"
    host.check_output(f"systemctl start {WORKERS}")
    play("status", host, json=str(file), good=None)
    rows = {row["app"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["larder"]["cache"].endswith("/16 MB, 0 keys") or "keys" in rows["larder"]["cache"]
    assert "/24 MB, " in rows["larder"]["queue"]
    assert rows["larder"]["queue"].endswith("keys, backup 0 min")
    assert rows["attic-with-a-name-of-31-letters"]["cache"] == "0/8 MB"
    assert "cache" not in rows["mallory"]
    found = audited(host, tmp_path)
    names = [f"{QUEUE}/{name}" for name in ("running", "sandbox", "socket", "persistence", "backup")]
    names += [f"{unit}/{name}" for unit in (CACHE, MEMCACHED) for name in ("running", "sandbox", "socket")]
    assert found == dict.fromkeys(names, "passed")
    for make, undo, name in (
        (f"systemctl stop {CACHE}", f"systemctl start {CACHE}", f"{CACHE}/running"),
        ("chmod o+x /run/flask-larder_queue", "chmod o-x /run/flask-larder_queue", f"{QUEUE}/socket"),
    ):
        host.check_output(make)
        try:
            failed = {each for each, status in audited(host, tmp_path).items() if status == "failed"}
        finally:
            host.check_output(undo)
        assert name in failed
        assert {each.split("/")[0] for each in failed} == {name.split("/")[0]}


def audited(host: Any, folder: Path) -> dict[str, str]:
    """Run the audit; return the status of each finding of the scanner."""
    play("audit", host, audit_scanners=["instances"], audit_reports=str(folder / "reports"))
    report = max((folder / "reports").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    (scan,) = [scan for scan in json.loads(report.read_text())["scans"] if scan["scanner"] == "instances"]
    assert scan["ran"], scan
    return {finding["id"]: finding["status"] for finding in scan["findings"]}
