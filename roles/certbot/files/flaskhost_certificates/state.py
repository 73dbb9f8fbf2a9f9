"""What the program remembers of each certificate, and the lock that lets one run of it work at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import json_state
from ansible.module_utils.flaskhost.host import lock as lock_file

from flaskhost_certificates.config import CertificateError

#: The lock's file. The kernel lets go of it when its process ends, however it ends.
LOCK = Path("/run/lock/flaskhost-certificates.lock")
#: Seconds to wait for another run. An authority that is slow with one certificate takes a minute or two.
LOCK_SECONDS = 300.0
#: Environment variable that tells certbot's deploy hook that a run of this program waits for it and holds the lock.
LOCKED = "FLASKHOST_CERTIFICATES_LOCKED"


@dataclass
class State:
    """What is remembered of a certificate; times are seconds since 1970, 0 for never.

    Attributes:
        source: where the installed pair is from: acme, files, selfsigned, foreign (somebody put it there), or empty.
        trusted_since: since when a certificate that is trusted has been served without a break.
        not_before: do not ask the authority again before.
        error: the last failure, as a sentence; empty after a success.
        error_at: when that was.
        asked: the names that the authority was last asked for; empty where it never was.
        directory: the authority that was last asked.
        announced: the fingerprint of the pair that the hooks have been told of.
        folder: where the pair is installed, for the day that the site is dropped.
    """

    source: str = ""
    trusted_since: int = 0
    not_before: int = 0
    error: str = ""
    error_at: int = 0
    asked: tuple[str, ...] = ()
    directory: str = ""
    announced: str = ""
    folder: str = ""


def load(folder: Path, name: str) -> State:
    """Read what is remembered of a certificate.

    What cannot be read counts as never known: the rest of the host says enough to start over.

    Args:
        folder: the folder of the states.
        name: the certificate's name.
    """
    found = json_state.read(folder / f"{name}.json")
    return State(**{item.name: _value(item.default, found.get(item.name)) for item in fields(State)})


def _value(default: Any, found: Any) -> Any:
    """Take a value that has the type of the default, and the default instead of any other."""
    if isinstance(default, tuple):
        return tuple(map(str, found)) if isinstance(found, list) else default
    if isinstance(default, int):
        return int(found) if isinstance(found, int | float) and abs(found) < 1 << 53 else default
    return found if isinstance(found, str) else default


def save(folder: Path, name: str, state: State) -> bool:
    """Keep what is remembered of a certificate, in one rename; nothing is written where nothing is new.

    Returns:
        Whether it was written.
    """
    path = folder / f"{name}.json"
    if path.is_file() and load(folder, name) == state:
        return False
    json_state.write(path, asdict(state))
    return True


def names(folder: Path) -> list[str]:
    """The certificates of which something is remembered, in order."""
    return sorted(path.stem for path in folder.glob("*.json"))


def remove(folder: Path, name: str) -> None:
    """Forget a certificate."""
    (folder / f"{name}.json").unlink(missing_ok=True)


@contextlib.contextmanager
def lock(
    verb: str,
    path: Path = LOCK,
    seconds: float = LOCK_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock, waiting for another run to end.

    Args:
        verb: what this run does, for whoever finds the lock taken.
        path: the lock's file.
        seconds: how long to wait.
        pause: waits some seconds; another one in tests.

    Raises:
        CertificateError: another run is still at work after that time; it says which.
    """
    try:
        with lock_file.hold(path, verb, seconds, pause):
            yield
    except lock_file.Busy as error:
        reason = f"Another run of flaskhost-certificates ({error.holder}) is still at work."
        raise CertificateError(reason, "Wait until it has ended, then run the same command again.") from None
