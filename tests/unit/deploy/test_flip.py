"""The phases gate and flip: when the old slot stops, what keeps a release from serving, and the watch after it."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import (
    flip,
    slots,
)
from ansible.module_utils.flaskhost.deploy.app import RETURN
from ansible.module_utils.flaskhost.deploy.records import RECORD
from ansible.module_utils.flaskhost.deploy.release import Deployment
from ansible.module_utils.flaskhost.deploy.sources import folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from release_site import Site, assert_in_order, two, visits

# -- the flip ---------------------------------------------------------------------------------------------------------


def test_the_old_slot_is_stopped_only_after_the_flip_and_a_pause(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    served: list[tuple[str, str]] = []

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        if args[:2] == ["systemctl", "stop"] and "_task" not in args[-1]:
            served.append((args[-1], site.deployment().app.slots.live()))
        return site.host(args, **options)

    site.pauses.clear()
    digest = folders.digest(site.code)
    folders.pack(site.code, site.folder / "a.tar.gz")
    options = {**site.options, "source_digest": digest, "archive": str(site.folder / "a.tar.gz")}
    Deployment(run, options, pause=site.pauses.append).go()
    assert served == [("flask-shop@green.service", "blue"), ("flask-shop@blue.service", "green")]
    assert site.pauses == [pytest.approx(slots.KEEPALIVE_SECONDS, abs=0.5)]
    assert site.pauses[0] < slots.KEEPALIVE_SECONDS, "the time since the switch counts"


def test_nothing_is_migrated_for_a_gate_that_nginx_has_no_listener_for(site: Site) -> None:
    """It is stopped, or has the settings of an earlier version of Flaskhost, whose gate was a port."""
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})
    site.host.nginx = False
    with pytest.raises(ReleaseError, match="nginx does not listen on unix:") as caught:
        site.deploy(release_command="touch $HOME/upgraded")
    assert "--tags nginx" in caught.value.cure
    assert f"{first.release} still serves." in caught.value.cure
    assert site.host.served() == first.release
    assert not (site.root / "data/upgraded").exists()
    site.host.nginx = True
    assert_in_order(site, site.deploy(release_command="touch $HOME/upgraded"))
    assert (site.root / "data/upgraded").exists()


# -- processes and timers ---------------------------------------------------------------------------------------------


def test_processes_and_timers_follow_the_release(site: Site) -> None:
    site.change({"Procfile": "web: x\nworker: celery worker\nbeat: celery beat\n"})
    timers = {"nightly": {"command": "flask tidy", "on_calendar": "daily"}}
    first = site.deploy(timers=timers, processes={"beat": ""})
    assert site.host.workers == {"flask-shop_process@worker.service": first.release}
    assert site.host.timers == {"flask-shop_timer@nightly.timer"}
    scripts = site.path(first) / "processes"
    assert sorted(path.name for path in scripts.iterdir()) == ["timer-nightly", "worker"]
    assert "exec celery worker" in (scripts / "worker").read_text(encoding="utf-8")
    site.host.workers.clear()
    assert site.deploy(timers=timers, processes={"beat": ""}).changed
    assert set(site.host.workers.values()) == {first.release}
    second = site.deploy()
    assert set(site.host.workers.values()) == {second.release}
    assert len(site.host.workers) == 2
    assert site.host.timers == set()
    site.rollback()
    assert site.host.workers == {"flask-shop_process@worker.service": first.release}
    assert site.host.timers == {"flask-shop_timer@nightly.timer"}


# -- the watch --------------------------------------------------------------------------------------------------------


BAD_WATCHES: dict[str, tuple[Callable[[Site, str], object], str]] = {
    "errors": (lambda site, new: visits(site, new, 500), "server error"),
    "no answer": (lambda site, _new: visits(site, "", 502), "server error"),
    "slow": (lambda site, new: visits(site, new, 200, "2.5"), "the median response time is 2.50 s"),
    "health": (lambda site, _new: site.host.mute.add("green"), "/healthz returned no response 2 times in a row"),
    "crash": (lambda site, _new: site.host.crash("green"), "crashed and was restarted"),
}


@pytest.mark.parametrize("what", BAD_WATCHES)
def test_a_release_that_does_worse_is_taken_back(site: Site, what: str) -> None:
    happens, reason = BAD_WATCHES[what]
    first = site.deploy(processes={"worker": "old"})
    visits(site, first.release, 200, number=50)
    site.change({"shop.py": "app = 2\n"})
    seen: list[str] = []

    def meanwhile() -> None:
        seen.append(site.host.served())
        if site.host.served() not in (first.release, ""):
            happens(site, site.host.served())

    site.meanwhile = meanwhile
    with pytest.raises(ReleaseError) as caught:
        site.deploy(processes={"worker": "new"}, watch=3)
    new = next(name for name in site.ids() if name != first.release)
    assert new in seen
    assert caught.value.step == "Watch the release"
    assert reason in caught.value.reason
    assert "a line of the journal" in caught.value.reason
    assert f"{first.release} serves again" in caught.value.cure
    assert_in_order(site, first)
    assert set(site.host.workers.values()) == {first.release}
    record = site.record(new)
    assert not record.healthy
    assert reason in record.failed
    assert "\n" not in record.failed
    assert site.history[-2:] == [("deploy", first.release, new), (RETURN, new, first.release)]


def test_a_release_is_not_to_blame_for_a_full_disk(site: Site) -> None:
    first = site.deploy()
    site.change({"shop.py": "app = 2\n"})

    def full() -> None:
        if site.host.served() not in (first.release, ""):
            raise OSError(errno.ENOSPC, "No space left on device")

    site.meanwhile = full
    with pytest.raises(ReleaseError) as caught:
        site.deploy(watch=3)
    assert "No space left on device" in caught.value.reason
    assert_in_order(site, first)
    assert site.record(next(name for name in site.ids() if name != first.release)).failed == ""


def test_a_site_that_is_down_is_mended_by_a_deploy_while_it_has_visitors(site: Site) -> None:
    """The visitors' errors of before counted against the new release, and it went back to the slot that is down."""
    site.deploy()
    down(site)
    visits(site, "", 502, number=50)
    site.change({"shop.py": "app = 2\n"})
    live = site.host.served()
    late = iter([20])

    def meanwhile() -> None:
        # nginx writes the last lines of those who came before when the release serves already.
        visits(site, "", 502, number=next(late, 0))
        visits(site, site.host.served(), 200)

    site.meanwhile = meanwhile
    outcome = site.deploy(watch=2)
    assert site.host.served() == outcome.release != live
    assert_in_order(site, outcome)


