"""A deploy either brings the wanted release into service or leaves what serves alone, and can always be repeated."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import (
    environment,
    freeze,
    processes,
)
from ansible.module_utils.flaskhost.deploy.app import RETURN
from ansible.module_utils.flaskhost.deploy.lock import Lock, processes_with
from ansible.module_utils.flaskhost.deploy.release import PHASES, Deployment
from ansible.module_utils.flaskhost.deploy.sources import folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.testing import patch_module_args
from fakes import tree, without_limit
from release_site import CODE, MODULE, Site, assert_in_order, to, two

# -- a deploy that goes well ----------------------------------------------------------------------------------------


def test_the_first_release_serves(site: Site) -> None:
    outcome = site.deploy()
    assert outcome.changed
    assert (outcome.slot, outcome.previous) == ("blue", "")
    assert_in_order(site, outcome)
    assert site.host.history == ["start blue"]
    assert str((site.root / "live.sock").readlink()) == f"{site.folder}/run/blue.sock"
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{7}", outcome.release)
    assert outcome.revision.startswith(outcome.release[-7:])


def test_nothing_to_do_is_nothing_done(site: Site) -> None:
    first = site.deploy()
    lock = str(site.root / ".lock")
    before = tree(site.root), list(site.host.history)
    site.host.calls.clear()
    again = site.deploy()
    assert not again.changed
    assert (again.release, again.slot, again.previous) == (first.release, "blue", first.release)
    # Who took the lock last is written into it each time.
    after = tree(site.root) | {lock: before[0][lock]}
    assert (after, site.host.history) == before
    assert {" ".join(call[:2]) for call in site.host.calls} <= {"systemctl is-active", "systemctl is-enabled"}


CHANGES: dict[str, Callable[[Site], object]] = {
    "code": lambda site: site.change({"shop.py": "app = 2\n"}),
    "environment": lambda site: site.options["environment"].update(MAIL_FROM="shop@example.com"),
    "secrets": lambda site: site.options["secrets"].update(MAIL_PASSWORD="another"),
    "server's settings": lambda site: site.config.write_text("workers = 2\ntimeout = 9\n", encoding="utf-8"),
    "unit": lambda site: site.unit_file.write_text("[Service]\nRestart=no\n", encoding="utf-8"),
    "extra packages": lambda site: site.options.update(extra_packages=["driver==1.0"]),
    "release command": lambda site: site.options.update(release_command="true"),
    "persistent folders": lambda site: site.options.update(persistent=["uploads"]),
    "wsgi": lambda site: site.options.update(wsgi="shop:other"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_a_new_release_in_the_other_slot(site: Site, change: str) -> None:
    first = site.deploy()
    CHANGES[change](site)
    second = site.deploy()
    assert second.changed
    assert (second.slot, second.previous) == ("green", first.release)
    assert_in_order(site, second)
    assert site.host.history == ["start blue", "start green", "stop blue"]
    assert not site.deploy().changed


def test_install_is_part_of_a_release_only_if_it_is_set(site: Site) -> None:
    """A host that was set up before there was this option keeps its release."""
    site.deploy()
    site.options["install"] = {"extras": [], "groups": [], "project": False}
    assert not site.deploy().changed
    site.options["install"] = {"extras": ["database"], "groups": [], "project": False}
    with pytest.raises(ReleaseError, match=r"install.extras: requirements.txt has no extras"):
        site.deploy()


def test_the_slots_take_turns(site: Site) -> None:
    for number in range(4):
        site.change({"shop.py": f"app = {number}\n"})
        outcome = site.deploy()
        assert outcome.slot == SLOTS[number % 2]
        assert_in_order(site, outcome)


def test_two_releases_in_the_same_second_have_two_names(site: Site) -> None:
    names = set()
    for number in range(3):
        site.options["environment"]["NUMBER"] = str(number)
        names.add(site.deploy().release)
    assert len(names) == 3
    assert_in_order(site)


def test_releases_with_the_same_lock_share_an_environment(site: Site) -> None:
    one = site.record(site.deploy().release)
    site.change({"shop.py": "app = 2\n"})
    two = site.record(site.deploy().release)
    site.change({"requirements.txt": "flask==3.1.4\n"})
    three = site.record(site.deploy().release)
    assert one.venv == two.venv != three.venv
    built = [call for call in site.host.calls if call[0] == "systemd-run" and "venv" in call]
    assert len(built) == 2


# -- a deploy that does not -----------------------------------------------------------------------------------------


FAULTS: dict[str, tuple[dict[str, str], dict[str, Any], str, str]] = {
    "no requirements": ({}, {"requirements": "missing.txt"}, "Build the virtual environment", "Supported: missing.txt"),
    "build": (
        {"requirements.txt": "no-such-package==1\n"},
        {},
        "Build the virtual environment",
        "such-package==1 was not",
    ),
    "release command": ({}, {"release_command": "echo the table; exit 3"}, "Run the release command", "with status 3"),
    "procfile": ({"Procfile": "release: echo no table >&2; false\n"}, {}, "Run the release command", "no table"),
    "start": ({"fails-to-start": ""}, {}, "Start the green slot", "a line of the journal"),
    "gate": ({"fails-the-gate": ""}, {}, "Check the health of the green slot", "/healthz of www.shop.example does not"),
    "variable": ({}, {"secrets": {"BAD NAME": "x"}}, "Write the environment variables", "BAD NAME"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_fails_touches_nothing_and_is_no_obstacle(site: Site, fault: str) -> None:
    first = site.deploy()
    files, options, step, reason = FAULTS[fault]
    site.change(files)
    for _ in range(2):
        error = site.refused(**options)
        assert error.step == step
        assert reason in error.reason
        assert error.cure
    assert site.host.served() == first.release
    for name in files:
        (site.code / name).unlink()
    site.change(CODE)
    # What was refused after it had been built goes, and nothing else is done.
    built, went = len(site.ids()) > 1, list(site.host.history)
    assert site.deploy().changed == built
    assert site.ids() == [first.release]
    assert site.host.history == went
    assert not site.deploy().changed
    site.change({"shop.py": "app = 'mended'\n"})
    assert_in_order(site, site.deploy())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_release_that_fails_leaves_nothing_that_serves(site: Site, fault: str) -> None:
    files, options, _step, _reason = FAULTS[fault]
    site.change(files)
    with pytest.raises(ReleaseError):
        site.deploy(**options)
    assert site.host.running == {}
    assert site.host.enabled == set()
    assert not (site.root / "live.sock").is_symlink()
    assert not (site.root / "current").is_symlink()
    for name in files:
        (site.code / name).unlink()
    site.change(CODE)
    assert_in_order(site, site.deploy())


def test_a_release_that_failed_is_not_built_again(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n", "requirements.txt": "flask==3.1.4\n"})
    site.answer(lambda *_: (503, "the database is away"))
    site.refused()
    site.answer(site.host.probe)
    site.host.calls.clear()
    assert_in_order(site, site.deploy())
    assert not any(call[0] == "systemd-run" for call in site.host.calls)


def test_an_archive_that_leads_out_is_refused(site: Site) -> None:
    site.deploy()
    site.host.quick = False
    (site.code / "passwords").symlink_to("/etc/shadow")
    assert "passwords is a link to /etc/shadow" in site.refused().reason


def test_a_host_that_an_earlier_version_has_set_up_is_left_alone(site: Site) -> None:
    (site.folder / "journald@flask-shop.conf").unlink()
    refused = site.refused()
    assert "an earlier version of Flaskhost" in refused.reason
    assert "site.yml" in refused.cure
    assert not site.root.exists()
    assert not site.host.calls


# -- check mode -----------------------------------------------------------------------------------------------------


def test_check_mode_on_a_bare_host_touches_nothing(site: Site) -> None:
    before = tree(site.folder)
    outcome = site.deploy(check=True)
    assert outcome.changed
    assert not outcome.needs_source
    assert outcome.revision == folders.digest(site.code)
    assert tree(site.folder) == before
    assert site.host.calls == []


def test_check_mode_says_what_a_deploy_would_do_and_touches_nothing(site: Site) -> None:
    first = site.deploy()
    state = site.serving(), list(site.host.history)
    before = tree(site.folder)
    assert not site.deploy(check=True).changed
    assert tree(site.folder) == before
    site.change({"shop.py": "app = 2\n"})
    before = tree(site.folder)
    outcome = site.deploy(check=True)
    assert (outcome.changed, outcome.previous) == (True, first.release)
    assert tree(site.folder) == before
    assert (site.serving(), site.host.history) == state


def test_check_mode_tells_of_a_repair_and_leaves_it(site: Site) -> None:
    site.deploy()
    (site.root / "current").unlink()
    before = tree(site.folder)
    assert site.deploy(check=True).changed
    assert tree(site.folder) == before
    assert site.deploy().changed
    assert_in_order(site)


def test_check_mode_does_not_need_git_on_a_bare_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    outcome = site.deploy(check=True, source_repo="https://example.invalid/x.git", source_version="v1")
    assert (outcome.changed, outcome.revision) == (True, "v1")
    assert site.host.calls == []


@pytest.mark.parametrize(
    ("change", "part"),
    [("code", "code"), ("secrets", "variables"), ("extra packages", "packages"), ("unit", "application server")],
)
def test_check_mode_names_what_is_different(site: Site, change: str, part: str) -> None:
    site.deploy()
    CHANGES[change](site)
    plan = site.deploy(check=True).plan
    assert plan[0].endswith(f"with changes in: {part}")
    assert plan[1] == "fetch and build it"


# -- phases, as a fleet runs them -------------------------------------------------------------------------------------


def test_phases_one_by_one_are_the_same_as_all_at_once(site: Site) -> None:
    first = site.phases()
    assert_in_order(site, first)
    site.change({"shop.py": "app = 2\n"})
    asked = site.deploy(phases=["prepare"], deploy="run-1")
    assert (asked.pending, asked.previous) == (True, first.release)
    seen = []
    for name in PHASES[1:]:
        outcome = site.phase(name, release=asked.release, previous=asked.previous)
        seen.append((name, outcome.pending, site.host.served() == asked.release, sorted(site.host.running)))
    assert seen == [
        ("migrate", True, False, ["blue"]),
        ("gate", True, False, ["blue", "green"]),
        ("flip", True, True, ["blue", "green"]),
        ("finish", False, True, ["green"]),
    ]
    assert_in_order(site, outcome)
    assert not site.deploy().changed
    assert site.history == [("deploy", "", first.release), ("deploy", first.release, asked.release)]


def test_another_deploy_that_came_in_between_is_noticed(site: Site) -> None:
    first, _second = two(site)
    site.change({"shop.py": "app = 3\n"})
    asked = to(site, "gate")
    site.deployment().app.slots.start("blue", first.release, 1)
    for name in ("flip", "finish"):
        with pytest.raises(ReleaseError, match="another deploy has run in the meantime"):
            site.phase(name, release=asked.release)
    with pytest.raises(ReleaseError, match="no longer on this host"):
        site.phase("gate", release="20200101T000000Z-abcdef0")


def test_a_slot_that_has_died_while_it_waited_for_other_hosts_does_not_serve(site: Site) -> None:
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})
    asked = to(site, "gate")
    site.host.mute.add("green")
    with pytest.raises(ReleaseError, match="no response"):
        site.phase("flip", release=asked.release)
    assert site.host.served() == first.release
    assert_in_order(site, first)


def test_a_host_that_has_it_already_takes_no_part(locked: Site) -> None:
    site = locked
    site.deploy()
    outcome = site.deploy(phases=["prepare"], deploy="run-1")
    assert (outcome.changed, outcome.pending) == (False, False)
    assert processes_with(site.root / ".lock") == []


# -- a restart --------------------------------------------------------------------------------------------------------


def test_a_restart_brings_the_same_release_into_the_other_slot(site: Site) -> None:
    first = site.deploy()
    outcome = site.deployment(verb="restart").go()
    assert (outcome.release, outcome.slot) == (first.release, "green")
    assert_in_order(site, outcome)
    assert not site.deploy().changed


@pytest.mark.parametrize("last", ["gate", "flip"])
def test_a_restart_that_is_refused_elsewhere_leaves_no_stain(site: Site, last: str) -> None:
    first = site.deploy()
    asked = site.phase("prepare", verb="restart")
    for name in PHASES[2 : PHASES.index(last) + 1]:
        site.phase(name, verb="restart", release=asked.release)
    assert site.phase(RETURN, verb="restart", release=asked.release, previous=asked.previous).changed
    assert site.host.served() == first.release
    assert_in_order(site)
    assert site.record(first.release).failed == ""


def test_a_restart_whose_processes_do_not_start_leaves_no_stain(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site.deploy(processes={"worker": "x"})
    tries = []

    def switch(*_: Any, **_more: Any) -> bool:
        tries.append(site.deployment().app.slots.live())
        raise ReleaseError("Start the processes and timers", "worker says no", "")

    with monkeypatch.context() as patch:
        patch.setattr(processes.Units, "switch", switch)
        with pytest.raises(ReleaseError, match="worker says no") as caught:
            site.deployment(verb="restart").go()
    # What does not go well on the way back is told, and keeps nobody from being served.
    assert tries == ["green", "blue"]
    assert "processes of that release were not started: worker says no" in caught.value.cure
    assert_in_order(site, first)


def test_keys_that_were_exchanged_are_a_restart_and_no_new_release(site: Site) -> None:
    first = site.deploy()
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))
    keys.write(["new", *keys.read()])
    outcome = site.deployment(verb="restart").go()
    assert outcome.release == first.release
    assert not site.deploy().changed
    # Those who could not be started with the new ones are not taken for it.
    keys.write(["newest", *keys.read()])
    site.answer(lambda *_: (500, "no"))
    with pytest.raises(ReleaseError):
        site.deployment(verb="restart").go()
    site.answer(site.host.probe)
    assert site.deploy(check=True).changed


# -- a freeze ---------------------------------------------------------------------------------------------------------


def test_a_freeze_refuses_what_would_change_something(site: Site) -> None:
    site.deploy()
    path = freeze.check.__defaults__[0]
    until = time.time() + 999
    freeze.write({"*": {"reason": "audit", "until": until, "since": 1.0, "by": "grace@desk"}}, path)
    assert not site.deploy().changed
    (site.root / "current").unlink()
    assert site.deploy().changed
    site.change({"shop.py": "app = 2\n"})
    assert "grace@desk: audit" in site.refused().reason
    with pytest.raises(ReleaseError, match="audit"):
        site.deployment(verb="restart").go()
    freeze.write({}, path)
    site.deploy()
    freeze.write({"shop": {"reason": "audit", "until": until, "since": 1.0, "by": "grace@desk"}}, path)
    with pytest.raises(ReleaseError, match="audit"):
        site.rollback()
    assert site.rollback(passes_freeze=True).changed, "of a restore whose operator has said so"


# -- the module itself ------------------------------------------------------------------------------------------------


def run_module(site: Site, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """Run plugins/modules/flask_release.py as Ansible does, with its own command runner replaced."""
    spec = MODULE.ARGUMENT_SPEC
    digest = {"source_digest": folders.digest(site.code, site.options["persistent"])}
    arguments = {name: value for name, value in {**site.options, **digest, **options}.items() if name in spec}
    capsys.readouterr()
    site.monkeypatch.setattr(MODULE, "Deployment", functools.partial(Deployment, pause=site.pause))
    site.monkeypatch.setattr(
        MODULE.AnsibleModule, "run_command", lambda _self, args, **more: site.host(without_limit(args), **more)
    )
    with patch_module_args({**arguments, "_ansible_diff": True}), pytest.raises(SystemExit):
        MODULE.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_says_what_it_did_and_no_secret(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    asked = run_module(site, capsys)
    assert asked["needs_source"]
    folders.pack(site.code, site.folder / "a.tar.gz", ["instance"])
    site.change({"fails-the-gate": ""})
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))
    site.answer(lambda *_: (500, f"{site.options['secrets']['MAIL_PASSWORD']} and {keys.read()[0]}"))
    archive = str(site.folder / "a.tar.gz")
    refused = run_module(site, capsys, archive=archive)
    assert refused["failed"]
    assert refused["step"] == "Check the health of the blue slot"
    site.answer(site.host.probe)
    (site.code / "fails-the-gate").unlink()
    done = run_module(site, capsys, archive=archive)
    assert (done["changed"], done["release"]) == (True, site.host.served())
    assert site.host.served() in done["diff"]["after"]
    site.change({"shop.py": "app = 2\n"})
    held = Lock(site.root / ".lock", deploy="run-0", by="grace@desk", controller={"pid": 7})
    held.acquire()
    other = run_module(site, capsys)
    held.release()
    assert other["lock_holder"]["controller"] == {"pid": 7}
    for result in (asked, refused, done, other):
        text = json.dumps({name: value for name, value in result.items() if name != "invocation"})
        assert "hunter" not in text
        assert keys.read()[0] not in text
    assert "hunter" not in json.dumps(refused["invocation"])


def test_the_module_shows_no_file(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    folders.pack(site.code, site.folder / "a.tar.gz", ["instance"])
    site.answer(lambda *_: (500, "sesame in a file"))
    files = {"empty.py": "\n", "one": "1", "secret": "sesame in a file"}
    refused = run_module(site, capsys, files=files, archive=str(site.folder / "a.tar.gz"))
    assert refused["failed"]
    assert "sesame" not in json.dumps(refused)
    # What is in nearly every message is not masked.
    assert refused["msg"].count("********") == 1, refused["msg"]


def test_no_secret_is_in_an_argument_of_any_command(site: Site) -> None:
    site.deploy(release_command="true", processes={"worker": "x"}, watch=1)
    key = environment.SecretKeys(Path(site.options["secrets_dir"])).read()[0]
    words = list(itertools.chain(*site.host.calls))
    assert not any("hunter" in word or key in word for word in words)


# -- what serves, in words --------------------------------------------------------------------------------------------


def test_an_error_names_the_release_that_serves(site: Site) -> None:
    before = site.deploy().release
    site.change({"shop.py": "app = 2\n"})
    assert f"{before} still serves." in site.refused(release_command="false").cure
    site.host.mute.add("green")
    with pytest.raises(ReleaseError) as caught:
        site.deploy()
    assert f"{before} still serves." in caught.value.cure


@pytest.mark.parametrize("is_first", [True, False])
def test_a_switch_that_fails_is_told_in_one_way(site: Site, is_first: bool) -> None:
    """The sentence about what serves came twice, and once of a release that had been live before the first."""
    before = "" if is_first else site.deploy().release
    site.change({"shop.py": "app = 2\n"})
    site.host.refuses = {"enable": "no room"}
    real = site.host._run

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        # For the release that takes over again, it works.
        blue = before and args[-1].endswith("@blue.service")
        site.host.refuses = {} if blue else {"enable": "no room"}
        return real(args, **options)

    site.monkeypatch.setattr(site.host, "_run", run)
    with pytest.raises(ReleaseError) as caught:
        site.deploy()
    cure = caught.value.cure
    assert "if any" not in cure
    assert cure.count("serves") + cure.count("has been live") == 1, cure
    assert before in cure


def test_an_error_of_a_first_deploy_does_not_speak_of_one(site: Site) -> None:
    refused = site.refused(release_command="false")
    assert "No release has been live here yet, so visitors get an error page." in refused.cure
    assert "still serves" not in refused.cure


def test_an_error_of_an_app_that_is_down_says_so(site: Site) -> None:
    before = site.deploy().release
    site.host.running.clear()
    site.change({"shop.py": "app = 2\n"})
    refused = site.refused(release_command="false")
    assert f"{before} is live, but its slot does not run" in refused.cure
