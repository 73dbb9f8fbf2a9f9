"""The files of the program flaskhost-backup on a host, its timers, and how Ansible runs it and reads its answer.

The program itself is what the role backup ships: it runs by timers too, when no Ansible is near.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Whole names: Mitogen does not find what is imported by a relative one.
from ansible.module_utils.flaskhost import service_state
from ansible.module_utils.flaskhost.app_model import Option, with_defaults
from ansible.module_utils.flaskhost.environment import write_private
from ansible.module_utils.flaskhost.runner import Run, tail

#: The program.
PROGRAM = "/usr/local/sbin/flaskhost-backup"
#: What it is told.
CONFIG = "/etc/flaskhost/backup.json"
#: The folder of what only root reads: the passphrase, and how the second repository is reached.
SECRETS = "/etc/flaskhost/backup"
#: pgBackRest's settings; Debian's own file, /etc/pgbackrest.conf, is not read where this one is.
PGBACKREST = "/etc/pgbackrest/pgbackrest.conf"
#: A time of systemd's, as far as a typing error can be told: words, numbers, and what stands between them.
_CALENDAR = r"[A-Za-z0-9*,.:/~ \-]{1,120}"

#: The site's setting ``backup``.
BACKUP_OPTIONS: dict[str, Option] = {
    "passphrase": Option(
        "str",
        "What the backups are encrypted with; from ansible-vault. Without it there are none.",
        "{{ vault_backup_passphrase }}",
        default="",
    ),
    "second": Option(
        "options",
        "The second repository, on another host or in a store that speaks S3: without it the backups are lost with "
        "the host.",
        {"repository": "sftp:backup@203.0.113.20:/flaskhost/production1"},
        default={},
        options={
            "repository": Option(
                "str",
                "Where it is, as restic names it: sftp:USER@HOST:/PATH, s3:https://HOST/BUCKET or rest:https://HOST/. "
                "Each host needs one of its own.",
                "sftp:backup@203.0.113.20:/flaskhost/production1",
                default="",
                pattern=r"(?:/|(?:sftp|s3|rest|b2|azure|gs|swift):)[^\s\"'\\]+",
            ),
            "ssh_key": Option(
                "str",
                "The private key that SSH lets in, for sftp; from ansible-vault.",
                "{{ vault_backup_ssh_key }}",
                default="",
            ),
            "known_hosts": Option(
                "str",
                "The lines of ssh-keyscan of the other host, for sftp: nobody else is believed.",
                "203.0.113.20 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA...",
                default="",
            ),
            "environment": Option(
                "dict",
                "The variables that restic wants for it, AWS_ACCESS_KEY_ID for instance; the secret ones from "
                "ansible-vault.",
                {"AWS_ACCESS_KEY_ID": "backup", "AWS_SECRET_ACCESS_KEY": "{{ vault_backup_s3_secret }}"},
                default={},
            ),
            "every": Option(
                "int",
                "Minutes between two copies of the database to it: what is lost at most where the whole host is.",
                5,
                default=5,
                minimum=1,
                maximum=1440,
            ),
        },
    ),
    "path": Option(
        "str",
        "The folder of the local repository.",
        "/var/backups/flaskhost",
        default="/var/backups/flaskhost",
        pattern=r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/-]+[A-Za-z0-9_-]",
    ),
    "keep_days": Option(
        "int", "Days that can be gone back to.", 14, default=14, minimum=1, maximum=3650
    ),
    "full": Option(
        "str",
        "When a full backup is made, as systemd.time(7) has it, in the host's time zone.",
        "Sun *-*-* 02:15",
        default="Sun *-*-* 02:15",
        pattern=_CALENDAR,
    ),
    "diff": Option(
        "str",
        "When a backup of what has changed since is made.",
        "Mon..Sat *-*-* 02:15",
        default="Mon..Sat *-*-* 02:15",
        pattern=_CALENDAR,
    ),
    "drill": Option(
        "str",
        "When the newest backup is restored for a trial.",
        "Wed *-*-* 04:15",
        default="Wed *-*-* 04:15",
        pattern=_CALENDAR,
    ),
    "alert_hours": Option(
        "int", "Hours after which the last good backup is too old.", 26, default=26, minimum=1, maximum=8760
    ),
    "drill_days": Option(
        "int", "Days after which the last good drill is too old.", 8, default=8, minimum=1, maximum=3650
    ),
    "hook": Option(
        "str",
        "A program on the host that is told what is wrong, and its arguments: FLASKHOST_PROBLEM is in its environment, "
        "and all of it as JSON on its standard input.",
        "/usr/local/bin/tell-the-operator",
        default="",
        pattern=r"/\S.*",
    ),
    "assertions": Option(
        "dict",
        "A query for each database that says true where its data is as it should be; the drill asks it.",
        {"guestbook": "SELECT count(*) > 0 FROM entry"},
        default={},
    ),
    "paths": Option(
        "list",
        "Further folders and files of the hosts to keep.",
        ["/srv/reports"],
        default=[],
        pattern=r"/(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\"'\\]+",
    ),
    "exclude": Option(
        "list",
        "Patterns of files that are left out, as restic has them.",
        ["*.tmp"],
        default=[],
        pattern=r"[^\x00-\x1f]+",
    ),
}  # fmt: skip

#: The timers, and the verb of the program that each lets run.
TIMERS = ("full", "diff", "copy", "check", "drill")


class Refused(Exception):
    """A failure for the operator: a sentence, and the cure."""


def settings(backup: Mapping[str, Any] | None) -> dict[str, Any]:
    """Turn the site's setting ``backup`` into what the role reads.

    Args:
        backup: what the user wrote, already found valid by preflight; None or empty where nothing was.

    Returns:
        The keys of :data:`BACKUP_OPTIONS` with their defaults; ``second`` is empty where there is none, and its
        variables are texts.
    """
    found = with_defaults(dict(backup or {}), BACKUP_OPTIONS)
    found["passphrase"] = str(found["passphrase"] or "")
    if not found["second"]["repository"]:
        found["second"] = {}
    else:
        variables = found["second"]["environment"]
        found["second"]["environment"] = {str(name): str(value) for name, value in variables.items()}
    found["assertions"] = {str(name): str(value) for name, value in found["assertions"].items()}
    return found


# --- Files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A file to have on the host.

    Attributes:
        path: where.
        text: what is in it.
        mode: its permissions.
        group: whose group it has.
        shown: whether a diff may show what is in it.
    """

    path: Path
    text: str
    mode: int = 0o644
    group: str = "root"
    shown: bool = True

    def _group(self) -> int:
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            # In check mode on a bare host it is not there yet.
            return -1

    def is_there(self) -> bool:
        """Whether it is as it should be: text, permissions, owner and group."""
        try:
            status = self.path.lstat()
            same = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == self.mode
            same = same and status.st_uid == os.geteuid() and status.st_gid == self._group()
            return same and self.path.read_text(encoding="utf-8") == self.text
        except (OSError, UnicodeDecodeError):
            return False

    def write(self) -> None:
        """Put it in place at once: nobody ever reads half of it, or reads it before its permissions are set."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_private(self.path, self.text, 0o600)
        os.chown(self.path, -1, self._group())
        self.path.chmod(self.mode)

    def diff(self) -> dict[str, str]:
        """What `--diff` shows."""
        name = str(self.path)
        if not self.shown:
            return {"before_header": name, "after_header": name, "before": "", "after": "(not shown)\n"}
        try:
            before = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            before = ""
        return {"before_header": name, "after_header": name, "before": before, "after": self.text}


@dataclass(frozen=True)
class Folder:
    """A folder to have on the host.

    Attributes:
        path: where.
        owner: whose it is, user and group.
        mode: its permissions.
    """

    path: Path
    owner: str = "root"
    mode: int = 0o755

    def _owner(self) -> int:
        try:
            return pwd.getpwnam(self.owner).pw_uid
        except KeyError:
            return -1

    def is_there(self) -> bool:
        """Whether it is as it should be."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == self.mode and (
            status.st_uid == self._owner()
        )  # fmt: skip

    def make(self) -> None:
        """Make it, or give it its owner and permissions."""
        self.path.mkdir(parents=True, exist_ok=True)
        os.chown(self.path, self._owner(), pwd.getpwnam(self.owner).pw_gid)
        self.path.chmod(self.mode)


