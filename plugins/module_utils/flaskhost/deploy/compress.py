"""Compress the static files of a release once, so that nginx does not compress them at each request.

nginx sends ``style.css.br`` or ``style.css.gz`` in place of ``style.css`` to clients that accept it (``brotli_static``
and ``gzip_static``). Nothing but the name connects the two, so a copy must never be next to a file that it was not made
from.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

#: The endings of compressed copies.
COPIES = (".br", ".gz")
#: Files whose content compresses, by their endings. Images, videos and WOFF fonts are compressed already.
KINDS = frozenset(
    ".css .csv .eot .htm .html .ico .js .json .map .md .mjs .otf .svg .ttf .txt .wasm .webmanifest .xml".split()
)
#: Bytes below which a copy is not worth it: the response fits into one packet (1,400 bytes) anyway.
SMALLEST = 1024
#: Limits of a repository's files, in bytes: of one file, and of all of them. The slowest texts take a second for about
#: 3 MB. nginx compresses the rest at each request, as it does with files of other releases.
LARGEST, ALL = 10 * 1024**2, 64 * 1024**2
#: Level of gzip. Level 9 makes files 1.5% smaller, but takes three seconds for 1 MB of random letters of two kinds.
GZIP_LEVEL = 7
#: Bytes that the name of a file can have.
LONGEST_NAME = 255
#: A copy must be this much smaller.
WORTH = 0.9


def _brotli() -> Callable[[bytes], bytes] | None:
    """Return Brotli's function; None if the host lacks its package."""
    try:
        import brotli  # noqa: PLC0415 - on the host only
    except ImportError:
        return None
    return lambda content: brotli.compress(content, quality=9)


def compress(published: Path) -> None:
    """Write compressed copies of the static files beside them.

    Args:
        published: the folder that the web server reads. Only root can write to it, and its files are root's. A copy
            that the app's repository has stays as it is.
    """
    encoders = {".gz": lambda content: gzip.compress(content, compresslevel=GZIP_LEVEL, mtime=0), ".br": _brotli()}
    left = ALL
    for path, size in _files(published):
        if size > left:
            continue
        left -= size
        content = path.read_bytes()
        for ending, encode in encoders.items():
            if encode and not os.path.lexists(f"{path}{ending}"):
                _write(path, ending, encode(content), len(content))


def _files(published: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files that are worth compressing, with their sizes."""
    for root, _folders, names in os.walk(published):
        for name in sorted(names):
            path = Path(root, name)
            if len(os.fsencode(name)) + len(COPIES[0]) > LONGEST_NAME:
                continue
            if path.suffix.lower() in KINDS and SMALLEST <= (size := path.stat().st_size) <= LARGEST:
                yield path, size


def _write(path: Path, ending: str, encoded: bytes, size: int) -> None:
    """Write a copy if it is small enough. It gets the file's time, from which nginx computes the ETag."""
    if len(encoded) > WORTH * size:
        return
    copy = Path(f"{path}{ending}")
    copy.write_bytes(encoded)
    copy.chmod(0o644)
    status = path.stat()
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))


def is_mismatch(name: str, target: Path, linked: set[str]) -> bool:
    """Check whether a file of another release would be next to a file that it does not belong to.

    Args:
        name: the file's name.
        target: the folder in which it would be published.
        linked: the names of the same folder that come from the same release.

    Returns:
        Whether it is a copy of a file that the folder has from elsewhere, or a file of which the folder has a copy.
    """
    plain = Path(name).stem
    if name.endswith(COPIES) and plain not in linked and os.path.lexists(target / plain):
        return True
    return any(f"{name}{copy}" not in linked and os.path.lexists(target / f"{name}{copy}") for copy in COPIES)
