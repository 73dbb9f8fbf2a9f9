"""The maintenance page of a run: it ends with the run, whoever is there to end it, and leaves other pages alone.

The files and what the unit runs are real; systemd is a stand-in that makes and removes the unit's folder. Kills of a
real restore on a real host are in the scenario backup.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.flaskhost.operate import run_page
from ansible.module_utils.flaskhost.operate.maintenance import Maintenance, Outcome, Request, Site, page
from ansible.module_utils.flaskhost.operate.run_page import RunPages, run_of
from fakes import Killer, tree

RUN = "20261121T101500Z-1a2b3c4d"


class Host:
    """A host with two sites, and systemd as far as it counts here."""

    def __init__(self, root: Path) -> None:
        self.root, self.conf, self.run = root, root / "nginx.conf", root / "run"
        self.sites = tuple(Site(name, root / name / "maintenance") for name in ("shop", "my-blog"))
        self.conf.write_text("".join(f"if (-f {site.folder}/page.html) {{\n" for site in self.sites))
        self.run.mkdir()
        self.commands: list[list[str]] = []
        self.refuses = False

    def __call__(self, args: Sequence[str], **options: Any) -> tuple[int, str, str]:
        self.commands.append(list(args))
        if args[0] == "systemd-run":
            # AnsibleModule.run_command would put root's variables into the script.
            assert options["expand_user_and_vars"] is False
            if self.refuses:
                return 1, "", "Failed to start transient service unit.\n"
            (self.run / self.folder(args)).mkdir()
        elif args[:2] == ["systemctl", "is-active"]:
            return (0 if (self.run / args[-1].removesuffix(".service")).is_dir() else 3), "", ""
        elif args[:2] == ["systemctl", "stop"]:
            self.ends(args[-1])
        elif args[:2] == ["systemctl", "show"]:
            return 0, "LoadState=loaded\nActiveState=inactive\n", ""
        return 0, "", ""

    @staticmethod
    def folder(args: Sequence[str]) -> str:
        (name,) = (item.partition("=")[2] for item in args if "RuntimeDirectory=" in item)
        return name.partition("=")[2]

    def ends(self, unit: str = f"{run_page.PREFIX}{RUN}.service") -> None:
        """The unit ends, however it does: systemd removes its folder."""
        shutil.rmtree(self.run / unit.removesuffix(".service"), ignore_errors=True)

    def pages(self, name: str = RUN, check: bool = False) -> RunPages:
        return RunPages(self, name, check=check, nginx_conf=self.conf, folder=self.run)

    def show(self, name: str = RUN, message: str = "We restore.", check: bool = False) -> Outcome:
        return self.pages(name, check).show(Request(True, self.sites, message))

    def operator(self, *, on: bool, message: str = "Back at 9") -> Outcome:
        request = Request(on, self.sites[:1], message)
        return Maintenance(self, lambda _app: None, nginx_conf=self.conf).switch(request)

    def seen(self, number: int = 0) -> str:
        """What nginx finds of a page, through links; empty if it finds none."""
        path = self.sites[number].folder / "page.html"
        return path.read_text() if path.is_file() else ""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_page_ends_with_its_unit_although_nobody_takes_it_down(host: Host) -> None:
    outcome = host.show()
    assert (outcome.changed, sorted(outcome.apps)) == (True, ["my-blog", "shop"])
    assert host.seen(0) == host.seen(1) == page("We restore.")
    assert run_of(host.sites[0].folder) == RUN
    host.ends()
    assert host.seen(0) == host.seen(1) == ""
    assert run_of(host.sites[0].folder) == ""


def test_a_run_takes_its_own_page_down(host: Host) -> None:
    host.show()
    outcome = host.pages().end(host.sites)
    assert (outcome.changed, sorted(outcome.apps)) == (True, ["my-blog", "shop"])
    assert not (host.sites[0].folder / "page.html").is_symlink()
    assert not list(host.run.iterdir())
    assert not host.pages().end(host.sites).changed, "a second time there is nothing to do"


def test_what_an_operator_has_put_up_stays_up(host: Host) -> None:
    host.operator(on=True)
    assert host.show().apps == ["my-blog"]
    assert host.seen() == page("Back at 9")
    host.pages().end(host.sites)
    assert (host.seen(0), host.seen(1)) == (page("Back at 9"), "")


@pytest.mark.parametrize("message", ["Back at 9", "We restore."])
def test_what_an_operator_puts_up_meanwhile_stays_up(host: Host, message: str) -> None:
    host.show()
    host.operator(on=True, message=message)
    host.ends()
    assert host.seen() == page(message)


def test_an_operator_can_take_the_page_of_a_run_down(host: Host) -> None:
    host.show()
    assert host.operator(on=False).changed
    assert (host.seen(0), host.seen(1)) == ("", page("We restore."))
    host.ends()
    # A link that leads nowhere is no page.
    assert not host.operator(on=False).changed


def test_a_run_that_is_refused_leaves_the_page_of_the_one_that_works(host: Host) -> None:
    host.show()
    assert not host.show("another").changed
    host.pages("another").end(host.sites)
    assert host.seen() == page("We restore.")


def test_a_page_that_a_dead_run_has_left_is_no_page(host: Host) -> None:
    host.show("dead")
    host.ends(f"{run_page.PREFIX}dead.service")
    assert host.show().changed
    assert host.seen() == page("We restore.")


def test_each_step_renews_the_lease(host: Host) -> None:
    now = int(float(Path("/proc/uptime").read_text().split()[0]))
    host.show()
    until = host.run / f"{run_page.PREFIX}{RUN}/until"
    assert not host.pages().show(Request(True, host.sites), 900).changed
    assert now + 900 <= int(until.read_text()) <= now + 910
    assert [command[0] for command in host.commands].count("systemd-run") == 1


def test_without_systemd_no_page_is_shown(host: Host) -> None:
    host.refuses = True
    before = tree(host.root)
    with pytest.raises(ReleaseError, match="Failed to start"):
        host.show()
    assert tree(host.root) == before


def test_check_mode_says_what_would_be_done(host: Host) -> None:
    before = tree(host.root)
    assert host.show(check=True).changed
    assert tree(host.root) == before
    host.show()
    before = tree(host.root)
    assert host.pages(check=True).end(host.sites).changed
    assert tree(host.root) == before


def test_a_name_that_could_be_a_path_is_refused(host: Host) -> None:
    with pytest.raises(ReleaseError, match="is not a valid run name"):
        host.pages("../x")


def test_a_kill_at_any_moment_leaves_no_page_for_good(host: Host) -> None:
    for number in itertools.count(1):
        try:
            with Killer(number):
                host.show()
            break
        except KeyboardInterrupt:
            host.ends()
            assert host.seen(0) == host.seen(1) == "", number
    assert number > 5
    assert host.seen(0) == page("We restore.")


# --- What the unit runs ----------------------------------------------------------------------------------------------


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


class Unit:
    """The unit's own process, with a systemctl that says whether a restore is at work."""

    def __init__(self, root: Path, seconds: int) -> None:
        self.folder, self.restores = root / "folder", root / "restores"
        self.folder.mkdir()
        program = root / "bin/systemctl"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\n[ "$*" = "is-active --quiet {run_page.RESTORES}" ] && test -e {self.restores}\n'
        )
        program.chmod(0o755)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", run_page.WAIT, "sh", str(int(uptime()) + seconds), "2"],
            env={"PATH": f"{program.parent}:{os.environ['PATH']}", "RUNTIME_DIRECTORY": str(self.folder)},
        )

    def ends_within(self, seconds: float) -> bool:
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False


def test_the_unit_ends_when_the_lease_does(tmp_path: Path) -> None:
    unit = Unit(tmp_path, 1)
    assert unit.ends_within(5)


def test_the_unit_runs_while_a_restore_is_at_work(tmp_path: Path) -> None:
    (tmp_path / "restores").touch()
    unit = Unit(tmp_path, 0)
    assert not unit.ends_within(2.5)
    unit.restores.unlink()
    # The next step of the run has a moment to renew the lease.
    assert not unit.ends_within(0.9)
    assert unit.ends_within(5)


def test_a_shorter_lease_counts_as_well(tmp_path: Path) -> None:
    unit = Unit(tmp_path, 60)
    (unit.folder / "until").write_text(f"{int(uptime()) + 1}\n")
    assert unit.ends_within(5)


def test_a_renewed_lease_is_kept(tmp_path: Path) -> None:
    unit = Unit(tmp_path, 1)
    (unit.folder / "until").write_text(f"{int(uptime()) + 4}\n")
    began = time.monotonic()
    assert unit.ends_within(10)
    assert time.monotonic() - began > 2
