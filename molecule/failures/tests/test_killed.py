"""Verbs that are killed, and repeated."""

import os
import signal

from runs import PROJECT, command, start

KEYS = "/etc/flaskhost/guestbook/secret_key"


def rotation():
    """Begin to give the guestbook a new key."""
    words = command(PROJECT / "playbooks/rotate_secret.yml", app="guestbook")
    return start(words, {"PYTHONUNBUFFERED": "1"}, start_new_session=True)


def keys(host):
    """The keys, the one that signs first."""
    return host.file(KEYS).content_string.split()


def test_rotation_that_is_killed_and_repeated_logs_nobody_out(host, visitor):
    """Killed when the new key signs and no process knows it yet."""
    old = keys(host)[0]
    cookie = visitor.ask("https://guestbook.test/").cookies["__Host-session"]
    killed = rotation()
    assert any("Release the app with the new key in use" in line for line in killed.stdout)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    new = keys(host)[0]
    assert new != old
    again = rotation()
    output = again.communicate(timeout=240)[0]
    assert again.returncode == 0, output
    assert "key was interrupted. This run finishes it" in " ".join(output.split())
    assert keys(host) == [new, old]
    assert new not in output
    # A session from before the rotation is still accepted. If it were not, the app would give out a new one.
    answer = visitor.ask("https://guestbook.test/", headers={"Cookie": f"__Host-session={cookie}"})
    assert answer.status == 200
    assert answer.cookies.get("__Host-session", cookie).partition(".")[0] == cookie.partition(".")[0]
    assert not host.file(f"{KEYS}.new").exists
