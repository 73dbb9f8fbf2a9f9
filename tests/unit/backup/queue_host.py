"""A host with a queue, for the tests of its backup: systemd and Redis are programs that do what the real ones would.

The Redis here reads the same files as a real one and counts the keys in them, but knows only SET and DEL. The scenario
caches does the same with real ones.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host.cache_client import info_of_redis, keys_of_redis
from flaskhost_backup import queue_check, queues, tools
from flaskhost_backup.config import App, Config, Queue

ME = pwd.getpwuid(os.geteuid()).pw_name
UNIT = "flask-shop_queue.service"
WORKER = "flask-shop_process@rq.service"
NOW = 1_795_311_000.0

REDIS = r"""
import os, re, socket, sys
data, path, whole = sys.argv[1], sys.argv[2], sys.argv[3] == "no"
keys, expiring = set(), set()
parts = os.path.join(data, "appendonlydir")
def die(text):
    print("77:M 27 Nov 2026 09:12:57.638 # " + text, flush=True)
    sys.exit(1)
manifest = os.path.join(parts, "appendonly.aof.manifest")
for line in open(manifest) if os.path.exists(manifest) else []:
    name = line.split()[1]
    file = os.path.join(parts, name)
    text = open(file, "rb").read()
    at = 0
    while at < len(text):
        head = re.compile(rb"\*(\d+)\r\n").match(text, at)
        if not head and at + 4 < len(text):
            die("Bad file format reading the append only file " + name + ": make a backup of your AOF file")
        words, here = [], head.end() if head else len(text)
        for _word in range(int(head[1]) if head else 1):
            size = re.compile(rb"\$(\d+)\r\n").match(text, here)
            end = size.end() + int(size[1]) if size else len(text)
            if not size or text[end:end + 2] != b"\r\n":
                if whole:
                    die("Unexpected end of file reading the append only file " + name + ".")
                os.truncate(file, at)
                text = text[:at]
                break
            words.append(text[size.end():end])
            here = end + 2
        else:
            at = here
            (keys.discard if words[0] == b"DEL" else keys.add)(words[1])
            if b"PX" in words:
                expiring.add(words[1])
            if words[0] == b"SLOW":
                import time
                time.sleep(600)
# Only the data with this key is in trouble.
if b"x" in keys and os.path.exists(path + ".loses"):
    keys.pop()
if b"x" in keys and os.path.exists(path + ".fails"):
    die("Out Of Memory")
info = "loading:0\r\n# Keyspace\r\ndb0:keys=%d,expires=%d,avg_ttl=0\r\n" % (len(keys), len(expiring & keys))
with socket.socket(socket.AF_UNIX) as listener:
    if os.path.lexists(path):
        os.unlink(path)
    listener.bind(path)
    listener.listen()
    while True:
        client, _address = listener.accept()
        client.recv(1000)
        client.sendall(("$%d\r\n%s\r\n" % (len(info), info)).encode())
        client.close()
"""
#: Runs a unit's program in the background, as systemd does, and says how it ended with --wait.
SYSTEMD_RUN = r"""
import os, subprocess, sys
words = sys.argv[1:]
open("{log}", "a").write(" ".join(words) + "\n")
unit = next(word for word in words if word.startswith("--unit=")).partition("=")[2]
data = next(word for word in words if "BindPaths=" in word).partition("BindPaths=")[2].partition(":")[0]
given = words[words.index("--") + 2:]
whole = given[given.index("--aof-load-truncated") + 1]
child = subprocess.Popen([sys.executable, "-IS", "{redis}", data, data + "/redis.sock", whole])
open("{units}/" + unit, "w").write(str(child.pid))
sys.exit(1 if child.wait() else 0)
"""
SYSTEMCTL = r"""
import os, signal, subprocess, sys, time
verb, *rest = sys.argv[1:]
names = [word for word in rest if not word.startswith("-")]
open("{log}", "a").write(verb + " " + " ".join(names) + "\n")
def pid_of(unit):
    if "_process@" in unit:
        return -1 if os.path.exists("{units}/" + unit) else 0
    try:
        pid = int(open("{units}/" + unit).read())
        os.kill(pid, 0)
        return 0 if open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[0] == "Z" else pid
    except (OSError, ValueError):
        return 0
if verb == "list-units":
    for unit in names:
        if pid_of(unit):
            print(unit, "loaded active running")
