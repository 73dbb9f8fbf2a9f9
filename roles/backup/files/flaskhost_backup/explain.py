"""Explain errors of pgBackRest, restic and PostgreSQL in one sentence, with the next command."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from flaskhost_backup.config import BackupError
from flaskhost_backup.tools import Done

#: Bytes. With less free space, the disk counts as full: a WAL segment has 16 MB.
NO_ROOM = 32 * 1024**2
_PASSPHRASE = (
    "backup.passphrase is not the passphrase of {where}.",
    "Set backup.passphrase to the one that the repository was created with, then run site.yml.",
)
_UNREACHABLE = (
    "{where} cannot be reached ({detail}).",
    "Check that its server runs and accepts this host's login, then: sudo flaskhost-backup copy",
)
_FULL = ("The disk of {where} is full.", "Free some space (df -h), or lower backup.keep_days and run site.yml.")
_CORRUPT = (
    "{where} is damaged: {detail}.",
    "Do not change it, and create a new full backup now: sudo flaskhost-backup full. To check the second repository: "
    "sudo flaskhost-backup drill --from second",
)
_NO_REPOSITORY = (
    "{where} does not exist yet.",
    "Run site.yml, which creates it. If it existed before, check that its disk is mounted.",
)
_NO_SERVER = (
    "PostgreSQL is not running.",
    "Find the cause: sudo journalctl -u 'postgresql@*' -n 30. Then: sudo systemctl start postgresql",
)


@dataclass(frozen=True)
class Rule:
    """The explanation of an error message.

    Attributes:
        pattern: matches the message; the first group, if any, is the detail.
        reason: the sentence, with the placeholders ``{where}`` and ``{detail}``.
        cure: what to do next.
    """

    pattern: str
    reason: str
    cure: str


#: The first matching rule applies.
RULES = (
    Rule(r"No space left on device|Disk quota exceeded|\[28\]", *_FULL),
    # pgBackRest decrypted a text into garbage; later versions report it in words.
    Rule(
        r"FormatError: key/value found outside of section|\[029\]|\[FormatError\]|CryptoError|bad decrypt",
        *_PASSPHRASE,
    ),
    Rule(r"wrong password or no key found", *_PASSPHRASE),
    Rule(
        r"unable to restore while PostgreSQL is running",
        "PostgreSQL is running on the data that the restore replaces.",
        "Stop it first: sudo systemctl stop postgresql",
    ),
    Rule(
        r"unable to find backup set with stop time less than '([^']+)'",
        "There is no backup from before {detail}.",
        "Choose a later time. To list the backups: sudo flaskhost-backup list",
    ),
    Rule(
        r"backup set (\S+) is not valid",
        "The backup {detail} does not exist.",
        "To list the backups: sudo flaskhost-backup list",
    ),
    Rule(
        r"backup and archive info files exist but do not match the database|\[028\]|stanza-upgrade|\[044\]",
        "{where} contains the backups of another cluster.",
        "To restore that cluster: ansible-playbook playbooks/restore.yml -e confirm=HOST. To start with an empty "
        "repository: rename its folder (mv), then run site.yml.",
    ),
    Rule(
        r"no backup set found to restore",
        "{where} contains no backup.",
        "Create one: sudo flaskhost-backup full. To list all backups: sudo flaskhost-backup list",
    ),
    Rule(
        r"(WAL file (?:\S+ )?cannot be archived|\[082\]|timed? ?out .*archive|WAL segment \S+ was not archived)",
        "PostgreSQL cannot archive its WAL. Nothing after the last backup can be restored.",
        "Find the cause: sudo journalctl -u 'postgresql@*' -n 30 | grep archive. Then: sudo flaskhost-backup check",
    ),
    Rule(
        r"recovery ended before configured recovery target was reached",
        "The WAL ends before the requested point, or a part of it is missing.",
        "Choose an earlier time. To list the backups: sudo flaskhost-backup list",
    ),
    Rule(
        r"could not find .*checkpoint record|could not locate required checkpoint record"
        r"|requested WAL segment \S+ has already been removed|WAL ends before (?:end of online backup|consistent)",
        "The WAL of this backup is missing.",
        "Use an earlier backup (sudo flaskhost-backup list, then -e label=LABEL), or create a new one: sudo "
        "flaskhost-backup full",
    ),
    Rule(
        r"(Connection refused|connection refused|Connection timed out|connection timed out|No route to host"
        r"|Could not resolve hostname|no such host|Network is unreachable|network is unreachable|i/o timeout"
        r"|Host key verification failed|Permission denied \([a-z,-]+\)|certificate[^\n]{0,60}"
        r"|unable to start the sftp session|Access Denied|AccessDenied|403 Forbidden|401 Unauthorized"
        r"|Access Key Id you provided does not exist|request signature we calculated does not match"
        r"|timed out after [\d.]+ s|connection lost|connection reset|broken pipe|Broken pipe)",
        *_UNREACHABLE,
    ),
    Rule(
        r"((?:checksum|size) (?:error|mismatch|does not match)|actual checksum \S+ does not match[^\n]*"
        r"|ciphertext verification failed|Pack ID does not match|repository contains errors|invalid checksum[^\n]*"
        r"|error restoring [^\n]{1,80}|zst[^\n]{0,40}error[^\n]{0,60}|unexpected eof[^\n]{0,60}"
        r"|There were \d+ errors|CryptoError[^\n]{0,80}|bad decrypt|FormatError[^\n]{0,20}"
        r"|blob \w+ not found|id \w+ not found|tree \w+: [^\n]{0,60})",
        *_CORRUPT,
    ),
    Rule(
        r"unable to connect to 'dbname|connection to server on socket|unable to find primary cluster|no database found",
        *_NO_SERVER,
    ),
    Rule(
        r"repository is already locked|\[050\]",
        "Another run has locked {where}.",
        "Wait until it has ended. If it was killed: sudo flaskhost-backup unlock",
    ),
    Rule(
        r"([^\n]{0,120}(?:Permission denied|Read-only file system))",
        "{where}: {detail}.",
        "Check its permissions and its mount (ls -ld, mount), then run site.yml.",
    ),
    Rule(
        r"unable to load info file|missing stanza|Is there a repository at|unable to open config file|\[055\]|\[103\]",
        *_NO_REPOSITORY,
    ),
    Rule(
        r"(no snapshot found|latest snapshot for criteria not found)",
        "{where} does not contain this backup.",
        "To list the backups: sudo flaskhost-backup list",
    ),
    Rule(r"there is no such program", "A program is missing: {detail}.", "Run site.yml, which installs it."),
)  # fmt: skip


def explain(done: Done, where: str, folder: Path | None = None, *, opened: bool = False) -> BackupError:
    """Explain the failure of a program.

    Args:
        done: its result.
        where: the repository or cluster, with a capital letter: "The local repository".
        opened: whether the passphrase is known to be correct, so that undecryptable data is damaged.
        folder: the folder that it writes on this host, because a full disk causes all kinds of messages.

    Returns:
        A sentence and the next step; for an unknown message, its last line.
    """
    if folder and folder.exists() and shutil.disk_usage(folder).free < NO_ROOM:
        return BackupError(_fill(_FULL[0], where, ""), _FULL[1])
    for rule in RULES:
        if opened and rule.reason == _PASSPHRASE[0]:
            continue
        found = re.search(rule.pattern, done.text)
        if found:
            detail = next((item for item in found.groups() if item), "") or done.last
            return BackupError(_fill(rule.reason, where, _plain(detail)), rule.cure)
    return BackupError(
        f"{where}: {_plain(_telling(done)) or 'it failed'}.",
        "See the log: sudo journalctl -u 'flaskhost-backup@*' -n 50",
    )


def _fill(sentence: str, where: str, detail: str) -> str:
    if not sentence.startswith("{where}"):
        where = where[:1].lower() + where[1:]
    return sentence.format(where=where, detail=detail)


def _telling(done: Done) -> str:
    """Return the most informative line: the first one that is marked as an error."""
    lines = [line.strip() for line in done.text.splitlines() if line.strip()]
    for line in lines:
        if re.match(r"(ERROR|FATAL|Fatal|PANIC|.*: (error|FATAL|ERROR):)", line):
            return line
    return done.last


def _plain(text: str) -> str:
    """Return a text on one line, without control characters for the terminal and without a full stop."""
    line = " ".join("".join(item if item.isprintable() else " " for item in text).split())
    return line[:250].rstrip(".")
