"""The module app_disk: which folders of an app count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import quotas
from ansible.module_utils.flaskhost.host.quotas import FileSystem
from fakes import run_module
from loading import load_plugin


@pytest.fixture
def adopted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were assigned to a project, each while it existed, on file systems with quotas."""
    found: list[Path] = []

    def adopt(top: Path, _project: int, _change: bool = True) -> bool:
        if top.exists():
            found.append(top)
        return False

    monkeypatch.setattr(quotas, "adopt", adopt)
    monkeypatch.setattr(quotas, "file_system", lambda _path: FileSystem("/", "/dev/vda1", "ext4", ("prjquota",)))
    monkeypatch.setattr(quotas, "hold", lambda *_arguments: [])
    return found


def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: bool = False, **app: Any) -> dict[str, Any]:
    apps = [{"app": "shop", "root": str(tmp_path / "shop"), "disk": "10G", "folders": [], **app}]
    cache = str(tmp_path / "cache")
    return run_module(monkeypatch, load_plugin("plugins/modules/app_disk.py"), check=check, apps=apps, cache_dir=cache)


def test_the_folder_of_a_queue_counts_from_the_beginning(
    adopted: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """systemd would create it at the start of the queue, and only the next run would count it."""
    state = tmp_path / "flask-shop_queue"
    assert disk(monkeypatch, tmp_path, folders=[str(state)])["changed"]
    assert state in adopted
    assert state.stat().st_mode & 0o777 == 0o700
    assert not disk(monkeypatch, tmp_path, folders=[str(state)])["changed"]


def test_nothing_is_created_in_check_mode(adopted: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = tmp_path / "flask-shop_queue"
    assert disk(monkeypatch, tmp_path, check=True, folders=[str(state)])["changed"]
    assert (adopted, state.exists()) == ([], False)
