"""The status of this host: one row for each app, read without changing anything."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy import freeze, processes
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.deploy.slots import Slots, is_good, probe
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run
from ansible.module_utils.flaskhost.operate import drain, instances, run_page, shared_address

# Absolute imports, here and in the modules around: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.programs.backup import ONLY_HERE

#: Time limit for a health check in seconds: enough for a slow app, and short for an operator who waits for the table.
PROBE_SECONDS = 3.0
#: The program that checks the certificates, and the unit that renews them.
CERTIFICATES = Path("/usr/local/sbin/flaskhost-certificates")
RENEWAL = "flaskhost-certificates-renew.service"
#: The unit that loads the firewall's rules, and the command that lists the loaded rules.
FIREWALL = "flaskhost-firewall.service"
RULES = ("/usr/sbin/nft", "--stateless", "--terse", "list", "table", "inet", "flaskhost")
#: The program that checks the backups.
BACKUPS = Path("/usr/local/sbin/flaskhost-backup")
#: Maximum number of characters of a reason from another program or person.
LONGEST_REASON = 80


@dataclass
class Notes:
    """Notes for the operator in addition to the columns, most urgent first.

    Attributes:
        all: all notes, one sentence each.
        problems: the notes that need attention and are not the operator's own choice. A script fails on them.
    """

    all: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def tell(self, *texts: str) -> None:
        """Add notes that are not problems."""
        self.all += texts

    def complain(self, *texts: str) -> None:
        """Add notes that are problems."""
        self.all += texts
        self.problems += texts

    def __add__(self, other: Notes) -> Notes:
        return Notes(self.all + other.all, self.problems + other.problems)


def read(
    run: Run,
    apps: Sequence[Mapping[str, Any]],
    freeze_file: Path = freeze.FREEZE,
    units_dir: Path = processes.UNITS_DIR,
    now: float | None = None,
    *,
    certificates: Path = CERTIFICATES,
    backups: Path = BACKUPS,
    drained: Path = drain.FILE,
    keepalived: Path = shared_address.SETTINGS,
) -> list[dict[str, Any]]:
    """Read the status of all apps of this host.

    Args:
        run: runs a command.
        apps: for each app the result of :func:`requests.status.apps_to_ask`; empty on a host with only databases.
        freeze_file: the file of the freezes.
        units_dir: the folder of the administrator's units.
        now: current time in seconds since 1970; read from the clock if None.
        certificates: the program that manages the certificates; a host of an earlier version has none.
        backups: the program that manages the backups; a host of an earlier version has none.
        drained: the file that keeps an app host out of the rotation.
        keepalived: keepalived's settings; a host without an address that moves has none.

    Returns:
        A row for each app, in the same order, or a single row for the host: the keys of
        :data:`requests.status.COLUMNS` except ``host``, with ``since`` in seconds since 1970 (0 if unknown),
        ``certificate`` in days (None if there is none), ``cache``, ``queue``, ``backup`` and ``drill`` as text,
        ``notes`` as a list;
        ``problems`` and ``host_problems``, the notes about the app and about the host that need attention;
        ``aside``, the data that restores have set aside on the host: ``name``, ``bytes``, ``at`` and ``remove``;
        ``shared_address``, the result of :func:`operate.shared_address.read`, on a web host that shares one.
    """
    now = time.time() if now is None else now
    # In parallel, because each check of an app that does not respond takes the full time limit.
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(apps)))) as pool:
        answers = list(pool.map(_health, apps))
        looked = list(pool.map(lambda app: _instances(run, app, units_dir), apps))
    worries = _certificate_notes(run, certificates)
    kept, of_host = backup_status(run, backups, now)
    queues = kept.pop("queues", {})
    of_host = firewall_notes(run, units_dir) + of_host
    # The operator's own choice.
    of_host = Notes(list(drain.notes(drained, now))) + of_host
    shared = shared_address.read(run, keepalived)
    of_host = _address_notes(shared) + of_host
    kept |= {"shared_address": shared} if shared else {}
    if not apps:
        return [{"app": "", **kept, "notes": of_host.all, "problems": [], "host_problems": of_host.problems}]
    rows = []
    for app, answer, cells in zip(apps, answers, looked, strict=True):
        notes = _notes(run, app, answer, freeze_file=freeze_file, units_dir=units_dir, now=now)
        notes.complain(*worries.get(app["app"], []), *worries.get("", []))
        notes.complain(*(found.problem for found in cells.values() if found.problem))
        row = _row(run, app, answer, units_dir, now)
        row |= {kind: found.text for kind, found in cells.items()}
        if row.get("queue") and queues.get(app["app"]):
            row["queue"] += f", backup {queues[app['app']]}"
        found = {"notes": notes.all + of_host.all, "problems": notes.problems, "host_problems": of_host.problems}
        rows.append(row | kept | found)
    return rows


def firewall_notes(run: Run, units_dir: Path = processes.UNITS_DIR) -> Notes:
    """Check whether the firewall's rules are loaded. A host without our firewall gets no note."""
    notes = Notes()
    if not (units_dir / FIREWALL).exists():
        return notes
    if run(list(RULES))[0]:
        notes.complain(f"FIREWALL NOT LOADED, every port is open: sudo systemctl restart {FIREWALL}")
    elif not run(["systemctl", "is-failed", "--quiet", FIREWALL])[0]:
        notes.complain(f"firewall rules failed to load, all ports but SSH are blocked: sudo journalctl -u {FIREWALL}")
    return notes


