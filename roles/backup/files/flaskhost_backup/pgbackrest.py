"""pgBackRest: the contents of its repository, and its commands for backups and restores."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from flaskhost_backup import tools
from flaskhost_backup.config import STANZA, BackupError, Config
from flaskhost_backup.explain import explain
from flaskhost_backup.tools import Done

#: Time limit for a query in seconds.
ASK_SECONDS = 120.0
#: The name of a WAL segment.
SEGMENT = re.compile(r"[0-9A-F]{24}")
#: Lines of ``pgbackrest verify``: a damaged segment, the number of files by kind of error, and the log.
_BAD_SEGMENT = re.compile(r"(?:file missing|invalid \w+) '[^'\n]*/([0-9A-F]{24})-[^'\n/]*'")
_COUNTS = re.compile(r"(missing|checksum invalid|size invalid|other): ")
_LOG = re.compile(r"\d{4}-\d\d-\d\d \S+ P\d+ ")


@dataclass(frozen=True)
class Backup:
    """One backup of the cluster.

    Attributes:
        label: its name.
        kind: full, diff or incr.
        start: when it began, in seconds since 1970.
        stop: when it was complete.
        start_lsn: the first WAL position that it needs.
        stop_lsn: the last one.
        size: bytes of the cluster.
        stored: its bytes in the repository.
        faulty: whether it contains damaged pages.
        system: the cluster's system identifier.
        timeline: the timeline that it was taken on.
        first_wal: the first WAL segment that it needs.
    """

    label: str
    kind: str
    start: int
    stop: int
    start_lsn: str
    stop_lsn: str
    size: int
    stored: int
    faulty: bool
    system: str
    timeline: int
    first_wal: str = ""


@dataclass(frozen=True)
class Info:
    """The contents of a repository.

    Attributes:
        there: whether it exists.
        problem: why it cannot be read; empty if it can.
        backups: the backups, oldest first.
        system: the system identifier of its cluster; empty if there is none.
        version: that cluster's major version.
        newest_wal: the name of the newest WAL segment.
        former: the system identifiers of the cluster before its upgrades to other major versions.
        copied: whether there is also a second repository.
    """

    there: bool
    problem: str
    backups: tuple[Backup, ...]
    system: str
    version: str
    newest_wal: str
    former: tuple[str, ...] = ()
    copied: bool = False


@dataclass(frozen=True)
class Verified:
    """The damaged or missing files of a repository, as reported by pgBackRest.

    Attributes:
        backups: the problem of each invalid backup, by label.
        segments: the names of the damaged WAL segments.
        rest: all other complaints, a line each.
    """

    backups: dict[str, str]
    segments: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


def parse_verify(text: str) -> Verified:
    """Parse the output of ``pgbackrest verify --output=text --log-level-console=info`` for a damaged repository.

    Args:
        text: the log, with the names of the files, followed by the result.
    """
    segments = sorted(set(_BAD_SEGMENT.findall(text)))
    backups: dict[str, str] = {}
    rest: list[str] = []
    for line in (line.strip() for line in text.rpartition("status: error")[2].splitlines()):
        found = re.match(r"backup: (\S+), status: ([a-z -]+)", line)
        if found:
            backups[found[1]] = found[2]
        elif backups and _COUNTS.match(line):
            backups[next(reversed(backups))] = line
        elif rest and _COUNTS.match(line):
            rest[-1] += f", {line}"
        elif line and not _LOG.match(line):
            rest.append(line)
    if segments:
        rest = [line for line in rest if not line.startswith("archiveId:")]
    return Verified(backups, tuple(segments), tuple(rest))


def parse_info(text: str) -> Info:
    """Parse the output of ``pgbackrest info --output=json``.

    Raises:
        ValueError, KeyError, TypeError, IndexError: the output has another form.
    """
    stanza: dict[str, Any] = json.loads(text)[0]
    state = stanza["repo"][0]["status"] if stanza.get("repo") else stanza["status"]
    systems = {item["id"]: str(item["system-id"]) for item in stanza["db"]}
    newest = stanza["db"][-1] if stanza["db"] else {}
    # Each version of the cluster has its own archive. The last one belongs to the current version.
    archives = [item for item in stanza["archive"] if item["database"]["id"] == newest.get("id")]
    return Info(
        there=state["code"] in (0, 2, 4),
        problem=state["message"] if state["code"] == 99 else "",
        backups=tuple(_backup(item, systems) for item in stanza["backup"]),
        system=str(newest.get("system-id", "")),
        version=str(newest.get("version", "")),
        newest_wal=max((item.get("max") or "" for item in archives), default=""),
        former=tuple(str(item["system-id"]) for item in stanza["db"][:-1]),
    )


def _backup(item: dict[str, Any], systems: dict[int, str]) -> Backup:
    info, lsn = item["info"], item.get("lsn") or {}
    return Backup(
        label=item["label"],
        kind=item["type"],
        start=int(item["timestamp"]["start"]),
        stop=int(item["timestamp"]["stop"]),
        start_lsn=lsn.get("start") or "",
        stop_lsn=lsn.get("stop") or "",
        size=int(info["size"]),
        stored=int(info["repository"].get("delta") or 0),
        faulty=bool(item.get("error")),
        system=systems.get(item["database"]["id"], ""),
        timeline=int((item["archive"]["stop"] or "00000001")[:8], 16),
        first_wal=item["archive"]["start"] or "",
    )


class PgBackRest:
    """pgBackRest's commands for one repository of the cluster.

    Args:
        config: the program's configuration.
        repository: the folder of the repository, if it differs from the default, such as that of a fetched copy.
        where: the repository's name in messages, with a capital letter.
    """

    def __init__(self, config: Config, repository: Path | None = None, where: str = "The local repository") -> None:
        self.config, self.cluster = config, config.need_cluster()
        self.repository = repository or config.database_repository
        self.where = where if repository else f"{where} ({self.repository})"

    def _command(self, verb: str, *arguments: str) -> list[str]:
        return [
            "pgbackrest",
            f"--config={self.config.pgbackrest}",
            f"--stanza={STANZA}",
            *([f"--repo1-path={self.repository}"] if self.repository != self.config.database_repository else []),
            *arguments,
            verb,
        ]

    def _run(self, verb: str, *arguments: str, timeout: float | None = None, opened: bool = False) -> Done:
        done = tools.run(self._command(verb, *arguments), user=self.cluster.user, timeout=timeout)
        if done.status:
            raise explain(done, self.where, self.repository, opened=opened)
        return done

    def info(self) -> Info:
        """Read the contents of the repository.

        Raises:
            BackupError: the repository cannot be read.
        """
        done = self._run("info", "--output=json", timeout=ASK_SECONDS)
        try:
            found = parse_info(done.out)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            if "FormatError" in done.out or "CryptoError" in done.out:
                # pgBackRest quotes data that it could not decrypt, which is not JSON either.
                raise explain(Done(1, "", done.out), self.where) from None
            raise BackupError(
                f"pgBackRest's information about its repository cannot be parsed ({type(error).__name__}).",
                "See sudo -u postgres pgbackrest info",
            ) from None
        if found.problem:
            raise explain(Done(1, "", found.problem), self.where)
        return replace(found, copied=bool(self.config.second) and self.repository == self.config.database_repository)

    def make(self) -> None:
        """Create the repository for this host's cluster. An existing one stays unchanged."""
        self._run("stanza-create", timeout=ASK_SECONDS)

    def upgrade(self) -> None:
        """Record that the cluster has a new major version. The backups of the old one are kept."""
        self._run("stanza-upgrade", timeout=ASK_SECONDS)

    def check(self) -> None:
        """Check WAL archiving: PostgreSQL switches to a new segment, and pgBackRest waits for the old one."""
        self._run("check", timeout=ASK_SECONDS)

    def backup(self, kind: str) -> None:
        """Create a backup.

        Args:
            kind: full or diff.
        """
        self._run("backup", f"--type={kind}")

    def restore(self, folder: Path, *arguments: str) -> Done:
        """Restore into an empty folder.

        Args:
            folder: the new data folder, which belongs to the user postgres.
            arguments: the backup and the target, as pgBackRest's options.
        """
        # The repository was read before, so the passphrase is known to be correct.
        return self._run("restore", f"--pg1-path={folder}", *arguments, opened=True)

    def get(self, path: Path) -> str:
        """Read and decrypt a file of the repository.

        Args:
            path: its path in the repository.

        Raises:
            BackupError: it cannot be read.
        """
        # The path comes after the command's name.
        command = [*self._command("repo-get"), str(path)]
        done = tools.run(command, user=self.cluster.user, timeout=ASK_SECONDS)
        if done.status:
            raise explain(done, self.where, self.repository)
        return done.out

    def verify(self) -> Verified:
        """Compare everything in the repository with its checksums.

        Raises:
            BackupError: the check could not run.
        """
        # At this log level, pgBackRest names the files.
        done = tools.run(self._command("verify", "--output=text", "--log-level-console=info"), user=self.cluster.user)
        if "status: error" in done.out:
            return parse_verify(done.out)
        if done.status:
            raise explain(done, self.where)
        return Verified({})

    def expire(self, label: str) -> None:
        """Delete a backup, with those that depend on it."""
        self._run("expire", f"--set={label}")

    def push(self, segment: Path, data: Path) -> None:
        """Archive a finished segment that PostgreSQL could not archive itself."""
        command = [*self._command("archive-push", f"--pg1-path={data}"), str(segment)]
        done = tools.run(command, user=self.cluster.user, timeout=ASK_SECONDS)
        if done.status:
            raise explain(done, self.where, self.repository)


