"""The site's setting ``backup``: its options, and what the role backup is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apps.schema import Option, with_defaults

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
                "The variables that restic wants for it: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD; the secret ones from ansible-vault.",
                {"AWS_ACCESS_KEY_ID": "backup", "AWS_SECRET_ACCESS_KEY": "{{ vault_backup_s3_secret }}"},
                default={},
            ),
            "every": Option(
                "int",
                "Minutes between two copies of the database to it: what is lost at most where the whole host is.",
                5,
                default=5,
                minimum=1,
                maximum=59,
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
