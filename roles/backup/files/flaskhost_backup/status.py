"""The verb ``status``: the age and outcome of the last backups, copies, restore tests and restores."""

from __future__ import annotations

from flaskhost_backup import aside, queues
from flaskhost_backup.config import OFF, Config
from flaskhost_backup.progress import unfinished
from flaskhost_backup.result import Result
from flaskhost_backup.state import State, read_json

HOUR, DAY = 3600, 86400
#: The risk of a host without a second repository.
ONLY_HERE = "All backups are on this host: if it is lost, they are lost with it. Set backup.second (docs/backup.md)."


def status(config: Config, now: float) -> Result:
    """Collect what the status table shows. Only this host is read, no repository."""
    state = State(config.state)
    result = Result(data={"enabled": config.enabled, "database": bool(config.cluster), "second": bool(config.second)})
    for kind in ("database", "files", "copy", "second_files", "drill", "restore"):
        result.data[kind + "_state"] = state.read(kind)
    result.data["queues"] = {queue.app: state.read(queues.kind(queue.app)) for queue in config.queues}
    result.data["unfinished"] = unfinished(config)
    found = aside.find(config)
    result.data["aside"] = found.as_data()
    result.lines += [f"Kept by a restore: {thing.line}" for thing in found.things]
    result.problems += [*late(config, now), *found.problems]
    if config.enabled and not config.second:
        result.lines.append(ONLY_HERE)
    return result


def late(config: Config, now: float) -> list[str]:
    """List what is overdue or failed in its last run. Only files of this host are read."""
    if not config.enabled:
        return [f"{OFF} Set it if it is not set (docs/backup.md), then run site.yml."]
    state, found = State(config.state), unfinished(config)
    wanted = [("files", "backup of the files", config.alert_hours * HOUR, "files")]
    if config.cluster:
        wanted.insert(0, ("database", "backup of the database", config.alert_hours * HOUR, "full"))
    wanted += [
        (queues.kind(queue.app), f"backup of the queue of {queue.app}", config.alert_hours * HOUR, "files")
        for queue in config.queues
    ]
    if config.second:
        wanted.append(
            ("second_files", "copy of the files in the second repository", config.alert_hours * HOUR, "files")
        )
        if config.cluster:
            # Three failures in a row are not a coincidence.
            limit = max(3 * config.copy_minutes * 60, 1800)
            wanted.append(("copy", "copy of the database in the second repository", limit, "copy"))
    if config.cluster or config.queues:
        wanted.append(("drill", "good drill", config.drill_days * DAY, "drill"))
    for kind, what, limit, verb in wanted:
        last, good = state.read(kind)["last"], state.read(kind)["good"]
        since = f"since-{kind}.json" if kind.startswith("queue-") else "since.json"
        began = float(read_json(config.state / since).get("at") or now)
        age = now - float(good.get("at") or began)
        reason = (
            f" The last run reported: {last['problems'][0]}"
            if last and not last.get("ok") and last.get("problems")
            else ""
        )
        if age > limit:
            when = f"is {_age(age)} old" if good else "has not been created yet"
            found.append(
                f"The last {what} {when}.{reason or f' Make one: sudo systemctl start flaskhost-backup@{verb}'}"
            )
        elif reason and kind.startswith(("drill", "database", "queue-")):
            found.append(f"The last {what.removeprefix('good ')} failed.{reason}")
    return found


def _age(seconds: float) -> str:
    if seconds < 2 * HOUR:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / HOUR:.0f} hours" if seconds < 2 * DAY else f"{seconds / DAY:.0f} days"
