"""What serves is put right: links, slots and units that a killed run or a hand has left."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

import pytest
from ansible.module_utils.flaskhost.apps.names import SLOTS
from ansible.module_utils.flaskhost.deploy import (
    slots,
)
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from release_site import Site, assert_in_order, two

DAMAGES: dict[str, Callable[[Site], object]] = {
    "stopped": lambda site: site.host.running.pop("green"),
    "disabled": lambda site: site.host.enabled.discard("green"),
    "old slot running": lambda site: site.host.running.update(blue="old"),
    "old slot enabled": lambda site: site.host.enabled.add("blue"),
    "current elsewhere": lambda site: atomic.link(site.root / "current", "releases/other"),
    "current missing": lambda site: (site.root / "current").unlink(),
    "live link missing": lambda site: (site.root / "live.sock").unlink(),
    "live link missing and stopped": lambda site: (
        (site.root / "live.sock").unlink(),
        site.host.running.pop("green"),
    ),
    "rebooted into both": lambda site: (site.host.enabled.add("blue"), site.host.reboot()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_serves_is_put_right_without_a_new_release(site: Site, damage: str) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    releases = site.ids()
    DAMAGES[damage](site)
    outcome = site.deploy()
    assert outcome.changed
    assert (outcome.release, outcome.previous) == (second.release, second.release)
    assert_in_order(site, outcome)
    assert site.ids() == releases
    assert not site.deploy().changed


@pytest.mark.parametrize("verb", ["deploy", "rollback", "restart", "phases"])
def test_a_live_link_that_somebody_has_removed_is_restored_and_is_no_fault_of_the_release(
    site: Site, verb: str
) -> None:
    first, second = two(site)
    site.change({"shop.py": "app = 3\n"})
    (site.root / "live.sock").unlink()
    plan = site.deploy(check=True)
    assert not (site.root / "live.sock").is_symlink()
    assert plan.previous == second.release
    # Before the new release has been gated: until then visitors get 502.
    seen: list[str] = []
    site.answer(lambda *asked: (seen.append(site.host.served()), site.host.probe(*asked))[1])
    went = list(site.host.history)
    if verb == "phases":
        outcome = site.phases()
    else:
        outcome = site.deploy() if verb == "deploy" else site.deployment(verb=verb).go()
    assert seen[0] == second.release
    assert site.host.history[len(went) :] == ["start blue", "stop green"]
    wanted = {"rollback": first.release, "restart": second.release}.get(verb, site.ids()[-1])
    assert outcome.release == site.host.served() == wanted
    assert_in_order(site)


def test_a_restored_live_link_is_told(site: Site) -> None:
    _first, second = two(site)
    (site.root / "live.sock").unlink()
    outcome = site.deploy()
    assert outcome.changed
    assert any("live.sock was missing" in item and second.release in item for item in outcome.warnings)
    assert not site.deploy().warnings


def test_a_link_that_is_not_there_yet_is_not_restored(site: Site) -> None:
    site.change({"fails-the-gate": ""})
    for _ in range(2):
        site.refused()
    assert not (site.root / "live.sock").is_symlink()


def test_a_refused_change_of_the_unit_leaves_the_slot_that_serves_with_its_own(site: Site) -> None:
    """systemd applies a lower limit of memory to what runs at the next daemon-reload, and a sandbox at its restart."""
    held = {slot: site.unit_file.with_name(f"flask-shop@{slot}.service") for slot in SLOTS}
    site.deploy()
    assert held["blue"].read_text() == "[Service]\n"
    assert stat.S_IMODE(held["blue"].stat().st_mode) == 0o644
    site.unit_file.write_text("[Service]\nTasksMax=1\n", encoding="utf-8")
    site.change({"fails-the-gate": ""})
    site.refused()
    assert held["blue"].read_text() == "[Service]\n"
    assert held["green"].read_text() == "[Service]\nTasksMax=1\n"
    (site.code / "fails-the-gate").unlink()
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    assert {path.read_text() for path in held.values()} == {"[Service]\nTasksMax=1\n"}
    reloads = [index for index, call in enumerate(site.host.calls) if call == ["systemctl", "daemon-reload"]]
    starts = [index for index, call in enumerate(site.host.calls) if "start" in call]
    assert len(reloads) == 3, "only where the slot's own has changed"
    assert reloads[0] < starts[0]


def test_a_reboot_brings_back_what_served(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    second = site.deploy()
    site.host.reboot()
    assert site.host.served() == second.release
    assert not site.deploy().changed


def test_a_gate_that_a_killed_run_left_open_is_closed(site: Site) -> None:
    site.deploy()
    for verb in ("deploy", "rollback"):
        (site.root / "gate.sock").symlink_to("anywhere")
        with suppress(ReleaseError):
            site.deploy(verb=verb)
        assert not os.path.lexists(site.root / "gate.sock")


def test_the_slot_that_should_serve_is_not_switched_off_for_a_bad_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may be away. Better some pages than none, and systemd and the next boot go on trying."""
    site.deploy()
    site.host.running.clear()
    with monkeypatch.context() as patch:
        patch.setattr(slots, "probe", lambda *_: (503, "the database is away"))
        with pytest.raises(ReleaseError, match="the database is away"):
            site.deploy()
    assert set(site.host.running) == site.host.enabled == {"blue"}
