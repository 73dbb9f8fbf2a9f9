"""A folder that a build account has had: root takes it back without following, or owning, what is not in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import ownership
from ansible.module_utils.flaskhost.deploy.sources.archives import code_mode
from ansible.module_utils.flaskhost.host import tree
from fakes import BUILD_UID, GID, fake_owners, nest


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[Path, tuple[int, int]]:
    return fake_owners(monkeypatch)


def take_back(top: Path, most: int = 0, hard_links: bool = False) -> None:
    ownership.reclaim(top, BUILD_UID, GID, code_mode, deepest=100, most=most, hard_links=hard_links)


def make(tmp_path: Path) -> Path:
    top = tmp_path / "src"
    (top / "shop").mkdir(parents=True)
    (tmp_path / "outside").write_text("not theirs")
    (tmp_path / "outside").chmod(0o666)
    (top / "shop/a.py").touch()
    (top / "shop/tool").touch()
    (top / "shop/tool").chmod(0o6777)
    (top / "shop/link").symlink_to(tmp_path / "outside")
    (top / "shop").chmod(0o777)
    return top


def test_all_of_it_is_the_accounts_and_nothing_else(tmp_path: Path, owners: dict[Path, tuple[int, int]]) -> None:
    top = make(tmp_path)
    ownership.lend(top, BUILD_UID, 100)
    assert {path for path, owner in owners.items() if owner[0] == BUILD_UID} == {top, *top.rglob("*")}


def test_then_it_is_roots_again_and_read_only(tmp_path: Path, owners: dict[Path, tuple[int, int]]) -> None:
    top = make(tmp_path)
    ownership.lend(top, BUILD_UID, 100)
    take_back(top)
    assert owners == dict.fromkeys([top, *top.rglob("*")], (0, GID))
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in [top, *top.rglob("*")] if not path.is_symlink()}
    assert modes == {"src": 0o750, "shop": 0o750, "a.py": 0o640, "tool": 0o750}
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o666


def test_another_name_of_a_file_elsewhere_is_not_taken(tmp_path: Path, owners: dict[Path, tuple[int, int]]) -> None:
    top = make(tmp_path)
    os.link(tmp_path / "outside", top / "mine")
    with pytest.raises(ownership.Unfit, match="mine is a hard link, or belongs to another user"):
        take_back(top)
    assert top / "mine" not in owners


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_taken(tmp_path: Path) -> None:
    top = make(tmp_path)
    os.chown(top / "shop/a.py", 12345, 0)
    with pytest.raises(ownership.Unfit, match=r"a\.py is a hard link, or belongs to another user"):
        take_back(top, hard_links=True)
    assert (top / "shop/a.py").stat().st_uid == 12345


@pytest.mark.usefixtures("owners")
def test_limits(tmp_path: Path) -> None:
    top = make(tmp_path)
    take_back(top, most=4)
    with pytest.raises(ownership.Unfit, match="it has more than 3 files"):
        take_back(top, most=3)
    nest(top)
    with pytest.raises(ownership.Unfit, match="more than 100 levels deep"):
        take_back(top)
    tree.remove_path(top)