def segment_timeline(name: str) -> int:
    """Return the timeline in the name of a segment."""
    return int(name[:8], 16)


def lsn(text: str) -> int:
    """Convert a WAL position to a number."""
    high, _slash, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def gaps(repository: Path, since: str = "") -> tuple[list[str], list[str]]:
    """Find gaps in the archived WAL: missing segments between two existing ones, on each timeline.

    Args:
        repository: pgBackRest's repository, on this host.
        since: the first segment that the newest backup needs.

    Returns:
        A sentence for each gap: those that affect the newest backup, and older ones.
    """
    found: dict[tuple[str, int], set[int]] = {}
    for archive, name in segments(repository):
        numbers = found.setdefault((archive, segment_timeline(name)), set())
        numbers.add(int(name[8:16], 16) * 256 + int(name[16:], 16))
    new: list[str] = []
    old: list[str] = []
    for (_archive, timeline), numbers in sorted(found.items()):
        for before, after in pairwise(sorted(numbers)):
            if after != before + 1:
                first = f"{timeline:08X}{(before + 1) // 256:08X}{(before + 1) % 256:08X}"
                what = f"The WAL has a gap: {after - before - 1} segments from {first} are missing."
                (new if first >= since else old).append(what)
    return new[:10], old[:10]


def segments(repository: Path) -> set[tuple[str, str]]:
    """Return the WAL segments in a repository on this host, each with the name of its archive."""
    found = set()
    for path in (repository / "archive" / STANZA).glob("*/*/*"):
        name = path.name[:24]
        # Unfinished files, and partial segments of abandoned timelines, have other endings.
        if SEGMENT.fullmatch(name) and path.name[24:25] in ("-", "") and not path.name.endswith(".tmp"):
            found.add((path.parent.parent.name, name))
    return found
