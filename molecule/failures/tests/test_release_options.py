"""Options of a release that only a few releases, or a bad one, can show."""

import shutil
import time

import pytest
from runs import PROJECT
from test_refused import GUESTBOOK, HELLO, run

pytestmark = pytest.mark.nightly


def deploy(tag, **options):
    """Run the playbook with a version of hello and other options of it; return its status and what it printed."""
    hello = {**HELLO, "source": {**HELLO["source"], "version": tag}, **options}
    status, output = run("--tags", "app", flask_apps={"guestbook": GUESTBOOK, "hello": hello})
    return status, " ".join(output.split())


def releases(host):
    return host.run_expect([0], "ls /srv/hello/releases").stdout.split()


def test_no_more_releases_are_kept_than_wanted(host, visitor):
    for tag in ("n1", "n2"):
        status, output = deploy(tag)
        assert status == 0, output
    before = releases(host)
    assert len(before) > 2
    status, output = deploy("n3", keep_releases=2)
    assert status == 0, output
    assert len(releases(host)) == 2
    assert before[-1] in releases(host), "the one to go back to"
    assert visitor.ask("https://hello.test/whoami").json["version"] == "n3"


def test_release_command_that_takes_too_long_is_ended_and_nothing_has_changed(host, visitor):
    before = visitor.ask("https://hello.test/whoami").json["release"]
    began = time.monotonic()
    status, output = deploy("n4", release_command="sh -c 'sleep 600; echo never'", release_timeout=3)
    assert status != 0
    assert time.monotonic() - began < 120
    assert "hello was not released. Run the release command" in output
    assert "was stopped after 3 s (release_timeout)" in output
    assert visitor.ask("https://hello.test/whoami").json["release"] == before
    assert host.run("pgrep --full '[s]leep 600'").stdout == ""


def test_health_check_wants_the_status_named(visitor):
    status, output = deploy("n5", health={"path": "/not-there", "probes": 1})
    assert status != 0
    assert "returned 404, expected 200" in output
    status, output = deploy("n5", health={"path": "/not-there", "probes": 1, "status": 404})
    assert status == 0, output
    assert visitor.ask("https://hello.test/whoami").json["version"] == "n5"


def test_packages_come_from_the_file_named(host, visitor, tmp_path):
    """Without `requirements` it is not found: the version no-lock of test_refused."""
    app = tmp_path / "hello"
    shutil.copytree(PROJECT / "tests/apps/hello", app, ignore=shutil.ignore_patterns("__pycache__"))
    (app / "pins").mkdir()
    (app / "pins/production.txt").write_text((app / "requirements.txt").read_text() + "markupsafe==3.0.2\n")
    (app / "requirements.txt").unlink()
    status, output = deploy("", source={"path": str(app)}, requirements="pins/production.txt")
    assert status == 0, output
    assert visitor.ask("https://hello.test/whoami").status == 200
    assert host.run("ls -d /srv/hello/current/venv/lib/python3*/site-packages/[Mm]arkup[Ss]afe-3.0.2.dist-info").rc == 0
    status, output = deploy("n5")
    assert status == 0, output