def _address_notes(shared: Mapping[str, Any]) -> Notes:
    notes = Notes()
    if shared and not shared["runs"]:
        notes.complain(f"cannot take {shared['address']}: sudo systemctl restart keepalived")
    elif shared and shared["here"]:
        notes.tell(f"has {shared['address']}")
    return notes


def backup_status(run: Run, program: Path, now: float) -> tuple[dict[str, Any], Notes]:
    """Query the status of the host's backups.

    Args:
        run: runs a command.
        program: the program that manages them; a host of an earlier version has none.
        now: current time in seconds since 1970.

    Returns:
        The columns ``backup`` and ``drill``, the age of the last good ones; ``queues``, the age of the last good backup
        of each app's queue; and ``aside``, the data that restores have set aside; and notes for the operator.
    """
    notes = Notes()
    if not program.exists():
        return {}, notes
    status, out, err = run([str(program), "status", "--json"])
    try:
        answer = json.loads(out)
        kind = "database_state" if answer["database"] else "files_state"
        columns: dict[str, Any] = {"backup": _age(answer[kind], now), "drill": _age(answer["drill_state"], now)}
        if not answer["enabled"]:
            columns = {"backup": "none", "drill": ""}
        columns["queues"] = {name: _age(item, now) for name, item in (answer.get("queues") or {}).items()}
        columns["aside"] = list(answer.get("aside") or [])
        # A message about an unfinished restore ends with commands to type, so it is not shortened.
        whole = answer.get("unfinished", [])
        said = [item if item in whole else clip(item, LONGEST_REASON * 2) for item in answer["problems"]]
        # A host without backups is the operator's choice.
        (notes.complain if answer["enabled"] else notes.tell)(*said)
        if answer["enabled"] and not answer["second"]:
            notes.tell(ONLY_HERE)
        return columns, notes
    except (ValueError, KeyError, TypeError, AttributeError):
        otherwise = f"the status cannot be read (exit code {status}): sudo flaskhost-backup status"
        notes.complain(f"backups: {clip(err or out) or otherwise}")
        return {}, notes


def _age(state: Mapping[str, Any], now: float) -> str:
    """Format the age of the last good run, and whether a later run failed."""
    good, last = state["good"], state["last"]
    if not good:
        return "failed" if last else ""
    hours = max(0.0, now - float(good["at"])) / 3600
    age = f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"
    return age if last.get("ok") else f"{age}, then failed"


def _instances(run: Run, app: Mapping[str, Any], units_dir: Path) -> dict[str, instances.Found]:
    """Ask the cache and the queue of an app, if they are on this host. Return what they say by their kinds."""
    here = [instance for instance in app.get("instances") or [] if (units_dir / instance["unit"]).exists()]
    return {instance["kind"]: instances.look(run, instance) for instance in here}


def _slots(run: Run, app: Mapping[str, Any]) -> Slots:
    return Slots(
        run,
        unit=app["unit"],
        root=Path(app["root"]),
        socket_dir=Path(app["socket_dir"]),
        live_socket=Path(app["live_socket"]),
    )


def _health(app: Mapping[str, Any]) -> str:
    """Check the health of the live release, over the link that nginx connects through."""
    if not Path(app["live_socket"]).is_symlink():
        return ""
    health = app["health"]
    status, body = probe(app["live_socket"], health["path"], app["host"], PROBE_SECONDS)
    if not status:
        return "no response"
    if is_good(status, body, health):
        return f"{status} ok"
    return f"{status}, wrong body" if status == health["status"] else f"{status}, not {health['status']}"


def _row(run: Run, app: Mapping[str, Any], answer: str, units_dir: Path, now: float) -> dict[str, Any]:
    slots, store = _slots(run, app), Store(Path(app["root"]))
    live = slots.live()
    release = slots.release(live)
    record = store.record(release) if release else None
    since, by = _since(store, release, record)
    return {
        "app": app["app"],
        "release": release,
        "commit": record.revision[:7] if record else "",
        "version": _short(record.version) if record else "",
        "since": since,
        "by": by,
        "slot": live,
        "health": answer,
        "previous": store.previous_healthy(release) if release else "",
        "certificate": _certificate_days(run, Path(app["certificate"]), now),
    }


