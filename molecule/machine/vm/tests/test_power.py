"""The power fails: no acknowledged row is lost, and what was under way is repeated by the same command.

All that the machine had in its memory is gone, its file system's cache included, as no kill of a process shows it.
"""

import os
import random
import shutil
import signal
import time

import pytest
from plug import PROJECT, Writer, command_of, log_in, pull, put_in
from runs import start, wait

SEED = os.environ.get("FLASKHOST_SEED") or str(random.randrange(10**6))
#: A cluster that waits for no disk, on a port of its own.
CARELESS, PORT = "careless", 5499


def play(playbook, **variables):
    """Begin a run of a playbook on the machine."""
    return start(command_of(f"playbooks/{playbook}.yml", **variables), environment={}, start_new_session=True)


def done(process):
    """Wait for a run that has to succeed; return what it printed."""
    status, output = wait(process, 1500)
    assert status == 0, output
    return output


def fails_at(host, process, moment):
    """Let the power fail so many seconds after a run was begun, which must be at work then, and come back."""
    time.sleep(moment)
    assert process.poll() is None, f"it had ended before {moment:.0f} s: {process.communicate()[0]}"
    pull(host)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    put_in(host)


def sql(host, text, database="guestbook", port=5432):
    """Ask PostgreSQL as its superuser."""
    words = "cd / && runuser -u postgres -- psql --no-psqlrc -qAt -v ON_ERROR_STOP=1"
    return host.check_output(f"{words} --port={port} -c %s %s", text, database)


def rows(host, **where):
    return {int(number) for number in sql(host, "SELECT n FROM written", **where).split()}


@pytest.fixture
def written(host):
    """The table of the app's that the writer writes to."""
    sql(
        host,
        "DROP TABLE IF EXISTS written; CREATE TABLE written (n bigint PRIMARY KEY); GRANT ALL ON written TO guestbook",
    )
    yield
    sql(host, "DROP TABLE written")


@pytest.fixture
def moments(request, capsys):
    """Shares of a run, by chance: one in each half."""
    chance = random.Random(f"{SEED} {request.node.nodeid}")
    chosen = [round(part + 0.45 * chance.random(), 2) for part in (0.08, 0.5)]
    with capsys.disabled():
        print(f"\nFLASKHOST_SEED={SEED}: the power fails after {chosen} of the run")
    return chosen


def test_no_acknowledged_row_is_lost(host, written):
    writer = Writer(host, "guestbook")
    writer.wait_for(300)
    pull(host)
    acknowledged = writer.end()
    put_in(host)
    there = rows(host)
    assert set(acknowledged) <= there
    # One that was committed and not acknowledged any more may be there too.
    assert len(there) <= len(acknowledged) + 1


def test_such_a_failure_would_show_a_row_that_never_reached_the_disk(host):
    """The control: the same with a cluster that does not wait for its disk loses rows, or does not start."""
    version = "15" if host.system_info.release.startswith("12") else "17"
    host.check_output(f"pg_createcluster {version} {CARELESS} --port={PORT} --start -o fsync=off")
    try:
        sql(host, "CREATE TABLE written (n bigint PRIMARY KEY); CHECKPOINT", "postgres", PORT)
        host.check_output("sync")
        writer = Writer(host, "postgres", PORT)
        writer.wait_for(300)
        pull(host)
        acknowledged = writer.end()
        put_in(host)
        host.run(f"pg_ctlcluster {version} {CARELESS} start")
        answers = host.run(f"pg_isready --port={PORT} --timeout=60").rc == 0
        assert not answers or len(rows(host, database="postgres", port=PORT)) < len(acknowledged)
    finally:
        host.check_output(f"pg_dropcluster --stop {version} {CARELESS}")


def test_a_deploy_is_repeated(host, visitor, tmp_path, moments):
    code = shutil.copytree(PROJECT / "tests/apps/hello", tmp_path / "hello")
    apps = host.ansible.get_variables()["flask_apps"]
    apps["hello"]["source"] = {"path": str(code)}

    def deploy(text):
        (code / "static/hello.txt").write_text(f"{text}\n")
        return play("deploy", app="hello", flask_apps=apps)

    began = time.monotonic()
    done(deploy("power 0"))
    whole = time.monotonic() - began
    for number, moment in enumerate(moments, 1):
        fails_at(host, deploy(f"power {number}"), whole * moment)
        # Either release, and by itself.
        assert visitor.ask("https://hello.test/").status == 200
        done(deploy(f"power {number}"))
        assert visitor.ask("https://hello.test/static/hello.txt").body == f"power {number}\n"
        halves = "for release in /srv/hello/releases/*; do test -e $release/release.json || echo $release; done"
        assert host.check_output(halves) == ""
        assert host.check_output("systemctl --failed --no-legend --plain") == ""


def test_a_restore_is_repeated(host, visitor, written, moments):
    name = host.ansible.get_variables()["inventory_hostname"]
    host.check_output("flaskhost-backup full")
    for moment in moments:
        writer = Writer(host, "guestbook")
        writer.wait_for(100)
        acknowledged = writer.end()
        sql(host, "SELECT pg_switch_wal()")
        began = time.monotonic()
        done(play("restore", confirm=name))
        whole = time.monotonic() - began
        assert set(acknowledged) <= rows(host)
        fails_at(host, play("restore", confirm=name), whole * moment)
        said = log_in(host, "sudo flaskhost-backup status").stdout
        output = done(play("restore", confirm=name))
        assert "was restored" in output, said
        assert set(acknowledged) <= rows(host)
        assert "not finished" not in log_in(host, "sudo flaskhost-backup status").stdout
        assert visitor.ask("https://guestbook.test/readyz").status == 200
        sql(host, "DELETE FROM written")
        host.check_output("rm -r /var/lib/postgresql/*/main.before-*")
