"""The files of the program flaskhost-backup on a host, its timers, and how Ansible runs it and reads its answer.

The program itself is what the role backup ships: it runs by timers too, when no Ansible is near.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Whole names: Mitogen does not find what is imported by a relative one.
from ansible.module_utils.flaskhost.host import service_state
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.wanted import File, Folder

#: The program.
PROGRAM = "/usr/local/sbin/flaskhost-backup"
#: What it is told.
CONFIG = "/etc/flaskhost/backup.json"
#: The folder of what only root reads: the passphrase, and how the second repository is reached.
SECRETS = "/etc/flaskhost/backup"
#: pgBackRest's settings; Debian's own file, /etc/pgbackrest.conf, is not read where this one is.
PGBACKREST = "/etc/pgbackrest/pgbackrest.conf"
#: The timers, and the verb of the program that each lets run.
TIMERS = ("full", "diff", "copy", "check", "drill")
#: What the program says where its settings are without a passphrase; whether the inventory has one, it cannot know.
_OFF = "backup.passphrase is not set, or site.yml has not run"
UNSET = "There are no backups: backup.passphrase is not set. Put it into the vault (docs/backup.md)."
ONLY_HERE = "All backups are on this host: if it is lost, they are lost with it. Set backup.second (docs/backup.md)."


class Refused(Exception):
    """A failure for the operator: a sentence, and the cure."""


# --- Files -----------------------------------------------------------------------------------------------------------


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


# --- The program -----------------------------------------------------------------------------------------------------


#: Before the program: it runs in a unit of its own, and not in the session of whoever has logged in.
APART = ("systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--service-type=exec",
         "--description=Restore of data")  # fmt: skip


def apart(arguments: Sequence[str], number: int) -> list[str]:
    """What to put before a restore, which goes on without its controller, and for which a page stays up.

    Args:
        arguments: the verb and its options.
        number: tells this run from others, such as its process.

    Returns:
        Nothing for what replaces nothing: a cluster beside the real one runs on when the program has ended.
    """
    replaces = arguments[0] in ("restore", "restore-files") and not {"--beside", "--check"} & set(arguments)
    return [*APART, f"--unit=flaskhost-restore-{number}", "--"] if replaces else []


def ask(run: Run, arguments: Sequence[str], before: Sequence[str] = ()) -> dict[str, Any]:
    """Run the program and read its answer.

    Args:
        run: runs a command.
        arguments: the verb and its options; ``--json`` is added.
        before: the command that runs it; see :func:`apart`.

    Raises:
        Refused: it refuses, or does not run.
    """
    status, out, err = run([*before, PROGRAM, *arguments, "--json"])
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and not status:
        return answer
    problems = answer.get("problems") if isinstance(answer, dict) else None
    text = "\n".join(problems) if problems else tail(err or out, 12).strip()
    raise Refused(text or f"{PROGRAM} ended with status {status} and said nothing.")


def is_enabled(config: Path = Path(CONFIG)) -> bool:
    """Whether the host knows of a passphrase; a bare one does not."""
    try:
        return bool(json.loads(config.read_text(encoding="utf-8"))["enabled"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def why_off(problem: str, passphrase: str) -> str:
    """Say of a host without backups which of the two reasons it is.

    Args:
        problem: what the program says.
        passphrase: the inventory's own; empty where it has none.

    Returns:
        The reason with its cure; another problem as it is.
    """
    if _OFF not in problem:
        return problem
    if passphrase:
        return "There are no backups yet: backup.passphrase is set, but site.yml has not run since. Run site.yml."
    return f"{UNSET.removesuffix('.')}, then run site.yml."


def shortcomings(passphrase: str, repository: str) -> list[str]:
    """What a run of site.yml warns of, whatever the host is like.

    Args:
        passphrase: what the backups are encrypted with; empty for none.
        repository: the second repository; empty for none.
    """
    if not passphrase:
        return [UNSET]
    return [] if repository else [ONLY_HERE]


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
