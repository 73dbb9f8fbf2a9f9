"""The driver with which an app's packages connect to PostgreSQL, and the URL that names it for SQLAlchemy."""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible.module_utils.flaskhost.deploy.pins import normalized
from ansible.module_utils.flaskhost.host import atomic, tree
from ansible.module_utils.flaskhost.host.runner import ReleaseError

STEP = "Check the database driver"
#: The value of ``database_driver`` if the user names none.
AUTO = "auto"
#: The variable that names the driver.
VARIABLE = "SQLALCHEMY_DATABASE_URI"
#: The packages, each with the driver that it contains, in the order in which they are preferred.
PACKAGES = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "psycopg2-binary": "psycopg2",
    "pg8000": "pg8000",
    "asyncpg": "asyncpg",
}
#: Other drivers, for which the app makes its own URL.
_OTHERS = frozenset({"aiopg", "psqlpy", "psycopg2cffi", "py-postgresql", "pygresql"})
#: The requirements that a message names, by driver.
_PINNED = {"psycopg": "psycopg[binary]==3.3.9", "psycopg2": "psycopg2-binary==2.9.13"}
#: The folder for environment files of single commands: in memory, and only for root.
RUNTIME = Path("/run/flaskhost")
#: Maximum number of names that are read in a folder of an environment. The largest known ones have some 2,000.
_MOST = 20_000
_INFO = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)-(?P<version>[A-Za-z0-9.+!_]+)\.dist-info")
#: The URL as the wiring makes it; see :mod:`apps.record`.
_URL = re.compile(
    r"postgresql\+\w+://(?P<login>[a-z][a-z0-9-]*(?::[^\s\"'@/]*)?)@/(?P<name>[a-z][a-z0-9-]*)"
    r"\?host=(?P<folder>/[\w/]+)(?:&port=(?P<port>\d+))?"
)


def packages(environment: Path, *, from_index: bool = False) -> dict[str, str]:
    """Return the packages in a virtual environment and their versions, from names of folders alone.

    The packages' code is hostile: nothing of it is run or opened, and no link is followed.

    Args:
        environment: the virtual environment, or root's own link to it.
        from_index: whether to leave out what came from a URL or a folder. Its version does not decide what is
            installed.

    Returns:
        The versions by normalized name; empty if the environment does not exist.
    """
    found: dict[str, str] = {}
    top = Path(os.path.realpath(environment))
    with suppress(OSError), tree.folder(top, "lib") as library:
        for python in [name for name in _names(library) if re.fullmatch(r"python3\.\d{1,3}", name)]:
            with suppress(OSError), tree.folder(top, Path("lib", python, "site-packages")) as place:
                matches = [match for match in map(_INFO.fullmatch, _names(place)) if match]
                matches = [match for match in matches if not (from_index and _has_url(match[0], place))]
                found |= {normalized(match["name"]): match["version"] for match in matches}
    return found


def _has_url(info: str, place: int) -> bool:
    """Check for the file that only packages from a URL or a folder have."""
    try:
        os.stat(f"{info}/direct_url.json", dir_fd=place, follow_symlinks=False)
    except OSError:
        return False
    return True


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in itertools.islice(entries, _MOST))


def _sqlalchemy(there: Mapping[str, str]) -> tuple[int, ...]:
    """Return the first two numbers of SQLAlchemy's version; empty if it is not installed."""
    numbers = [int(number[:6]) for number in re.findall(r"\d+", there.get("sqlalchemy", ""))]
    return tuple([*numbers, 0][:2]) if numbers else ()


def usable(there: Mapping[str, str]) -> list[str]:
    """Return the installed drivers, the preferred one first, without those that SQLAlchemy is too old for.

    Args:
        there: the result of :func:`packages`.
    """
    version = _sqlalchemy(there)
    found = dict.fromkeys(driver for package, driver in PACKAGES.items() if package in there)
    # SQLAlchemy 2.0 was the first with a dialect for psycopg 3.
    return [driver for driver in found if driver != "psycopg" or not version or version >= (2, 0)]


def choose(there: Mapping[str, str], named: str) -> str:
    """Return the driver for the URL: the named one, or the preferred one of those installed; empty if there is none."""
    return named if named != AUTO else next(iter(usable(there)), "")


