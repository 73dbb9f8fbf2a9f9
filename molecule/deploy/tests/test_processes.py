"""Workers and timers: they belong to the release that serves, come and go with it, and one that dies takes it back."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
from playbook import APPS, PROJECT, hosts, leftovers, run, serving, with_app

testinfra_hosts = hosts("trixie")

HEARTBEAT, FIRED, ENDED = (f"/srv/guestbook/data/{name}" for name in ("heartbeat", "fired", "ended"))
#: A worker such as the guestbook might have: it reads the database, and finishes what it is at when it is told to end.
WORKER = """
import json, os, signal, sys, time
from pathlib import Path

from guestbook import create_app
from guestbook.models import Entry, db
from sqlalchemy import func, select

NAME, HOME = sys.argv[1], Path(os.environ["HOME"])


def refused(what):
    try:
        what()
    except OSError:
        return True
    return False


def end(_signal, _frame):
    time.sleep(2)
    with (HOME / "ended").open("a") as file:
        file.write(f"{NAME} {os.environ['FLASKHOST_RELEASE']}\\n")
    sys.exit(0)


with create_app().app_context():
    entries = db.session.scalar(select(func.count()).select_from(Entry))
signal.signal(signal.SIGTERM, end)
Path("/tmp/of-the-worker").touch()
seen = {
    "release": os.environ["FLASKHOST_RELEASE"],
    "code": str(Path(__file__).resolve()),
    "python": sys.prefix,
    "pid": os.getpid(),
    "entries": entries,
    "secret": "SECRET_KEY" in os.environ,
    "its code is read-only": refused(Path("written").touch),
    "another app's code is closed": refused(lambda: list(Path("/srv/hello/data").iterdir())),
    "secrets are closed": refused(lambda: Path("/etc/flaskhost/guestbook/secret_key").read_text()),
    "root's processes are not seen": not Path("/proc/1").exists(),
}
while True:
    partial = HOME / f"{NAME}.partial"
    partial.write_text(json.dumps({**seen, "at": time.time()}))
    partial.rename(HOME / f"heartbeat-{NAME}")
    time.sleep(0.1)
"""
TIMER = {"command": f"echo $FLASKHOST_RELEASE ${{SECRET_KEY:+signs}} >> {FIRED}", "on_calendar": "*-*-* *:*:0/2"}


def options(code, **more):
    """The app with a worker from its Procfile, another one from the inventory, and a timer."""
    others = {"processes": {"clock": "python worker.py clock"}, "timers": {"tick": TIMER}}
    return with_app("guestbook", source={"path": str(code)}, **{**others, **more})


def deploy(host, *arguments, **variables):
    status, output = run("deploy", host, *arguments, app="guestbook", **variables)
    assert status == 0, output
    return output


def copy(code, text=""):
    """The sample app with a worker, and with another text so that it is another release."""
    shutil.copytree(PROJECT / "sample_app", code, ignore=shutil.ignore_patterns("__pycache__", "instance"))
    (code / "worker.py").write_text(f"{WORKER}# {text}\n")
    procfile = (code / "Procfile").read_text()
    (code / "Procfile").write_text(re.sub("(?m)^worker:.*", "worker: python worker.py worker", procfile))
    return code


def release(host):
    return Path(host.file("/srv/guestbook/current").linked_to).name


def units(host):
    """The app's units beside its slots, each with its state and whether a boot starts it."""
    listed = "systemctl list-units --all --no-legend --plain 'flask-guestbook_*'"
    files = "find /etc/systemd/system -name 'flask-guestbook_*' -printf '%f\\n'"
    loaded = {line.split()[0]: line.split()[2] for line in host.run(listed).stdout.splitlines()}
    return loaded, sorted(set(host.run(files).stdout.split()))


def beat(host, name, of=""):
    """What a worker has just told; it is waited for, of a release where one is named."""
    deadline, asked = time.monotonic() + 60, time.time()
    while time.monotonic() < deadline:
        found = host.run(f"cat {HEARTBEAT}-{name}").stdout
        told = json.loads(found) if found else {"at": 0}
        if told["at"] > asked and of in ("", told["release"]):
            return told
        time.sleep(0.2)
    pytest.fail(f"{name} has told {found or 'nothing'}")


def fired(host):
    """A line for each time that the timer has started its command."""
    return host.run(f"cat {FIRED}").stdout.splitlines()


def wait_until(check):
    """Wait until something is so, which takes seconds, and longer on a busy machine."""
    deadline = time.monotonic() + 60
    while not check() and time.monotonic() < deadline:
        time.sleep(0.2)


@pytest.fixture(scope="module")
def code(host, tmp_path_factory):
    """The first release with a worker, which serves; afterwards the one from before does again."""
    before = serving(host, "guestbook").split()[1]
    code = copy(tmp_path_factory.mktemp("first") / "guestbook")
    deploy(host, **options(code))
    yield code
    if serving(host, "guestbook").split()[1] != before:
        deploy(host)
    host.run_expect([0], f"rm --force {HEARTBEAT}-* {FIRED} {ENDED} /srv/guestbook/data/*.partial")


