"""Links in a source: followed as the kernel does, each once, and none may end outside."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy.sources import archives
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import nest, run_command

#: Parts of which the targets of random links consist: folders, files, links, what is missing, and ways out.
PARTS = ("..", "..", ".", "", "d0", "d1", "f", "missing", *(f"l{number}" for number in range(8)))


def grow(top: Path, dice: random.Random) -> list[Path]:
    """Make a random tree of folders, files and links, and a folder beside it; return the links."""
    (top.parent / "outside/d0").mkdir(parents=True)
    folders = [top, top / "d0", top / "d1", top / "d0/d0", top / "d0/d1", top / "d1/d0/d1"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "f").touch()
    links = []
    for _number in range(dice.randrange(1, 30)):
        link = dice.choice(folders) / f"l{dice.randrange(8)}"
        target = "/".join(dice.choice(PARTS) for _part in range(dice.randrange(1, 7))) or "."
        start = dice.choice(["", "", "", "", f"{top}/", f"{top.parent}/", "../outside/", "/"])
        if not link.is_symlink():
            link.symlink_to(start + target)
            links.append(link)
    return links


def accepted(top: Path, link: Path) -> bool:
    """Whether a source with these links is taken if no other one of them counts."""
    others = {Path(root) / name for root, folders, files in os.walk(top) for name in (*folders, *files)} - {link}
    try:
        archives.check_tree(run_command, top, others)
    except ReleaseError as error:
        assert "outside the source" in error.reason or "too many other links" in error.reason
        return False
    return True


def test_random_links_end_where_the_kernel_and_python_say(tmp_path: Path) -> None:
    """Links that the kernel cannot follow, because they are missing or a loop, must not lead out either."""
    seed = int(os.environ.get("FLASKHOST_SEED") or random.randrange(2**32))
    dice, counts = random.Random(seed), {"in": 0, "out": 0, "loop": 0}
    for number in range(80):
        top = Path(os.path.realpath(tmp_path)) / str(number) / "src"
        links = grow(top, dice)
        together = archives._Links(str(top))
        for link in links:
            taken, ends = accepted(top, link), Path(os.path.realpath(link)).is_relative_to(top)
            told = f"seed {seed}, {link} -> {link.readlink()}"
            # The other links that were followed before change nothing.
            assert together.stays(str(link.relative_to(top))) == taken, told
            try:
                opened = os.open(link, os.O_PATH)
            except FileNotFoundError:
                # Behind what is missing, there can be a loop, for which Python's answer is any path.
                _end, is_known = together._end(str(link), os.readlink(link), ())  # noqa: PTH115 - a string
                assert taken == ends or not is_known, told
            except OSError:
                # A loop, a file as a folder, or a folder that only root may enter.
                counts["loop"] += 1
                continue
            else:
                there = Path(f"/proc/self/fd/{opened}").readlink()
                os.close(opened)
                assert there.is_relative_to(top) == taken == ends, told
            counts["in" if taken else "out"] += 1
    assert min(counts.values()) > 20, counts


@pytest.mark.parametrize(
    "targets",
    [
        [f"l{number + 1}" for number in range(2000)],
        [f"missing/../l{number + 1}" for number in range(2000)],
        [f"{'./' * 1000}l{number + 1}" for number in range(2000)],
    ],
    ids=["chain", "chain over what is missing", "long targets"],
)
def test_links_over_links_do_not_keep_root_busy(tmp_path: Path, targets: list[str]) -> None:
    for number, target in enumerate(targets):
        (tmp_path / f"l{number}").symlink_to(target)
    began = time.process_time()
    with pytest.raises(ReleaseError, match=r"l\d+ is a link over too many other links"):
        archives.check_tree(run_command, tmp_path, set())
    assert time.process_time() - began < 5


def test_ten_links_over_each_other_and_loops_are_taken(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"l{number}").symlink_to(f"./l{number + 1}")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a/x")
    archives.check_tree(run_command, tmp_path, set())
    (tmp_path / "l10").symlink_to("../x")
    with pytest.raises(ReleaseError, match=r"is a link to .*, outside the source"):
        archives.check_tree(run_command, tmp_path, set())


def test_one_link_again_and_again_does_not_hide_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "here").symlink_to("d")
    (tmp_path / "out").symlink_to(f"{'here/../' * 45}../../etc/passwd")
    with pytest.raises(ReleaseError, match=r"^Unpack the code: out is a link to .*outside the source"):
        archives.check_tree(run_command, tmp_path, set())


def test_a_way_round_over_few_links_does_not_hide_a_long_chain(tmp_path: Path) -> None:
    """Few links that are met again and again made the check trust os.path.realpath(), which has no limit."""
    (tmp_path / "d").mkdir()
    (tmp_path / "here").symlink_to("d")
    for number in range(2000):
        (tmp_path / f"d/l{number}").symlink_to(f"l{number + 1}")
    for number in range(100):
        (tmp_path / f"start{number}").symlink_to(f"{'here/../' * 45}d/l0")
    began = time.process_time()
    with pytest.raises(ReleaseError, match="is a link over too many other links"):
        archives.check_tree(run_command, tmp_path, set())
    assert time.process_time() - began < 5


def test_links_that_branch_at_each_level_are_followed_once(tmp_path: Path) -> None:
    for number in range(35):
        (tmp_path / f"l{number}").symlink_to(f"l{number + 1}/../" * 50 + f"l{number + 1}")
    (tmp_path / "l35").mkdir()
    began = time.process_time()
    archives.check_tree(run_command, tmp_path, set())
    assert time.process_time() - began < 5


def test_links_with_endless_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_PARTS", 10_000)
    for number in range(20):
        # A loop is followed anew each time.
        (tmp_path / f"l{number}").symlink_to("/".join(f"../{tmp_path.name}/l{(number + k) % 20}" for k in range(1, 20)))
    with pytest.raises(ReleaseError, match="its links have too many targets"):
        archives.check_tree(run_command, tmp_path, set())


def test_a_path_that_is_too_long_for_the_kernel_is_refused(tmp_path: Path) -> None:
    nest(tmp_path / "src", 20)
    archives.check_tree(run_command, tmp_path / "src", set())
    here = os.open(tmp_path / "src", os.O_RDONLY)
    for _level in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        here, above = os.open("d" * 200, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.symlink("/etc/passwd", "out", dir_fd=here)
    os.close(here)
    with pytest.raises(ReleaseError, match="a path of more than 2000 bytes"):
        archives.check_tree(run_command, tmp_path / "src", set())
