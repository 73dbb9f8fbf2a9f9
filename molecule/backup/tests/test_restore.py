"""What was acknowledged comes back: after a kill, a lost data folder, to a time, on a fresh host."""

import base64
import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
PROJECT = os.environ["MOLECULE_PROJECT_DIRECTORY"]
WRITER = Path(__file__).with_name("writer.py")
#: Seconds after which PostgreSQL hands over a segment that is not full: what may be lost with the data folder.
ARCHIVE_TIMEOUT = 60


def play(name, host, *, good=True, **variables):
    """Run a playbook for one host; return what it printed."""
    command = ["ansible-playbook", "--inventory", str(INVENTORY), f"{PROJECT}/playbooks/{name}.yml"]
    done = subprocess.run(
        [*command, "--limit", f"{host},localhost", "--extra-vars", json.dumps(variables)],
        cwd=PROJECT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert (done.returncode == 0) is good, output
    assert "MODULE FAILURE" not in output
    return output


@pytest.fixture
def name(host):
    """The host's name in the inventory."""
    return host.backend.get_pytest_id().rpartition("/")[2]


@pytest.fixture
def version(host):
    """PostgreSQL's major version on the host."""
    return "15" if host.system_info.release.startswith("12") else "17"


def sql(host, text, database="guestbook"):
    """Ask PostgreSQL, as its superuser."""
    done = host.run("cd / && runuser -u postgres -- psql --no-psqlrc -qAt -v ON_ERROR_STOP=1 -c %s %s", text, database)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


def backup(host, *arguments, good=True):
    """Run flaskhost-backup; a run of the clock's may be at work, and is waited for."""
    done = host.run(f"flaskhost-backup {' '.join(arguments)}")
    assert (done.rc == 0) is good, done.stdout + done.stderr
    return done.stdout + done.stderr


def settled(host):
    """Wait for the first backup, which site.yml has begun."""
    for _second in range(180):
        if "inactive" in host.run("systemctl is-active flaskhost-backup@full.service").stdout:
            return
        time.sleep(1)
    raise AssertionError(host.run("journalctl --no-pager -n 50 -u flaskhost-backup@full").stdout)


class Writer:
    """A writer on the host, and the numbers that it was told are safe, which are kept outside of the database."""

    def __init__(self, host):
        self.host = host
        sql(host, "DROP TABLE IF EXISTS written; CREATE TABLE written (n bigint PRIMARY KEY);"
                  "GRANT ALL ON written TO guestbook")  # fmt: skip
        host.run("rm -f /var/tmp/written; install -o guestbook /dev/null /var/tmp/written")
        script = base64.b64encode(WRITER.read_bytes()).decode()
        host.run(f"echo {script} | base64 -d > /var/tmp/writer.py")
        host.run("systemd-run --unit=writer --uid=guestbook --collect python3 /var/tmp/writer.py /var/tmp/written")

    def numbers(self, until=None):
        """The acknowledged numbers, up to a time."""
        lines = (line.split() for line in self.host.file("/var/tmp/written").content_string.splitlines())
        return [int(number) for number, at in lines if until is None or float(at) <= until]

    def stop(self):
        """Let it end."""
        self.host.run("systemctl stop writer")


def rows(host):
    """The numbers that are in the database."""
    return [int(line) for line in sql(host, "SELECT n FROM written ORDER BY n").split()]


def now(host):
    """The host's clock."""
    return float(host.run("date +%s.%N").stdout)


def utc(seconds):
    """A time as restore.yml reads it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def kill(host, version, *, remove=False):
    """Kill PostgreSQL with all its processes, as a power failure does; and take its data away."""
    host.run("systemctl kill --signal=KILL postgresql@%s-main.service", version)
    host.run("systemctl stop postgresql@%s-main.service", version)
    if remove:
        host.run("rm -rf /var/lib/postgresql/%s/main", version)


def served(visitor):
    assert visitor.ask("https://guestbook.test/readyz").status == 200


@pytest.mark.parametrize("round_", [1, 2])
def test_rows_come_back_when_the_data_folder_is_gone(host, visitor, name, version, round_):
    settled(host)
    writer = Writer(host)
    time.sleep(3)
    backup(host, "full")
    time.sleep(5)
    middle = now(host)
    time.sleep(5)
    sql(host, "SELECT pg_switch_wal()")
    time.sleep(5)
    safe = now(host) - 5
    kill(host, version, remove=True)
    writer.stop()
    acknowledged = writer.numbers()
    assert len(acknowledged) > 200

    output = play("restore", name, confirm=name)
    there = rows(host)
    assert there == acknowledged[: len(there)], "no hole, and nothing that was never written"
    assert set(writer.numbers(safe - ARCHIVE_TIMEOUT)) <= set(there)
    assert set(writer.numbers(middle)) <= set(there), "its segment was handed over before the kill"
    assert "The last commit in it is of" in output
    served(visitor)

    output = play("restore", name, confirm=name, to=utc(middle))
    there = rows(host)
    assert there == acknowledged[: len(there)]
    # The number that was on its way at that very moment may be on either side of it.
    assert abs(len(there) - len(writer.numbers(middle))) <= 1
    assert f"/var/lib/postgresql/{version}/main.before-" in output
    served(visitor)


def test_nothing_committed_is_lost_while_the_log_is_there(host, name, version):
    settled(host)
    writer = Writer(host)
    time.sleep(5)
    kill(host, version)
    writer.stop()
    acknowledged = writer.numbers()
    play("restore", name, confirm=name)
    assert set(acknowledged) <= set(rows(host))
    # One that was committed and not acknowledged any more may be there too.
    assert len(rows(host)) <= len(acknowledged) + 1


def test_losing_power_loses_no_commit(host, version):
    writer = Writer(host)
    time.sleep(5)
    kill(host, version)
    writer.stop()
    host.run("systemctl start postgresql@%s-main.service", version)
    assert set(writer.numbers()) <= set(rows(host))


def test_one_app_goes_back_and_the_other_stays(host, visitor, name):
    settled(host)
    sql(host, "CREATE TABLE IF NOT EXISTS kept (a int); DELETE FROM kept; INSERT INTO kept VALUES (1)", "ledger")
    backup(host, "full")
    time.sleep(2)
    before = now(host)
    time.sleep(2)
    sql(host, "DELETE FROM entry; INSERT INTO entry (name, message) SELECT 'x', 'y' FROM generate_series(1, 3)")
    sql(host, "INSERT INTO kept VALUES (2)", "ledger")
    count = sql(host, "SELECT count(*) FROM kept", "ledger")
    play("restore", name, app="guestbook", confirm="guestbook", to=utc(before))
    assert sql(host, "SELECT count(*) FROM entry WHERE name = 'x' AND message = 'y'") == "0"
    assert sql(host, "SELECT count(*) FROM kept", "ledger") == count
    served(visitor)


def test_a_restore_wants_to_be_confirmed(host, name):
    output = play("restore", name, good=False)
    assert f"-e confirm={name}" in output
    assert host.run("systemctl is-active 'postgresql@*'").stdout.strip() == "active"


def test_the_drill_finds_a_damaged_backup(host):
    settled(host)
    backup(host, "full")
    assert "row by row as counted" in backup(host, "drill")
    folder = "/var/backups/flaskhost/postgres/backup/main"
    newest = host.run(f"ls -td {folder}/*F | head -1").stdout.strip()
    file = host.run(f"find {newest}/bundle -type f | head -1").stdout.strip()
    host.run(f"cp -p {file} /var/tmp/whole")
    host.run(f"printf XXXXXXXX | dd of={file} bs=1 seek=100000 conv=notrunc")
    output = backup(host, "drill", good=False)
    assert "is damaged" in output
    assert (
        "failed"
        in host.run("systemctl start flaskhost-backup@drill; systemctl is-failed flaskhost-backup@drill").stdout
    )
    host.run(f"cp -p /var/tmp/whole {file}")
    assert "All is well" in backup(host, "drill")


def test_the_wrong_passphrase_is_named(host):
    settled(host)
    conf = "/etc/pgbackrest/pgbackrest.conf"
    host.run(f"cp -p {conf} /var/tmp/conf; sed -i 's/^repo1-cipher-pass=.*/repo1-cipher-pass=another/' {conf}")
    output = backup(host, "drill", good=False)
    host.run(f"cp -p /var/tmp/conf {conf}")
    assert "The passphrase does not open" in output


def test_the_sandbox_lets_every_run_do_its_work(host):
    settled(host)
    for verb in ("full", "diff", "files", "copy", "check", "drill"):
        done = host.run(f"systemctl start flaskhost-backup@{verb}.service")
        assert done.rc == 0, host.run(f"journalctl --no-pager -n 40 -u flaskhost-backup@{verb}").stdout


def test_a_fresh_host_takes_the_place_of_a_lost_one(host, visitor, name):
    """Runs once, on the fresh host; the other one is only asked for what it has."""
    if name != "fh-backup-fresh":
        pytest.skip("It is about the fresh host.")
    lost = "fh-backup-bookworm"
    play("backup", lost, kind="full")
    play("restore", name, **{"from": "second", "of": lost, "confirm": name})
    assert sql(host, "SELECT count(*) FROM written") != "0"
    served(visitor)
    backup(host, "check")
