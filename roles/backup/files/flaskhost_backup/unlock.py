"""The verb ``unlock``: remove the locks that killed runs left in the repositories."""

from __future__ import annotations

from flaskhost_backup import restic
from flaskhost_backup.config import Config, need_enabled
from flaskhost_backup.result import Result


def unlock(config: Config) -> Result:
    """Remove the locks of killed runs."""
    need_enabled(config)
    repositories = [restic.local(config), *([restic.second(config)] if config.second else [])]
    for repository in repositories:
        repository.unlock()
    return Result(changed=True, lines=["The locks of ended runs were removed."])
