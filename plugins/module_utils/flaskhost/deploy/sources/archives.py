"""Archives of code: download them, verify their checksum, and unpack them within limits.

The contents of an archive are untrusted: they can claim more than any disk holds, or lead out of the folder.
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
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, cure_for, tail

_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})")

#: Bytes. The checksum is known only at the end; until then, only this limit keeps a server from filling the disk.
_LARGEST_DOWNLOAD = 2 * 1024**3

#: Time limits in seconds: without any data, and for a whole download.
_STALLED, _LONGEST_DOWNLOAD = 30, 900

#: Maximum bytes of an unpacked source, and number of its entries. A few KB can unpack to more than any disk holds.
LARGEST_SOURCE, MOST_ENTRIES = 2 * 1024**3, 250_000

#: Maximum depth of nested folders: some of Python's own functions recurse once for each.
DEEPEST_SOURCE = 100

#: Maximum number of bytes of a path in a source. Longer ones exceed the kernel's limit in some release or environment.
LONGEST_PATH = 2000

#: Maximum number of links behind each other, as for the kernel, and of the parts of all links' targets.
_MOST_LINKS, _MOST_PARTS = 40, 5_000_000

#: Maximum bytes of a header record, such as a long name; tar keeps it in memory.
_LONGEST_PROPERTY = 1024**2

#: Memory limit for decompression in bytes; xz -9 takes 65 MB.
_XZ_MEMORY = 256 * 1024**2

_XZ, _GZIP = b"\xfd7zXZ\0", b"\x1f\x8b"

_BLOCK = 1024 * 1024

#: Header records that describe the next member or all members: long names, and the extensions of POSIX pax.
_PROPERTIES = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def is_url(archive: str) -> bool:
    """Check whether an archive is a URL that the host downloads, not a file on the control node."""
    return archive.startswith(("http://", "https://"))


def checksum_digest(checksum: str) -> str:
    """Return the hexadecimal digits of a checksum in lower case, which are the revision of an archive.

    Raises:
        ReleaseError: the checksum is not ``sha256:`` and 64 hexadecimal digits.
    """
    match = _CHECKSUM.fullmatch(checksum)
    if not match:
        raise ReleaseError(
            "Check the archive",
            f"{checksum!r} is not a checksum.",
            "Set source.checksum to sha256: and the 64 digits that sha256sum prints for the archive.",
        )
    return match.group(1).lower()


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file in hexadecimal. The file can be larger than the memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path: Path, checksum: str) -> None:
    """Verify the checksum of an archive.

    Args:
        path: the archive.
        checksum: ``sha256:`` and 64 hexadecimal digits.

    Raises:
        ReleaseError: the checksum differs. The message shows both digests.
        OSError: the archive cannot be read.
    """
    _compare(file_digest(path), checksum, path.name)


def _compare(got: str, checksum: str, name: str) -> None:
    wanted = checksum_digest(checksum)
    if got != wanted:
        raise ReleaseError(
            "Check the archive",
            f"{name} has the wrong checksum: sha256:{got}, expected sha256:{wanted}.",
            "Find out which of the two is right. If the archive is, correct source.checksum.",
        )


def download(url: str, checksum: str, destination: Path) -> None:
    """Download an archive to the host and verify it.

    Args:
        url: its HTTP or HTTPS URL. The checksum protects both equally against a forged archive.
        checksum: ``sha256:`` and 64 hexadecimal digits.
        destination: the file to write; removed after an error.

    Raises:
        ReleaseError: the server does not respond or refuses, the disk is full, or the checksum differs.
    """
    checksum_digest(checksum)
    # Strip the secrets that a URL can contain: a user name and password, and a token in the query.
    shown = re.sub(r"//[^/@]*@", "//", url).partition("?")[0]
    cure = (
        f"Check source.archive, and whether this host can download it: run 'curl --location --head {shown}' on "
        "this host."
    )
    digest, received, until = hashlib.sha256(), 0, time.monotonic() + _LONGEST_DOWNLOAD
    request = urllib.request.Request(url, headers={"User-Agent": "flaskhost"})  # noqa: S310 - see is_url
    try:
        # urllib follows redirects only to http, https and ftp, not to a local file of the host.
        with urllib.request.urlopen(request, timeout=_STALLED) as answer, destination.open("wb") as stream:  # noqa: S310
            expected = answer.headers.get("Content-Length", "")
            while block := answer.read(1024 * 1024):
                digest.update(block)
                stream.write(block)
                received += len(block)
                if received > _LARGEST_DOWNLOAD or time.monotonic() > until:
                    limits = f"{_LARGEST_DOWNLOAD >> 20} MB in {_LONGEST_DOWNLOAD // 60} minutes"
                    raise ReleaseError("Fetch the code", f"the download of {shown} exceeded {limits}.", cure)
        if expected.isdigit() and received < int(expected):
            raise ReleaseError("Fetch the code", f"{shown} was cut off after {received} of {expected} bytes.", cure)
        _compare(digest.hexdigest(), checksum, shown)
    except urllib.error.HTTPError as error:
        destination.unlink(missing_ok=True)
        raise ReleaseError(
            "Fetch the code", f"{shown}: the server returned {error.code} {error.reason}.", cure
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ReleaseError(
                "Fetch the code", f"{destination.parent}: {error.strerror}.", "Free space on the disk."
            ) from None
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise ReleaseError("Fetch the code", f"{shown} cannot be read: {reason}.", cure) from None
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def unpack(run: Run, archive: Path, destination: Path, replaced: Iterable[str] = (), strip: bool = False) -> None:
    """Unpack an archive into a folder.

    Args:
        run: runs a command: GNU tar, because the tarfile module of Debian 12's Python cannot reject dangerous members.
        archive: the archive: tar, uncompressed or compressed with gzip or xz.
        destination: the folder, empty.
        replaced: folders, relative to it, that the app's data replaces (``persistent``): their links can lead out.
        strip: whether to strip a single top-level folder, as in an sdist and in the archives of GitHub and GitLab.

    Raises:
        ReleaseError: the archive is damaged, the disk is full, a link leads out of the folder, an entry is not a file,
            folder or link, or the archive exceeds :data:`LARGEST_SOURCE` or another limit.
    """
    plain = _expand(archive, destination.with_name("source.plain.tar"))
    try:
        _check_members(plain)
        # Limits for what an archive can claim without containing it: a sparse file, or a name that fills the memory.
        limits = ["prlimit", f"--fsize={LARGEST_SOURCE}", f"--as={1024**3}"]
        tar = ["tar", "--extract", "--no-same-owner", "--no-same-permissions"]
        status, _out, err = run([*limits, *tar, f"--directory={destination}", f"--file={plain}"])
    finally:
        if plain != archive:
            plain.unlink()
    if status:
        cure = cure_for(err, "Correct the source (a .tar.gz, .tar.xz or .tar).")
        raise ReleaseError("Unpack the code", f"tar failed: {tail(err, 5)}", cure)
    if strip:
        # Strip before the links are checked: a link to a sibling of the top folder would lead out afterwards.
        _strip_top(destination)
    check_tree(run, destination, {destination / item for item in replaced})


def check_tree(run: Run, folder: Path, left_out: set[Path]) -> None:
    """Reject files that do not belong into code, and links that lead out; the arguments are those of :func:`unpack`."""
    links, names = _Links(os.path.realpath(folder)), _Names()
    try:
        for entry in tree.walk(folder, DEEPEST_SOURCE):
            if len(os.fsencode(entry.path)) > LONGEST_PATH:
                raise ReleaseError(
                    "Unpack the code",
                    f"it has a path of more than {LONGEST_PATH} bytes: {entry.path}.",
                    "Shorten the names of the folders in the source.",
                )
            status = os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False)
            mode = status.st_mode
            if not is_plain(mode) and not stat.S_ISDIR(mode):
                raise ReleaseError(
                    "Unpack the code",
                    f"{entry.path} is a device, a pipe or a socket.",
                    "Remove it from the source.",
                )
            names.add(entry.path, status)
            if stat.S_ISLNK(mode) and folder / entry.path not in left_out and not links.stays(entry.path):
                raise ReleaseError(
                    "Unpack the code",
                    f"{entry.path} is a link to {os.readlink(entry.name, dir_fd=entry.folder)}, outside the source.",
                    "Remove the link, or add the folder to persistent.",
                )
    except tree.TooDeep:
        # Not shutil.rmtree(), which fails at this depth, and would fail again at the next deploy.
        run(["rm", "--recursive", "--force", "--one-file-system", str(folder)])
        raise ReleaseError(
            "Unpack the code",
            f"its folders are nested more than {DEEPEST_SOURCE} levels deep.",
            "Remove the deepest folders from the source.",
        ) from None
    if outside := names.outside():
        raise ReleaseError(
            "Unpack the code",
            f"{outside} is a hard link to a file outside the source.",
            "Remove it from the source.",
        )


class _Names:
    """Counts the names of files with several hard links, to find those that also have a name elsewhere."""

    def __init__(self) -> None:
        self._missing: dict[int, tuple[int, str]] = {}

    def add(self, path: str, status: os.stat_result) -> None:
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            self._missing[status.st_ino] = (self._missing.get(status.st_ino, (status.st_nlink, path))[0] - 1, path)

    def outside(self) -> str:
        return next((path for missing, path in self._missing.values() if missing), "")


class _Links:
    """Finds out where the links of a source lead, like os.path.realpath(), but follows each of them once.

    That function follows them again for each link of a chain: 250,000 links would take days.

    Args:
        top: the folder of the source, without links in its path.
    """

    def __init__(self, top: str) -> None:
        self._top, self._parts = top, 0
        self._ends: dict[str, str] = {}

    def stays(self, path: str) -> bool:
        """Check whether a link leads into the source.

        Args:
            path: its path in the source, without other links in it.

        Raises:
            ReleaseError: it leads over too many links.
        """
        link = f"{self._top}/{path}"
        return Path(self._end(link, _target(link) or "", ())[0]).is_relative_to(self._top)

    def _end(self, link: str, target: str, above: tuple[str, ...]) -> tuple[str, bool]:
        """Return where a link ends, and whether it led over no link from which it came, which makes a loop."""
        if link in self._ends:
            return self._ends[link], True
        above = (*above, link)
        if len(above) > _MOST_LINKS:
            reason = f"{above[0].removeprefix(self._top + '/')} is a link over too many other links."
            raise ReleaseError("Unpack the code", reason, "Let it lead to its file or folder directly.")
        here, is_known = "/" if target.startswith("/") else os.path.dirname(link), True  # noqa: PTH120 - a string
        for part in target.split("/"):
            self._parts += 1
            if self._parts > _MOST_PARTS:
                raise ReleaseError("Unpack the code", "its links have too many targets to check.", "Remove some links.")
            if part == "..":
                here = os.path.dirname(here)  # noqa: PTH120 - a string
            elif part not in ("", "."):
                here = f"{here.rstrip('/')}/{part}"
                if here in above:
                    # A loop leads nowhere. The kernel refuses it.
                    is_known = False
                elif (inner := _target(here)) is not None:
                    here, known = self._end(here, inner, above)
                    is_known = is_known and known
        if is_known:
            self._ends[link] = here
        return here, is_known


def _target(path: str) -> str | None:
    """Return the target of a link; None if there is no link."""
    try:
        return os.readlink(path)  # noqa: PTH115 - a string
    except OSError:
        return None


def too_large() -> ReleaseError:
    return ReleaseError(
        "Unpack the code",
        f"the source is larger than {LARGEST_SOURCE >> 20} MB unpacked, or has more than {MOST_ENTRIES} files.",
        "Remove everything from the source that is not code. Data belongs in a folder that is listed in persistent.",
    )


def _expand(archive: Path, plain: Path) -> Path:
    """Decompress an archive up to a limit. tar has no limit, and needs the program xz, which a minimal Debian lacks.

    Args:
        archive: the archive.
        plain: the file to write.

    Returns:
        The uncompressed file; ``archive`` itself if it is not compressed.
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
    """Decompress like lzma.open(), but with a memory limit: lzma.open() uses as much memory as the file requests."""
    rest = b""
    while data := rest or packed.read(_BLOCK):
        # Zeros can stand between the streams of one file, and at its end.
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
    """Reject an archive that contains too much, before anything is unpacked."""
    if plain.stat().st_size > LARGEST_SOURCE:
        raise too_large()
    with plain.open("rb") as stream:
        for _number in range(MOST_ENTRIES + 1):
            block = stream.read(tarfile.BLOCKSIZE)
            if not block.strip(b"\0"):
                # Two such blocks end an archive, and tar ignores everything after the first. An empty file has none.
                return
            try:
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise ReleaseError(
                    "Unpack the code",
                    f"tar failed: the archive is incomplete ({error}).",
                    "Correct the source (a .tar.gz, .tar.xz or .tar).",
                ) from None
            if member.size < 0 or (not member.isreg() and member.size > _LONGEST_PROPERTY):
                raise too_large()
            if member.isreg() or member.type not in tarfile.SUPPORTED_TYPES or member.type in _PROPERTIES:
                stream.seek(-(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
    raise too_large()


def read_text(path: Path, longest: int, step: str) -> str:
    """Read a text file of the source, which must fit into memory.

    Args:
        path: the file.
        longest: maximum number of bytes.
        step: the step, for the message.

    Raises:
        ReleaseError: the file is longer.
    """
    with path.open("rb") as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise ReleaseError(step, f"{path.name} is longer than {longest >> 10} KB.", "Shorten it.")
    return content.decode("utf-8", "replace")


def _strip_top(folder: Path) -> None:
    """Replace a folder by its only subfolder. Do nothing if the folder contains more than that."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        # Through a temporary name next to it: the top folder can contain an entry with its own name.
        aside = folder.with_name(f"{folder.name}.top")
        entries[0].rename(aside)
        folder.rmdir()
        aside.rename(folder)


def code_mode(mode: int) -> int:
    """Return the permissions of a file or folder of code: readable for the app's group, writable only for root."""
    return 0o750 if stat.S_ISDIR(mode) or mode & 0o100 else 0o640


def seal(folder: Path, group: int) -> None:
    """Give a code tree to root: readable for the app's group, writable only for root, closed to everyone else."""
    os.chown(folder, 0, group)
    folder.chmod(0o750)
    for entry in tree.walk(folder, DEEPEST_SOURCE):
        os.chown(entry.name, 0, group, dir_fd=entry.folder, follow_symlinks=False)
        mode = os.stat(entry.name, dir_fd=entry.folder, follow_symlinks=False).st_mode
        if not stat.S_ISLNK(mode):
            os.chmod(entry.name, code_mode(mode), dir_fd=entry.folder)
