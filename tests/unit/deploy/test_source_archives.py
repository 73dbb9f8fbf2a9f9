"""Archives: unpacked whole and without a way out, fetched by their checksum, and never larger than they may be."""

from __future__ import annotations

import errno
import hashlib
import http.server
import lzma
import shutil
import socket
import stat
import tarfile
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.record import app_record
from ansible.module_utils.flaskhost.deploy.sources import archives, folders
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import GID, fake_owners, run_command
from source_files import archive_of, make, member

# -- unpacking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "../pkg/../../outside", "/"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    there = tmp_path / "there"
    (there / "pkg").mkdir(parents=True)
    archive = archive_of(tmp_path / "a.tar", member("app.py"), member("pkg/l", tarfile.SYMTYPE, target))
    with pytest.raises(ReleaseError, match=r"pkg/l is a link to .*, outside the source") as caught:
        archives.unpack(run_command, archive, there)
    assert caught.value.cure


def test_a_link_over_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    chain = [member("a", tarfile.SYMTYPE, "b/x"), member("b", tarfile.SYMTYPE, "c"), member("c", tarfile.SYMTYPE, "..")]
    with pytest.raises(ReleaseError, match="outside the source"):
        archives.unpack(run_command, archive_of(tmp_path / "a.tar", *chain), tmp_path / "there")


