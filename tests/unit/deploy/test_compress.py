"""Compressed copies of static files: which there are, what they contain, and that none is next to another file."""

from __future__ import annotations

import gzip
import os
import random
import sys
import time
import types
import zlib
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import assets, compress
from ansible.module_utils.flaskhost.deploy.records import Record, Store

TEXT = "body { color: teal }\n" * 200


@pytest.fixture(autouse=True)
def brotli(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for Debian's python3-brotli: another compression, by which a test tells the copies apart."""
    module = types.ModuleType("brotli")
    module.compress = lambda content, quality: b"br" + zlib.compress(content, quality)
    monkeypatch.setitem(sys.modules, "brotli", module)


def put(folder: Path, **files: str) -> Path:
    """Write files; in their names, an underscore stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    """The files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_copies_have_the_same_content_and_time(tmp_path: Path) -> None:
    published = put(tmp_path, style_css=TEXT)
    os.utime(published / "style.css", (1, 1_700_000_000))
    compress.compress(published)
    assert names(published) == ["style.css", "style.css.br", "style.css.gz"]
    assert gzip.decompress((published / "style.css.gz").read_bytes()).decode() == TEXT
    assert zlib.decompress((published / "style.css.br").read_bytes()[2:]).decode() == TEXT
    for copy in published.iterdir():
        assert copy.stat().st_mtime == 1_700_000_000, "nginx makes the ETag of it"
        assert copy.stat().st_mode & 0o777 == 0o644
    assert (published / "style.css").read_text() == TEXT


def test_copies_can_be_read_whatever_the_umask(tmp_path: Path) -> None:
    """nginx's workers are not root."""
    put(tmp_path, style_css=TEXT)
    before = os.umask(0o077)
    try:
        compress.compress(tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.[gb]*")} == {0o644}


def test_copies_of_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """gzip writes the time of the compression into its header, if it gets no other."""
    compress.compress(put(tmp_path, style_css=TEXT))
    assert (tmp_path / "style.css.gz").read_bytes()[4:8] == bytes(4)


def test_host_without_brotli_has_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    compress.compress(put(tmp_path, style_css=TEXT))
    assert names(tmp_path) == ["style.css", "style.css.gz"]


def test_what_is_small_compressed_already_or_random_has_no_copies(tmp_path: Path) -> None:
    put(tmp_path, small_css="a" * 1000, photo_jpg=TEXT, archive_css_gz=TEXT)
    (tmp_path / "random.js").write_bytes(os.urandom(5000))
    before = names(tmp_path)
    compress.compress(tmp_path)
    assert names(tmp_path) == before


def test_copies_that_the_repository_has_stay(tmp_path: Path) -> None:
    compress.compress(put(tmp_path, style_css=TEXT, style_css_gz="its own"))
    assert (tmp_path / "style.css.gz").read_text() == "its own"


def test_a_repository_cannot_delay_a_deploy_by_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "LARGEST", 10_000)
    monkeypatch.setattr(compress, "ALL", 10_000)
    put(tmp_path, a_css=TEXT, b_css=TEXT, c_css=TEXT, large_css=TEXT * 3)
    compress.compress(tmp_path)
    assert [name for name in names(tmp_path) if name.endswith(".gz")] == ["a.css.gz", "b.css.gz"]


def test_the_limits_are_those_of_the_guide(tmp_path: Path) -> None:
    """docs/apps.md: up to 10 MB per file and 64 MB in total. Each is the last that has a copy."""
    megabyte = 1024**2
    sizes = {
        "a_smallest.txt": 1024, "b_small.txt": 1023, "c_large.txt": 10 * megabyte + 1,
        **{f"d_largest{number}.txt": 10 * megabyte for number in range(6)},
        "e_over.txt": 4 * megabyte, "f_rest.txt": 4 * megabyte - 1024,
    }  # fmt: skip
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    compress.compress(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.gz")} == {*sizes} - {"b_small.txt", "c_large.txt", "e_over.txt"}


def test_a_repository_cannot_delay_a_deploy_by_texts_that_compress_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gzip's level 9, 1 MB of this takes 2.8 seconds of the processor, and 64 MB three minutes."""
    monkeypatch.setitem(sys.modules, "brotli", None)
    letters = bytes.maketrans(bytes(range(256)), b"ab" * 128)
    (tmp_path / "slow.txt").write_bytes(random.Random(1).randbytes(1024**2).translate(letters))
    began = time.process_time()
    compress.compress(tmp_path)
    assert time.process_time() - began < 1
    assert (tmp_path / "slow.txt.gz").exists()


def test_the_longest_name_has_no_copies(tmp_path: Path) -> None:
    """Their names would be too long, and the release would fail."""
    put(tmp_path, style_css=TEXT)
    for longest in ("a" * 251 + ".css", "é" * 125 + ".css"):
        (tmp_path / longest).write_text(TEXT)
    compress.compress(tmp_path)
    assert [name for name in names(tmp_path) if name.endswith(".gz")] == ["style.css.gz"]


# -- files of several releases in one folder -------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "site")


def release(store: Store, name: str, **files: str) -> Path:
    """A release whose static files are published and compressed, as a build does; return the published folder."""
    folder = store.path(name)
    code = put(folder / "src" / "static", **files)
    record = Record(name, name, "", "", static="src/static")
    assets.publish(code, folder / "static", folder)
    compress.compress(folder / "static")
    store.write(record)
    return folder / "static"


def test_no_copy_is_next_to_a_file_of_another_release(store: Store) -> None:
    """The old release has a.css with a copy of its own making, the new one has a.css that is too small for one."""
    old = release(store, "old", a_css=TEXT, a_css_gz="of the old a.css", page_html_gz="download")
    new = release(store, "new", a_css="small", page_html=TEXT)
    assets.share(store, "new", "old")
    assert names(new) == ["a.css", "page.html", "page.html.br", "page.html.gz"]
    assert gzip.decompress((new / "page.html.gz").read_bytes()).decode() == TEXT
    # The live release keeps its files, too: page.html would be next to its download page.html.gz.
    assert names(old) == ["a.css", "a.css.br", "a.css.gz", "page.html.gz"]


def test_files_and_copies_of_another_release_come_together(store: Store) -> None:
    release(store, "old", gone_css=TEXT, gone_css_gz="of gone.css")
    new = release(store, "new", a_css="small")
    assets.share(store, "new", "")
    assert names(new) == ["a.css", "gone.css", "gone.css.gz"]
