"""Preflight's queries on the host: calendar events, running apps, PostgreSQL's settings, restores, Debian packages.

Nothing is changed.

This code runs on hosts that preflight has not accepted yet, so it needs only Python 3.7, and raises no errors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

#: Debian's folder of PostgreSQL's programs, by version.
PROGRAMS = Path("/usr/lib/postgresql")
#: The program that restores backups; a bare host has none.
BACKUPS = Path("/usr/local/sbin/flaskhost-backup")
#: The folder of the apps; each app has a subfolder with its name.
APPS = Path("/srv")
#: The folder of the clusters' settings.
CLUSTERS = Path("/etc/postgresql")
#: Time limit in seconds. A program that exceeds it is not run again.
_TIMEOUT = 30
#: A package of every Debian. If the host's package lists do not contain it, they are missing or incomplete.
_ALWAYS_LISTED = "gcc"


def answer(
    run,
    calendars,
    settings,
    version="",
    *,
    programs=PROGRAMS,
    backups=BACKUPS,
    apps=None,
    root=APPS,
    clusters=CLUSTERS,
    packages=(),
):
    """Run all queries.

    Args:
        run: runs a command, with the interface of ``AnsibleModule.run_command``.
        calendars: expressions of systemd.time(7).
        settings: values of PostgreSQL's settings as strings, by name.
        version: the requested major version of PostgreSQL; the newest installed version if empty.
        programs: the folder of PostgreSQL's programs.
        backups: the program that restores backups.
        apps: the names of the apps that should run on the host; None to skip the check.
        root: the folder of the apps.
        clusters: the folder of the clusters' settings.
        packages: names of Debian packages.

    Returns:
        ``calendars``, systemd's error for each expression, empty if it is valid; ``postgres`` with ``settings``,
        PostgreSQL's error for each value (without those that could not be checked), and ``libraries``, the names of the
        installed libraries. ``postgres`` is empty if the host does not have that version of PostgreSQL. ``restores``, a
        sentence for each restore that was killed before it finished. ``others``, a sentence for each app that runs but
        should not. ``archives``, whether PostgreSQL archives its WAL; None if our settings are not on the host yet.
        ``unknown_packages``, the packages that the host's package lists do not contain; empty if it has no lists.
    """
    return {
        "calendars": _calendars(run, calendars),
        "postgres": _postgres(run, settings, version, programs),
        "restores": _restores(run, backups),
        "others": _others(run, apps, root),
        "archives": _archives(clusters, version),
        "unknown_packages": _unknown(run, packages),
    }


def installed(run):
    """Return the installed Debian packages: for each name, a list with its ``version``, as package_facts has it.

    Packages that an interrupted installation left half installed are not among them. Empty if dpkg does not say.
    """
    status, out, _err = run(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}\t${Package}\t${Version}\n"])
    found = {}
    for line in out.splitlines() if status == 0 else []:
        state, _tab, rest = line.partition("\t")
        name, _tab, version = rest.partition("\t")
        if state[1:2] == "i" and name:
            found.setdefault(name, []).append({"version": version})
    return found


def interfaces(run):
    """Return the IPv4 addresses of each network interface, with the length of their prefix; empty if it is unknown."""
    status, out, _err = run(["ip", "-json", "-4", "address", "show"])
    try:
        links = json.loads(out) if status == 0 else []
        return {
            link["ifname"]: ["{}/{}".format(item["local"], item["prefixlen"]) for item in link["addr_info"]]
            for link in links
            if link.get("addr_info")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _unknown(run, packages):
    """Find names that apt does not know. It knows virtual packages too, which other packages provide."""
    if not packages:
        return []
    _status, out, _err = run(["timeout", str(_TIMEOUT), "apt-cache", "policy", "--", _ALWAYS_LISTED, *packages])
    known = re.findall(r"^(\S+):\n", out, re.MULTILINE)
    block = re.search(r"^" + _ALWAYS_LISTED + r":\n(?: .*\n)*", out, re.MULTILINE)
    # An installed package is known without lists too, but then no list is named.
    return sorted(set(packages) - set(known)) if block and " Packages\n" in block.group() else []


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
                f"the app {name} runs on this host but is not in flask_apps. Its processes and timers keep running. If "
                "you renamed it, the app with the new name starts without data. To stop it: "
                f"sudo systemctl disable --now {' '.join(its)}"
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
        # 127 and similar: the program does not exist, which says nothing about the expression.
        found[expression] = _first_line(err) or "no reason given" if status == 1 else ""
    return found


def _postgres(run, settings, version, programs):
    folder = _folder(version, programs)
    if folder is None:
        return {}
    found = {}
    # Without a cluster and its settings, so that only the value is validated. -C prints a setting and exits.
    base = [str(folder / "bin" / "postgres"), "-D", "/", "-c", "config_file=/dev/null"]
    # The program must run as the user postgres.
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--no-new-privs"]
    for name, value in sorted(settings.items()):
        command = ["timeout", str(_TIMEOUT), *become, *base, "-c", f"{name}={value}", "-C", name]
        status, _out, err = run(command)
        said = re.findall(r" (?:FATAL|ERROR|HINT|DETAIL): +(.+)", err) if status else []
        # Without such a line, PostgreSQL itself did not reject the value.
        if said or status == 0:
            found[name] = " ".join(line.rstrip(".") + "." for line in said)
    libraries = sorted(path.name[: -len(".so")] for path in (folder / "lib").glob("*.so"))
    return {"settings": found, "libraries": libraries}


def _folder(version, programs):
    """Return the folder of the requested version, or of the newest one; None if it is not installed."""
    have = {path.parents[1].name: path.parents[1] for path in programs.glob("[0-9]*/bin/postgres")}
    if version:
        return have.get(version)
    return have[max(have, key=lambda name: float(re.sub(r"[^0-9.]", "", name) or 0))] if have else None


def _first_line(text):
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
