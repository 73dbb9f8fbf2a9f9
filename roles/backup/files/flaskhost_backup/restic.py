"""restic: the local repository of files, and the second repository of files and database backups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flaskhost_backup import tools
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.explain import explain
from flaskhost_backup.tools import Done

#: The tags of snapshots of files, and of the database's repository.
FILES, DATABASE = "files", "database"
#: Time limit for a query in seconds, including the connection to a remote repository.
ASK_SECONDS = 180.0
#: Time limit in seconds for the first query to an HTTP store, before a long run.
REACH_SECONDS = 60.0
#: Time limit in seconds for a copy of the database's repository, so that a stuck copy ends.
COPY_SECONDS = 3600.0 * 6
#: restic's exit status if some files could not be read.
SOME_UNREAD = 3


@dataclass(frozen=True)
class Snapshot:
    """One snapshot.

    Attributes:
        id: its ID.
        at: when it was created, in seconds since 1970.
        host: the host that created it.
        paths: the paths in it.
        tags: its tags.
    """

    id: str
    at: float
    host: str
    paths: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def system(self) -> str:
        """Return the system identifier of the cluster whose repository is in it."""
        return next((tag.partition("-")[2] for tag in self.tags if tag.startswith("system-")), "")


@dataclass(frozen=True)
class Taken:
    """The result of a backup of files.

    Attributes:
        snapshot: the snapshot's ID.
        files: the number of files in it.
        size: their bytes.
        added: the new bytes.
        warnings: the files that could not be read.
    """

    snapshot: str
    files: int
    size: int
    added: int
    warnings: tuple[str, ...] = ()


def parse_snapshots(text: str) -> list[Snapshot]:
    """Parse the output of ``restic snapshots --json``, oldest first."""
    found: list[dict[str, Any]] = json.loads(text or "[]") or []
    snapshots = [
        Snapshot(
            id=item["short_id"],
            at=_seconds(item["time"]),
            host=item["hostname"],
            paths=tuple(item["paths"]),
            tags=tuple(item.get("tags") or ()),
        )
        for item in found
    ]
    return sorted(snapshots, key=lambda item: item.at)


def _seconds(text: str) -> float:
    """Parse a time in restic's form, with nanoseconds and an offset."""
    head, _dot, tail = text.partition(".")
    if tail:
        digits = tail.rstrip("Z").partition("+")[0].partition("-")[0]
        text = head + "." + digits[:6].ljust(6, "0") + tail[len(digits) :]
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def with_login(repository: str, variables: Mapping[str, str]) -> str:
    """Return the URL of a REST server with the login from the variables, which Debian 12's restic does not read.

    Args:
        repository: restic's URL of the repository.
        variables: ``RESTIC_REST_USERNAME`` and ``RESTIC_REST_PASSWORD``, and others.
    """
    user, password = variables.get("RESTIC_REST_USERNAME", ""), variables.get("RESTIC_REST_PASSWORD", "")
    scheme, there, rest = repository.partition("://")
    if not (repository.startswith("rest:") and there and user):
        return repository
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


