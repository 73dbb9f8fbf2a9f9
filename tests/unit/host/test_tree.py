"""Folders that hostile builds leave: walked and removed entry by entry, however many and however deep they are."""

from __future__ import annotations

import os
import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host import tree
from fakes import nest

MANY = 20_000


def fill(folder: Path, number: int = MANY) -> Path:
    folder.mkdir(parents=True)
    for name in range(number):
        os.mknod(folder / f"a-file-of-a-hostile-build-{name}")
    return folder


def count(folder: Path) -> int:
    return sum(1 for _path in folder.iterdir())


def test_each_folder_comes_before_its_contents(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/c", "a/d", "e", "a/\udcff\n"):
        (tmp_path / name).touch()
    (tmp_path / "a/out").symlink_to("/")
    (tmp_path / "a/loop").symlink_to(".")
    found = [(entry.path, entry.is_folder) for entry in tree.walk(tmp_path, 2)]
    files = {"a/b/c", "a/d", "e", "a/\udcff\n", "a/out", "a/loop"}
    assert sorted(found) == sorted([("a", True), ("a/b", True), *((name, False) for name in files)])
    order = [path for path, _folder in found]
    assert order.index("a") < order.index("a/b") < order.index("a/b/c")


def test_a_walk_ends_at_a_depth_and_closes_its_folders(tmp_path: Path) -> None:
    nest(tmp_path / "x", 3000)
    before = count(Path("/proc/self/fd"))
    with pytest.raises(tree.TooDeep):
        list(tree.walk(tmp_path, 100))
    assert len(list(zip(tree.walk(tmp_path, 100), range(50), strict=False))) == 50
    assert count(Path("/proc/self/fd")) == before
    tree.remove_path(tmp_path / "x")


def test_the_top_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(NotADirectoryError):
        list(tree.walk(tmp_path / "link", 1))


def test_memory_does_not_grow_with_the_entries(tmp_path: Path) -> None:
    """Some 100 bytes for each name would be 100 MB of root's memory for a million."""
    fill(tmp_path / "x")
    tracemalloc.start()
    assert sum(1 for _entry in tree.walk(tmp_path, 1)) == MANY + 1
    tree.remove_path(tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    assert not (tmp_path / "x").exists()


def test_a_removal_that_was_killed_is_repeated(tmp_path: Path) -> None:
    folder = fill(tmp_path / "x/y")
    nest(tmp_path / "x/deep", 500)
    command = ["/bin/rm", "--recursive", "--force", str(tmp_path / "x")]
    with subprocess.Popen(command) as process:
        while count(folder) == MANY and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    with tree.parent(tmp_path / "x") as above:
        tree.remove("x", above)
        tree.remove("x", above)
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed_and_odd_names_go(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").touch()
    odd = tmp_path / "--odd\n\udcff $(id)"
    odd.mkdir()
    (odd / "out").symlink_to(tmp_path / "keep")
    (tmp_path / "link").symlink_to("keep")
    for path in (odd, tmp_path / "link"):
        tree.remove_path(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["keep", "file"]


def test_what_cannot_be_removed_is_said_with_the_first_reason(tmp_path: Path) -> None:
    """As the kernel refuses it: a folder of /proc."""
    wanted = r"cannot be removed: /bin/rm: cannot remove 'task/\d+"
    with tree.folder(Path(f"/proc/{os.getpid()}")) as above, pytest.raises(OSError, match=wanted):
        tree.remove("task", above)
