"""The static files of a release, where the web server may read them; with those of the releases beside it.

A page that was loaded before a flip asks for its files after it, and with several hosts also the other way round: for a
while each release has to serve the files of all. Only what a release does not have itself is taken from another one.
"""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.flaskhost.records import Store


def find_folder(app_dir: Path, code: Path, wsgi: str, named: str = "") -> Path | None:
    """Find the folder of static files in the code of a release.

    Args:
        app_dir: the app's folder in the code.
        code: the folder of the whole code.
        wsgi: the WSGI application; its module has the folder beside it.
        named: the folder that the user names, relative to ``app_dir``.

    Returns:
        The folder, or None. One that a link leads to outside of the code is none.
    """
    module = Path(*wsgi.partition(":")[0].split("."))
    places = [Path(named)] if named else [module / "static", module.parent / "static", Path("src") / module / "static"]
    folder = next((app_dir / place for place in places if (app_dir / place).is_dir()), None)
    # One that is in the data folder (persistent) the app can write: root changes no mode there.
    return folder if folder and folder.resolve().is_relative_to(code.resolve()) else None


def publish(folder: Path, published: Path) -> None:
    """Make the files of a folder readable to the web server; those that are published already stay as they are.

    Args:
        folder: a folder of the code; only root may write it.
        published: where the web server looks. Its files are hard links, so that there is one copy on the disk.
    """
    for root, directories, files in os.walk(folder):
        target = published / Path(root).relative_to(folder)
        if target.exists() and not target.is_dir():
            # A file of the same name: there is no place below it either.
            directories.clear()
            continue
        target.mkdir(mode=0o755, exist_ok=True)
        target.chmod(0o755)
        for name in files:
            file, place = Path(root) / name, target / name
            if file.is_symlink() or os.path.lexists(place):
                continue
            # The folders above decide who may come by.
            file.chmod(0o644)
            os.link(file, place)


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
        if record.static and record.id != release:
            publish(store.path(record.id) / record.static, store.path(release) / "static")
    mine = store.record(release)
    if serving and mine and mine.static and (store.path(serving) / "static").is_dir():
        publish(store.path(release) / mine.static, store.path(serving) / "static")
