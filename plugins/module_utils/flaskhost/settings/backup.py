"""The site's setting ``backup``: its options, and the input of the role backup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..apps.schema import Option, with_defaults

#: A calendar event of systemd. Catches only typing errors: words, numbers and the separators between them.
_CALENDAR = r"[A-Za-z0-9*,.:/~ \-]{1,120}"

#: The site's setting ``backup``.
BACKUP_OPTIONS: dict[str, Option] = {
    "passphrase": Option(
        "str",
        "Passphrase that encrypts the backups. Store it in ansible-vault. If unset, the host makes no backups.",
        "{{ vault_backup_passphrase }}",
        default="",
    ),
    "second": Option(
        "options",
        "Second repository, on another host or in S3-compatible storage. Without one, a lost host loses its backups "
        "too.",
        {"repository": "sftp:backup@203.0.113.20:/flaskhost/production1"},
        default={},
        options={
            "repository": Option(
                "str",
                "Location in restic's syntax: `sftp:USER@HOST:/PATH`, `s3:https://HOST/BUCKET` or "
                "`rest:https://HOST/`. Each host needs its own.",
                "sftp:backup@203.0.113.20:/flaskhost/production1",
                default="",
                pattern=r"(?:/|(?:sftp|s3|rest|b2|azure|gs|swift):)[^\s\"'\\]+",
            ),
            "ssh_key": Option(
                "str",
                "Private SSH key that can log in to the other host, for `sftp`. Store it in ansible-vault.",
                "{{ vault_backup_ssh_key }}",
                default="",
            ),
            "known_hosts": Option(
                "str",
                "Public host keys of the other host, as printed by `ssh-keyscan`, for `sftp`. Other keys are rejected.",
                "203.0.113.20 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA...",
                default="",
            ),
            "environment": Option(
                "dict",
                "Environment variables that restic needs: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or "
                "`RESTIC_REST_USERNAME` and `RESTIC_REST_PASSWORD`. Store the secrets in ansible-vault.",
                {"AWS_ACCESS_KEY_ID": "backup", "AWS_SECRET_ACCESS_KEY": "{{ vault_backup_s3_secret }}"},
                default={},
            ),
            "every": Option(
                "int",
                "Minutes between two copies of the database to the second repository. If you lose the host, you lose "
                "at most the changes since the last copy.",
                5,
                default=5,
                minimum=1,
                maximum=59,
            ),
        },
    ),
    "path": Option(
        "str",
        "Folder of the local repository.",
        "/var/backups/flaskhost",
        default="/var/backups/flaskhost",
        pattern=r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9._/-]+[A-Za-z0-9_-]",
    ),
    "keep_days": Option(
        "int", "Number of days that you can go back in a restore.", 14, default=14, minimum=1, maximum=3650
    ),
    "full": Option(
        "str",
        "Schedule of full backups, in the format of systemd.time(7), in the host's time zone.",
        "Sun *-*-* 02:15",
        default="Sun *-*-* 02:15",
        pattern=_CALENDAR,
    ),
    "diff": Option(
        "str",
        "Schedule of differential backups, which contain the changes since the last full backup.",
        "Mon..Sat *-*-* 02:15",
        default="Mon..Sat *-*-* 02:15",
        pattern=_CALENDAR,
    ),
    "drill": Option(
        "str",
        "Schedule of the drill, the restore test of the newest backup.",
        "Wed *-*-* 04:15",
        default="Wed *-*-* 04:15",
        pattern=_CALENDAR,
    ),
    "alert_hours": Option(
        "int", "Age of the last good backup that triggers an alert, in hours.", 26, default=26, minimum=1, maximum=8760
    ),
    "drill_days": Option(
        "int", "Age of the last good drill that triggers an alert, in days.", 8, default=8, minimum=1, maximum=3650
    ),
    "hook": Option(
        "str",
        "Program on the host, with its arguments, that runs if a backup task reports a problem. It gets the "
        "variables `FLASKHOST_HOST`, `FLASKHOST_VERB` and `FLASKHOST_PROBLEM`, and the full report as JSON on "
        "standard input.",
        "/usr/local/bin/tell-the-operator",
        default="",
        pattern=r"/\S.*",
    ),
    "assertions": Option(
        "dict",
        "SQL query for each database that returns true if the data is as expected. The drill runs it on the restored "
        "data.",
        {"guestbook": "SELECT count(*) > 0 FROM entry"},
        default={},
    ),
    "paths": Option(
        "list",
        "Additional folders and files on the hosts to back up.",
        ["/srv/reports"],
        default=[],
        pattern=r"/(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\"'\\]+",
    ),
    "exclude": Option(
        "list",
        "Patterns of files to exclude, in restic's syntax.",
        ["*.tmp"],
        default=[],
        pattern=r"[^\x00-\x1f]+",
    ),
}  # fmt: skip


def settings(backup: Mapping[str, Any] | None) -> dict[str, Any]:
    """Turn the site's setting ``backup`` into the role's input.

    Args:
        backup: the user's setting, already validated by preflight; None or empty if not set.

    Returns:
        The keys of :data:`BACKUP_OPTIONS` with their defaults. ``second`` is empty if there is no second repository;
        its variables are strings.
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
