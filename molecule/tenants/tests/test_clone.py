"""Another environment's data: scrubbed and committed before anybody can read it, and never left on a disk."""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import PLAIN, command, start, wait
from tenants import INVENTORY, hosts

testinfra_hosts = hosts("trixie")

#: On the host, for what the tests import.
FOLDER = "/root/flaskhost-test-clone"
#: What the superuser of PostgreSQL could write, and nobody else on its behalf.
MARKER = "/var/lib/postgresql/flaskhost-test-clone"
SCRUB = "UPDATE people SET email = 'scrubbed';"
#: Scrubs that must not count as done, and a word of what is said about each.
BAD = {
    "ends early": (f"\\q\n{SCRUB}", "syntax error"),
    "ends early after a statement": (f"SELECT 1;\n\\q\n{SCRUB}", "syntax error"),
    "commits itself": ("UPDATE people SET email = 'half'; COMMIT; SELECT 1 / 0;", "transaction commands"),
    "undoes itself": (f"{SCRUB} ROLLBACK;", "transaction commands"),
    "goes elsewhere": (f"\\connect postgres\n{SCRUB}", "syntax error"),
    "runs a program": (f"\\! touch {MARKER}\n{SCRUB}", "syntax error"),
    # In the words of PostgreSQL 17, and of 15.
    "is told to run a program": (
        f"COPY (SELECT 1) TO PROGRAM 'touch {MARKER}'; {SCRUB}",
        "permission denied|pg_execute_server_program",
    ),
    "leaves its quotes": (f"{SCRUB} $sql$; END $do$; \\q", "unterminated dollar-quoted"),
    "fails": (f"{SCRUB} SELECT 1 / 0;", "division by zero"),
}


def admin(host: Any, sql: str, database: str = "postgres") -> str:
    done = host.run("cd / && runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -d %s -c %s", database, sql)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


def write(host: Any, name: str, text: str) -> str:
    encoded = base64.b64encode(text.encode()).decode()
    assert host.run(f"echo {encoded} | base64 -d > {FOLDER}/{name}").rc == 0
    return f"{FOLDER}/{name}"


def take_in(host: Any, scrub: str) -> Any:
    path = write(host, "scrub.sql", scrub)
    command = f"flaskhost-backup take-in --database alice --dump {FOLDER}/dump --confirm alice --scrub {path}"
    return host.run(command)


def state(host: Any) -> str:
    """Which database the app has, what is in it, and which others there are."""
    names = admin(host, "SELECT string_agg(oid || datname, ' ' ORDER BY datname) FROM pg_database")
    rows = admin(host, "SELECT DISTINCT email FROM people", "alice")
    return f"{names} {rows}"


def live_slot(host: Any) -> str:
    """The units of the app's live slot, without what they end in."""
    return f"flask-alice@{Path(host.check_output('readlink /srv/alice/live.sock')).stem}"


def clean(host: Any) -> None:
    for name in admin(host, "SELECT datname FROM pg_database WHERE datname ~ '^alice_before_'").split():
        admin(host, f"DROP DATABASE {name}")
    admin(host, "DROP TABLE IF EXISTS people", "alice")
    host.run(f"rm -rf {FOLDER} {MARKER}")


@pytest.fixture(scope="module")
def host_with_dump(host: Any) -> Iterator[Any]:
    """A dump with real addresses, and beside it the app's database with old ones."""
    clean(host)
    host.run(f"install -d -m 700 {FOLDER}")
    admin(
        host,
        """SET ROLE "alice-owner"; CREATE TABLE people (email text); GRANT SELECT ON people TO alice;
        INSERT INTO people SELECT 'real' FROM generate_series(1, 100)""",
        "alice",
    )
    done = host.run(f"flaskhost-backup give-out --database alice > {FOLDER}/dump")
    assert done.rc == 0, done.stderr
    admin(host, "UPDATE people SET email = 'old'", "alice")
    yield host
    clean(host)