def test_a_slot_that_nobody_can_reach_is_started_again(site: Site) -> None:
    """Its service ran, so that the deploy said all is well, and visitors got 502."""
    first = site.deploy()
    site.host.socket("blue").unlink()
    assert site.host.served() == ""
    assert site.deploy(check=True).changed
    assert site.host.served() == ""
    assert site.deploy().changed
    assert site.host.served() == first.release
    assert_in_order(site)
    assert not site.deploy().changed


def test_nobody_goes_back_to_a_slot_that_does_not_run(site: Site) -> None:
    first = site.deploy()
    down(site)
    site.change({"shop.py": "app = 2\n"})
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    with pytest.raises(ReleaseError, match="server error") as caught:
        site.deploy(watch=2)
    assert "It still serves, because no other release runs here that traffic could return to." in caught.value.cure
    assert site.host.served() not in ("", first.release)


def down(site: Site) -> None:
    """Let the slot that serves be down, as after a crash that systemd does not heal."""
    slot = next(iter(site.host.running))
    site.host.running.pop(slot)


def test_a_process_that_does_not_stay_up_takes_the_release_back(site: Site) -> None:
    first = site.deploy(processes={"worker": "old"})
    site.change({"fails-as-worker": ""})
    with pytest.raises(ReleaseError, match=r"flask-shop_process@worker\.service"):
        site.deploy(processes={"worker": "new"}, watch=2)
    assert_in_order(site, first)
    assert set(site.host.workers.values()) == {first.release}


def test_a_release_that_does_well_stays_and_is_watched_as_long_as_asked(site: Site) -> None:
    first = site.deploy()
    visits(site, first.release, 500, number=50)
    site.change({"shop.py": "app = 2\n"})
    site.meanwhile = lambda: (visits(site, site.host.served(), 200), visits(site, first.release, 500))
    site.pauses.clear()
    assert_in_order(site, site.deploy(watch=2))
    assert site.pauses == [flip.WATCH_INTERVAL] * 8, "nginx let go of the old slot during the watch"


def test_one_bad_answer_is_chance(site: Site) -> None:
    site.deploy()
    site.change({"shop.py": "app = 2\n"})
    looks = itertools.count(1)
    site.meanwhile = lambda: site.host.mute.add("green") if next(looks) == 3 else None
    real = site.host.probe

    def probe(*arguments: Any) -> tuple[int, str]:
        answer = real(*arguments)
        site.host.mute.clear()
        return answer

    site.answer(probe)
    assert_in_order(site, site.deploy(watch=3))


def test_a_first_release_has_nothing_to_go_back_to(site: Site) -> None:
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    for _ in range(2):
        with pytest.raises(ReleaseError) as caught:
            site.deploy(watch=2)
        assert "It still serves" in caught.value.cure
        assert site.host.served() == max(site.ids())
        assert set(site.host.running) == site.host.enabled == {"blue"}
        assert not site.record(max(site.ids())).healthy
    site.meanwhile = lambda: None
    assert_in_order(site, site.deploy(watch=2))


def test_a_release_with_a_damaged_record_is_gone_back_to(site: Site) -> None:
    first = site.deploy()
    (site.path(first) / RECORD).write_text("{", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    site.meanwhile = lambda: visits(site, site.host.served(), 500)
    with pytest.raises(ReleaseError, match="server error"):
        site.deploy(watch=2)
    assert site.host.served() == first.release
    assert set(site.host.running) == site.host.enabled == {"blue"}


def test_a_rollback_is_not_watched(site: Site) -> None:
    first, _second = two(site)
    site.meanwhile = lambda: visits(site, first.release, 500)
    assert site.rollback(watch=5).release == first.release
