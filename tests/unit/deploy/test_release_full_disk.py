"""A full disk: it is told, what served serves, and a rollback works all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy.records import RECORD
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import Killer, run_command
from release_site import Site, Yard, assert_in_order, next_release, two


class FullDisk(Killer):
    """A disk that is full from the nth change on; what is only removed or renamed still works."""

    CHANGES = ("link", "mkdir", "symlink")
    failed = ""

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name == "mkdir" and Path(arguments[0]).exists():
                # There is one: that is found out first.
                return function(*arguments, **options)
            self.count += 1
            if self.count == self.number:
                self.failed = f"{name} {arguments}"
                raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))
            return function(*arguments, **options)

        return call


def test_a_full_disk_is_told_and_what_served_serves(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(memory, monkeypatch, next_release)
    real = atomic.write

    def counting(path: Path, text: str, **more: Any) -> None:
        counted(path)
        real(path, text, **more)

    def counted(path: Path) -> None:
        # A write counts as one more change.
        os.mkdir(path.with_name(f"{path.name}.probe"))  # noqa: PTH102 - the one that is watched
        os.rmdir(path.with_name(f"{path.name}.probe"))  # noqa: PTH106

    monkeypatch.setattr(atomic, "write", counting)
    site = yard.site()
    with FullDisk() as disk:
        site.deploy()
    assert disk.count > 20
    for number in range(1, disk.count + 1):
        site = yard.site()
        served = site.host.served()
        disk = FullDisk(number)
        with pytest.raises(ReleaseError) as caught, disk:
            site.deploy()
            pytest.fail(f"{disk.failed} could not be made, and nobody said so")
        where = f"change {number}, {disk.failed}"
        assert "Free space on the disk" in caught.value.cure, where
        assert "No space left on device" in caught.value.reason, where
        finished = f"{site.host.served()} serves." in caught.value.cure
        assert site.host.served() == served or finished, where
        assert set(site.host.running) == {site.deployment().app.slots.live()} or finished, where
        assert not [path for path in (site.root / "releases").iterdir() if not (path / RECORD).exists()], where
        yard.check(site, where)


def test_a_rollback_does_not_need_a_note_of_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two(site)
    real = atomic.write

    def full(path: Path, _text: str, mode: int = 0) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "write", full)
    outcome = site.rollback()
    assert (outcome.release, site.host.served()) == (first.release, first.release)
    assert any("No space left on device" in item and "Free space on the disk" in item for item in outcome.warnings)
    assert "still serves" not in str(outcome.warnings)
    assert set(site.host.running) == {site.deployment().app.slots.live()}
    # The next run makes up for it.
    monkeypatch.setattr(atomic, "write", real)
    assert site.rollback(release=first.release).release == first.release
    assert site.history[-1] == ("rollback", second.release, first.release)


def test_a_rollback_works_on_a_disk_that_is_full(site: Site) -> None:
    site.root.mkdir(parents=True)
    if run_command(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(site.root)])[0]:
        pytest.skip("needs a disk of its own to fill")
    try:
        first, second = two(site)
        with suppress(OSError), (site.root / "full").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
        site.change({"shop.py": "app = 3\n"})
        with pytest.raises(ReleaseError, match="No space left on device") as caught:
            site.deploy()
        assert "Free space on the disk" in caught.value.cure
        assert site.host.served() == second.release
        outcome = site.rollback()
        assert (outcome.release, site.host.served()) == (first.release, first.release)
        assert any("No space left on device" in item for item in outcome.warnings)
        (site.root / "full").unlink()
        assert site.rollback(release=first.release).changed
        assert_in_order(site, first)
    finally:
        run_command(["umount", "--lazy", str(site.root)])
