"""The command line: ``flaskhost-backup VERB [options] [--json]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible.module_utils.flaskhost.host.failures import defect, report, system_error

from flaskhost_backup import (
    backup,
    check,
    drill,
    forget,
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

#: Verbs that only look, and neither wait for others nor keep them waiting.
LOOKING = ("status", "list", "check", "point")
#: Verbs that somebody waits for: they say at once that another run is at work.
SHORT = ("prepare", "copy", "restore", "restore-files", "take-in", "remove", "adopt", "unlock", "abandon", "forget")
#: Verbs that run by the clock, whose failures the hook is told of.
CLOCKWORK = ("full", "diff", "files", "copy", "check", "drill")


def main(argv: Sequence[str]) -> int:
    """Run the program.

    Args:
        argv: the arguments, without the program's name.

    Returns:
        The exit status: 0 when all is well, 3 when the host has no backups, 1 when something else is wrong. Of
        ``prepare`` and ``status`` problems are no failure: they are told, and Ansible shows them.
    """
    options = _parser().parse_args(argv)
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
        text = "Interrupted. Run the same command again, which first takes back what is half done."
        result = Result(problems=[text], data={"problem": text})
    except Exception as error:  # an operator sees a sentence, never a stack trace
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
        prog="flaskhost-backup", description="The backups of this host, and restores.", allow_abbrev=False
    )
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("--json", action="store_true", help="print the result as one JSON object")
    common.add_argument("--config", type=Path, default=configuration.CONFIG, help="the configuration (%(default)s)")
    commands = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common], allow_abbrev=False)

    add("full", "a full backup of the database, and one of the files")
    add("diff", "a backup of what has changed since the last full one, and one of the files")
    add("files", "a backup of the files alone")
    add("copy", "copy what is new in the database's repository to the second one")
    add("check", "say what is late or has failed, and see that the write-ahead log arrives")
    add("list", "say what can be restored")
    add("status", "say when what was done last")
    add("adopt", "let this cluster follow on another's backups in the second repository")
    add("abandon", "take back a restore that was killed, where nothing has been written since")
    add("unlock", "take away the locks of runs that were killed")
    add("forget", "delete a backup of the database").add_argument("label", metavar="LABEL", help="which one")
    add("remove", "delete the cluster that was restored beside the real one")
    prepare = add("prepare", "make the repositories that are missing")
    prepare.add_argument("--check", action="store_true", help="say what would be done; change nothing")
    drilling = add("drill", "restore the newest backup into a scratch cluster, and judge it")
    drilling.add_argument(
        "--from", dest="source", choices=["local", "second"], default="local", help="which repository"
    )
    drilling.add_argument("--timeout", type=float, default=3600.0, help="seconds that the recovery may take")
    point = add("point", "put a point into the write-ahead log, right before a release's migration")
    point.add_argument("--app", required=True)
    point.add_argument("--release", required=True)
    point.add_argument("--previous", default="")
    _add_restores(add)
    return parser


def _add_restores(add: Callable[..., argparse.ArgumentParser]) -> None:
    whole = add("restore", "restore the database")
    target = whole.add_mutually_exclusive_group()
    target.add_argument(
        "--to", default="", metavar="TIME", help="to a time, UTC where it names no zone; to now without"
    )
    target.add_argument("--release", default="", help="to before this release's migration")
    target.add_argument("--backup", default="", metavar="LABEL", help="to the end of this backup, without any log")
    whole.add_argument("--app", default="", help="whose database or release is meant")
    place = whole.add_mutually_exclusive_group()
    place.add_argument("--beside", action="store_true", help="into a cluster beside the real one, for a look")
    place.add_argument("--database", default="", metavar="NAME", help="this database alone")
    whole.add_argument("--timeout", type=float, default=3600.0, help="seconds that the recovery may take")
    taken = add("take-in", "put another host's database into the place of the one here")
    taken.add_argument("--database", required=True, metavar="NAME", help="the database, here and there")
    taken.add_argument("--dump", required=True, type=Path, help="made by pg_dump --format=custom --create")
    taken.add_argument("--scrub", default=None, type=Path, help="SQL that takes out what must not be here")
    taken.add_argument("--confirm", default="", metavar="NAME", help="the database's name: it is replaced")
    files = add("restore-files", "restore an app's data folder, or one of backup.paths")
    which = files.add_mutually_exclusive_group(required=True)
    which.add_argument("--app", default="", help="the app; flaskhost for /etc/flaskhost")
    which.add_argument("--path", default="", help="the folder or file, one of backup.paths")
    files.add_argument("--to", default="", metavar="TIME", help="the newest backup that is not younger")
    files.add_argument("--folder", type=Path, default=None, help="into this empty folder, for a look")
    for parser in (whole, files):
        parser.add_argument("--from", dest="source", choices=["local", "second"], default="local", help="from where")
        parser.add_argument(
            "--of", dest="host", default="", metavar="HOST", help="whose backups, in the second repository"
        )
        parser.add_argument(
            "--confirm", default="", metavar="NAME", help="what is replaced: the host's name, the app's, or the path"
        )
        parser.add_argument("--check", action="store_true", help="say whether it can be done; change nothing")
    whole.add_argument("--no-start", action="store_true", help="leave the apps stopped: an earlier release comes next")
    whole.add_argument("--accept-gap", action="store_true", help="although a part of the log is missing, up to there")
    whole.add_argument("--copy-before", default="", metavar="TIME", help="an earlier copy in the second repository")


def _folders(settings: Config) -> None:
    """Make the folders that postgres has to get through; what others must not read is closed further below."""
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
    # The copy comes again in some minutes; what somebody waits for says at once why it cannot be.
    seconds = 0.0 if verb == "copy" else 20.0 if verb in SHORT else state.LOCK_SECONDS
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(state.lock(verb, state.LOCK, seconds))
        except BackupError:
            if verb == "copy":
                return Result(lines=["Another run is at work: the next copy is made after it."])
            raise
        leftovers.end_left(settings)
        return _do(options, settings, time.time())


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
        if options.check:
            return restore_files.check(settings, name, when=when, where=options.source, host=options.host)
        return restore_files.files(
            settings, name, when=when, where=options.source, host=options.host, folder=options.folder, now=now,
            command=_again(options),
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
    """The command that asks for the same restore again."""
    words = ["flaskhost-backup", options.verb]
    named = {"to": "to", "release": "release", "backup": "backup", "app": "app", "database": "database"}
    named |= {"path": "path", "host": "of", "copy_before": "copy-before", "confirm": "confirm"}
    for name, option in named.items():
        if getattr(options, name, ""):
            words += [f"--{option}", getattr(options, name)]
    if options.source != "local":
        words += ["--from", options.source]
    words += [f"--{flag.replace('_', '-')}" for flag in ("no_start", "accept_gap") if getattr(options, flag, False)]
    return shlex.join(words)


def _abandon(settings: Config) -> Result:
    cluster = restore_cluster.abandon(settings)
    # Of a cluster that was taken back, the databases are again what they were.
    database = restore_database.abandon(settings)
    folder = restore_files.abandon(settings)
    lines = [*cluster.lines, *database.lines, *folder.lines] or ["There is no restore that was killed."]
    return Result(changed=cluster.changed or database.changed or folder.changed, lines=lines)


def _take_in(options: argparse.Namespace, settings: Config, now: float) -> Result:
    _confirmed(options.confirm, options.database, f"the database {options.database}")
    return restore_database.take_in(settings, options.database, options.dump, options.scrub, now)


def _confirmed(given: str, wanted: str, what: str) -> None:
    """See that whoever replaces data has said so.

    Raises:
        BackupError: they have not.
    """
    if given != wanted:
        raise BackupError(f"This replaces {what}.", f"If that is meant: --confirm {wanted}")
