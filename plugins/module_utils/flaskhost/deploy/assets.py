"""The static files of a release, where the web server may read them; with those of the releases beside it.

A page that was loaded before a flip asks for its files after it, and with several hosts also the other way round: for a
while each release has to serve the files of all. Only what a release does not have itself is taken from another one.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.host import tree


def find_folder(app_dir: Path, code: Path, wsgi: str, named: str = "") -> Path | None:
    """Find the folder of static files in the code of a release.

    Args:
        app_dir: the app's folder in the code.
        code: the folder of the whole code.
        wsgi: the WSGI application; its module has the folder beside it.
        named: the folder that the user names, relative to ``app_dir``.

    Returns:
        The folder by its resolved path, in which no part is a link, or None. One that a link leads to outside of the
        code is none.
    """
    module = Path(*wsgi.partition(":")[0].split("."))
    places = [Path(named)] if named else [module / "static", module.parent / "static", Path("src") / module / "static"]
    folder = next((app_dir / place for place in places if (app_dir / place).is_dir()), None)
    return folder.resolve() if folder and folder.resolve().is_relative_to(code.resolve()) else None


def publish(folder: Path, published: Path, top: Path | None = None) -> bool:
    """Make the files of a folder readable to the web server; those that are published already stay as they are.

    Only regular files of root's own are published, and no link is followed on the way to them: behind a link there may
    be a folder in which the app can exchange what it likes while root looks at it.

    Args:
        folder: a folder of the code; only root may write it.
        published: where the web server looks. Its files are hard links, so that there is one copy on the disk.
        top: a folder above it, from which on no part of its path may be a link; itself when left out.

    Returns:
        Whether the folder is there; not where a part of its path is a link.
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
            # A file of the same name: there is no place below it either.
            directories.clear()
            continue
        target.mkdir(mode=0o755, exist_ok=True)
        target.chmod(0o755)
        for name in files:
            if os.path.lexists(target / name):
                continue
            try:
                with tree.regular_file(name, here) as file:
                    if not is_ours(file):
                        continue
                    # The folders above decide who may come by.
                    os.fchmod(file, 0o644)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EINVAL):
                    continue
                raise
            os.link(name, target / name, src_dir_fd=here, follow_symlinks=False)


def share(store: Store, release: str, serving: str) -> None:
    """Give a release the static files of all others, and the one that serves those of the release.

    Args:
        store: the app's releases.
        release: the release that is about to serve.
        serving: the one that serves; empty when none.
    """
    served = store.last_served()
    others = sorted(store.all_records(), key=lambda item: served[item.id], reverse=True)
    # Newest first: of two files with the same name the one that visitors have seen last is taken.
    for record in others:
        if record.id != release:
            _publish_own(store, record, release)
    mine = store.record(release)
    if serving and mine and (store.path(serving) / "static").is_dir():
        _publish_own(store, mine, serving)


def _publish_own(store: Store, record: Record, release: str) -> None:
    """Publish a release's own static files in the folder of another one.

    What is written down is not trusted: the path may be one that an earlier version has recorded with links in it. The
    app can have pointed them elsewhere since, so that the resolved path counts, and is opened without following any.
    """
    if not record.static:
        return
    top = Path(os.path.realpath(store.path(record.id)))
    folder = Path(os.path.realpath(top / record.static))
    if folder.is_relative_to(top / "src"):
        publish(folder, store.path(release) / "static", top)
