"""The command line: ``flaskhost-backup VERB [options] [--json]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ansible.module_utils.flaskhost.host.failures import defect, report, system_error

from flaskhost_backup import (
    backup,
    check,
    drill,
    forget,
    give_out,
    leftovers,
    list_backups,
    point,
    prepare,
    restore_beside,
    restore_check,
    restore_cluster,
    restore_database,
    restore_files,
    second_copy,
    sources,
    state,
    status,
    targets,
    unlock,
)
from flaskhost_backup import config as configuration
from flaskhost_backup.config import BackupError, Config
from flaskhost_backup.hook import call_hook
from flaskhost_backup.result import Result

#: Verbs that change nothing. They run without the lock.
LOOKING = ("status", "list", "check", "point")
#: Verbs with an operator who waits: they soon report that another run holds the lock.
SHORT = (
    "prepare",
    "copy",
    "restore",
    "restore-files",
    "give-out",
    "take-in",
    "remove",
    "adopt",
    "unlock",
    "abandon",
    "forget",
)
#: Time in seconds that such a verb waits for another run.
PATIENCE = 20.0
#: Verbs that end a scheduled copy which is in their way. It can hang for hours if its store is lost meanwhile.
URGENT = ("restore", "restore-files", "take-in")
#: Scheduled verbs. The hook is called if one of them fails.
CLOCKWORK = ("full", "diff", "files", "copy", "check", "drill")


def main(argv: Sequence[str]) -> int:
    """Run the program.

    Args:
        argv: the arguments, without the program's name.

    Returns:
        The exit status: 0 on success, 3 if the host has no backups, 1 for any other problem. Problems that ``prepare``
        and ``status`` report do not count as failures, because Ansible shows them.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.verb == "give-out" and options.json:
        parser.error("give-out has no --json: its standard output is the dump.")
    os.umask(0o077)
    settings: Config | None = None
    status = 1
    try:
        settings = configuration.load(options.config)
        _folders(settings)
        result = _locked(options, settings)
    except BackupError as error:
        status = error.status
        result = Result(problems=[str(error)], data={"problem": str(error)})
    except OSError as error:
        text = f"A file or connection failed: {system_error(error)}."
        result = Result(problems=[text], data={"problem": text})
    except KeyboardInterrupt:
        text = "Interrupted. Run the same command again: it first rolls back unfinished steps."
        result = Result(problems=[text], data={"problem": text})
    except Exception as error:  # operators see a sentence, never a stack trace
        text = defect(error, "flaskhost-backup")
        result = Result(problems=[text], data={"problem": text})
    if settings and options.verb in CLOCKWORK:
        complaint = call_hook(settings, options.verb, result)
        if complaint:
            result.problems.append(complaint)
    if options.json:
        print(json.dumps(result.as_json(), sort_keys=True))
    else:
        print("".join(f"{line}\n" for line in result.lines), end="")
    for problem in result.problems:
        report(problem)
    quiet = options.verb in ("prepare", "status") and "problem" not in result.data
    return status if result.problems and not quiet else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flaskhost-backup", description="Back up this host and restore it.", allow_abbrev=False
    )
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON object")
    common.add_argument(
        "--config", type=Path, default=configuration.CONFIG, help="configuration file (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common], allow_abbrev=False)

    add("full", "back up the whole database the files and the queues")
    add("diff", "back up the database's changes since the last full backup, and the files")
    add("files", "back up only the files and the queues")
    add("copy", "copy the database's new backups and WAL to the second repository")
    add("check", "report late or failed backups, and check WAL archiving")
    add("list", "list what can be restored")
    add("status", "show the last run of each task")
    add("adopt", "copy to the second repository although it contains another cluster's backups")
    add("abandon", "undo a restore that was killed, unless data has been written since")
    add("unlock", "remove the locks of runs that were killed")
    add("forget", "delete a database backup").add_argument("label", metavar="LABEL", help="which one")
    add("remove", "delete the cluster that was restored next to the live one")
    prepare = add("prepare", "create missing repositories")
    prepare.add_argument("--check", action="store_true", help="report what would be done, and change nothing")
    drilling = add("drill", "restore the newest backup into a scratch cluster, and check it")
    drilling.add_argument(
        "--from", dest="source", choices=["local", "second"], default="local", help="which repository"
    )
    drilling.add_argument(
        "--timeout", type=float, default=3600.0, help="maximum time of the recovery in seconds (default: %(default)s)"
    )
    point = add("point", "create a restore point before the migration of a release")
    point.add_argument("--app", required=True)
    point.add_argument("--release", required=True)
    point.add_argument("--previous", default="")
    _add_restores(add)
    return parser


def _add_restores(add: Callable[..., argparse.ArgumentParser]) -> None:
    whole = add("restore", "restore the database")
    target = whole.add_mutually_exclusive_group()
    target.add_argument(
        "--to",
        default="",
        metavar="TIME",
        help="restore to this time, in UTC if it names no time zone (default: the newest state)",
    )
    target.add_argument("--release", default="", help="restore to the point before this release's migration")
    target.add_argument(
        "--backup", default="", metavar="LABEL", help="restore to the end of this backup, without later WAL"
    )
    whole.add_argument("--app", default="", help="the app whose database or release is restored")
    place = whole.add_mutually_exclusive_group()
    place.add_argument("--beside", action="store_true", help="restore into a separate cluster next to the live one")
    place.add_argument("--database", default="", metavar="NAME", help="restore only this database")
    whole.add_argument(
        "--timeout", type=float, default=3600.0, help="maximum time of the recovery in seconds (default: %(default)s)"
    )
    given = add("give-out", "dump a database to standard output, for take-in on another host")
    given.add_argument("--database", required=True, metavar="NAME", help="name of the database")
    taken = add("take-in", "replace a database by a dump of another host")
    taken.add_argument("--database", required=True, metavar="NAME", help="name of the database on both hosts")
    taken.add_argument("--dump", required=True, type=Path, help="dump created by pg_dump --format=custom --create")
    taken.add_argument(
        "--scrub", default=None, type=Path, help="file with SQL that removes data which must not be on this host"
    )
    taken.add_argument(
        "--confirm", default="", metavar="NAME", help="name of the database, to confirm that it is replaced"
    )
    files = add("restore-files", "restore an app's data folder and queue, or one of backup.paths")
    which = files.add_mutually_exclusive_group(required=True)
    which.add_argument("--app", default="", help="the app, or flaskhost for /etc/flaskhost")
    which.add_argument("--path", default="", help="folder or file, one of backup.paths")
    files.add_argument(
        "--to",
        default="",
        metavar="TIME",
        help="restore the newest backup up to this time (default: the newest of all)",
    )
    files.add_argument(
        "--folder", type=Path, default=None, help="restore into this empty folder, and leave the live files unchanged"
    )
    files.add_argument(
        "--part",
        choices=restore_files.PARTS,
        default="all",
        help="for an app: only its data folder, or only its queue (default: both)",
    )
    for parser in (whole, files):
        parser.add_argument("--from", dest="source", choices=["local", "second"], default="local", help="from where")
        parser.add_argument(
            "--of",
            dest="host",
            default="",
            metavar="HOST",
            help="restore the backups of HOST, from the second repository",
        )
        parser.add_argument(
            "--confirm",
            default="",
            metavar="NAME",
            help="name of what is replaced, to confirm: the host, the app, or the path",
        )
        parser.add_argument(
            "--check", action="store_true", help="check whether the restore is possible, and change nothing"
        )
    whole.add_argument(
        "--no-start", action="store_true", help="do not start the apps, because an earlier release follows"
    )
    whole.add_argument("--accept-gap", action="store_true", help="restore up to a gap in the WAL, and lose later data")
    whole.add_argument(
        "--copy-before", default="", metavar="TIME", help="use the second repository's newest copy up to this time"
    )


def _folders(settings: Config) -> None:
    """Create the folders that the user postgres has to enter. Their private contents have stricter modes."""
    for folder in (settings.state, settings.repository):
        if not folder.is_dir():
            before = os.umask(0o022)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            finally:
                os.umask(before)


def _locked(options: argparse.Namespace, settings: Config) -> Result:
    verb, now = options.verb, time.time()
    if verb in LOOKING or (verb == "prepare" and options.check):
        return _do(options, settings, now)
    if verb == "copy":
        failed = second_copy.unreachable(settings, now)
        if failed:
            return failed
    if verb == "prepare":
        found = prepare.prepare(settings, dry=True, now=now)
        if not found.changed:
            # No need for the lock, which a backup can hold for hours.
            return found
    # The next copy follows in a few minutes. A verb with an operator who waits soon reports the reason.
    seconds = 0.0 if verb == "copy" else PATIENCE if verb in SHORT else state.LOCK_SECONDS
    told = []
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(state.lock(verb, state.LOCK, seconds))
        except state.Busy as busy:
            if verb == "copy":
                return Result(lines=["Another run is active. The next copy follows after it."])
            if verb not in URGENT or not busy.is_copy:
                raise
            if getattr(options, "check", False):
                return _do(options, settings, time.time())
            second_copy.end()
            stack.enter_context(state.lock(verb, state.LOCK, seconds))
            told.append("The copy to the second repository was in the way and has been stopped. The next continues.")
        leftovers.end_left(settings)
        result = _do(options, settings, time.time())
        return replace(result, lines=[*told, *result.lines])


def _do(options: argparse.Namespace, settings: Config, now: float) -> Result:
    do: dict[str, Callable[[], Result]] = {
        "full": lambda: backup.backup(settings, "full", now),
        "diff": lambda: backup.backup(settings, "diff", now),
        "files": lambda: backup.backup(settings, "files", now),
        "copy": lambda: second_copy.copy(settings, now),
        "check": lambda: check.check(settings, now),
        "list": lambda: list_backups.list_backups(settings),
        "status": lambda: status.status(settings, now),
        "adopt": lambda: second_copy.adopt(settings, now),
        "unlock": lambda: unlock.unlock(settings),
        "abandon": lambda: _abandon(settings),
        "forget": lambda: forget.forget(settings, options.label),
        "prepare": lambda: prepare.prepare(settings, dry=options.check, now=now),
        "point": lambda: point.point(settings, options.app, options.release, options.previous, now),
        "drill": lambda: drill.drill(settings, options.source, now, options.timeout),
        "give-out": lambda: give_out.give_out(settings, options.database, sys.stdout.buffer),
        "take-in": lambda: _take_in(options, settings, now),
        "remove": lambda: restore_beside.remove_beside(settings),
        "restore": lambda: _restore(options, settings, now),
        "restore-files": lambda: _restore(options, settings, now),
    }
    return do[options.verb]()


def _restore(options: argparse.Namespace, settings: Config, now: float) -> Result:
    when = targets.parse_time(options.to, now) if options.to else None
    if options.verb == "restore-files":
        name = options.app or str(Path("/", options.path))
        if not options.folder:
            _confirmed(options.confirm, name, f"the files of {name}" if options.app else name)
        where, host, part = options.source, options.host, options.part
        if options.check:
            return restore_files.check(settings, name, when=when, where=where, host=host, part=part)
        return restore_files.files(
            settings, name, when=when, where=where, host=host, folder=options.folder, now=now,
            command=_again(options), part=part,
        )  # fmt: skip

    def target(found: sources.Source) -> targets.Target:
        if options.release:
            return targets.release_target(settings, options.app, options.release, found.points)
        if options.backup:
            return targets.Target("backup", options.backup)
        return targets.Target("time", str(when)) if when is not None else targets.Target()

    before = targets.parse_time(options.copy_before, now) if options.copy_before else None
    request = sources.Request(
        target=target, where=options.source, host=options.host, before=before, timeout=options.timeout, now=now,
        accept_gap=options.accept_gap, start=not options.no_start, command=_again(options),
    )  # fmt: skip
    if options.check:
        return restore_check.check(settings, request, options.database)
    if options.beside:
        return restore_beside.beside(settings, request)
    if options.database:
        _confirmed(options.confirm, options.database, f"the database {options.database}")
        return restore_database.database(settings, options.database, request)
    _confirmed(options.confirm, settings.host, f"the whole PostgreSQL cluster of {settings.host}, with all databases")
    return restore_cluster.in_place(settings, request)


def _again(options: argparse.Namespace) -> str:
    """Return the command that repeats this restore."""
    words = ["flaskhost-backup", options.verb]
    named = {"to": "to", "release": "release", "backup": "backup", "app": "app", "database": "database"}
    named |= {"path": "path", "host": "of", "copy_before": "copy-before", "confirm": "confirm"}
    for name, option in named.items():
        if getattr(options, name, ""):
            words += [f"--{option}", getattr(options, name)]
    if getattr(options, "part", "all") != "all":
        words += ["--part", options.part]
    if options.source != "local":
        words += ["--from", options.source]
    words += [f"--{flag.replace('_', '-')}" for flag in ("no_start", "accept_gap") if getattr(options, flag, False)]
    return shlex.join(words)


def _abandon(settings: Config) -> Result:
    cluster = restore_cluster.abandon(settings)
    # After the cluster, because undoing its restore also brings back the previous databases.
    database = restore_database.abandon(settings)
    folder = restore_files.abandon(settings)
    lines = [*cluster.lines, *database.lines, *folder.lines] or ["No unfinished restore was found."]
    return Result(changed=cluster.changed or database.changed or folder.changed, lines=lines)


def _take_in(options: argparse.Namespace, settings: Config, now: float) -> Result:
    _confirmed(options.confirm, options.database, f"the database {options.database}")
    return restore_database.take_in(settings, options.database, options.dump, options.scrub, now)


def _confirmed(given: str, wanted: str, what: str) -> None:
    """Check that the operator has confirmed the replacement of data.

    Raises:
        BackupError: the confirmation is missing.
    """
    if given != wanted:
        raise BackupError(f"This replaces {what}.", f"To confirm: --confirm {wanted}")
