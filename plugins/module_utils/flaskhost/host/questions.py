"""What preflight asks the host: systemd about times and apps, PostgreSQL about values, the backups about restores.

Nothing is changed.

It runs on hosts that preflight has yet to refuse, so nothing here needs more than Python 3.7, and nothing raises.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

#: Where Debian has PostgreSQL's programs, by version.
PROGRAMS = Path("/usr/lib/postgresql")
#: The program that restores; a bare host has none.
BACKUPS = Path("/usr/local/sbin/flaskhost-backup")
#: Where the apps are, each in a folder of its name.
APPS = Path("/srv")
#: The clusters' settings.
CLUSTERS = Path("/etc/postgresql")
#: Seconds. A program that does not answer is not asked again.
_TIMEOUT = 30


def answer(
    run, calendars, settings, version="", *, programs=PROGRAMS, backups=BACKUPS, apps=None, root=APPS, clusters=CLUSTERS
):
    """Ask the host everything.

    Args:
        run: runs a command, as ``AnsibleModule.run_command`` does.
        calendars: expressions of systemd.time(7).
        settings: values of PostgreSQL's settings as texts, by their names.
        version: the major version of PostgreSQL that is wanted; the newest installed when empty.
        programs: where PostgreSQL's programs are.
        backups: the program that restores.
        apps: the names of the apps that are to run on the host; None where none is asked about.
        root: where the apps are.
        clusters: where the clusters' settings are.

    Returns:
        ``calendars``, what systemd says against each expression, and ``postgres``: ``settings``, what PostgreSQL says
        against each value (without those that it gave no answer to), and ``libraries``, the names of those that are
        installed. ``postgres`` is empty if the host has no PostgreSQL of that version. ``restores``, a sentence for
        each restore that was killed and is not finished. ``others``, a sentence for each app that runs and is not to.
        ``archives``, whether PostgreSQL hands over its log; None if it has no settings of ours yet.
    """
    return {
        "calendars": _calendars(run, calendars),
        "postgres": _postgres(run, settings, version, programs),
        "restores": _restores(run, backups),
        "others": _others(run, apps, root),
        "archives": _archives(clusters, version),
    }


def _others(run, apps, root):
    if apps is None:
        return []
    names = sorted({path.parent.name for path in root.glob("*/slots")} - set(apps))
    if not names:
        return []
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating", "flask-*"]
    units = [line.split()[0] for line in run(command)[1].splitlines() if line.strip()]
    found = []
    for name in names:
        its = [unit for unit in units if re.match(rf"flask-{re.escape(name)}(_process|_timer)?@", unit)]
        if its:
            found.append(
                f"the app {name} runs here and is not in flask_apps: its processes and timers go on. If it has a new "
                f"name, that app begins without any data. To stop it: sudo systemctl disable --now {' '.join(its)}"
            )
    return found


def _restores(run, program):
    if not program.exists():
        return []
    _status, out, _err = run(["timeout", str(_TIMEOUT), str(program), "status", "--json"])
    try:
        return [str(item) for item in json.loads(out)["unfinished"]]
    except (ValueError, KeyError, TypeError):
        return []


def _archives(clusters, version):
    try:
        texts = [path.read_text() for path in clusters.glob((version or "*") + "/main/conf.d/60-flaskhost.conf")]
    except (OSError, ValueError):
        return None
    return any(re.search(r"^archive_mode = 'on'", text, re.MULTILINE) for text in texts) if texts else None


def _calendars(run, expressions):
    expressions = sorted(set(expressions))
    command = ["systemd-analyze", "calendar", "--"]
    if not expressions or run([*command, *expressions])[0] == 0:
        return dict.fromkeys(expressions, "")
    found = {}
    for expression in expressions:
        status, _out, err = run([*command, expression])
        # 127 and the like: there is no such program, which says nothing about the expression.
        found[expression] = _first_line(err) or "it gives no reason" if status == 1 else ""
    return found


def _postgres(run, settings, version, programs):
    folder = _folder(version, programs)
    if folder is None:
        return {}
    found = {}
    # No cluster and no file of its settings: the answer is about the value alone. -C prints a setting and ends.
    base = [str(folder / "bin" / "postgres"), "-D", "/", "-c", "config_file=/dev/null"]
    # As the user postgres, which the program insists on.
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--no-new-privs"]
    for name, value in sorted(settings.items()):
        command = ["timeout", str(_TIMEOUT), *become, *base, "-c", f"{name}={value}", "-C", name]
        status, _out, err = run(command)
        said = re.findall(r" (?:FATAL|ERROR|HINT|DETAIL): +(.+)", err) if status else []
        # Without such a line it is not PostgreSQL that refused.
        if said or status == 0:
            found[name] = " ".join(line.rstrip(".") + "." for line in said)
    libraries = sorted(path.name[: -len(".so")] for path in (folder / "lib").glob("*.so"))
    return {"settings": found, "libraries": libraries}


def _folder(version, programs):
    """The folder of the wanted version, or of the newest one; None if it is not installed."""
    have = {path.parents[1].name: path.parents[1] for path in programs.glob("[0-9]*/bin/postgres")}
    if version:
        return have.get(version)
    return have[max(have, key=lambda name: float(re.sub(r"[^0-9.]", "", name) or 0))] if have else None


def _first_line(text):
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