elif verb in ("stop", "kill"):
    for unit in names:
        if (pid := pid_of(unit)) < 0:
            os.unlink("{units}/" + unit)
        elif pid:
            os.kill(pid, signal.SIGKILL)
            while pid_of(unit):
                time.sleep(0.01)
elif verb == "start":
    for unit in names:
        if "_process@" in unit:
            open("{units}/" + unit, "w").close()
        elif not pid_of(unit):
            if os.path.lexists("{socket}"):
                os.unlink("{socket}")
            away = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            words = [sys.executable, "-IS", "{redis}", "{state}", "{socket}", "yes"]
            child = subprocess.Popen(words, start_new_session=True, **away)
            open("{units}/" + unit, "w").write(str(child.pid))
            while child.poll() is None and not os.path.exists("{socket}"):
                time.sleep(0.01)
            if child.poll() is not None:
                sys.exit(1)
elif verb == "show":
    for unit in names:
        print("Id=" + unit + "\nActiveState=" + ("active" if pid_of(unit) else "failed") + "\nResult=exit-code\n")
elif verb == "is-enabled":
    print("enabled")
"""


def command(*words: str) -> bytes:
    """A command as Redis appends it to its file."""
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)])


class QueueHost:
    """A host with the app shop and its queue.

    Args:
        folder: where all of it is.
        monkeypatch: pytest's.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.units, self.log = folder, folder / "units", folder / "log"
        tools_dir = folder / "bin"
        for place in (tools_dir, self.units, folder / "run", folder / "backup", folder / "data"):
            place.mkdir(parents=True)
        self.queue = Queue("shop", UNIT, ME, folder / "queue", folder / "run" / "s", 16)
        (tools_dir / "redis.py").write_text(REDIS)
        places = {
            "log": self.log, "units": self.units, "redis": tools_dir / "redis.py", "state": self.queue.state,
            "socket": self.queue.socket,
        }  # fmt: skip
        for name, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
            for key, place in places.items():
                text = text.replace(f"{{{key}}}", str(place))  # noqa: PLW2901 - the same text
            (tools_dir / name).write_text(f"#!{sys.executable} -IS\n{text}")
            (tools_dir / name).chmod(0o755)
        for name in ("journalctl", "setpriv"):
            (tools_dir / name).write_text(
                '#!/bin/sh\nwhile [ "$1" != -- ] && [ $# != 0 ]; do shift; done; shift; "$@"\n'
            )
            (tools_dir / name).chmod(0o755)
        monkeypatch.setattr(tools, "SEARCH_PATH", f"{tools_dir}:{tools.SEARCH_PATH}")
        monkeypatch.setenv("PATH", f"{tools_dir}:{os.environ['PATH']}")
        monkeypatch.setattr(queue_check, "USER", ME)
        self.config = Config(
            "h1", apps=(App("shop", folder / "data", (WORKER,)),), queues=(self.queue,), state=folder / "backup",
            secrets=folder / "secrets",
        )  # fmt: skip
        self.fill(self.queue.state, [command("SET", "a", "1"), command("SET", "b", "2")])

    @property
    def parts(self) -> Path:
        return self.queue.state / queues.PARTS

    @staticmethod
    def fill(state: Path, first: list[bytes], second: list[bytes] | None = None, number: int = 1) -> None:
        """Write the files of a queue: the base, and what came later."""
        parts = state / queues.PARTS
        parts.mkdir(parents=True, exist_ok=True)
        names = [f"appendonly.aof.{number}.base.aof", f"appendonly.aof.{number}.incr.aof"]
        for name, commands in zip(names, (first, second or []), strict=True):
            (parts / name).write_bytes(b"".join(commands))
        lines = [f"file {name} seq {number} type {kind}\n" for name, kind in zip(names, "bi", strict=True)]
        (parts / queues.MANIFEST).write_text("".join(lines))

    def close(self) -> None:
        """End what still runs."""
        tools.run(["systemctl", "stop", UNIT, queue_check.UNIT])

    def runs(self, unit: str) -> bool:
        return bool(tools.run(["systemctl", "list-units", unit]).out)

    def keys(self) -> int:
        """The number of keys that the running queue says it has."""
        info = info_of_redis(self.queue.socket, os.geteuid(), 60)
        return sum(keys.all for keys in keys_of_redis(info).values())

    def started(self) -> list[str]:
        """The verbs and units that systemctl was given."""
        return self.log.read_text().splitlines() if self.log.exists() else []
