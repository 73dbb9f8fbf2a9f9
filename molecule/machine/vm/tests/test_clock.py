"""A clock that was ahead and is put right: what was written meanwhile is from the future, and confuses nothing."""

import shutil
import time

import pytest
from plug import PROJECT, run_playbook

#: Seconds that the clock is ahead.
AHEAD = 5400


def play(playbook, *arguments, **variables):
    """Run a playbook on the machine, which must succeed; return what it printed."""
    done = run_playbook(playbook, *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def put(host, seconds):
    """Move the clock, and see that it is there."""
    host.check_output(f"date --set='{seconds:+d} seconds'")
    return float(host.check_output("date +%s"))


@pytest.fixture
def ahead(host):
    """The clock is ahead, and nothing puts it right but this test."""
    host.check_output("systemctl stop chrony.service")
    moved = [put(host, AHEAD)]
    assert moved[0] > time.time() + AHEAD / 2

    def right():
        if moved:
            moved.clear()
            assert put(host, -AHEAD) < time.time() + AHEAD / 2

    yield right
    right()
    host.check_output("systemctl start chrony.service")


def processes(host):
    """The main processes of what a changed file would restart."""
    units = "nginx.service fail2ban.service 'postgresql@*' 'flask-*@*.service'"
    return host.check_output(f"systemctl show --property=Id,MainPID {units}")


def test_what_was_written_ahead_of_its_time_restarts_nothing_and_is_rolled_back_to(host, visitor, tmp_path, ahead):
    code = shutil.copytree(PROJECT / "tests/apps/hello", tmp_path / "hello")
    apps = host.ansible.get_variables()["flask_apps"]
    apps["hello"]["source"] = {"path": str(code)}

    def deploy(text):
        (code / "static/hello.txt").write_text(f"{text}\n")
        play("playbooks/deploy.yml", app="hello", flask_apps=apps)

    # A change in the settings of nginx, of a jail and of a slot, and a release: all from the future afterwards.
    apps["hello"]["limits"] = {"body": 3}
    apps["hello"]["workers"] = 2
    deploy("ahead")
    play("site.yml", "--tags", "slots,gunicorn,app,nginx,fail2ban", flask_apps=apps)
    ahead()
    # The first run may restart what has a file from the future. The second one must not.
    play("site.yml", "--tags", "slots,gunicorn,app,nginx,fail2ban", flask_apps=apps)
    before = processes(host)
    assert "changed=0" in play("site.yml", "--tags", "slots,gunicorn,app,nginx,fail2ban", flask_apps=apps)
    assert processes(host) == before

    deploy("right again")
    assert visitor.ask("https://hello.test/static/hello.txt").body == "right again\n"
    play("playbooks/rollback.yml", app="hello", flask_apps=apps)
    assert visitor.ask("https://hello.test/static/hello.txt").body == "ahead\n"
    play("site.yml", "--tags", "slots,gunicorn,app,nginx,fail2ban")
