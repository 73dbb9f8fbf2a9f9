"""What the tests that pull the machine's plug share: a way in, who writes meanwhile, and the plug."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from typing import Any

from runs import PROJECT, command

#: Seconds that a boot may take where the processor is emulated and busy, as in side_effect.yml.
BOOT = 1800
MACHINES = [sys.executable, str(PROJECT / "scripts" / "vm.py")]


def login(host: Any) -> list[str]:
    """The command of a new connection, as from the operator's desk."""
    variables = host.ansible.get_variables()
    return [
        "ssh", "-p", str(variables["ansible_port"]), "-i", variables["ansible_ssh_private_key_file"],
        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ControlPath=none", "-o", "ConnectTimeout=15", "-o", "LogLevel=ERROR", "ada@127.0.0.1",
    ]  # fmt: skip


def log_in(host: Any, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command over a connection of its own."""
    return subprocess.run([*login(host), command], capture_output=True, text=True, timeout=BOOT, check=False)


def command_of(playbook: str, *arguments: str, **variables: Any) -> list[str]:
    """The command that runs a playbook on the machine."""
    return command(playbook, *arguments, inventory=os.environ["MOLECULE_INVENTORY_FILE"], **variables)


def run_playbook(playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook on the machine, however long it takes."""
    return subprocess.run(
        command_of(playbook, *arguments, **variables),
        cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def pull(host: Any) -> None:
    """Pull the plug: what the machine has not written to its disk is gone."""
    subprocess.run([*MACHINES, "stop", host.ansible.get_variables()["inventory_hostname"]], check=True)


def put_in(host: Any) -> None:
    """Start the machine again, and wait until all of it runs."""
    variables = host.ansible.get_variables()
    name = variables["inventory_hostname"]
    ports = {**variables["published_ports"], 22: variables["ansible_port"]}
    publish = [word for inside, port in ports.items() for word in ("--publish", f"{port}:{inside}")]
    subprocess.run([*MACHINES, "start", name, "--release", name.rpartition("-")[2], *publish], check=True)
    end = time.monotonic() + BOOT
    while time.monotonic() < end and log_in(host, "true").returncode != 0:
        time.sleep(3)
    assert log_in(host, "systemctl is-system-running --wait").stdout == "running\n"


class Writer(threading.Thread):
    """Commits numbered rows, and keeps the numbers that PostgreSQL has acknowledged: here, not on the machine.

    Args:
        host: the machine.
        user: the user and the database.
        port: PostgreSQL's.
    """

    def __init__(self, host: Any, user: str, port: int = 5432) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[int] = []
        command = f"sudo runuser -u {user} -- psql --no-psqlrc -qAt --port={port} {user}"
        self.psql = subprocess.Popen(
            [*login(host), f"cd / && {command}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.start()

    def run(self) -> None:
        """Write until the connection is gone."""
        number = 0
        with contextlib.suppress(BrokenPipeError):
            while True:
                number += 1
                self.psql.stdin.write(f"INSERT INTO written (n) VALUES ({number}) RETURNING n;\n")
                self.psql.stdin.flush()
                if self.psql.stdout.readline().strip() != str(number):
                    return
                self.acknowledged.append(number)

    def wait_for(self, rows: int, seconds: float = 600) -> None:
        """Wait until so many are safe."""
        end = time.monotonic() + seconds
        while len(self.acknowledged) < rows:
            assert time.monotonic() < end, f"only {len(self.acknowledged)} rows were written"
            assert self.is_alive(), "the writer has ended"
            time.sleep(0.2)

    def end(self) -> list[int]:
        """Let it end; what was acknowledged."""
        self.psql.kill()
        self.join(30)
        return self.acknowledged
