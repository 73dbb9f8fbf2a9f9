"""The part of benchmarks/serve that runs on the host, as root: load, CPU time, memory, and a profile of the sample app.

It reads a plan as JSON from its standard input, and prints the result as JSON. Only the standard library, because the
host's Python has nothing else.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
#: A request that takes longer counts as timed out. 256 requests of 50 ms, one after the other, take 13 s.
TIMEOUT = 20
#: Prints the seconds that a request took.
ASK = ("curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{time_total}")

#: The measurements of wrk as JSON, on the last line of its output. Times are in microseconds.
SCRIPT = """
done = function(summary, latency)
    local errors = summary.errors
    print(string.format(
        '{"requests": %d, "microseconds": %d, "bytes": %d, "failed": %d, "timed_out": %d, "p50": %d, "p99": %d}',
        summary.requests, summary.duration, summary.bytes, errors.connect + errors.status, errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
"""

#: Runs in the sample app's own environment. Looks at the running function every few milliseconds of CPU time: cProfile
#: would make many short calls look expensive. A function in C counts for the function that calls it.
PROFILE = """
import collections, json, pathlib, signal, time
from guestbook import create_app
from werkzeug.test import EnvironBuilder, run_wsgi_app

app = create_app()
environ = EnvironBuilder(base_url="https://guestbook.test/", headers={"X-Forwarded-Proto": "https"}).get_environ()

def ask(times):
    for _ in range(times):
        body, status, headers = run_wsgi_app(app, dict(environ))
        if not status.startswith("200") or not b"".join(body):
            raise SystemExit(status)

def package(path):
    parts = pathlib.Path(path).parts
    if "site-packages" in parts:
        return pathlib.Path(parts[parts.index("site-packages") + 1]).stem
    if path.endswith(".html"):
        return "its templates"
    return "guestbook" if "guestbook" in parts else "Python's library"

seen = collections.Counter()
ask(200)
began = time.process_time()
ask(500)
microseconds = (time.process_time() - began) / 500 * 1e6
signal.signal(signal.SIGPROF, lambda _, frame: seen.update([package(frame.f_code.co_filename)]))
signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
ask(2000)
signal.setitimer(signal.ITIMER_PROF, 0)
shares = {name: round(count / seen.total(), 4) for name, count in seen.most_common()}
print(json.dumps({"microseconds": round(microseconds), "shares": shares}))
"""


def run(*command: str, text: str | None = None) -> str:
    """Run a command and return its output. A failure ends the program with the command's own words."""
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"This command failed: {shlex.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


# -- processes -------------------------------------------------------------------------------------------------------


def read_processes() -> dict[int, tuple[int, int]]:
    """Return the parent and the CPU ticks of each process, with those of its children that have ended."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # proc(5): the name in parentheses can contain spaces and parentheses.
        fields = status.rpartition(")")[2].split()
        found[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    return found


def descend(first: int, parents: dict[int, int]) -> list[int]:
    """Return a process and all of its descendants."""
    children: dict[int, list[int]] = {}
    for process, parent in parents.items():
        children.setdefault(parent, []).append(process)
    found = [first]
    for process in found:
        found += children.get(process, [])
    return found


def main_process(unit: str) -> int:
    """Return the main process of a unit, which must run. The name may have an asterisk."""
    process = int(run("systemctl", "show", "--property=MainPID", "--value", unit).split()[0])
    if not process:
        sys.exit(f"{unit} does not run:\n{run('systemctl', 'status', '--no-pager', unit)}")
    return process


def cpu_seconds(unit: str) -> float:
    """Return the CPU time that a unit's processes have used."""
    processes = read_processes()
    members = descend(main_process(unit), {process: parent for process, (parent, _) in processes.items()})
    return sum(processes[process][1] for process in members if process in processes) / TICKS


def pss_mb(processes: Iterable[int]) -> float:
    """Return the memory of processes: private pages, and their share of those that they share with others."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


# -- the measurements ------------------------------------------------------------------------------------------------


def live_slot(app: str) -> str:
    """Return the unit of an app's live slot."""
    return f"flask-{app}@{Path(f'/srv/{app}/live.sock').resolve().stem}.service"


def load(case: dict[str, Any], seconds: int, script: str) -> dict[str, Any]:
    """Send requests to a URL, and return their number, their latency, and the CPU time that each unit used."""
    units = {name: live_slot(unit[1:]) if unit.startswith("@") else unit for name, unit in case["units"].items()}
    headers = [part for header in case["headers"] for part in ("--header", header)]
    before = {name: cpu_seconds(unit) for name, unit in units.items()}
    output = run(
        *("wrk", "--threads", "1", "--connections", str(case["connections"]), "--duration", f"{seconds}s"),
        *("--timeout", f"{TIMEOUT}s", "--script", script, *headers, case["url"]),
    )
    result = json.loads(output.splitlines()[-1])
    result["cpu"] = {name: cpu_seconds(unit) - before[name] for name, unit in units.items()}
    if result["failed"] or not result["requests"]:
        sys.exit(f"{case['name']}: {result['failed']} of {result['requests']} requests failed.\n{output}")
    settle(case)
    return result


def settle(case: dict[str, Any]) -> None:
    """Wait until the server has finished the requests that the load client has abandoned."""
    headers = [part for header in case["headers"] for part in ("--header", header)]
    ask = (
        "curl",
        "--silent",
        "--insecure",
        "--output",
        "/dev/null",
        "--write-out",
        "%{time_total}",
        "--max-time",
        "40",
    )
    for _ in range(10):
        if float(run(*ask, *headers, case["url"])) < 0.2:
            return


def measure(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Run all cases in turn, in several rounds, so that a change of the machine's speed affects all of them."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        for case in plan["cases"]:
            load(case, 1, script.name)
        rounds = []
        for number in range(plan["rounds"]):
            order = plan["cases"] if number % 2 == 0 else plan["cases"][::-1]
            rounds.append({case["name"]: load(case, plan["seconds"], script.name) for case in order})
    return rounds


def memory(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the memory of each app's live slot, of its journal, of PostgreSQL and nginx, and of the whole host."""
    parents = {process: parent for process, (parent, _) in read_processes().items()}

    def of_unit(unit: str) -> float:
        return round(pss_mb(descend(main_process(unit), parents)), 1)

    found = {app: of_unit(live_slot(app)) for app in plan["apps"]}
    return {
        "apps": found,
        "processes": {app: len(descend(main_process(live_slot(app)), parents)) for app in plan["apps"]},
        "journals": {app: of_unit(f"systemd-journald@flask-{app}.service") for app in plan["apps"]},
        "nginx": of_unit("nginx.service"),
        "postgres": of_unit("postgresql@*.service"),
        "host": round(pss_mb(parents), 1),
    }


def as_app(app: str) -> list[str]:
    """Return the options with which systemd-run runs a command as an app's slot does, without its sandbox."""
    unit = live_slot(app)
    options = []
    for name in ("User", "Group", "WorkingDirectory", "Environment", "EnvironmentFiles"):
        value = run("systemctl", "show", f"--property={name}", "--value", unit).strip()
        if name == "EnvironmentFiles":
            # One on a line: the path, and whether it may be missing.
            for line in value.splitlines():
                path, _, rest = line.partition(" ")
                options.append(f"--property=EnvironmentFile={'-' * ('ignore_errors=yes' in rest)}{path}")
        elif name == "Environment":
            options += [f"--property=Environment={part}" for part in value.split()]
        else:
            options.append(f"--property={name}={value}")
    return options


def start(plan: dict[str, Any]) -> None:
    """Start the servers that Flaskhost is compared with, each as a unit of its own, and wait until they respond."""
    for name, server in plan["servers"].items():
        run("systemd-run", f"--unit={name}", *(as_app(server["app"]) if server["app"] else []), *server["command"])
    for name, server in plan["servers"].items():
        for _ in range(100):
            time.sleep(0.1)
            if subprocess.run([*ASK, "--fail", server["url"]], capture_output=True, check=False).returncode == 0:
                break
        else:
            sys.exit(f"{name} does not respond:\n{run('journalctl', '--no-pager', '--unit', name, '--lines', '20')}")


def profile(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the CPU time of the sample app's page without a server, and the share of each package."""
    python = f"/srv/{plan['app']}/current/venv/bin/python"
    command = ("systemd-run", "--quiet", "--pipe", "--wait", *as_app(plan["app"]), python, "-")
    found: dict[str, Any] = json.loads(run(*command, text=PROFILE).splitlines()[-1])
    return found


def main() -> None:
    """Run one action of a plan."""
    plan = json.load(sys.stdin)
    actions = {"measure": measure, "memory": memory, "start": start, "profile": profile}
    print(json.dumps(actions[plan["action"]](plan)))


if __name__ == "__main__":
    main()
