"""The command line: ``flaskhost-certificates prepare|apply|renew|deployed|check [--json] [--check]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.failures import defect, report, system_error

from flaskhost_certificates import apply, check, deployed, prepare, renew, state
from flaskhost_certificates import config as configuration
from flaskhost_certificates.commands import run_command
from flaskhost_certificates.config import CertificateError, Config
from flaskhost_certificates.result import Result


def main(argv: Sequence[str]) -> int:
    """Run the program.

    Args:
        argv: the arguments, without the program's name.

    Returns:
        The exit status: 0 when all is well; 1 when something is wrong. What an authority refuses is no failure of
        ``apply``, which says it among the problems: the site is up, and the next run asks again.
    """
    options = _parser().parse_args(argv)
    os.umask(0o077)
    try:
        result = _run(options)
    except CertificateError as error:
        return _refuse(options, str(error))
    except OSError as error:
        return _refuse(options, f"A file or connection failed: {system_error(error)}.")
    except KeyboardInterrupt:
        return _refuse(options, "Interrupted. Run the same command again, which goes on from there.")
    except Exception as error:  # an operator sees a sentence, never a stack trace
        return _refuse(options, defect(error, "flaskhost-certificates", secret=True))
    if options.json:
        print(json.dumps(result.as_json(), sort_keys=True))
    else:
        print("".join(f"{line}\n" for line in lines(result)), end="")
    for problem in result.problems:
        report(problem)
    return int(bool(result.problems) and options.verb != "apply")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flaskhost-certificates",
        description="The certificates of this host's sites.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "verb",
        choices=["prepare", "apply", "renew", "deployed", "check"],
        help="prepare: a usable pair at each final path, own ones from stdin; apply: ask the authority for what is "
        "missing; renew: and renew what is due; deployed: certbot's deploy hook; check: say which one is late or wrong",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--check", action="store_true", help="say what would be done; change nothing")
    parser.add_argument("--config", type=Path, default=configuration.CONFIG, help="the configuration (%(default)s)")
    return parser


def _run(options: argparse.Namespace) -> Result:
    # Before the lock: what is wrong there is said at once.
    own = _own() if options.verb == "prepare" else {}
    settings = configuration.load(options.config)
    with _lock(options), warnings.catch_warnings():
        # The library warns of old roots in the system's store, which no operator can do anything about.
        warnings.simplefilter("ignore")
        return _do(options, settings, own)


def _lock(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """Lock out other runs; not where nothing is changed, nor in certbot's hook under a run of ours, which holds it."""
    below = options.verb == "deployed" and os.environ.get(state.LOCKED)
    if options.verb == "check" or options.check or below:
        return contextlib.nullcontext()
    return state.lock(options.verb, state.LOCK)


def _do(options: argparse.Namespace, settings: Config, own: dict[str, Any]) -> Result:
    now, dry, run = time.time(), options.check, run_command
    if options.verb == "prepare":
        return prepare.prepare(settings, run, own, now, dry=dry)
    if options.verb == "apply":
        return apply.apply(settings, run, now, dry=dry)
    if options.verb == "renew":
        return renew.renew(settings, run, now, dry=dry)
    if options.verb == "deployed":
        within = bool(os.environ.get(state.LOCKED))
        return deployed.deployed(settings, run, os.environ.get("RENEWED_LINEAGE", ""), now, dry=dry, within=within)
    return check.check(settings, run, now)


def _own() -> dict[str, Any]:
    """Read the own certificates from stdin; a terminal or an empty input holds none.

    Raises:
        CertificateError: it is something else; the text, which holds keys, is not shown.
    """
    text = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    try:
        own = json.loads(text)["files"] if text.strip() else {}
    except (ValueError, KeyError, TypeError):
        own = None
    if not isinstance(own, dict) or not all(isinstance(item, dict) for item in own.values()):
        reason = "The input of 'prepare' is not what it has to be."
        raise CertificateError(reason, 'Give it {"files": {"<site>": {"certificate": "<PEM>", "key": "<PEM>"}}}.')
    return own


def lines(result: Result) -> list[str]:
    """The result for people, a line for each certificate."""
    found = []
    for item in result.certificates:
        words = [item.source or "no certificate"]
        if item.not_after:
            words.append(f"until {datetime.fromtimestamp(item.not_after, UTC):%Y-%m-%d %H:%M} UTC")
        if item.changed:
            words.append("changed")
        found.append(" ".join([f"{item.name}: {', '.join(words)}.", *item.notes]))
    if result.deleted:
        found.append(f"Deleted: {', '.join(result.deleted)}.")
    if result.reloaded:
        found.append("nginx was reloaded.")
    return found


def _refuse(options: argparse.Namespace, problem: str) -> int:
    """Fail as a whole; whoever reads JSON gets some."""
    if options.json:
        failed = {**Result().as_json(), "problem": problem}
        print(json.dumps(failed, sort_keys=True))
    report(problem)
    return 1
