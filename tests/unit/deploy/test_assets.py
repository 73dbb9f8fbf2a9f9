"""Static files: where they are, who may read them, and that a page finds those of the release that it came from."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import assets
from ansible.module_utils.flaskhost.deploy.records import Record, Store


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


# -- what an app does to its data while root looks at it --------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of another app's, with a file that root alone reads."""
    folder = tmp_path / "etc/flaskhost/victim"
    write(folder, secret_key="the victim's")
    (folder / "secret.key").chmod(0o600)
    return folder


def untouched(victim: Path) -> bool:
    status = (victim / "secret.key").lstat()
    return (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 1)


def test_a_recorded_path_is_not_followed_to_another_apps_files(tmp_path: Path, victim: Path) -> None:
    """The code has a link through a persistent folder, in which the app has pointed the next one elsewhere since."""
    store = Store(tmp_path / "shop")
    store.releases.mkdir(parents=True)
    release(store, "honest", 1, a_css="a")
    release(store, "new", 3, n_css="n")
    code, data = store.path("old") / "src", tmp_path / "shop/data/instance"
    data.mkdir(parents=True)
    (code / "shop").mkdir(parents=True)
    (code / "instance").symlink_to(data)
    (code / "shop/static").symlink_to("../instance/x")
    (store.path("old") / "static").mkdir()
    store.write(Record("old", "old", "", "", created=2, static="src/shop/static"))
    (data / "x").symlink_to(victim)
    assets.share(store, "new", "old")
    assets.share(store, "old", "new")
    assert sorted(path.name for path in (store.path("new") / "static").iterdir()) == ["a.css", "n.css"]
    assert untouched(victim)


def test_a_link_that_an_earlier_version_has_recorded_counts_inside_of_the_code(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.releases.mkdir()
    release(store, "new", 2, n_css="n")
    write(store.path("old") / "src/assets/build", a_css="a")
    (store.path("old") / "src/static").symlink_to("assets/build")
    store.write(Record("old", "old", "", "", created=1, static="src/static"))
    assets.share(store, "new", "")
    assert sorted(path.name for path in (store.path("new") / "static").iterdir()) == ["a.css", "n.css"]


@pytest.mark.parametrize("inside", ["shop/static", "shop/link/static", "link/static"])
def test_no_part_of_a_published_path_may_be_a_link(tmp_path: Path, victim: Path, inside: str) -> None:
    code = tmp_path / "code"
    (code / "shop").mkdir(parents=True)
    (victim.parent / "static").symlink_to(victim)
    place = code / inside
    link, target = (place, victim) if inside == "shop/static" else (place.parent, victim.parent)
    link.symlink_to(target)
    published = tmp_path / "published"
    assert not assets.publish(place, published, code)
    assert not published.exists()
    assert untouched(victim)


@pytest.mark.parametrize("when", ["folder", "file"])
def test_a_link_that_comes_in_while_root_walks_is_not_followed(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Once root has seen what is there, the app puts a link in its place."""
    code, published = write(tmp_path / "code", deep__secret_key="mine", a_css="a"), tmp_path / "published"
    real, place, swapped = os.path.lexists, code / ("deep" if when == "folder" else "deep/secret.key"), []

    def lexists(path: Path) -> bool:
        # Asked right before a file is published.
        if path.name == "secret.key" and not swapped:
            swapped.append(place.rename(tmp_path / "aside"))
            place.symlink_to(victim if when == "folder" else victim / "secret.key")
        return real(path)

    monkeypatch.setattr(os.path, "lexists", lexists)
    assets.publish(code, published)
    assert swapped
    assert (published / "a.css").is_file()
    assert when == "folder" or not (published / "deep/secret.key").exists()
    assert untouched(victim)


def test_files_that_are_not_roots_own_are_not_published(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    code = write(tmp_path / "code", a_css="a", theirs_css="b", theirs__c_css="c")
    os.chown(code / "theirs.css", 4242, 4343)
    os.chown(code / "theirs", 4242, 4343)
    os.mkfifo(code / "pipe")
    assets.publish(code, tmp_path / "published")
    assert [path.name for path in (tmp_path / "published").rglob("*")] == ["a.css"]
    assert stat.S_IMODE((code / "theirs.css").stat().st_mode) == 0o640