def test_links_that_stay_inside_are_taken(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    links = {"a": "pkg", "pkg/b": "../app.py", "dangling": "missing", "top": ".", "itself": "itself", "one": "two/x"}
    members = [member("pkg/c"), *(member(name, tarfile.SYMTYPE, target) for name, target in links.items())]
    archives.unpack(run_command, archive_of(tmp_path / "a.tar", *members), tmp_path / "there")
    assert {name: str((tmp_path / "there" / name).readlink()) for name in links} == links


def test_a_link_that_gives_way_to_data_may_lead_out(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    archive = archive_of(tmp_path / "a.tar", member("web/instance", tarfile.SYMTYPE, "/var/lib/shop"))
    archives.unpack(run_command, archive, tmp_path / "here", ["web/instance"])
    with pytest.raises(ReleaseError, match="web/instance is a link"):
        archives.unpack(run_command, archive, tmp_path / "there", ["instance"])


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    archive = archive_of(tmp_path / "a.tar", member("pkg/pipe", tarfile.FIFOTYPE))
    with pytest.raises(ReleaseError, match="pkg/pipe is a device, a pipe or a socket"):
        archives.unpack(run_command, archive, tmp_path / "there")


@pytest.mark.parametrize("name", ["../evil", "pkg/../../evil", "/evil"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    there = tmp_path / "there"
    there.mkdir()
    archive = archive_of(tmp_path / "a.tar", member("app.py"), member(name.replace("/evil", f"{tmp_path}/evil", 1)))
    before = set(tmp_path.iterdir())
    try:
        archives.unpack(run_command, archive, there)
    except ReleaseError as error:
        assert "tar failed" in error.reason
    assert set(tmp_path.iterdir()) == before
    assert not Path("/evil").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    for name in ("there", "outside"):
        (tmp_path / name).mkdir()
    archive = archive_of(tmp_path / "a.tar", member("l", tarfile.SYMTYPE, str(tmp_path / "outside")), member("l/evil"))
    with pytest.raises(ReleaseError):
        archives.unpack(run_command, archive, tmp_path / "there")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"), [(b"no archive at all", "tar failed"), (b"\x1f\x8b\x08\x00broken", "gzip: ")]
)
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(ReleaseError, match=said):
        archives.unpack(run_command, tmp_path / "a.tar.gz", tmp_path / "there")


def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    folders.pack(make(tmp_path / "code", {"data": "".join(map(str, range(5000)))}), tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "there").mkdir()
    with pytest.raises(ReleaseError, match="gzip: "):
        archives.unpack(run_command, tmp_path / "a.tar.gz", tmp_path / "there")


def test_sealed_code_is_roots_and_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "src"
    code.mkdir()
    members = [
        member("bin/run", mode=0o4777),
        member("app.py", mode=0o666),
        member("secret.py", mode=0o600),
        member("link", tarfile.SYMTYPE, "app.py"),
    ]
    archives.unpack(run_command, archive_of(tmp_path / "a.tar", *members), code)
    owners = fake_owners(monkeypatch)
    archives.seal(code, GID)
    everything = [code, *code.rglob("*")]
    assert {path: owners[path] for path in everything} == dict.fromkeys(everything, (0, GID))
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in everything if not path.is_symlink()}
    assert modes == {"src": 0o750, "bin": 0o750, "run": 0o750, "app.py": 0o640, "secret.py": 0o640}


# -- an archive and its checksum ------------------------------------------------------------------------------------


def checksum_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_checksum_is_read_and_told_apart(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar", member("app.py"))
    checksum = checksum_of(archive)
    archives.verify(archive, checksum)
    archives.verify(archive, "sha256:" + checksum[7:].upper())
    assert archives.checksum_digest(checksum) == archives.file_digest(archive) == checksum[7:]
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ReleaseError, match=rf"a\.tar has the wrong checksum: {checksum}, expected {wrong}"):
        archives.verify(archive, wrong)


@pytest.mark.parametrize("checksum", ["", "sha256:", "sha256:" + "0" * 63, "md5:" + "0" * 32, "0" * 64])
def test_what_is_no_checksum_is_told(tmp_path: Path, checksum: str) -> None:
    with pytest.raises(ReleaseError, match="is not a checksum") as caught:
        archives.verify(archive_of(tmp_path / "a.tar"), checksum)
    assert "source.checksum" in caught.value.cure


@pytest.mark.parametrize(
    ("archive", "absolute"),
    [("dist/a.tar", "/project/dist/a.tar"), ("/srv/a.tar", "/srv/a.tar"), ("", "")]
    + [(url, url) for url in ("https://h.test/a.tar", "http://h.test/a.tar")],
)
def test_a_relative_archive_begins_in_the_project(archive: str, absolute: str) -> None:
    app = {"domains": ["shop.localhost"], "source": {"archive": archive}, "wsgi": "shop:app"}
    record = app_record("shop", app, "/project")
    assert record["source"]["archive"] == absolute


def test_a_url_is_told_from_a_file() -> None:
    assert archives.is_url("https://h.test/a.tar.gz")
    assert archives.is_url("http://h.test/a.tar.gz")
    assert not archives.is_url("dist/https/a.tar.gz")
    assert not archives.is_url("file:///etc/shadow")


class Files(http.server.BaseHTTPRequestHandler):
    """A server of files that goes wrong on some paths."""

    folder: Path

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        if name == "/moved":
            self.answer(302, b"", Location="/a.tar")
        elif name == "/away":
            self.answer(302, b"", Location=f"file://{self.folder}/a.tar")
        elif name == "/cut":
            self.answer(200, b"only a part", length=1000)
        elif (self.folder / name[1:]).is_file():
            self.answer(200, (self.folder / name[1:]).read_bytes())
        else:
            self.answer(404, b"no such file")

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length or len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server that has ``a.tar``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    archive_of(tmp_path / "a.tar", member("shop-1.0/app.py"))
    handler = type("Handler", (Files,), {"folder": tmp_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["a.tar", "moved"])
def test_an_archive_is_fetched(tmp_path: Path, files: str, name: str) -> None:
    archives.download(f"{files}/{name}", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
    assert (tmp_path / "got.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()


def test_another_archive_than_the_one_that_was_meant_is_refused_and_not_kept(tmp_path: Path, files: str) -> None:
    with pytest.raises(ReleaseError, match=checksum_of(tmp_path / "a.tar")) as caught:
        archives.download(f"{files}/a.tar", "sha256:" + "0" * 64, tmp_path / "got.tar")
    assert caught.value.step == "Check the archive"
    assert not (tmp_path / "got.tar").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.tar", "server returned 404"),
        ("cut", "cut off after 11 of 1000 bytes"),
        ("away", "server returned 302"),
    ],
)
def test_an_archive_that_cannot_be_had_is_told_and_nothing_is_kept(
    tmp_path: Path, files: str, name: str, reason: str
) -> None:
    with pytest.raises(ReleaseError, match=reason) as caught:
        archives.download(f"{files}/{name}?token=secret", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
    assert f"{files}/{name}" in caught.value.reason
    assert "source.archive" in caught.value.cure
    assert "secret" not in f"{caught.value} {caught.value.cure}"
    assert not (tmp_path / "got.tar").exists()


def test_a_server_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.tar"
        with pytest.raises(ReleaseError, match=r"cannot be read: .*refused"):
            archives.download(url, "sha256:" + "0" * 64, tmp_path / "got.tar")


def test_an_endless_archive_is_not_fetched_for_ever(
    tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_LARGEST_DOWNLOAD", 100), ("_LONGEST_DOWNLOAD", -1)):
        with monkeypatch.context() as patch:
            patch.setattr(archives, name, value)
            with pytest.raises(ReleaseError, match=r"the download of .* exceeded"):
                archives.download(f"{files}/a.tar", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
        assert not (tmp_path / "got.tar").exists()


def test_a_full_disk_is_told(tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "_compare", full)
    with pytest.raises(ReleaseError, match="No space left on device") as caught:
        archives.download(f"{files}/a.tar", checksum_of(tmp_path / "a.tar"), tmp_path / "got.tar")
    assert caught.value.cure == "Free space on the disk."
    assert not (tmp_path / "got.tar").exists()


def unpacked(tmp_path: Path, archive: Path, strip: bool = True) -> set[str]:
    there = tmp_path / "release/src"
    there.mkdir(parents=True)
    archives.unpack(run_command, archive, there, strip=strip)
    assert [path.name for path in there.parent.iterdir()] == ["src"]
    return {str(path.relative_to(there)) for path in there.rglob("*")}


@pytest.mark.parametrize("compress", [None, "gz", "xz"])
def test_a_single_folder_at_the_top_is_left_out(tmp_path: Path, compress: str | None) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{compress or ''}") as tar:
        for item in (member("shop/", tarfile.DIRTYPE, mode=0o755), member("shop/shop/app.py"), member("shop/shop.py")):
            tar.addfile(item, BytesIO(b"x" * item.size))
    assert unpacked(tmp_path, tmp_path / "a.tar") == {"shop", "shop/app.py", "shop.py"}


def test_two_things_at_the_top_and_a_folder_of_ones_own_stay(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    two = archive_of(tmp_path / "a.tar", member("shop/app.py"), member("docs/x"))
    assert unpacked(tmp_path / "one", two) == {"shop", "shop/app.py", "docs", "docs/x"}
    (tmp_path / "two").mkdir()
    own = archive_of(tmp_path / "b.tar", member("shop/app.py"))
    assert unpacked(tmp_path / "two", own, strip=False) == {"shop", "shop/app.py"}


def test_a_link_that_leads_out_only_without_the_top_folder_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar", member("shop/app.py"), member("shop/l", tarfile.SYMTYPE, "../x"))
    with pytest.raises(ReleaseError, match=r"^Unpack the code: l is a link to \.\./x"):
        unpacked(tmp_path, archive)


def test_a_link_at_the_top_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with pytest.raises(ReleaseError, match="outside the source"):
        unpacked(tmp_path, archive_of(tmp_path / "a.tar", member("l", tarfile.SYMTYPE, str(tmp_path / "outside"))))


def test_a_damaged_xz_is_refused(tmp_path: Path) -> None:
    whole = lzma.compress(archive_of(tmp_path / "plain.tar", member("app.py")).read_bytes())
    for content in (whole[:-8], whole[:40] + b"x" * 20):
        (tmp_path / "a.tar.xz").write_bytes(content)
        with pytest.raises(ReleaseError, match="xz: "):
            unpacked(tmp_path, tmp_path / "a.tar.xz")
        assert not list((tmp_path / "release").glob("*.tar"))
        shutil.rmtree(tmp_path / "release")


# -- an archive that holds more than it shows -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_an_archive_that_fills_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(archives, "LARGEST_SOURCE", 4 * 1024**2)
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("small"))
        bomb = tarfile.TarInfo("bomb")
        bomb.size = 64 * 1024**2
        tar.addfile(bomb, BytesIO(bytes(bomb.size)))
    there = tmp_path / "release/src"
    there.mkdir(parents=True)
    with pytest.raises(ReleaseError, match=r"larger than 4 MB unpacked"):
        archives.unpack(run_command, tmp_path / "a.tar", there)
    assert [path.name for path in (tmp_path / "release").rglob("*")] == ["src"]


def test_an_archive_of_too_many_files_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_ENTRIES", 10)
    names = [str(number) for number in range(10)]
    (tmp_path / "there").mkdir()
    archives.unpack(run_command, archive_of(tmp_path / "a.tar", *map(tarfile.TarInfo, names)), tmp_path / "there")
    (tmp_path / "more").mkdir()
    members = [tarfile.TarInfo(name) for name in [*names, "one more"]]
    with pytest.raises(ReleaseError, match="more than 10 files"):
        archives.unpack(run_command, archive_of(tmp_path / "b.tar", *members), tmp_path / "more")
    assert list((tmp_path / "more").iterdir()) == []


def test_a_name_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ReleaseError, match="larger than"):
        archive = archive_of(tmp_path / "a.tar", tarfile.TarInfo("x" * 2 * 1024**2))
        archives.unpack(run_command, archive, tmp_path / "there")


def test_folders_that_lie_too_deep_are_refused_and_gone(tmp_path: Path) -> None:
    """Python's own way to remove them fails at some thousand, and would at every later deploy."""
    there = tmp_path / "release/src"
    there.mkdir(parents=True)

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        answer = run_command(args, **options)
        if "--extract" in args:
            # What links in an archive can make of names that tar itself takes.
            script = 'cd "$0"; for i in $(seq 1500); do mkdir d; cd -P d; done'
            run_command(["/bin/sh", "-c", script, str(there)])
        return answer

    with pytest.raises(ReleaseError, match="are nested more than"):
        archives.unpack(run, archive_of(tmp_path / "a.tar"), there)
    shutil.rmtree(tmp_path / "release")


def test_a_second_name_of_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    """To seal it would give the other file to the app's group; those between files of the source are fine."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "there").mkdir()
    inside = tarfile.TarInfo("b")
    inside.type, inside.linkname = tarfile.LNKTYPE, "a"
    archive = archive_of(tmp_path / "a.tar", tarfile.TarInfo("a"), inside)
    archives.unpack(run_command, archive, tmp_path / "there")
    assert (tmp_path / "there/a").samefile(tmp_path / "there/b")

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        (tmp_path / "here/c").hardlink_to(tmp_path / "secret")
        return run_command(args, **options)

    (tmp_path / "here").mkdir()
    with pytest.raises(ReleaseError, match="c is a hard link to a file outside the source"):
        archives.unpack(run, archive, tmp_path / "here")


def test_two_streams_of_xz_are_one_archive(tmp_path: Path) -> None:
    content = archive_of(tmp_path / "a.tar", tarfile.TarInfo("a")).read_bytes()
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(content[:700]) + bytes(8) + lzma.compress(content[700:]))
    (tmp_path / "there").mkdir()
    archives.unpack(run_command, tmp_path / "a.tar.xz", tmp_path / "there")
    assert (tmp_path / "there/a").is_file()
