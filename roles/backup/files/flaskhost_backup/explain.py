"""What pgBackRest, restic and PostgreSQL complain of, in one sentence, with the next command to type."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from flaskhost_backup.config import BackupError
from flaskhost_backup.tools import Done

#: Bytes. Less is no room: a segment of the write-ahead log alone is 16 MB.
NO_ROOM = 32 * 1024**2
_PASSPHRASE = (
    "The passphrase does not open {where}.",
    "Set backup.passphrase to the one that it was made with, then run site.yml.",
)
_UNREACHABLE = (
    "{where} cannot be reached ({detail}).",
    "See that the other side is up and lets this host in, then: sudo flaskhost-backup copy",
)
_FULL = ("There is no room left for {where}.", "Make room (df -h), or lower backup.keep_days and run site.yml.")
_CORRUPT = (
    "{where} is damaged: {detail}.",
    "Keep it as it is, and take a new full backup at once: sudo flaskhost-backup full. What the second repository has: "
    "sudo flaskhost-backup drill --from second",
)
_NO_REPOSITORY = (
    "There is no repository yet in {where}.",
    "Run site.yml, which makes it; if there has been one, see that its disk is mounted.",
)
_NO_SERVER = (
    "PostgreSQL does not run.",
    "Look why: sudo journalctl -u 'postgresql@*' -n 30; then: sudo systemctl start postgresql",
)


@dataclass(frozen=True)
class Rule:
    """What a text means.

    Attributes:
        pattern: what it is known by; the first group, if any, is the detail.
        reason: the sentence; ``{where}`` and ``{detail}`` are filled in.
        cure: what to do next.
    """

    pattern: str
    reason: str
    cure: str


#: The first that fits counts.
RULES = (
    Rule(r"No space left on device|Disk quota exceeded|\[28\]", *_FULL),
    # Of pgBackRest, where a text is decrypted into nonsense; a later version says it in words.
    Rule(
        r"FormatError: key/value found outside of section|\[029\]|\[FormatError\]|CryptoError|bad decrypt",
        *_PASSPHRASE,
    ),
    Rule(r"wrong password or no key found", *_PASSPHRASE),
    Rule(
        r"unable to restore while PostgreSQL is running",
        "PostgreSQL runs on the data that is to be replaced.",
        "Stop it first: sudo systemctl stop postgresql",
    ),
    Rule(
        r"unable to find backup set with stop time less than '([^']+)'",
        "There is no backup from before {detail}.",
        "Ask for a later time; what there is: sudo flaskhost-backup list",
    ),
    Rule(
        r"backup set (\S+) is not valid",
        "There is no backup {detail}.",
        "What there is: sudo flaskhost-backup list",
    ),
    Rule(
        r"backup and archive info files exist but do not match the database|\[028\]|stanza-upgrade|\[044\]",
        "{where} holds the backups of another cluster than the one that runs here.",
        "To get that one's data: ansible-playbook playbooks/restore.yml -e confirm=HOST; to begin anew, "
        "put the folder aside (mv) and run site.yml.",
    ),
    Rule(
        r"no backup set found to restore",
        "{where} holds no backup.",
        "Take one: sudo flaskhost-backup full; what else there is: sudo flaskhost-backup list",
    ),
    Rule(
        r"(WAL file (?:\S+ )?cannot be archived|\[082\]|timed? ?out .*archive|WAL segment \S+ was not archived)",
        "PostgreSQL does not hand over its write-ahead log: nothing since the last backup could be restored.",
        "Look why: sudo journalctl -u 'postgresql@*' -n 30 | grep archive; then: sudo flaskhost-backup check",
    ),
    Rule(
        r"recovery ended before configured recovery target was reached",
        "The write-ahead log ends before the point that was asked for, or a part of it is missing.",
        "Ask for an earlier time; what there is: sudo flaskhost-backup list",
    ),
    Rule(
        r"could not find .*checkpoint record|could not locate required checkpoint record"
        r"|requested WAL segment \S+ has already been removed|WAL ends before (?:end of online backup|consistent)",
        "The write-ahead log that belongs to this backup is missing.",
        "Use an earlier one (sudo flaskhost-backup list, then -e label=LABEL); make a new one: "
        "sudo flaskhost-backup full",
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
        "Another run holds {where}.",
        "Wait for it. If it was killed: sudo flaskhost-backup unlock",
    ),
    Rule(
        r"([^\n]{0,120}(?:Permission denied|Read-only file system))",
        "{where}: {detail}.",
        "Look at it: ls -ld, and mount; then run site.yml.",
    ),
    Rule(
        r"unable to load info file|missing stanza|Is there a repository at|unable to open config file|\[055\]|\[103\]",
        *_NO_REPOSITORY,
    ),
    Rule(
        r"(no snapshot found|latest snapshot for criteria not found)",
        "{where} holds no such backup.",
        "What there is: sudo flaskhost-backup list",
    ),
    Rule(r"there is no such program", "A program is missing: {detail}.", "Run site.yml, which installs it."),
)  # fmt: skip


def explain(done: Done, where: str, folder: Path | None = None, *, opened: bool = False) -> BackupError:
    """Say what a program's failure means.

    Args:
        done: how it has ended.
        where: what it worked on, with a capital letter: "The local repository".
        opened: the passphrase is known to be right, so that what cannot be decrypted is damaged.
        folder: where it writes on this host: a full disk makes programs say all kinds of things.

    Returns:
        A sentence and what to do next; a text that is not known is handed on, its last line alone.
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
        "Look at the log: sudo journalctl -u 'flaskhost-backup@*' -n 50",
    )


def _fill(sentence: str, where: str, detail: str) -> str:
    if not sentence.startswith("{where}"):
        where = where[:1].lower() + where[1:]
    return sentence.format(where=where, detail=detail)


def _telling(done: Done) -> str:
    """The line that says most: the first that calls itself an error."""
    lines = [line.strip() for line in done.text.splitlines() if line.strip()]
    for line in lines:
        if re.match(r"(ERROR|FATAL|Fatal|PANIC|.*: (error|FATAL|ERROR):)", line):
            return line
    return done.last


def _plain(text: str) -> str:
    """One line without what may move the terminal's cursor, and without a full stop."""
    line = " ".join("".join(item if item.isprintable() else " " for item in text).split())
    return line[:250].rstrip(".")
