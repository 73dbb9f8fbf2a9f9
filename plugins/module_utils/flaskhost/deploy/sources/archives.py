"""Archives of code: downloaded and compared with their checksum, and unpacked within limits.

What is in an archive is a stranger's: it may claim more than any disk holds, and lead out of its folder.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import os
import re
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO

from ansible.module_utils.flaskhost.deploy.sources.folders import is_plain
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, cure_for, tail

_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})")

#: Bytes. The checksum is known only at the end: until then nothing else keeps a server from filling the disk.
_LARGEST_DOWNLOAD = 2 * 1024**3

#: Seconds without a byte, and for the whole of a download.
_STALLED, _LONGEST_DOWNLOAD = 30, 900

#: Bytes of a source once it is unpacked, and things in it. A few kilobytes can unpack to more than any disk holds.
LARGEST_SOURCE, MOST_ENTRIES = 2 * 1024**3, 250_000

#: Folders in each other: some of Python's own functions call themselves once for each.
DEEPEST_SOURCE = 100

#: Bytes of a name or another property that stands before a member of an archive; tar keeps it in memory.
_LONGEST_PROPERTY = 1024**2

#: Bytes of memory that decompressing may take; xz -9 takes 65 MB.
_XZ_MEMORY = 256 * 1024**2

_XZ, _GZIP = b"\xfd7zXZ\0", b"\x1f\x8b"

_BLOCK = 1024 * 1024

#: Members that say something of the next one, or of all: long names, and what POSIX' pax adds.
_PROPERTIES = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def is_url(archive: str) -> bool:
    """Whether an archive is one that the host fetches by itself, and not a file of the controller."""
    return archive.startswith(("http://", "https://"))


def checksum_digest(checksum: str) -> str:
    """The hexadecimal digits of a checksum, in lower case: the revision of an archive.

    Raises:
        ReleaseError: it is not written as ``sha256:`` and 64 hexadecimal digits.
    """
    match = _CHECKSUM.fullmatch(checksum)
    if not match:
        raise ReleaseError(
            "Check the archive",
            f"{checksum!r} is no checksum.",
            "Write source.checksum as sha256: and the 64 digits that sha256sum prints for the archive.",
        )
    return match.group(1).lower()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; the file may be larger than the memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path: Path, checksum: str) -> None:
    """Check that an archive is the one that was meant.

    Args:
        path: the archive.
        checksum: ``sha256:`` and 64 hexadecimal digits.

    Raises:
        ReleaseError: it is another one, and both digests are told.
        OSError: the archive cannot be read.
    """
    _compare(file_digest(path), checksum, path.name)


def _compare(got: str, checksum: str, name: str) -> None:
    wanted = checksum_digest(checksum)
    if got != wanted:
        raise ReleaseError(
            "Check the archive",
            f"{name} is not the archive that was meant: its checksum is sha256:{got}, wanted sha256:{wanted}.",
            "Find out which of the two is right. If it is the archive, correct source.checksum.",
        )


def download(url: str, checksum: str, destination: Path) -> None:
    """Fetch an archive to the host; where this returns, it is there, whole, and the one that was meant.

    Args:
        url: where it is, http or https; the checksum makes both equally safe from a forged one.
        checksum: ``sha256:`` and 64 hexadecimal digits.
        destination: the file to write; it is not there after an error.

    Raises:
        ReleaseError: the server does not answer or refuses, the disk is full, or it is another archive.
    """
    checksum_digest(checksum)
    # What a URL may hold of secrets: a name and password, and a token in its query.
    shown = re.sub(r"//[^/@]*@", "//", url).partition("?")[0]
    cure = f"Check source.archive, and that this host may read it: run 'curl --location --head {shown}' on it."
    digest, received, until = hashlib.sha256(), 0, time.monotonic() + _LONGEST_DOWNLOAD
    request = urllib.request.Request(url, headers={"User-Agent": "flaskhost"})  # noqa: S310 - see is_url
    try:
        # urllib itself follows a redirect to http, https and ftp only: none to a file of the host's own.
        with urllib.request.urlopen(request, timeout=_STALLED) as answer, destination.open("wb") as stream:  # noqa: S310
            expected = answer.headers.get("Content-Length", "")
            while block := answer.read(1024 * 1024):
                digest.update(block)
                stream.write(block)
                received += len(block)
                if received > _LARGEST_DOWNLOAD or time.monotonic() > until:
                    limits = f"{_LARGEST_DOWNLOAD >> 20} MB in {_LONGEST_DOWNLOAD // 60} minutes"
                    raise ReleaseError("Fetch the code", f"{shown} is larger or slower than {limits}.", cure)
        if expected.isdigit() and received < int(expected):
            raise ReleaseError("Fetch the code", f"{shown} was cut off after {received} of {expected} bytes.", cure)
        _compare(digest.hexdigest(), checksum, shown)
    except urllib.error.HTTPError as error:
        destination.unlink(missing_ok=True)
        raise ReleaseError(
            "Fetch the code", f"{shown}: the server answers {error.code} {error.reason}.", cure
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ReleaseError("Fetch the code", f"{destination.parent}: {error.strerror}.", "Make room.") from None
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise ReleaseError("Fetch the code", f"{shown} cannot be read: {reason}.", cure) from None
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def unpack(run: Run, archive: Path, destination: Path, replaced: Iterable[str] = (), strip: bool = False) -> None:
    """Write an archive into a folder.

    Args:
        run: runs a command: GNU tar, since the tarfile of Debian 12's Python cannot refuse a dangerous member.
        archive: the archive: tar, plain or compressed by gzip or xz.
        destination: the folder, empty.
        replaced: folders, relative to it, that give way to the app's data (``persistent``): their links may lead out.
        strip: leave out a single folder at the top, as an sdist and the archives of GitHub and GitLab have it.

    Raises:
        ReleaseError: the archive is damaged, the disk is full, a link in it leads out of the folder, something in it is
            no file, folder or link, or there is more in it than :data:`LARGEST_SOURCE` and the other limits allow.
    """
    plain = _expand(archive, destination.with_name("source.plain.tar"))
    try:
        _check_members(plain)
        # For what an archive can claim and not hold: a file full of holes, or a name that fills the memory.
        limits = ["prlimit", f"--fsize={LARGEST_SOURCE}", f"--as={1024**3}"]
        tar = ["tar", "--extract", "--no-same-owner", "--no-same-permissions"]
        status, _out, err = run([*limits, *tar, f"--directory={destination}", f"--file={plain}"])
    finally:
        if plain != archive:
            plain.unlink()
    if status:
        cure = cure_for(err, "Correct the source (a .tar.gz, .tar.xz or .tar).")
        raise ReleaseError("Unpack the code", f"tar says: {tail(err, 5)}", cure)
    if strip:
        # Before the links are looked at: one that led to the top folder's neighbour would lead out afterwards.
        _strip_top(destination)
    _check_tree(run, destination, {destination / item for item in replaced})


def _check_tree(run: Run, folder: Path, left_out: set[Path]) -> None:
    """Refuse what does not belong into code, or leads out of it; the arguments are those of :func:`unpack`."""
    inside = Path(os.path.realpath(folder))
    links: dict[int, tuple[int, Path]] = {}
    for root, directories, files in os.walk(folder):
        if len(Path(root).relative_to(folder).parts) > DEEPEST_SOURCE:
            # Not shutil.rmtree(), which fails at this depth, and would fail at the next deploy, too.
            run(["rm", "--recursive", "--force", "--one-file-system", str(folder)])
            raise ReleaseError(
                "Unpack the code",
                f"its folders lie more than {DEEPEST_SOURCE} deep in each other.",
                "Take the deepest folders out of the source.",
            )
        for path in (Path(root) / name for name in directories + files):
            status = path.lstat()
            mode = status.st_mode
            if not is_plain(mode) and not stat.S_ISDIR(mode):
                raise ReleaseError(
                    "Unpack the code",
                    f"{path.relative_to(folder)} is a device, a pipe or a socket.",
                    "Take it out of the source.",
                )
            if status.st_nlink > 1 and not stat.S_ISDIR(mode):
                links[status.st_ino] = (links.get(status.st_ino, (status.st_nlink, path))[0] - 1, path)
            # Not Path.resolve(), which raises where a link leads to itself.
            target = Path(os.path.realpath(path))
            if stat.S_ISLNK(mode) and path not in left_out and not target.is_relative_to(inside):
                raise ReleaseError(
                    "Unpack the code",
                    f"{path.relative_to(folder)} is a link to {path.readlink()}, outside of the source.",
                    "Take the link out, or name the folder in persistent.",
                )
    if outside := [path for missing, path in links.values() if missing]:
        raise ReleaseError(
            "Unpack the code",
            f"{outside[0].relative_to(folder)} is a hard link to a file outside of the source.",
            "Take it out of the source.",
        )


def too_large() -> ReleaseError:
    return ReleaseError(
        "Unpack the code",
        f"the source is larger than {LARGEST_SOURCE >> 20} MB unpacked, or has more than {MOST_ENTRIES} files.",
        "Take out of the source what is no code; data belongs into a folder that persistent names.",
    )


def _expand(archive: Path, plain: Path) -> Path:
    """Decompress an archive, up to a limit; tar has none, and would call xz for xz, which a small Debian has not.

    Args:
        archive: the archive.
        plain: where to write it.

    Returns:
        The file that is not compressed, which is ``archive`` itself where that is none.
    """
    with archive.open("rb") as stream:
        magic = stream.read(len(_XZ))
    if magic != _XZ and not magic.startswith(_GZIP):
        return archive
    name, size = "xz" if magic == _XZ else "gzip", 0
    try:
        with archive.open("rb") as packed, plain.open("wb") as stream:
            for block in _xz_blocks(packed) if magic == _XZ else _gzip_blocks(packed):
                size += stream.write(block)
                if size > LARGEST_SOURCE:
                    raise too_large()
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        plain.unlink(missing_ok=True)
        cure = cure_for(str(error), "Correct the source.")
        raise ReleaseError("Unpack the code", f"{name}: {error}", cure) from None
    except ReleaseError:
        plain.unlink()
        raise
    return plain


def _gzip_blocks(packed: IO[bytes]) -> Iterator[bytes]:
    with gzip.open(packed) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _xz_blocks(packed: IO[bytes]) -> Iterator[bytes]:
    """As lzma.open() has them, which takes as much memory as the file says that it needs."""
    rest = b""
    while data := rest or packed.read(_BLOCK):
        # Zeros may stand between the streams of one file, and at its end.
        rest = data.lstrip(b"\0")
        if not rest:
            continue
        data, unpacker = rest, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not unpacker.eof:
            yield unpacker.decompress(data, _BLOCK)
            data = packed.read(_BLOCK) if unpacker.needs_input else b""
            if unpacker.needs_input and not data and not unpacker.eof:
                raise EOFError("the file ends too early")
        rest = unpacker.unused_data


def _check_members(plain: Path) -> None:
    """Refuse an archive that holds too much, before anything of it is on the disk."""
    if plain.stat().st_size > LARGEST_SOURCE:
        raise too_large()
    with plain.open("rb") as stream:
        for _number in range(MOST_ENTRIES + 1):
            block = stream.read(tarfile.BLOCKSIZE)
            if not block.strip(b"\0"):
                # Two such blocks end an archive, and nothing behind the first one counts. One that is empty is none.
                return
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise ReleaseError(
                    "Unpack the code",
                    f"tar says: it is no whole archive ({error}).",
                    "Correct the source (a .tar.gz, .tar.xz or .tar).",
                ) from None
            if member.size < 0 or (not member.isreg() and member.size > _LONGEST_PROPERTY):
                raise too_large()
            if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES or member.type in _PROPERTIES:
                stream.seek(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
    raise too_large()


def read_text(path: Path, longest: int, step: str) -> str:
    """Read a text of the source, which has to be of a size that fits into memory.

    Args:
        path: the file.
        longest: bytes.
        step: the step, for the message.

    Raises:
        ReleaseError: it is longer.
    """
    with path.open("rb") as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise ReleaseError(step, f"{path.name} is longer than {longest >> 10} KB.", "Shorten it.")
    return content.decode("utf-8", "replace")


def _strip_top(folder: Path) -> None:
    """Put what is in the only folder of a folder in its place; nothing where there is more than one thing."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        # By way of a place beside it: something in the top folder may have the top folder's own name.
        aside = folder.with_name(f"{folder.name}.top")
        entries[0].rename(aside)
        folder.rmdir()
        aside.rename(folder)


def seal(folder: Path, group: int) -> None:
    """Make a code tree root's, readable to the app's group and to nobody else, writable to no one but root."""
    for root, directories, files in os.walk(folder):
        os.chown(root, 0, group)
        Path(root).chmod(0o750)
        for name in directories + files:
            path = Path(root) / name
            os.chown(path, 0, group, follow_symlinks=False)
            if name in files and not path.is_symlink():
                path.chmod(0o750 if path.stat().st_mode & 0o100 else 0o640)