def program_files(program: Mapping[str, str], units: Mapping[str, str]) -> list[File]:
    """The files of the program and its units.

    Args:
        program: path to text.
        units: path to text.
    """
    # A diff of code says nothing to who reads it.
    files = [File(Path(path), text, 0o755 if path == PROGRAM else 0o644, shown=False) for path, text in program.items()]
    return files + [File(Path(path), text) for path, text in units.items()]


def settings_files(options: Mapping[str, Any]) -> list[File]:
    """What the program and pgBackRest are told.

    Args:
        options: ``passphrase``, ``second`` (``repository``, ``ssh_key``, ``known_hosts``, ``environment``; or empty),
            ``config`` (what becomes backup.json) and ``pgbackrest`` (its settings but for the passphrase; empty where
            the host has no PostgreSQL).

    Raises:
        Refused: a value has more than one line, and would be read as another setting.
    """
    passphrase, second = options["passphrase"], options.get("second") or {}
    if any(end in passphrase for end in "\n\r\x00"):
        raise Refused("backup.passphrase has more than one line. Write it as one line.")
    secrets = Path(SECRETS)
    config = {
        **options["config"],
        "enabled": bool(passphrase),
        "second": second.get("repository") or "",
        "second_options": sftp_options(second),
        "secrets": SECRETS,
        "pgbackrest": PGBACKREST,
    }
    files = [File(Path(CONFIG), json.dumps(config, indent=2, sort_keys=True) + "\n", 0o600)]
    if not passphrase:
        return files
    files += [
        File(secrets / "passphrase", f"{passphrase}\n", 0o600, shown=False),
        # What is not wanted is emptied, not left with a secret in it.
        File(secrets / "environment.json", json.dumps(second.get("environment") or {}, sort_keys=True) + "\n", 0o600,
             shown=False),
        File(secrets / "ssh_key", _lines(second.get("ssh_key")), 0o600, shown=False),
        File(secrets / "known_hosts", _lines(second.get("known_hosts")), 0o600),
    ]  # fmt: skip
    if options.get("pgbackrest"):
        text = options["pgbackrest"].replace("@PASSPHRASE@", passphrase)
        files.append(File(Path(PGBACKREST), text, 0o640, "postgres", shown=False))
    return files


