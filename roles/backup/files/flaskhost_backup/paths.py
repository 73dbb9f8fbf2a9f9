"""Rename and delete files and folders whose parent folder may belong to another user."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.flaskhost.host import tree

from flaskhost_backup import tools


def move_aside(path: Path, mark: str) -> Path:
    """Rename a file or folder within its parent folder; nothing is copied, and nothing is overwritten."""
    aside = name_aside(path, mark)
    move(path, aside)
    return aside


def name_aside(path: Path, mark: str) -> Path:
    """Return an unused name for a file or folder that is moved aside."""
    aside = path.with_name(f"{path.name}.before-{mark}")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.before-{mark}-{number}")
    return aside


def move(path: Path, there: Path) -> None:
    """Rename a file or folder within its parent folder, which may belong to another user."""
    with tools.parent(path) as above:
        os.rename(path.name, there.name, src_dir_fd=above, dst_dir_fd=above)


def remove(path: Path) -> None:
    """Delete a file or folder, if it exists. Links in a folder are deleted, and not followed."""
    if os.path.lexists(path):
        with tools.parent(path) as above:
            tree.remove(path.name, above)
