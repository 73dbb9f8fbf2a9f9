"""Another share of the host: the live release restarts with it in the other slot, without its release command."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible.module_utils.flaskhost.deploy.release import RESIZED
from ansible.module_utils.flaskhost.deploy.server import figures, without_figures
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import Killer
from release_site import Site, assert_in_order

WORKERS = "workers = 3\n"
MEMORY = "[Service]\nMemoryMax=300M\nMemorySwapMax=150M\n"
#: Notes each of its runs where a test can count them.
COMMAND = "echo ran >> $HOME/ran"


def share(site: Site) -> None:
    """Another app has come: fewer workers and less memory for this one."""
    site.config.write_text(WORKERS, encoding="utf-8")
    site.unit_file.write_text(MEMORY, encoding="utf-8")
    site.options["memory_mb"] = 300


def runs(site: Site) -> int:
    """How many times the release command has run."""
    return len((site.root / "data/ran").read_text(encoding="utf-8").split())


def settings(site: Site) -> str:
    """The application server's settings of the live release."""
    return (site.root / "releases" / site.host.served() / "server.conf.py").read_text(encoding="utf-8")


@pytest.fixture
def deployed(site: Site) -> Site:
    site.options["release_command"] = COMMAND
    site.deploy()
    return site


@pytest.mark.parametrize("how", [Site.deploy, Site.phases])
def test_another_share_restarts_the_release_without_its_command(deployed: Site, how: Callable[..., object]) -> None:
    before = deployed.host.served()
    share(deployed)
    outcome = how(deployed)
    assert (outcome.changed, outcome.release, outcome.slot) == (True, before, "green")
    assert_in_order(deployed, outcome)
    assert settings(deployed) == WORKERS
    assert deployed.record(before).memory_mb == 300
    assert deployed.history[-1] == ("restart", before, before)
    assert runs(deployed) == 1
    assert not deployed.deploy().changed


@pytest.mark.parametrize(
    ("memory_mb", "follows_host", "changed"),
    [
        (512, True, False),
        (420, True, False),
        (600, True, False),
        (400, True, True),
        (640, True, True),
        (500, False, True),
    ],
)
def test_another_memory_limit_restarts_it_if_it_differs_enough(
    deployed: Site, memory_mb: int, follows_host: bool, changed: bool
) -> None:
    before = deployed.host.served()
    deployed.unit_file.write_text(f"[Service]\nMemoryMax={memory_mb}M\n", encoding="utf-8")
    deployed.options.update(memory_mb=memory_mb, memory_follows_host=follows_host)
    assert deployed.deploy(check=True).changed is changed
    assert deployed.deploy().changed is changed
    assert deployed.host.served() == before
    assert deployed.record(before).memory_mb == (memory_mb if changed else 512)
    assert not deployed.deploy().changed


def test_many_small_changes_do_not_add_up(deployed: Site) -> None:
    """Each is compared with the limit with which the release runs, not with the last one that was asked for."""
    seen = []
    for memory_mb in (460, 420, 380, 340):
        outcome = deployed.deploy(memory_mb=memory_mb, memory_follows_host=True)
        seen.append(outcome.changed)
    assert seen == [False, False, True, False]


def test_the_release_to_roll_back_to_is_still_the_one_before(deployed: Site) -> None:
    first = deployed.host.served()
    deployed.change({"shop.py": "app = 2\n"})
    deployed.deploy()
    share(deployed)
    deployed.deploy()
    assert deployed.rollback().release == first
    assert settings(deployed) == "workers = 2\n", "its own"
    deployed.change({"shop.py": "app = 1\n"})
    outcome = deployed.deploy()
    assert (outcome.changed, outcome.release) == (True, first)
    assert settings(deployed) == WORKERS


def test_a_release_that_does_not_start_with_it_serves_as_before(deployed: Site) -> None:
    before = deployed.host.served()
    share(deployed)
    deployed.host.mute.add("green")
    with pytest.raises(ReleaseError, match="no response"):
        deployed.deploy()
    assert deployed.host.served() == before
    assert settings(deployed) == "workers = 2\n"
    record = deployed.record(before)
    assert (record.healthy, record.failed) == (True, "")
    assert_in_order(deployed)
    deployed.host.mute.clear()
    assert deployed.deploy().slot == "green"
    assert settings(deployed) == WORKERS


def test_check_mode_tells_of_it_and_changes_nothing(deployed: Site) -> None:
    share(deployed)
    outcome = deployed.deploy(check=True)
    assert (outcome.changed, outcome.plan[0], len(outcome.plan)) == (True, RESIZED, 4)
    assert settings(deployed) == "workers = 2\n"
    assert deployed.deploy().plan == [RESIZED]


def test_a_run_that_is_killed_is_repeated(site: Site) -> None:
    def start() -> str:
        """A release with the old share, and the new share on the host."""
        site.options["release_command"], site.options["memory_mb"] = COMMAND, 512
        site.config.write_text("workers = 2\n", encoding="utf-8")
        site.unit_file.write_text("[Service]\n", encoding="utf-8")
        site.deploy()
        share(site)
        return site.host.served()

    killed, number = True, 0
    while killed:
        before, number = start(), number + 1
        with Killer(number) as killer:
            try:
                site.deploy()
                killed = False
            except KeyboardInterrupt:
                assert site.host.served() == before
        site.deploy()
        assert_in_order(site)
        assert (site.host.served(), settings(site)) == (before, WORKERS), killer.last
        assert not site.deploy().changed, killer.last
    assert number > 8
    assert runs(site) == 1


def test_other_settings_of_the_server_are_a_new_release_without_its_command(deployed: Site) -> None:
    first = deployed.host.served()
    deployed.config.write_text("workers = 2\ntimeout = 9\n", encoding="utf-8")
    assert not any("release command" in step for step in deployed.deploy(check=True).plan)
    second = deployed.deploy()
    assert second.release != first
    assert runs(deployed) == 1
    deployed.options["environment"]["NEW"] = "1"
    assert any("release command" in step for step in deployed.deploy(check=True).plan)
    deployed.deploy()
    assert runs(deployed) == 2, "control"


def test_the_schema_is_noted_where_the_command_does_not_run(deployed: Site) -> None:
    served = deployed.record(deployed.host.served())
    served.schema_after = "abc"
    deployed.store.write(served)
    deployed.config.write_text("workers = 2\ntimeout = 9\n", encoding="utf-8")
    outcome = deployed.deploy()
    assert outcome.schema_after == "abc"
    assert deployed.record(outcome.release).schema_after == "abc"


def test_figures_are_lines_of_their_own(site: Site) -> None:
    site.config.write_text("workers = 3\nthreads = 8\nnote = 'workers = 4'\n", encoding="utf-8")
    site.unit_file.write_text(f"{MEMORY}TasksMax=512\n", encoding="utf-8")
    paths = [str(site.config), str(site.unit_file), "/nonexistent"]
    assert [figures(path) for path in paths] == [["workers = 3"], ["MemoryMax=300M", "MemorySwapMax=150M"], []]
    rest = without_figures(paths)
    assert "threads = 8" in rest[0]
    assert "note = 'workers = 4'" in rest[0]
    assert "TasksMax=512" in rest[1]
    assert "MemoryMax" not in rest[1]