def _lines(text: Any) -> str:
    text = str(text or "").strip()
    return f"{text}\n" if text else ""


def sftp_options(second: Mapping[str, Any]) -> list[str]:
    """restic's options for a repository that is reached by sftp: the key, and whom to believe.

    Args:
        second: ``repository``, such as ``sftp:backup@host:/path`` or ``sftp://backup@host:2222//path``.

    Returns:
        What comes after ``-o``; empty for another kind of repository.

    Raises:
        Refused: the place cannot be understood.
    """
    repository = str(second.get("repository") or "")
    if not repository.startswith("sftp:"):
        return []
    found = re.fullmatch(
        r"sftp://(?:([\w.-]+)@)?(\[[0-9a-fA-F:]+\]|[\w.-]+)(?::(\d+))?/.*", repository
    ) or re.fullmatch(r"sftp:(?:([\w.-]+)@)?([\w.-]+)():.+", repository)
    if not found:
        raise Refused(
            f"backup.second.repository: {repository} is not to be understood. "
            "Write sftp:USER@HOST:/PATH, or sftp://USER@HOST:PORT//PATH."
        )
    user, host, port = found.groups()
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=30"]
    words += ["-o", f"UserKnownHostsFile={SECRETS}/known_hosts", "-o", "StrictHostKeyChecking=yes"]
    if second.get("ssh_key"):
        words += ["-o", "IdentitiesOnly=yes", "-i", f"{SECRETS}/ssh_key"]
    words += ["-p", port] if port else []
    words += ["-l", user] if user else []
    return ["sftp.command=" + " ".join([*words, host.strip("[]"), "-s", "sftp"])]


def folders(path: str, *, cluster: bool) -> list[Folder]:
    """The folders of the repositories.

    Args:
        path: the folder of the local repositories.
        cluster: whether the host has a PostgreSQL.
    """
    found = [
        Folder(Path("/var/lib/flaskhost")),
        Folder(Path("/var/lib/flaskhost/backup")),
        Folder(Path(SECRETS), mode=0o700),
        Folder(Path(path)),
    ]
    if cluster:
        found.append(Folder(Path(path) / "postgres", "postgres", 0o750))
    return found


def missing(files: Iterable[File | Folder]) -> list[Any]:
    """The files and folders that are not as they should be."""
    return [file for file in files if not file.is_there()]


# --- The program -----------------------------------------------------------------------------------------------------


def ask(run: Run, arguments: Sequence[str]) -> dict[str, Any]:
    """Run the program and read its answer.

    Args:
        run: runs a command.
        arguments: the verb and its options; ``--json`` is added.

    Raises:
        Refused: it refuses, or does not run.
    """
    status, out, err = run([PROGRAM, *arguments, "--json"])
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and not status:
        return answer
    problems = answer.get("problems") if isinstance(answer, dict) else None
    text = "\n".join(problems) if problems else tail(err or out, 12).strip()
    raise Refused(text or f"{PROGRAM} ended with status {status} and said nothing.")


def timer_steps(run: Run, timers: Mapping[str, bool]) -> list[list[str]]:
    """Say what has to be done so that the timers run that should, and no others.

    Args:
        run: runs a command.
        timers: whether each should run, by the unit's name.

    Returns:
        Commands of systemctl; empty where all is as it should be.
    """
    names = list(timers)
    properties = ",".join(service_state.PROPERTIES)
    _status, out, _err = run(["systemctl", "show", "--timestamp=us+utc", f"--property={properties}", *names])
    shown = [service_state.parse_show(block) for block in out.strip().split("\n\n")]
    commands: list[list[str]] = []
    reload = False
    for name, found in zip(names, shown, strict=False):
        if not timers[name]:
            if found.get("ActiveState") == "active" or found.get("UnitFileState") == "enabled":
                commands.append(["systemctl", "disable", "--now", name])
            continue
        for step in service_state.steps(found, True, [], [f"/etc/systemd/system/{name}"]):
            if step == "daemon-reload":
                reload = True
            else:
                commands.append(["systemctl", step, name])
    return [["systemctl", "daemon-reload"], *commands] if reload else commands
