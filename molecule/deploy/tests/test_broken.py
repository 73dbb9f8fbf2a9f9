"""Releases that must not serve: each is refused while visitors come, and none of them notices."""

import getpass
import hashlib
import re
import shutil
import socket
import tarfile
import time
from contextlib import contextmanager

import pytest
from playbook import PROJECT, deploy, finish, hosts, leftovers, load_on, run, serving, slots, start, with_app

testinfra_hosts = hosts("bookworm")
NIGHT = pytest.mark.nightly

#: The sample app's newest migration, and the one that the tests add to it.
HEAD = max(path.name[:4] for path in (PROJECT / "sample_app/migrations/versions").glob("0*.py"))
NEXT = f"{int(HEAD) + 1:04}"
MIGRATION = f"""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{NEXT}", "{HEAD}", None, None


def upgrade() -> None:
    op.add_column("entry", sa.Column("mood", sa.String(length=10)))


def downgrade() -> None:
    op.drop_column("entry", "mood")
"""


@pytest.fixture(autouse=True, scope="module")
def on_main(host):
    deploy(host, "main")


def is_refused(host, visitor, app="hello", load_options=None, **variables):
    """Deploy what must not serve, under load, and see that all is as before; return the output and the report."""
    before = serving(host, app)
    with load_on(visitor, app, **(load_options or {})) as load:
        status, output = run("deploy", host, app=app, **variables)
    assert status != 0, output
    assert serving(host, app) == before
    assert leftovers(host, app) == []
    return output, load.report


@pytest.mark.parametrize(
    ("tag", "step", "reason"),
    [
        ("bad-import", "Start the {idle} slot", "No module named 'a_module_that_nobody_has'"),
        pytest.param(
            "bad-name",
            "Start the {idle} slot",
            "cannot import name 'a_name_that_flask_has_not'",
            marks=NIGHT,
        ),
        pytest.param("slow-start", "Start the {idle} slot", "did not start within 10 s", marks=NIGHT),
        ("memory-hog", "Start the {idle} slot", "more memory than limits.memory allows"),
        ("bad-answer", "Check the health of the {idle} slot", "returned 500, expected 200"),
        pytest.param(
            "bad-redirect",
            "Check the health of the {idle} slot",
            "returned 301, expected 200",
            marks=NIGHT,
        ),
        (
            "crash-later",
            "Check the health of the {idle} slot",
            "service crashed|responses were good, a later one was not",
        ),
        pytest.param("bad-lock", "Build the virtual environment", "flask==999.0", marks=NIGHT),
        ("bad-release-command", "Run the release command", "the table is locked"),
        ("no-such-version", "Read the repository", "no branch or tag 'no-such-version'"),
    ],
)
def test_broken_release_never_serves_and_says_why(host, visitor, tag, step, reason):
    _live, idle = slots(host)
    output, report = is_refused(host, visitor, version=tag, **with_app("hello", health={"timeout": 10}))
    assert f"hello was not released. {step.format(idle=idle)}" in output
    assert re.search(reason, output), output
    assert report.lost == 0, report.text()
    assert len(report.releases) == 1, report.text()


#: Seconds to watch, and what is found. An answer is in the log when it has been given: after 3 s.
WATCHED = {
    "errors-under-traffic": (4, r"requests ended with a server error \(5xx\)"),
    "slow-under-traffic": (8, "the median response time is"),
}


@pytest.mark.parametrize("tag", ["errors-under-traffic", pytest.param("slow-under-traffic", marks=NIGHT)])
def test_release_that_only_pleases_the_gate_is_taken_back(host, visitor, capsys, tag):
    watch, reason = WATCHED[tag]
    before = serving(host)
    with load_on(visitor) as load:
        status, output = run("deploy", host, app="hello", version=tag, **with_app("hello", watch=watch))
        returned = time.time()
        # What is asked for from now on must be answered as before.
        time.sleep(4)
    assert status != 0, output
    assert "hello was not released. Watch the release" in output
    assert re.search(reason, output), output
    report = load.report
    with capsys.disabled():
        after = f"{report.lost} of {report.requests} requests lost ({report.reasons}), the worst {report.worst_ms} ms"
        print(f"\n{tag}, until the return: {after}")
    if tag == "errors-under-traffic":
        assert report.lost > 0
        assert report.reasons["status 500"] > 0
        # This release may answer an upload before it has read it. nginx cannot send the rest then, and answers 502.
        others = {(item["kind"], item["reason"]) for item in report.lost_requests if item["reason"] != "status 500"}
        assert others <= {("upload", "status 502")}, report.text()
        assert set(report.reasons) <= {"status 500", "status 502"}
    assert report.last_lost < returned, report.text()
    assert serving(host) == before
    assert leftovers(host) == []
    assert visitor.ask("https://hello.test/whoami").status == 200


