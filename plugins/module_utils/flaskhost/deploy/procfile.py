"""Read an app's Procfile, and write the scripts that a release brings for its processes and timers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible.module_utils.flaskhost.host.runner import ReleaseError

#: Names in a Procfile that are not background processes: the slots run ``web``, and a deploy runs ``release``.
NOT_PROCESSES = frozenset({"web", "release"})
#: Prefix of the timers' scripts in a release's folder ``processes``. No process may have a name with it.
TIMER_PREFIX = "timer-"

#: A line of a Procfile, as Heroku defines it: a name, a colon, a command.
_LINE = re.compile(r"([A-Za-z0-9_-]{1,31}):[ \t]*(\S.*)")
#: Parts of a command in which the shell's operators have no meaning, or only redirect output.
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|`[^`]*`|\$\([^()]*\)|\$\{[^}]*\}|\d*[<>]&\d*-?""", re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
#: Words of the shell itself, which cannot follow ``exec``.
_SHELL_WORDS = frozenset(
    ". : [ { ! break case cd command continue eval exec exit export for if read set shift test time trap ulimit umask "
    "unset until wait while".split()
)


def read_procfile(text: str) -> dict[str, str]:
    """Read a Procfile.

    Args:
        text: its content.

    Returns:
        The commands by name, including ``web`` and ``release``. Comments and other lines are skipped. If a name occurs
        twice, the last line counts.
    """
    found = (_LINE.fullmatch(line.strip()) for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {match[1]: match[2] for match in found if match}


def wanted(options_processes: Mapping[str, str], procfile: Mapping[str, str]) -> dict[str, str]:
    """Combine the options and the Procfile into the background processes of a release.

    Args:
        options_processes: the app's ``processes``. They override lines of the Procfile with the same name. An empty
            command removes the line.
        procfile: the result of :func:`read_procfile`.

    Returns:
        The commands by name, sorted, without those in :data:`NOT_PROCESSES`.

    Raises:
        ReleaseError: a name begins with :data:`TIMER_PREFIX`.
    """
    together = {**procfile, **options_processes}
    chosen = {name: text for name in sorted(together) if name not in NOT_PROCESSES and (text := together[name].strip())}
    for name in chosen:
        if name.startswith(TIMER_PREFIX):
            raise ReleaseError(
                "Read the processes",
                f"the name {name} begins with {TIMER_PREFIX}, which is reserved for timers.",
                "Rename the process in the Procfile, or in processes.",
            )
    return chosen


def script(command: str) -> str:
    """Return the script of a process or timer in a release.

    The script finds its own release and stays with it. While its command still runs, ``current`` may already point to
    the next release, whose modules the command must not import.

    Args:
        command: a command for the shell. A single command replaces the shell, so that it receives the signal to stop.
            If there are several (``cd src && exec celery``), the user has to write ``exec``.

    Returns:
        The text of ``releases/<id>/processes/<name>``, or ``timer-<name>``, for /bin/sh.
    """
    return f"""\
#!/bin/sh
release=$(readlink -f "$0")
release=${{release%/processes/*}}
cd "$release/app" || exit
export PATH="$release/venv/bin:/usr/local/bin:/usr/bin:/bin"
export PYTHONPATH="$release/app:$release/app/src"
{_exec(command)}{command}
"""


def scripts(processes: Mapping[str, str], timers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return all scripts of a release.

    Args:
        processes: the commands by name, as :func:`wanted` returns them.
        timers: ``command`` and ``on_calendar`` by name.

    Returns:
        The texts by file name in ``releases/<id>/processes``.
    """
    files = {name: script(command) for name, command in processes.items()}
    return files | {f"{TIMER_PREFIX}{name}": script(timer["command"]) for name, timer in timers.items()}


def _exec(command: str) -> str:
    """Return the prefix with which a command replaces the shell; empty if there is more than one command."""
    bare = _QUOTED.sub("x", command)
    words = bare.split()
    # A remaining quote is unbalanced: the shell will report it.
    if not words or words[0] in _SHELL_WORDS or re.search("[;&|()\n`'\"]", bare):
        return ""
    # "exec A=b worker" would look for a program named A=b.
    return "exec env " if _ASSIGNMENT.match(words[0]) else "exec "
