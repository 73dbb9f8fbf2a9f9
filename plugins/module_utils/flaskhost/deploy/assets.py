"""Publish the static files of a release to the web server, together with those of the other releases.

A page that was loaded before a switch requests its files after it; with several hosts, the reverse also happens. For a
while, each release must therefore serve the files of all releases. A release's own files take precedence.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ansible.module_utils.flaskhost.deploy.compress import is_mismatch
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.host import tree


def places(wsgi: str, named: str = "") -> list[Path]:
    """Return where the folder of static files can be, relative to the app's folder; see :func:`find_folder`."""
    module = Path(*wsgi.partition(":")[0].split("."))
    return [Path(named)] if named else [module / "static", module.parent / "static", Path("src") / module / "static"]


def find_folder(app_dir: Path, code: Path, wsgi: str, named: str = "") -> Path | None:
    """Find the folder of static files in the code of a release.

    Args:
        app_dir: the app's folder in the code.
        code: the folder of the whole code.
        wsgi: the WSGI callable; the static folder is next to its module.
        named: the folder that the user's options name, relative to ``app_dir``.

    Returns:
        The resolved path of the folder, without symbolic links, or None. A folder outside of the code, reached through
        a link, counts as None.
    """
    folder = next((app_dir / place for place in places(wsgi, named) if (app_dir / place).is_dir()), None)
    return folder.resolve() if folder and folder.resolve().is_relative_to(code.resolve()) else None


def publish(folder: Path, published: Path, top: Path | None = None) -> bool:
    """Make the files of a folder readable for the web server. Files that are already published stay unchanged.

    Publishes only regular files that belong to root, and follows no symbolic link on the way to them: a link can lead
    into a folder in which the app replaces files while root reads them.

    Args:
        folder: a folder of the code, writable only for root.
        published: the folder that the web server reads. Its files are hard links and take no extra disk space.
        top: a parent folder below which no part of the path can be a link; ``folder`` itself if None.

    Returns:
        Whether the folder exists; False if a part of its path is a link.
    """
    top = top or folder
    try:
        with tree.folder(top, folder.relative_to(top)) as descriptor:
            _publish(descriptor, published)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _publish(folder: int, published: Path) -> None:
    device = os.fstat(folder).st_dev

    def is_ours(descriptor: int) -> bool:
        status = os.fstat(descriptor)
        return status.st_uid == os.geteuid() and status.st_dev == device

    for root, directories, files, here in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        target = published / root
        if not is_ours(here) or (target.exists() and not target.is_dir()):
            # A file has the same name, so nothing below this folder can be published either.
            directories.clear()
            continue
        target.mkdir(mode=0o755, exist_ok=True)
        target.chmod(0o755)
        linked: set[str] = set()
        for name in sorted(files):
            if os.path.lexists(target / name) or is_mismatch(name, target, linked):
                continue
            try:
                with tree.regular_file(name, here) as file:
                    if not is_ours(file):
                        continue
                    # The folders above restrict access.
                    os.fchmod(file, 0o644)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EINVAL):
                    continue
                raise
            os.link(name, target / name, src_dir_fd=here, follow_symlinks=False)
            linked.add(name)


def share(store: Store, release: str, serving: str) -> None:
    """Publish the static files of all other releases in a release, and its files in the live release.

    Args:
        store: the app's releases.
        release: the release that is about to go live.
        serving: the live release; empty if there is none.
    """
    served = store.last_served()
    others = sorted(store.all_records(), key=lambda item: served[item.id], reverse=True)
    # Newest first: of two files with the same name, the one that visitors saw last is used.
    for record in others:
        if record.id != release:
            _publish_own(store, record, release)
    mine = store.record(release)
    if serving and mine and (store.path(serving) / "static").is_dir():
        _publish_own(store, mine, serving)


def _publish_own(store: Store, record: Record, release: str) -> None:
    """Publish a release's own static files in the folder of another release.

    The recorded path is not trusted: an earlier version can have recorded one that contains links, and the app can have
    changed their targets since. So the path is resolved again, and opened without following links.
    """
    if not record.static:
        return
    top = Path(os.path.realpath(store.path(record.id)))
    folder = Path(os.path.realpath(top / record.static))
    if folder.is_relative_to(top / "src"):
        publish(folder, store.path(release) / "static", top)
