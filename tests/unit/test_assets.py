"""Static files: where they are, who may read them, and that a page finds those of the release that it came from."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost import assets
from ansible.module_utils.flaskhost.records import Record, Store


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o640)
    return folder


@pytest.mark.parametrize(
    ("place", "wsgi", "named", "found"),
    [
        ("shop/static", "shop:app", "", True),
        ("static", "shop:app", "", True),
        ("src/shop/static", "shop:app", "", True),
        ("shop/web/static", "shop.web:create_app()", "", True),
        ("public", "shop:app", "public", True),
        ("shop/static", "shop:app", "public", False),
        ("public", "shop:app", "", False),
    ],
)
def test_the_folder_is_found_beside_the_module(tmp_path: Path, place: str, wsgi: str, named: str, found: bool) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert assets.find_folder(tmp_path, tmp_path, wsgi, named) == (tmp_path / place if found else None)


def test_a_folder_outside_of_the_code_is_none(tmp_path: Path) -> None:
    code, data = tmp_path / "code", tmp_path / "data"
    code.mkdir()
    data.mkdir()
    (code / "static").symlink_to(data)
    assert assets.find_folder(code, code, "shop:app") is None
    assert assets.find_folder(code, code, "shop:app", "../data") is None


def test_published_files_are_readable_and_one_copy(tmp_path: Path) -> None:
    folder, published = write(tmp_path / "code", a_css="a", deep__b_js="b"), tmp_path / "static"
    (folder / "link.css").symlink_to("a.css")
    before = os.umask(0o077)
    try:
        assets.publish(folder, published)
        assets.publish(folder, published)
    finally:
        os.umask(before)
    assert sorted(str(path.relative_to(published)) for path in published.rglob("*")) == ["a.css", "deep", "deep/b.js"]
    for path in (published, published / "deep"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE((published / "a.css").stat().st_mode) == 0o644
    assert (published / "a.css").samefile(folder / "a.css")


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    published = write(tmp_path / "static", a_css="new", b="a file")
    assets.publish(write(tmp_path / "one", a_css="old", c_css="c"), published)
    # A file where the other release has a folder, with folders in it, and the other way round.
    assets.publish(write(tmp_path / "two", b__deep__er__x_css="x", d_css="d"), published)
    assets.publish(write(tmp_path / "three", e__f_css="f"), published)
    assets.publish(write(tmp_path / "four", e="a file"), published)
    assert (published / "a.css").read_text(encoding="utf-8") == "new"
    assert (published / "b").read_text(encoding="utf-8") == "a file"
    for name in ("c.css", "d.css", "e/f.css"):
        assert (published / name).is_file()


def release(store: Store, name: str, created: float, **files: str) -> None:
    folder = store.path(name)
    write(folder / "src/static", **files)
    (folder / "static").mkdir()
    assets.publish(folder / "src/static", folder / "static")
    store.write(Record(name, name, "", "", created=created, static="src/static"))


def test_each_serves_the_files_of_all_and_first_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.releases.mkdir()
    release(store, "one", 1, a_css="one", same="one")
    release(store, "two", 2, b_css="two", same="two")
    release(store, "new", 3, c_css="new", own="new")
    for name in ("two", "one"):
        store.remember(name, "", "", "deploy")
    assets.share(store, "new", "one")

    def files(name: str) -> dict[str, str]:
        folder = store.path(name) / "static"
        return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}

    # Of two files of one name that which visitors have seen last: "one" served after "two".
    assert files("new") == {"a.css": "one", "b.css": "two", "c.css": "new", "own": "new", "same": "one"}
    assert files("one") == {"a.css": "one", "c.css": "new", "own": "new", "same": "one"}
    assert "c.css" not in files("two")
    assets.share(store, "new", "")
    assets.share(store, "new", "missing")


def test_a_release_without_static_files_takes_those_of_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.releases.mkdir()
    release(store, "one", 1, a_css="one")
    (store.path("new") / "static").mkdir(parents=True)
    store.write(Record("new", "new", "", ""))
    assets.share(store, "new", "one")
    assert [path.name for path in (store.path("new") / "static").iterdir()] == ["a.css"]