def test_worker_is_the_apps_user_in_the_sandbox_with_the_release_that_serves(host, code):
    live = release(host)
    for name in ("worker", "clock"):
        told = beat(host, name, live)
        folder = f"/srv/guestbook/releases/{live}"
        assert told["code"] == f"{folder}/src/worker.py"
        assert told["python"].startswith(("/srv/guestbook/venvs/", f"{folder}/venv"))
        assert isinstance(told["entries"], int), "it reaches the database"
        assert told["secret"] is True
        assert told["its code is read-only"]
        assert told["another app's code is closed"]
        assert told["secrets are closed"]
        assert told["root's processes are not seen"]
        pid = host.run(f"systemctl show --property=MainPID --value flask-guestbook_process@{name}").stdout.strip()
        status = host.file(f"/proc/{pid}/status").content_string
        user = host.user("guestbook").uid
        assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        # The signal to end has to reach it: no shell in between.
        assert host.file(f"/proc/{pid}/cmdline").content_string.split("\0")[1:3] == ["worker.py", name]
    assert not host.file("/tmp/of-the-worker").exists


def test_timer_fires_with_the_releases_environment(host, code):
    live = release(host)
    began = float(host.run(f"rm --force {FIRED}; date +%s.%N").stdout)
    wait_until(lambda: len(fired(host)) >= 5)
    *lines, ended = host.run(f"cat {FIRED}; date +%s.%N").stdout.splitlines()
    assert set(lines) == {f"{live} signs"}
    # Every two seconds, each of them late at times.
    assert 5 <= len(lines) <= (float(ended) - began) / 2 + 2


@pytest.mark.nightly
def test_boot_starts_workers_and_timers(host, code):
    wanted = {"multi-user": ["process@worker.service", "process@clock.service"], "timers": ["timer@tick.timer"]}
    for target, names in wanted.items():
        listed = host.run(f"systemctl show --property=Wants --value {target}.target").stdout.split()
        for name in names:
            assert f"flask-guestbook_{name}" in listed
            assert host.service(f"flask-guestbook_{name}").is_running


def test_second_run_changes_nothing_and_what_a_hand_has_stopped_is_started(host, code):
    before, pid = serving(host, "guestbook"), beat(host, "worker")["pid"]
    assert "changed=0" in deploy(host, **options(code))
    assert beat(host, "worker")["pid"] == pid
    host.run_expect([0], "systemctl stop flask-guestbook_process@worker.service flask-guestbook_timer@tick.timer")
    assert "changed=1" in deploy(host, **options(code))
    assert beat(host, "worker")["pid"] != pid
    assert host.service("flask-guestbook_timer@tick.timer").is_running
    assert serving(host, "guestbook") == before


def test_deploy_and_rollback_take_the_workers_along_and_let_them_finish(host, code, tmp_path):
    first = release(host)
    host.run(f"rm --force {ENDED}")
    # Without the clock: it goes with this release, and comes again with the rollback.
    deploy(host, **options(copy(tmp_path / "guestbook", "second"), processes={}))
    second = release(host)
    assert second != first
    told = beat(host, "worker", second)
    assert told["code"] == f"/srv/guestbook/releases/{second}/src/worker.py"
    ended = host.file(ENDED).content_string.splitlines()
    assert sorted(ended) == [f"clock {first}", f"worker {first}"]
    assert "flask-guestbook_process@clock.service" not in units(host)[0]
    assert not host.service("flask-guestbook_process@clock.service").is_enabled
    wait_until(lambda: fired(host)[-1:] == [f"{second} signs"])
    assert fired(host)[-1] == f"{second} signs"

    status, output = run("rollback", host, app="guestbook")
    assert status == 0, output
    assert release(host) == first
    for name in ("worker", "clock"):
        assert beat(host, name, first)["code"] == f"/srv/guestbook/releases/{first}/src/worker.py"
    assert host.file(ENDED).content_string.splitlines()[2:] == [f"worker {second}"]
    assert leftovers(host, "guestbook") == []


def test_release_whose_worker_dies_at_once_is_taken_back_with_its_last_words(host, visitor, code):
    before, live = serving(host, "guestbook"), release(host)
    dies = {"clock": "python -c 'raise SystemExit(\"no clock is wound up\")'"}
    status, output = run("deploy", host, app="guestbook", **options(code, processes=dies, watch=3))
    assert status != 0, output
    assert "guestbook was not released. Watch the release: flask-guestbook_process@clock.service" in output
    assert "no clock is wound up" in output
    assert f"{live} serves again" in output
    assert serving(host, "guestbook") == before
    for name in ("worker", "clock"):
        beat(host, name, live)
    assert visitor.ask("https://guestbook.test/readyz").status == 200
    assert leftovers(host, "guestbook") == []


@pytest.mark.nightly
def test_timer_that_systemd_does_not_understand_is_refused_before_anything_is_touched(host, code):
    state = "ls /srv/guestbook/releases; find /etc/systemd/system -name 'flask-guestbook_*' -printf '%p %T@\\n' | sort"
    before, pid = (serving(host, "guestbook"), host.run(state).stdout), beat(host, "worker")["pid"]
    bad = {"tick": {**TIMER, "on_calendar": "Funday 03:00"}}
    status, output = run("deploy", host, app="guestbook", **options(code, timers=bad))
    assert status != 0, output
    assert "flask_apps.guestbook.timers.tick.on_calendar" in output
    assert '"Funday 03:00" is not a calendar event of systemd' in " ".join(output.split())
    assert (serving(host, "guestbook"), host.run(state).stdout) == before
    assert beat(host, "worker")["pid"] == pid


def test_release_without_them_takes_them_away(host, code):
    assert units(host)[1]
    # The app as the inventory has it, which is what served before these tests.
    deploy(host, flask_apps=APPS)
    assert units(host) == ({}, [])
    told = host.file(f"{HEARTBEAT}-worker").content_string
    host.run(f"rm --force {FIRED}")
    time.sleep(2.5)
    assert host.file(f"{HEARTBEAT}-worker").content_string == told
    assert not host.file(FIRED).exists
    assert leftovers(host, "guestbook") == []