class Restic:
    """restic's commands for one repository.

    Args:
        config: the program's configuration.
        repository: restic's URL of the repository.
        where: the repository's name in messages, with a capital letter.
        options: restic's ``-o`` options for it.
    """

    def __init__(self, config: Config, repository: str, where: str, options: Sequence[str] = ()) -> None:
        self.config, self.repository, self.where, self.options = config, repository, where, options
        self.folder = Path(repository) if repository.startswith("/") else None

    def run(self, *arguments: str, timeout: float | None = None) -> Done:
        """Run a command, and return its result. The locks of killed runs are removed first if they are in the way."""
        done = self._run(*arguments, timeout=timeout)
        if done.status and "already locked" in done.text:
            # It only removes the locks of processes that no longer exist.
            self._run("unlock", timeout=ASK_SECONDS)
            done = self._run(*arguments, timeout=timeout)
        return done

    def _run(self, *arguments: str, timeout: float | None = None) -> Done:
        config = self.config
        variables = {
            "RESTIC_REPOSITORY": self.repository,
            "RESTIC_PASSWORD_FILE": str(config.secrets / "passphrase"),
            "RESTIC_CACHE_DIR": str(config.cache),
            "RESTIC_PROGRESS_FPS": "0.01",
            "GOMAXPROCS": "2",
        }
        if self.repository == config.second:
            variables |= config.login
            variables["RESTIC_REPOSITORY"] = with_login(self.repository, variables)
        options = [item for option in self.options for item in ("-o", option)]
        return tools.run(["restic", *options, *arguments], env=variables, timeout=timeout)

    def ask(self, *arguments: str, timeout: float | None = ASK_SECONDS) -> Done:
        """Run a command that must succeed.

        Raises:
            BackupError: the command failed.
        """
        done = self.run(*arguments, timeout=timeout)
        if done.status:
            raise explain(done, self.where, self.folder)
        return done

    def make(self) -> bool:
        """Create the repository. An existing one stays unchanged.

        Returns:
            Whether it was created.

        Raises:
            BackupError: it can be neither created nor opened.
        """
        done = self.run("cat", "config", timeout=ASK_SECONDS)
        if not done.status:
            return False
        missing = "unable to open config file" in done.text or "repository does not exist" in done.text
        if not missing or "onnection refused" in done.text or "no such host" in done.text:
            raise explain(done, self.where, self.folder)
        self.ask("init")
        return True

    def reach(self) -> None:
        """Check that the repository can be reached and opened.

        Since 0.17, restic retries for 15 minutes if a store is down, and a backup blocks all other runs meanwhile.
        Over SFTP and on this host, it fails immediately.

        Raises:
            BackupError: it cannot be reached or opened.
        """
        if not self.folder and not self.repository.startswith("sftp:"):
            self.ask("cat", "config", "--no-lock", timeout=REACH_SECONDS)

    def snapshots(self, tag: str, hosts: Iterable[str] = ()) -> list[Snapshot]:
        """List the snapshots with a tag, oldest first.

        Args:
            tag: FILES or DATABASE.
            hosts: the hosts whose snapshots to list; all hosts if empty.
        """
        wanted = [item for host in hosts for item in ("--host", host)]
        return parse_snapshots(self.ask("snapshots", "--json", "--no-lock", "--tag", tag, *wanted).out)

    def backup(
        self, tags: Sequence[str], paths: Iterable[Path], exclude: Iterable[str] = (), timeout: float | None = None
    ) -> Taken:
        """Create a snapshot.

        Args:
            tags: its tags.
            paths: the paths to back up; missing ones are left out.
            exclude: patterns of files to leave out.
            timeout: time limit in seconds.

        Raises:
            BackupError: the backup failed, or a file could not be read. A file that vanishes meanwhile is no error.
        """
        there = [str(path) for path in paths if path.exists()]
        if not there:
            raise BackupError("None of the files to back up exists.", "Run site.yml, which creates the apps' folders.")
        arguments = [item for tag in tags for item in ("--tag", tag)]
        arguments += [item for pattern in exclude for item in ("--exclude", pattern)]
        done = self.run(
            "backup", "--json", "--quiet", "--host", self.config.host, *arguments, "--", *there, timeout=timeout
        )
        messages = tools.json_lines(done.out)
        summary = next((item for item in messages if item.get("message_type") == "summary"), {})
        if done.status == SOME_UNREAD and summary.get("snapshot_id"):
            # A file can be deleted while it is read.
            unread = tuple(line.strip() for line in done.err.splitlines() if line.strip())
            if any("ermission denied" in line or "input/output error" in line for line in unread):
                raise BackupError(
                    f"{self.where}: some files could not be read: {unread[0][:200]}.", "Check them: ls -l, and dmesg."
                )
        elif done.status or not summary.get("snapshot_id"):
            raise explain(done, self.where, self.folder)
        else:
            unread = ()
        return Taken(
            snapshot=str(summary["snapshot_id"])[:8],
            files=int(summary.get("total_files_processed") or 0),
            size=int(summary.get("total_bytes_processed") or 0),
            added=int(summary.get("data_added") or 0),
            warnings=unread,
        )

    def forget(self, tag: str, keep_days: int, *, prune: bool) -> None:
        """Remove old snapshots. Keep all of the last day, one for each day before, and three of any age."""
        hours = ["--keep-within-hourly", "2d"] if tag == DATABASE else ["--keep-within", "1d"]
        self.ask(
            "forget", "--tag", tag, "--host", self.config.host, "--group-by", "host", "--keep-last", "3", *hours,
            "--keep-within-daily", f"{keep_days}d", *(["--prune"] if prune else []), timeout=None,
        )  # fmt: skip

    def restore(self, snapshot: str, target: Path, include: Iterable[str] = ()) -> None:
        """Restore a snapshot, or a part of it, below a folder, and verify the written files.

        Args:
            snapshot: its ID.
            target: the folder; each file gets its full path below it.
            include: folders and files of the snapshot; all if empty.
        """
        wanted = [item for path in include for item in ("--include", path)]
        self.ask("restore", snapshot, "--target", str(target), "--verify", *wanted, timeout=None)

    def check(self, part: str = "") -> None:
        """Check the integrity of the repository.

        Args:
            part: the share of the data to read and compare, such as ``5%``; all of it if empty.
        """
        data = f"--read-data-subset={part}" if part else "--read-data"
        self.ask("check", data, timeout=None)

    def unlock(self) -> None:
        """Remove the locks of killed runs. Locks of running processes are kept."""
        self.ask("unlock")


def local(config: Config) -> Restic:
    """Return the local repository of files."""
    return Restic(config, str(config.files_repository), f"The local repository of files ({config.files_repository})")


def second(config: Config) -> Restic:
    """Return the second repository.

    Raises:
        BackupError: no second repository is configured.
    """
    if not config.second:
        raise BackupError(
            "There is no second repository.", "Set backup.second.repository, then run site.yml (docs/backup.md)."
        )
    return Restic(config, config.second, "The second repository", config.second_options)