def test_the_source_is_dumped_with_the_rights_of_its_owner(host_with_dump: Any) -> None:
    """What the owner cannot read, the dump cannot either: no superuser reads for it."""
    host = host_with_dump
    dump = f"flaskhost-backup give-out --database alice > {FOLDER}/another"
    admin(host, "CREATE TABLE not_hers (secret text)", "alice")
    try:
        done = host.run(dump)
    finally:
        admin(host, "DROP TABLE not_hers", "alice")
    assert done.rc == 1 and "permission denied for table not_hers" in done.stderr, done.stderr
    assert host.run(dump).rc == 0
    assert host.check_output(f"head -c 5 {FOLDER}/another") == "PGDMP"
    assert admin(host, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^flaskhost_session_'") == "0"


@pytest.mark.parametrize("name", BAD)
def test_a_scrub_that_was_not_done_changes_nothing(host_with_dump: Any, name: str) -> None:
    host, (scrub, word) = host_with_dump, BAD[name]
    before = state(host)
    done = take_in(host, scrub)
    assert done.rc != 0, done.stdout
    assert re.search(word, done.stdout + done.stderr), done.stdout + done.stderr
    assert state(host) == before
    assert not host.file(MARKER).exists


def test_an_app_runs_again_however_often_it_was_stopped(host_with_dump: Any, visitor: Any) -> None:
    """systemd refuses a unit that is started more than five times in ten seconds, unless the unit says otherwise.

    The restore is the sixth: the five before it start the socket alone, which takes no time.
    """
    host = host_with_dump
    socket, service = f"{live_slot(host)}.socket", f"{live_slot(host)}.service"
    starts = f"for _ in $(seq 5); do systemctl stop {socket} {service}; systemctl start {socket} || exit; done"
    take_in = f"flaskhost-backup take-in --database alice --dump {FOLDER}/dump --confirm alice"
    done = host.run(f"{starts}; systemctl start {service} && {take_in}")
    admin(host, "UPDATE people SET email = 'old'", "alice")
    assert done.rc == 0, done.stdout + done.stderr
    assert visitor.ask("https://alice.test/").status == 200
    # And as a deploy does it, which has to be repeatable as well.
    done = host.run(f"{starts.replace('seq 5', 'seq 8')}; systemctl start {service}")
    assert done.rc == 0, done.stderr
    assert visitor.ask("https://alice.test/").status == 200


def test_an_app_that_stays_down_is_named_with_the_reason(host_with_dump: Any, visitor: Any) -> None:
    """A socket that cannot start, of which the service says no more than that it depends on it."""
    host, slot = host_with_dump, live_slot(host_with_dump)
    folder = "/run/systemd/system/flask-alice@.socket.d"
    broken = '[Socket]\\nExecStartPre=/bin/sh -c "echo no room for a socket; exit 1"\\n'
    assert host.run(f"mkdir {folder} && printf '{broken}' > {folder}/test.conf && systemctl daemon-reload").rc == 0
    try:
        done = take_in(host, "SELECT 1 / 0;")
    finally:
        host.run(f"rm -r {folder}; systemctl daemon-reload")
    assert done.rc != 0
    assert "division by zero" in done.stderr, "the error of the restore comes first"
    assert f"did not start: {slot}.socket, {slot}.service. The last lines of {slot}.socket: " in done.stderr
    assert "no room for a socket" in done.stderr
    assert f"systemctl start {slot}.socket {slot}.service" in done.stderr
    assert visitor.ask("https://alice.test/").status == 502
    assert "did not start" not in take_in(host, "SELECT 1 / 0;").stderr
    assert visitor.ask("https://alice.test/").status == 200, "and the next one starts it"


def test_an_app_runs_again_after_a_restore_that_was_killed(host_with_dump: Any, visitor: Any) -> None:
    """Once the same command has been run again, even if that fails."""
    host, service = host_with_dump, f"{live_slot(host_with_dump)}.service"
    path = write(host, "scrub.sql", "SELECT pg_sleep(600);")
    command = f"flaskhost-backup take-in --database alice --dump {FOLDER}/dump --confirm alice --scrub {path}"
    # Killed with all that it has started, as by a reboot or for want of memory.
    unit = "flaskhost-test-killed"
    assert host.run(f"systemd-run --quiet --collect --unit={unit} --property=KillSignal=SIGKILL {command}").rc == 0
    host.run(f"for _ in $(seq 100); do systemctl --quiet is-active {service} || break; sleep 0.1; done; sleep 1")
    assert host.run(f"systemctl is-active {service}").stdout.strip() == "inactive", "the restore is at it"
    host.run(f"systemctl stop {unit}")
    assert host.run(f"systemctl is-active {service}").stdout.strip() == "inactive", "and nobody has started the app"
    write(host, "scrub.sql", "SELECT 1 / 0;")
    done = host.run(command)
    assert "division by zero" in done.stderr, done.stderr
    assert visitor.ask("https://alice.test/").status == 200
    assert host.run("ls /var/lib/flaskhost/backup/stopped.json").rc != 0


def test_nobody_reads_a_row_before_it_is_scrubbed(host_with_dump: Any) -> None:
    """Another host's instance of the app connects all the time: it sees the old rows, or those that are scrubbed."""
    host = host_with_dump
    # Whatever database of that name there is: under the name of before the old rows may be read, no others.
    loop = """while [ ! -e FOLDER/stop ]; do for name in alice alice_restoring; do
        setpriv --reuid=alice --regid=alice --clear-groups \
        psql -XqAt -d $name -c 'SELECT DISTINCT email FROM people' >> FOLDER/seen 2>&1; done; done"""
    write(host, "loop.sh", loop.replace("FOLDER", FOLDER))
    assert host.run(f"cd / && systemd-run --quiet --unit=flaskhost-test-clone bash {FOLDER}/loop.sh").rc == 0
    try:
        done = take_in(host, f"SELECT pg_sleep(2);\n{SCRUB}\nSELECT pg_sleep(2); -- the last line is a comment")
        host.run(f"sleep 0.5; touch {FOLDER}/stop")
    finally:
        host.run("systemctl stop flaskhost-test-clone")
    assert done.rc == 0, done.stdout + done.stderr
    seen = set(host.file(f"{FOLDER}/seen").content_string.splitlines())
    assert {"old", "scrubbed"} <= seen, "the loop read before and after"
    assert "real" not in seen
    assert admin(host, "SELECT DISTINCT email FROM people", "alice") == "scrubbed"
    owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'people'"
    assert admin(host, owner, "alice") == "alice-owner"


def test_a_clone_that_fails_leaves_no_copy_and_none_is_ever_readable(host_with_dump: Any, tmp_path: Path) -> None:
    host = host_with_dump
    name = host.ansible.get_variables()["inventory_hostname"]
    variables = yaml.safe_load((INVENTORY / Path(os.environ["MOLECULE_INVENTORY_FILE"]).name).read_text())
    for environment in ("production", "staging"):
        folder = tmp_path / environment
        folder.mkdir()
        for variables_of in ("group_vars", "host_vars"):
            (folder / variables_of).symlink_to((INVENTORY / variables_of).resolve())
        groups = {group: {"hosts": {name: variables["all"]["hosts"][name]}} for group in ("db", "app", "web")}
        (folder / "hosts.yml").write_text(yaml.safe_dump(groups))
    scrub = tmp_path / "alice.sql"
    scrub.write_text(f"{SCRUB} SELECT 1 / 0;\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    before, starts, over = state(host), set[bytes](), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            for path in temporary.glob("flaskhost-clone-*/*"):
                try:
                    starts.add(path.read_bytes()[:5])
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    given = {"source": str(tmp_path / "production"), "app": "alice", "scrub": str(scrub), "confirm": "alice"}
    try:
        words = command("playbooks/clone.yml", inventory=tmp_path / "staging", **given, clone_target=True)
        status, output = wait(start(words, {**PLAIN, "TMPDIR": str(temporary)}))
    finally:
        over.set()
        watcher.join()
    assert status != 0 and "division by zero" in output, output
    assert list(temporary.glob("flaskhost-clone-*")) == []
    assert host.run("ls -d /tmp/flaskhost-clone-* /var/tmp/flaskhost-clone-*").rc != 0
    assert state(host) == before
    assert starts - {b""}, "the watcher saw the dump"
    assert b"PGDMP" not in starts, "it was not encrypted"