def test_archive_with_another_checksum_is_refused(host, visitor, tmp_path):
    archive = tmp_path / "hello.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(PROJECT / "tests/apps/hello", "hello")
    wrong = hashlib.sha256(b"another").hexdigest()
    source = {"archive": str(archive), "checksum": f"sha256:{wrong}"}
    output, report = is_refused(host, visitor, **with_app("hello", source=source))
    assert "checksum" in output
    assert wrong in output
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in output
    assert report.lost == 0, report.text()


@contextmanager
def almost_full(host, folder):
    """Make a folder the root of a small file system, with all that is in it and 20 MB more.

    The container's own disk is the machine's and has no limit. What runs has its files open or finds them again under
    the same names; what is written meanwhile is gone with the small file system.
    """
    place = "/run/flaskhost-almost-full"
    megabytes = int(host.run_expect([0], f"du --summarize --block-size=1M {folder}").stdout.split()[0]) + 20
    host.run_expect(
        [0],
        f"mkdir {place} && mount -t tmpfs -o size={megabytes}m,mode=755 tmpfs {place}"
        f" && cp --archive {folder}/. {place} && mount --bind {place} {folder}",
    )
    try:
        yield
    finally:
        # Lazy: nginx and the app may have files of it open.
        host.run_expect([0], f"umount --lazy {folder}; umount --lazy {place}; rmdir {place}")


def test_full_disk_is_told_and_cleaned_up(host, visitor):
    with almost_full(host, "/srv/hello/releases"):
        output, report = is_refused(host, visitor, version="big")
    assert "No space left on device" in output
    assert report.lost == 0, report.text()
    assert leftovers(host) == []


def test_second_deploy_is_told_who_has_the_lock_and_since_when(host, visitor):
    before = serving(host)
    _live, idle = slots(host)
    with load_on(visitor) as load:
        # Long enough for the second one to come.
        first = start("deploy", host, app="hello", version="slow-start", **with_app("hello", health={"timeout": 25}))
        state, deadline = "", time.monotonic() + 60
        while state != "activating" and time.monotonic() < deadline:
            state = host.run(f"systemctl is-active flask-hello@{idle}.service").stdout.strip()
        status, output = run("deploy", host, app="hello", version="n1")
        _first_status, first_output = finish(first)
    assert state == "activating", first_output
    assert status != 0, output
    held = re.search(r"another deploy of the app is running: (\S+) since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", output)
    assert held, output
    assert held[1] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert "did not start within 25 s" in first_output
    assert load.report.lost == 0, load.report.text()
    assert serving(host) == before
    assert leftovers(host) == []


def sql(host, statement):
    """Ask the guestbook's database."""
    return host.run_expect([0], f'sudo -u postgres psql -d guestbook -tAc "{statement}"').stdout.strip()


def test_migration_that_waits_for_a_lock_gives_up(host, visitor, tmp_path):
    """A reader that has forgotten to end its transaction: no table can be altered, and behind who tries all wait."""
    code = tmp_path / "guestbook"
    shutil.copytree(PROJECT / "sample_app", code, ignore=shutil.ignore_patterns("__pycache__", "instance"))
    (code / f"migrations/versions/{NEXT}_add_a_mood.py").write_text(MIGRATION)
    reader = "begin; lock table entry in access share mode; select pg_sleep(120)"
    host.run_expect(
        [0],
        "systemd-run --quiet --collect --unit=flaskhost-test-reader --uid=postgres"
        f" psql --dbname guestbook --command '{reader}'",
    )
    try:
        locks = "select count(*) from pg_locks where relation = 'entry'::regclass and granted"
        deadline = time.monotonic() + 60
        while sql(host, locks) == "0":
            assert time.monotonic() < deadline
        # Readers wait behind the migration while it waits.
        options = {"path": "/", "only_fast": True}
        output, report = is_refused(
            host, visitor, "guestbook", options, **with_app("guestbook", source={"path": str(code)})
        )
    finally:
        host.run_expect([0], "systemctl stop flaskhost-test-reader.service")
    assert "guestbook was not released. Run the release command" in output
    assert "lock timeout" in output
    assert report.lost == 0, report.text()
    # Two seconds, and what has piled up; not what the client's own machine stood still for.
    assert report.worst_ms - report.lag_ms < 8000, report.text()
    assert sql(host, "select version_num from alembic_version") == HEAD


def test_good_release_after_the_bad_ones_serves(host, visitor):
    with load_on(visitor) as load:
        deploy(host, "n1")
    assert load.report.lost == 0, load.report.text()
    assert visitor.ask("https://hello.test/whoami").json["version"] == "n1"
    assert leftovers(host) == []
