"""The files and timers of the program flaskhost-backup on a host, and how Ansible runs it and reads its result.

The role backup ships the program itself, which timers also run without Ansible.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host import service_state
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.wanted import File, Folder

#: The program.
PROGRAM = "/usr/local/sbin/flaskhost-backup"
#: Its configuration.
CONFIG = "/etc/flaskhost/backup.json"
#: The folder with the files that only root can read: the passphrase, and the access to the second repository.
SECRETS = "/etc/flaskhost/backup"
#: pgBackRest's configuration, which takes the place of Debian's own file, /etc/pgbackrest.conf.
PGBACKREST = "/etc/pgbackrest/pgbackrest.conf"
#: The timers, named after the program's command that each runs.
TIMERS = ("full", "diff", "copy", "check", "drill")
#: The program's message if its configuration has no passphrase. It cannot know whether the inventory has one.
_OFF = "backup.passphrase is not set, or site.yml has not run"
UNSET = "There are no backups: backup.passphrase is not set. Put it into the vault (docs/backup.md)."
ONLY_HERE = "All backups are on this host: if it is lost, they are lost with it. Set backup.second (docs/backup.md)."


class Refused(Exception):
    """A failure for the operator: a sentence with the fix."""


# --- Files -----------------------------------------------------------------------------------------------------------


def program_files(program: Mapping[str, str], units: Mapping[str, str]) -> list[File]:
    """Return the files of the program and its units.

    Args:
        program: texts by path.
        units: texts by path.
    """
    # A diff of program code is of no use to the operator.
    files = [File(Path(path), text, 0o755 if path == PROGRAM else 0o644, shown=False) for path, text in program.items()]
    return files + [File(Path(path), text) for path, text in units.items()]


def settings_files(options: Mapping[str, Any]) -> list[File]:
    """Return the configuration of the program and of pgBackRest.

    Args:
        options: ``passphrase``, ``second`` (``repository``, ``ssh_key``, ``known_hosts``, ``environment``; or empty),
            ``config`` (the contents of backup.json) and ``pgbackrest`` (its configuration without the passphrase; empty
            if the host has no PostgreSQL).

    Raises:
        Refused: a value has more than one line, so that the rest would be parsed as another setting.
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
        # Unused files are emptied instead of left with a secret in them.
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
    """Return restic's options for an SFTP repository: the key, and the trusted host keys.

    Args:
        second: ``repository``, such as ``sftp:backup@host:/path`` or ``sftp://backup@host:2222//path``.

    Returns:
        The values for ``-o``; empty for another kind of repository.

    Raises:
        Refused: the repository cannot be parsed.
    """
    repository = str(second.get("repository") or "")
    if not repository.startswith("sftp:"):
        return []
    found = re.fullmatch(
        r"sftp://(?:([\w.-]+)@)?(\[[0-9a-fA-F:]+\]|[\w.-]+)(?::(\d+))?/.*", repository
    ) or re.fullmatch(r"sftp:(?:([\w.-]+)@)?([\w.-]+)():.+", repository)
    if not found:
        raise Refused(
            f"backup.second.repository: {repository} is not a valid SFTP repository. "
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
    """Return the folders of the repositories.

    Args:
        path: the folder of the local repositories.
        cluster: whether the host has PostgreSQL.
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


#: Prefix for the program, which runs it in its own unit instead of the operator's login session.
APART = ("systemd-run", "--quiet", "--collect", "--wait", "--pipe", "--service-type=exec",
         "--description=Restore of data")  # fmt: skip


def apart(arguments: Sequence[str], number: int) -> list[str]:
    """Return the command prefix for a restore, which continues without the control node and keeps a page up.

    Args:
        arguments: the program's command and its options.
        number: distinguishes this run from others, such as its process ID.

    Returns:
        Empty for commands that replace nothing: a cluster next to the real one runs on when the program has ended.
    """
    replaces = arguments[0] in ("restore", "restore-files") and not {"--beside", "--check"} & set(arguments)
    return [*APART, f"--unit=flaskhost-restore-{number}", "--"] if replaces else []


def ask(run: Run, arguments: Sequence[str], before: Sequence[str] = ()) -> dict[str, Any]:
    """Run the program and parse its result.

    Args:
        run: runs a command.
        arguments: the program's command and its options; ``--json`` is added.
        before: the command prefix; see :func:`apart`.

    Raises:
        Refused: the program reports an error, or does not run.
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
    raise Refused(text or f"{PROGRAM} failed with exit code {status}, without output.")


def is_enabled(config: Path = Path(CONFIG)) -> bool:
    """Check whether the host has a passphrase; a bare host does not."""
    try:
        return bool(json.loads(config.read_text(encoding="utf-8"))["enabled"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def why_off(problem: str, passphrase: str) -> str:
    """Explain why a host has no backups: one of two reasons.

    Args:
        problem: the program's message.
        passphrase: the inventory's passphrase; empty if not set.

    Returns:
        The reason with its fix; any other problem unchanged.
    """
    if _OFF not in problem:
        return problem
    if passphrase:
        return "There are no backups yet: backup.passphrase is set, but site.yml has not run since. Run site.yml."
    return f"{UNSET.removesuffix('.')}, then run site.yml."


def shortcomings(passphrase: str, repository: str) -> list[str]:
    """Return the warnings of a run of site.yml that do not depend on the host.

    Args:
        passphrase: the passphrase of the backups; empty if not set.
        repository: the second repository; empty if not set.
    """
    if not passphrase:
        return [UNSET]
    return [] if repository else [ONLY_HERE]


def timer_steps(run: Run, timers: Mapping[str, bool]) -> list[list[str]]:
    """Return the steps after which exactly the requested timers run.

    Args:
        run: runs a command.
        timers: whether each timer should run, by the unit's name.

    Returns:
        systemctl commands; empty if nothing has to change.
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