def _since(store: Store, release: str, record: Record | None) -> tuple[float, str]:
    """Return when the live release last went live, and who did it."""
    for entry in reversed(store.history()):
        if release and entry.get("release") == release:
            at = entry.get("at")
            return float(at) if isinstance(at, (int, float)) else 0.0, str(entry.get("by") or "")
    return (record.created, record.by) if record else (0.0, "")


def _short(version: str) -> str:
    """Shorten a folder or a URL to the last part of its path. A branch can contain slashes and stays unchanged."""
    return version.rstrip("/").rpartition("/")[2] if version.startswith("/") or "://" in version else version


def _certificate_days(run: Run, certificate: Path, now: float) -> int | None:
    """Return the days until the app's certificate expires; None if there is no readable certificate."""
    if not certificate.is_file():
        return None
    status, out, _err = run(["openssl", "x509", "-in", str(certificate), "-noout", "-enddate"])
    try:
        return int((ssl.cert_time_to_seconds(out.partition("=")[2].strip()) - now) // 86400) if not status else None
    except ValueError:
        return None


def _certificate_notes(run: Run, program: Path) -> dict[str, list[str]]:
    """Return the problems of the certificates by the app's name; those of the renewal itself under the empty name."""
    if not program.exists():
        return {}
    notes: dict[str, list[str]] = {}
    _status, out, _err = run([str(program), "check", "--json"])
    try:
        for item in json.loads(out)["certificates"]:
            notes[item["name"]] = [clip(problem) for problem in item["problems"]]
    except (ValueError, KeyError, TypeError):
        notes[""] = ["certificates could not be checked; for the reason: sudo flaskhost-certificates check"]
    if not run(["systemctl", "is-failed", "--quiet", RENEWAL])[0]:
        notes.setdefault("", []).append(f"certificate renewal failed: sudo journalctl -u {RENEWAL}")
    return notes


def _notes(run: Run, app: Mapping[str, Any], answer: str, *, freeze_file: Path, units_dir: Path, now: float) -> Notes:
    slots, store, notes = _slots(run, app), Store(Path(app["root"])), Notes()
    live = slots.live()
    if live:
        release = slots.release(live)
        if not store.record(release):
            notes.complain("release.json of the live release cannot be read")
        if slots.is_lost():
            deploy = f"ansible-playbook playbooks/deploy.yml -e app={app['app']}"
            notes.complain(f"live.sock is missing, visitors get 502: {deploy}")
        if not slots.is_active(live):
            notes.complain("slot not running")
        if not slots.is_enabled(live):
            notes.complain("slot not enabled: the app would not start after a reboot")
        if slots.is_active(slots.idle()):
            notes.tell(f"{slots.idle()} slot runs too")
        notes.complain(*(f"process {name} down" for name in processes.down(run, app["unit"], units_dir)))
        notes.tell(*_taken_back(store, release))
        if not answer.endswith(" ok"):
            # The health has a column of its own, so it is not a note.
            notes.problems.append(f"health: {answer or 'no response'}")
    elif store.all_records():
        notes.complain(f"no release is live: ansible-playbook playbooks/deploy.yml -e app={app['app']}")
    folder = Path(app["maintenance"])
    restore = run_page.run_of(folder)
    if restore:
        notes.complain(f"maintenance page of restore {restore}, removed when the restore ends")
    elif (folder / "page.html").exists():
        notes.tell("maintenance")
    return notes + _frozen(app["app"], freeze_file, now)


def _taken_back(store: Store, live: str) -> list[str]:
    """Return a note if the newest release is not live because it failed."""
    records = store.all_records()
    if records and records[0].id != live and records[0].failed:
        return [f"{records[0].id} failed: {clip(records[0].failed)}"]
    return []


def _frozen(app: str, file: Path, now: float) -> Notes:
    notes = Notes()
    try:
        entries = freeze.active(file, now)
    except ReleaseError as error:
        notes.complain(f"frozen: {error.reason}")
        return notes
    found = [entries[name] for name in (app, freeze.ALL) if name in entries]
    notes.tell(*(f"frozen until {freeze.utc(entry['until'])}: {clip(entry['reason'])}" for entry in found))
    return notes


def clip(text: str, longest: int = LONGEST_REASON) -> str:
    """Return the beginning of a text's first line."""
    line = " ".join((text.strip().splitlines() or [""])[0].split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
