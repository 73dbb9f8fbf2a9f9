"""Where a site's pair lies on the host, and how it changes: by one rename, so that nginx never reads half a pair.

``fullchain.pem`` and ``privkey.pem`` are links into ``current``, which is a link to one of ``versions/<fingerprint>``.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.failures import system_error

from flaskhost_certificates import pairs
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.pairs import Pair

#: So many versions are kept, the current one among them; and as many of what could not be used.
KEPT = 3
#: What could not be used is kept as a version whose name begins so: it is no pair, but may be somebody's only copy.
REPLACED = "replaced-"
_PARTIAL = ".partial"


class Store:
    """The pair of one site.

    Args:
        certificate: the final path of the certificate and its chain.
        key: the final path of the private key, in the same folder, which holds nothing but this pair and what belongs
            to it.

    Raises:
        CertificateError: the two are not in one folder, so that no single rename could change both.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        if certificate.parent != key.parent or certificate.name == key.name:
            reason = f"{certificate} and {key} are not two files of one folder."
            raise CertificateError(reason, "Name a folder that belongs to the site alone.")
        self.certificate, self.key = certificate, key
        self.folder = certificate.parent
        self.versions, self.link = self.folder / "versions", self.folder / "current"

    def installed(self) -> Pair | None:
        """What nginx would read now; None where one of the files is missing.

        Raises:
            CertificateError: the files are there and cannot be used.
        """
        return pairs.load(self.certificate, self.key)

    def current(self) -> str:
        """The fingerprint of the version that is current; empty where there is none."""
        name = self._target()
        return "" if name.startswith(REPLACED) else name

    def install(self, pair: Pair) -> bool:
        """Put a pair in place; killed at any moment, it can be repeated, and nginx reads the old pair or the new one.

        Plain files, of an earlier release of this project or of an operator, become a version first.

        Returns:
            Whether another pair than before is in place, or plain files have become a version: nginx has to load it.

        Raises:
            CertificateError: the key does not belong to the certificate, or the disk refuses. What was in place is.
        """
        if not pair.fits:
            reason = (
                f"The pair for {self.folder} was not installed: its private key does not belong to its certificate."
            )
            raise CertificateError(reason, "What was there before is still in place.")
        with _in_a_sentence(f"The certificate in {self.folder} could not be installed"):
            self._make_folders()
            self._sweep()
            changed = not self._holds(pair)
            if changed:
                self._adopt()
                self._write(pair.fingerprint, self._files(pair))
                # Before and after: whoever compares times, and loads the files in between, must not miss the change.
                self._make_younger(pair.fingerprint)
                self._point(pair.fingerprint)
                self._make_younger(pair.fingerprint)
            self._correct_modes()
            self._prune()
        return changed

    def remove(self) -> None:
        """Take the site's folder away with all that is in it; nothing where it is gone already.

        Raises:
            CertificateError: the disk refuses.
        """
        with _in_a_sentence(f"The folder {self.folder} could not be removed"):
            if self.folder.is_dir():
                shutil.rmtree(self.folder)

    # --- What is there -----------------------------------------------------------------------------------------------

    def _target(self) -> str:
        return self.link.readlink().name if self.link.is_symlink() else ""

    def _is_linked(self, path: Path) -> bool:
        return path.is_symlink() and str(path.readlink()) == f"{self.link.name}/{path.name}"

    def _holds(self, pair: Pair) -> bool:
        linked = self._is_linked(self.certificate) and self._is_linked(self.key)
        return linked and self._target() == pair.fingerprint and self._contents(self._target()) == self._files(pair)

    def _files(self, pair: Pair) -> dict[str, bytes]:
        return {self.certificate.name: pair.chain, self.key.name: pair.key}

    def _contents(self, version: str) -> dict[str, bytes]:
        names = (self.certificate.name, self.key.name)
        paths = [self.versions / version / name for name in names if version]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    # --- What is changed ---------------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True)
        if not self.versions.is_dir():
            self.versions.mkdir(mode=0o700)

    def _sweep(self) -> None:
        """Remove what killed runs have left."""
        for path in self.versions.glob(f"*{_PARTIAL}"):
            shutil.rmtree(path)
        for path in (self.link, self.certificate, self.key):
            _partial(path).unlink(missing_ok=True)

    def _adopt(self) -> None:
        """Make links of plain files, by way of a version that holds the same: nobody sees a difference."""
        files = [path for path in (self.certificate, self.key) if path.is_file()]
        if not all(map(self._is_linked, files)):
            self._point(self._keep(files))
        for path in (self.certificate, self.key):
            atomic.link(path, f"{self.link.name}/{path.name}")
        atomic.sync(self.folder)

    def _keep(self, files: list[Path]) -> str:
        """Make a version of what is read at the final paths, and say its name."""
        try:
            pair = self.installed()
        except CertificateError:
            pair = None
        if pair is not None:
            self._write(pair.fingerprint, self._files(pair))
            return pair.fingerprint
        contents = {path.name: path.read_bytes() for path in files}
        if self._contents(self._target()) == contents:
            return self._target()  # an earlier run was killed when it had got so far
        return self._set_aside(contents, max(path.stat().st_ctime for path in files))

    def _set_aside(self, contents: Mapping[str, bytes], changed_at: float) -> str:
        """Keep what is no pair as a version, once, and say its name."""
        name, number = f"{REPLACED}{int(changed_at)}", 1
        while (self.versions / name).exists() and self._contents(name) != contents:
            number += 1
            name = f"{REPLACED}{int(changed_at)}-{number}"
        self._write(name, contents)
        return name

    def _write(self, name: str, contents: Mapping[str, bytes]) -> None:
        """Make a version, whole or not at all; one that is there and holds something else is set aside."""
        path, present = self.versions / name, self._contents(name)
        if path.exists() and present == contents:
            return
        if path.exists():
            aside = self._set_aside(present, path.stat().st_ctime)
            if self._target() == name:
                self._point(aside)
            self._drop(path)
        partial = _partial_folder(path)
        partial.mkdir(mode=0o700)
        for filename, data in contents.items():
            atomic.create(partial / filename, data, mode=self._mode(name, filename))
        atomic.sync(partial)
        os.rename(partial, path)  # noqa: PTH104 - the same call, and the one that this rests on
        atomic.sync(self.versions)

    def _mode(self, version: str, filename: str) -> int:
        # What could not be understood may be a key under a certificate's name.
        return 0o644 if filename == self.certificate.name and not version.startswith(REPLACED) else 0o600

    def _point(self, name: str) -> None:
        atomic.link(self.link, f"{self.versions.name}/{name}")
        atomic.sync(self.folder)

    def _make_younger(self, name: str) -> None:
        """Set the time of the inodes' change to now: an older version that is back counts as new.

        Whether nginx has loaded a file is told by that time (the module configured_service). The folder's own time of
        change tells :meth:`_prune` which versions are the last.
        """
        for path in (self.versions / name).iterdir():
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        now = time.time_ns()
        os.utime(self.versions / name, ns=(now, now))

    def _correct_modes(self) -> None:
        version = self.versions / self._target()
        wanted = {self.folder: 0o700, self.versions: 0o700, version: 0o700}
        wanted |= {path: self._mode(version.name, path.name) for path in version.iterdir()}
        for path, mode in wanted.items():
            if path.stat().st_mode & 0o7777 != mode:
                path.chmod(mode)

    def _prune(self) -> None:
        """Remove all versions but the last ones, those that could not be used being counted apart."""
        target = self._target()
        others = [path for path in self.versions.iterdir() if path.name != target]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        replaced = [path for path in others if path.name.startswith(REPLACED)]
        usable = [path for path in others if not path.name.startswith(REPLACED)]
        for path in usable[KEPT - 1 :] + replaced[KEPT:]:
            self._drop(path)

    def _drop(self, path: Path) -> None:
        # Out of sight at once: half a version must never be taken for a whole one.
        partial = _partial_folder(path)
        os.rename(path, partial)  # noqa: PTH104 - as above
        shutil.rmtree(partial)


def write_file(path: Path, data: bytes, mode: int) -> bool:
    """Make a file hold something, by a rename: nobody reads half of it.

    Args:
        path: the file, in a folder that is there.
        data: what it shall hold.
        mode: its permissions, whatever the umask.

    Returns:
        Whether it was another before, or had other permissions.

    Raises:
        CertificateError: the disk refuses; the file is as it was.
    """
    with _in_a_sentence(f"The file {path} could not be written"):
        if path.is_file() and path.read_bytes() == data and path.stat().st_mode & 0o7777 == mode:
            return False
        atomic.write(path, data, mode=mode)
        atomic.sync(path.parent)
        return True


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PARTIAL}")


def _partial_folder(path: Path) -> Path:
    return path.with_name(f"{path.name}{_PARTIAL}")


@contextmanager
def _in_a_sentence(what: str) -> Iterator[None]:
    """Tell an operator what the disk refused."""
    try:
        yield
    except OSError as error:
        cure = "What was there before is still in place. Correct that, and run the same command again."
        raise CertificateError(f"{what}: {system_error(error)}.", cure) from None
