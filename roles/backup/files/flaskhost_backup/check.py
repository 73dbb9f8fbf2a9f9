"""The verb ``check``: find backups that are late, and WAL that does not arrive in the repository."""

from __future__ import annotations

from flaskhost_backup import aside
from flaskhost_backup.cluster import Server
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.pgbackrest import PgBackRest
from flaskhost_backup.result import Result
from flaskhost_backup.state import utc
from flaskhost_backup.status import ONLY_HERE, late


def check(config: Config, now: float) -> Result:
    """Check that no backup is late, and that the WAL arrives in the repository."""
    result = Result(problems=[*late(config, now), *aside.find(config).problems])
    if config.enabled and config.cluster:
        try:
            server = Server(config.cluster)
            rows = server.ask(
                "SELECT archived_count, failed_count, coalesce(last_archived_wal, ''),"
                " coalesce(extract(epoch FROM last_archived_time), 0)::bigint,"
                " coalesce(extract(epoch FROM last_failed_time), 0)::bigint, current_setting('archive_mode'),"
                " (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') FROM pg_stat_archiver"
            )[0]
            result.data["archive"] = {
                "last": rows[2],
                "at": int(rows[3]),
                "failed_at": int(rows[4]),
                "waiting": int(rows[6]),
            }
            if rows[5] == "off":
                result.problems.append(
                    "WAL archiving is off (archive_mode), so nothing after the last backup can be restored. Run "
                    "site.yml, which sets archive_command."
                )
            elif int(rows[4]) > int(rows[3]):
                result.problems.append(
                    f"WAL archiving has failed since {utc(int(rows[4]))}; {rows[6]} segments are waiting. Find the "
                    "cause: sudo journalctl -u 'postgresql@*' -n 30, and df -h."
                )
            PgBackRest(config).info()
        except BackupError as error:
            result.problems.append(str(error))
    if not result.problems:
        result.lines.append("All backups are up to date." if config.second else ONLY_HERE)
    return result
