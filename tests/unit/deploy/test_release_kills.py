"""A deploy that is killed at any moment: visitors are served, and the same command again ends well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import Killer
from release_site import Site, Yard, assert_in_order, first_release, next_release, visits

# -- killed at any moment -------------------------------------------------------------------------------------------


def test_killed_after_any_command(yard: Yard) -> None:
    assert len(yard.commands) > 5
    for number in range(1, len(yard.commands) + 1):
        killed_at(yard, number, "after")


@pytest.mark.parametrize("situation", [first_release, next_release])
def test_killed_amid_the_build(memory: Path, monkeypatch: pytest.MonkeyPatch, situation: Callable[..., object]) -> None:
    """Of the other commands there is no half that differs from nothing and from the whole."""
    yard = Yard(memory, monkeypatch, situation)
    numbers = [number for number, call in enumerate(yard.commands, 1) if yard.the_site.options["uv"] in call]
    assert len(numbers) > 1
    for number in numbers:
        killed_at(yard, number, "amid")


def killed_at(yard: Yard, number: int, when: str) -> None:
    site = yard.site()
    site.host.kill_at, site.host.kill_when = number, when
    with pytest.raises(KeyboardInterrupt):
        site.deploy()
    yard.check(site, f"{when} command {number}, {' '.join(site.host.calls[-1])}")


def test_killed_before_any_change_to_the_disk(yard: Yard) -> None:
    # The build goes the same way in all situations: once through each of its changes is enough.
    but = "" if yard.situation is next_release else "build.py"
    site = yard.site()
    with Killer(but=but) as killer:
        site.deploy()
    assert killer.count > 8
    for number in range(1, killer.count + 1):
        site = yard.site()
        with pytest.raises(KeyboardInterrupt), Killer(number, but) as killer:
            site.deploy()
        yard.check(site, f"before change {number}, {killer.last}")


# -- killed in the phases of a fleet, and while the release is watched ------------------------------------------------


def test_killed_at_any_command_of_any_phase(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(memory, monkeypatch, next_release)
    site = yard.site()
    site.phases()
    commands = len(site.host.calls)
    assert yard.state(site) == yard.end
    site = yard.site()
    site.deploy(phases=["prepare"], deploy="run-1")
    # Within the first phase it makes no difference what was to follow.
    prepared = len(site.host.calls)
    assert 5 < prepared < commands - 5
    for number in range(prepared, commands + 1):
        site = yard.site()
        site.host.kill_at = number
        with pytest.raises(KeyboardInterrupt):
            site.phases()
        yard.check(site, f"after command {number}, {' '.join(site.host.calls[-1])}")


def killed() -> None:
    raise KeyboardInterrupt


def test_killed_while_it_is_watched_a_good_release_stays(site: Site) -> None:
    site.deploy()
    second = killed_in_the_watch(site, {"shop.py": "app = 2\n"})
    assert set(site.host.running) == {"blue", "green"}
    assert not site.record(second).healthy
    outcome = site.deploy(watch=2)
    assert outcome.release == second
    assert_in_order(site, outcome)
    assert not site.deploy(watch=2).changed


def test_killed_while_it_is_watched_a_bad_release_is_taken_back_by_the_next_run(site: Site) -> None:
    first = site.deploy()
    second = killed_in_the_watch(site, {"shop.py": "app = 2\n"})
    site.meanwhile = lambda: visits(site, second, 500)
    with pytest.raises(ReleaseError, match="server error"):
        site.deploy(watch=2)
    assert site.host.served() == first.release
    assert_in_order(site)


def killed_in_the_watch(site: Site, files: dict[str, str]) -> str:
    site.change(files)
    site.meanwhile = killed
    with pytest.raises(KeyboardInterrupt):
        site.deploy(watch=2)
    site.meanwhile = lambda: None
    return site.host.served()
