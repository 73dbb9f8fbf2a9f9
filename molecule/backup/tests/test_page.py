"""The maintenance page of a restore: it ends with the restore although its controller died, and leaves other pages."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import pytest
from backups import APPS, backup, name_of, play, settled
from runs import PLAIN, PROJECT, command

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
PAGE = "/srv/guestbook/maintenance/page.html"
DOMAIN = APPS["guestbook"]["domains"][0]
SSHD = "ps -eo pid,args | grep -E 'sshd(-session)?: [^/]+@notty' | grep -v grep | awk '{print $1}'"


def status(host: Any) -> str:
    """What visitors get."""
    ask = f"curl -sk -o /dev/null -w %{{http_code}} --resolve {DOMAIN}:443:127.0.0.1 https://{DOMAIN}/readyz"
    return host.run(ask).stdout


def wait(host: Any, condition: str, seconds: float) -> bool:
    """Wait on the host until a command of the shell succeeds."""
    return host.run(f"for i in $(seq {seconds * 5:.0f}); do {condition} && exit; sleep 0.2; done; exit 1").rc == 0


@pytest.mark.parametrize("dies", ["controller", "connection"])
def test_the_page_ends_with_the_restore_although_its_controller_died(host: Any, dies: str) -> None:
    settled(host)
    name = name_of(host)
    limit = ("--limit", f"{name},localhost")
    with subprocess.Popen(
        command("playbooks/restore.yml", *limit, confirm="guestbook", app="guestbook"),
        cwd=PROJECT,
        env={**os.environ, **PLAIN},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            begun = "systemctl is-active --quiet 'flaskhost-restore-*'"
            assert wait(host, begun, 60)
            assert status(host) == "503"
            if dies == "connection":
                # Not over a connection, which would be one of them.
                subprocess.run(["docker", "exec", name, "sh", "-c", f"kill -KILL $({SSHD})"], check=True, timeout=60)
                run.wait(120)
                assert run.returncode != 0
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    # The restore goes on, and the page ends two minutes after it.
    assert wait(host, f"! {begun}", 120)
    output = backup(host, "status", good=True)
    assert "was killed" not in output
    assert "guestbook_before_" in output
    assert wait(host, f"! test -f {PAGE}", 150)
    time.sleep(1)
    assert status(host) == "200"


def test_a_page_of_the_operators_stays_up(host: Any) -> None:
    settled(host)
    name = name_of(host)
    play("maintenance", name, app="guestbook", maintenance="on", message="Back at 9")
    try:
        play("restore", name, app="guestbook", confirm="guestbook")
        assert "Back at 9" in host.file(PAGE).content_string
        assert status(host) == "503"
    finally:
        play("maintenance", name, app="guestbook", maintenance="off")
    assert status(host) == "200"


def test_what_cannot_be_restored_is_refused_before_visitors_notice(host: Any) -> None:
    settled(host)
    name = name_of(host)
    given = {"app": "guestbook", "confirm": "guestbook"}
    output = play("restore", name, good=False, to="2020-01-01", **given)
    assert "There is no backup from before" in output
    assert "Show the maintenance page" not in output
    play("freeze", name, reason="audit", hours=1)
    try:
        output = play("restore", name, good=False, **given)
        assert "guestbook is frozen since" in output
        assert "Add -e force=true to continue despite the freeze" in output
        assert "Show the maintenance page" not in output
        play("restore", name, force=True, **given)
    finally:
        play("freeze", name, freeze="off")
    assert status(host) == "200"
