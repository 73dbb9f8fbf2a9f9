"""TCP ports as seen from outside: a plain connection to each, with a rate limit."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Collection, Iterable

from ansible.module_utils.flaskhost.audit.model import FAILED, PASSED, Finding, Scan, not_run

TITLE = "Open ports, from outside"
EVERY_PORT = range(1, 65536)
#: Attempts for an expected port that does not respond: one lost packet does not mean that it is closed.
ATTEMPTS = 3


async def open_ports(address: str, ports: Iterable[int], rate: int, patience: float, most: int = 400) -> set[int]:
    """Find the ports that accept a connection.

    Args:
        address: the host.
        ports: the ports to try.
        rate: maximum number of connections per second.
        patience: seconds to wait for a response; a firewall that drops packets sends none.
        most: maximum number of simultaneous connections.
    """
    found: set[int] = set()
    gate = asyncio.Semaphore(most)

    async def attempt(port: int) -> None:
        try:
            async with asyncio.timeout(patience):
                _reader, writer = await asyncio.open_connection(address, port)
        except OSError:  # connection refused, no route, or no response in time
            return
        else:
            found.add(port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        finally:
            gate.release()

    loop = asyncio.get_running_loop()
    start = loop.time()
    tasks = set()
    for number, port in enumerate(ports):
        await gate.acquire()
        ahead = number / rate - (loop.time() - start)
        if ahead > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(attempt(port))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return found


def scan(
    address: str,
    expected: Collection[int],
    rate: int = 1000,
    patience: float = 1.5,
    ports: Iterable[int] = EVERY_PORT,
    *,
    known: Collection[int] = (),
) -> Scan:
    """Try all ports of a host, and retry the expected ones.

    Args:
        address: the host, as the control node reaches it.
        expected: the ports that should be open.
        rate: maximum number of connections per second.
        patience: seconds to wait for a response.
        ports: the ports to try.
        known: ports that have already responded at this address. They are not tried again, because sshd logs a
            connection without a login, and fail2ban counts it.
    """
    # Each waiting connection is an open file; the shell's limit is often 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(rate * patience) + 64
    room = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < room:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
            soft = room
    most = max(16, (wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)) - 64)

    async def work() -> set[int]:
        found = {
            *known,
            *await open_ports(address, (port for port in ports if port not in known), rate, patience, most),
        }
        for _attempt in range(ATTEMPTS):
            missing = sorted(set(expected) - found)
            if missing:
                found |= await open_ports(address, missing, rate, patience * 2, most)
        return found

    return judge(asyncio.run(work()), expected)


def judge(found: Collection[int], expected: Collection[int]) -> Scan:
    """Compare the open ports with the expected ones."""
    if not found:
        # Ansible did connect, so this says something about the route and nothing about the host.
        reason = "No port responded, not even SSH: the control node cannot reach the host directly. Set audit_address."
        return not_run("ports", TITLE, reason)
    findings = []
    for port in sorted({*found, *expected}):
        if port in found and port in expected:
            findings.append(Finding(f"tcp/{port}", f"TCP {port} is open, as it should be", PASSED, "info"))
        elif port in found:
            advice = "Close it in the firewall, or stop what listens there (ss -tlnp on the host)."
            findings.append(Finding(f"tcp/{port}", f"TCP {port} is open to everybody", FAILED, "high", "", advice))
        else:
            advice = "Check that its service runs, and that the firewall allows it from the control node."
            title = f"TCP {port} should be open but does not respond"
            findings.append(Finding(f"tcp/{port}", title, FAILED, "medium", "", advice))
    odd = len(set(found) - set(expected))
    return Scan(
        "ports", TITLE, score=float(odd),
        score_text="open: " + " ".join(str(port) for port in sorted(found)), findings=findings,
        notes=["TCP only: from outside, an open UDP port looks like a silent one; see Listening services."],
    )  # fmt: skip