def find_fault(there: Mapping[str, str], named: str) -> tuple[str, str] | None:
    """Find out why SQLAlchemy could not connect with the packages of an app.

    Args:
        there: the result of :func:`packages`.
        named: the option ``database_driver``, or :data:`AUTO`.

    Returns:
        What is wrong and what works; None if a driver is there, or if the app does not use SQLAlchemy.
    """
    version = _sqlalchemy(there)
    if not version or _OTHERS & there.keys():
        return None
    shown, found = ".".join(map(str, version)), usable(there)
    if named != AUTO:
        if named in {driver for package, driver in PACKAGES.items() if package in there}:
            return None
        problem = f"database_driver is {named}, but the app's packages do not contain it."
        remedy = f" Or set database_driver: {found[0]}, which is installed." if found else ""
        line = f'extra_packages: ["{_PINNED[named]}"]' if named in _PINNED else f"{named}, in the lock file"
        return problem, f"Add it: {line}.{remedy}"
    if found:
        return None
    problem = f"the app has a PostgreSQL database and SQLAlchemy {shown}, but its packages contain no driver."
    if "psycopg" in there:
        problem = f"SQLAlchemy {shown} cannot use psycopg 3, and the app's packages contain no other driver."
    wanted = _PINNED["psycopg" if version >= (2, 0) else "psycopg2"]
    return problem, (
        f'Add one: extra_packages: ["{wanted}"], or the same in the lock file. If the app does not use the database: '
        "database: false."
    )


def check(there: Mapping[str, str], live: Mapping[str, str], named: str) -> str:
    """Require a driver for the app's database.

    Args:
        there: the packages of the new release.
        live: those of the live release; empty if there is none.
        named: the option ``database_driver``, or :data:`AUTO`.

    Returns:
        A warning instead, if the live release works with the same fault; otherwise empty.

    Raises:
        ReleaseError: there is none.
    """
    if not (fault := find_fault(there, named)):
        return ""
    problem, cure = fault
    if not find_fault(live, named):
        raise ReleaseError(STEP, problem, cure)
    return f"{problem} The live release has the same packages in this respect, so the deploy continues. {cure}"


def wrong_default(there: Mapping[str, str], missing: str) -> tuple[str, str] | None:
    """Check whether SQLAlchemy misses a driver only because a URL without a driver selects it.

    SQLAlchemy before 2.1 then takes psycopg2, and newer versions take psycopg.

    Args:
        there: the result of :func:`packages`.
        missing: the module that was not found.

    Returns:
        SQLAlchemy's version and the driver that is installed; None if there is another reason.
    """
    version, found = _sqlalchemy(there), usable(there)
    if not version or not found or missing != ("psycopg" if version >= (2, 1) else "psycopg2"):
        return None
    return None if missing in found else (".".join(map(str, version)), found[0])


def with_driver(text: str, driver: str) -> str:
    """Put a driver into each URL of Flaskhost's own in a text. Other URLs stay as they are.

    Args:
        text: such as ``postgresql+psycopg://shop@/shop?host=/var/run/postgresql``.
        driver: the driver; if empty, nothing is changed.
    """

    def replace(match: re.Match[str]) -> str:
        folder, port = match["folder"], match["port"]
        place = f"host={folder}" + (f"&port={port}" if port else "")
        if driver == "pg8000":
            # It has no folder of sockets as libpq has.
            place = f"unix_sock={folder}/.s.PGSQL.{port or 5432}"
        return f"postgresql+{driver}://{match['login']}@/{match['name']}?{place}"

    return _URL.sub(replace, text) if driver else text


def with_variable(variables: Mapping[str, str], driver: str) -> dict[str, str]:
    """Return an app's variables, with its driver in :data:`VARIABLE`; see :func:`with_driver`."""
    return {name: with_driver(value, driver) if name == VARIABLE else value for name, value in variables.items()}


@contextmanager
def owner_login(path: str, driver: str) -> Iterator[str]:
    """Provide the environment file with the owner's login, for the driver of one release.

    Args:
        path: the file that the role postgres writes; empty for none.
        driver: the release's driver; if empty, the URLs stay as they are.

    Yields:
        The path of the file: the same one, or a temporary one that is removed at the end.
    """
    text = Path(path).read_text(encoding="utf-8") if path and driver else ""
    wanted = with_driver(text, driver)
    if wanted == text:
        yield path
        return
    RUNTIME.mkdir(mode=0o700, exist_ok=True)
    own = RUNTIME / f"owner-{secrets.token_hex(8)}.env"
    try:
        atomic.write(own, wanted)
        yield str(own)
    finally:
        own.unlink(missing_ok=True)


def removal(files: list[str]) -> list[str]:
    """Return the properties of a unit that removes its temporary files even if the process that started it is gone."""
    own = [path for path in files if Path(path).parent == RUNTIME]
    return [f"ExecStopPost=-+/bin/rm --force {' '.join(own)}"] if own else []
