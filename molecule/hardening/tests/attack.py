"""What the attacker does. It runs on the attacker's own host, with Python alone: ``attack.py FUNCTION 'JSON'``.

Everything is bounded in number and time, and goes to the addresses that it is given, those of the scenario's own hosts.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import select
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: Half-open connections at the same time, and the seconds in which a port of the same network answers.
BATCH, PATIENCE = 6000, 1.0
#: What a connection to a port ends in.
REFUSED, SILENT = "refused", "silent"


def scan(addresses: list[str], first: int = 1, last: int = 65535) -> dict[str, list[int]]:
    """Connect to every TCP port; return those that are open."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    targets = [(address, port) for address in addresses for port in range(first, last + 1)]
    found: dict[str, list[int]] = {address: [] for address in addresses}
    batch = min(BATCH, hard - 100)
    for start in range(0, len(targets), batch):
        for address, port in _open_ones(targets[start : start + batch]):
            found[address].append(port)
    return found


def _open_ones(targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    poll, pending, found = select.epoll(), {}, []
    for target in targets:
        plug = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        plug.setblocking(False)
        plug.connect_ex(target)
        pending[plug.fileno()] = (plug, target)
        poll.register(plug.fileno(), select.EPOLLOUT)
    ends = time.monotonic() + PATIENCE
    while pending and (left := ends - time.monotonic()) > 0:
        for number, _event in poll.poll(left, len(pending)):
            plug, target = pending.pop(number)
            poll.unregister(number)
            if not plug.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                found.append(target)
            plug.close()
    for plug, _target in pending.values():
        plug.close()
    poll.close()
    return found


def knock(address: str, port: int, count: int = 1) -> list[str]:
    """Open so many connections at once; return the first word of what each is told, or how it failed."""

    def once(_number: int) -> str:
        try:
            with socket.create_connection((address, port), timeout=3) as plug:
                return "open" if port in (80, 443) else plug.recv(4).decode("ascii", "replace")
        except ConnectionRefusedError:
            return REFUSED
        except OSError:
            return SILENT

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(once, range(count)))


def echo(ports: list[int]) -> None:
    """Send datagrams back to where they come from, and take TCP connections at the same ports, until it is killed."""
    poll, plugs = select.epoll(), {}
    servers = [socket.create_server(("", port)) for port in ports]
    for server in servers:
        plug = socket.socket(type=socket.SOCK_DGRAM)
        plug.bind(server.getsockname())
        plugs[plug.fileno()] = plug
        poll.register(plug.fileno(), select.EPOLLIN)
    while True:
        for number, _event in poll.poll():
            data, sender = plugs[number].recvfrom(64)
            plugs[number].sendto(data, sender)


def ask(address: str, requests: list[dict[str, Any]], parallel: int = 1) -> list[list[Any]]:
    """Send requests; return for each status, headers and body. Status 0: the connection was closed without an answer.

    A request has ``path``, and may have ``name`` (of the handshake, and of Host), ``host``, ``plain``, ``method``,
    ``headers`` (which may come twice) and ``size``, the bytes of a body.
    """
    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(lambda request: _one(address, request), requests))


def _one(address: str, request: dict[str, Any]) -> list[Any]:
    name, size = request.get("name", "doors.test"), request.get("size", 0)
    try:
        with contextlib.closing(_connect(address, name, request.get("plain", False))) as plug:
            connection = http.client.HTTPConnection(name, timeout=10)
            connection.sock = plug
            connection.putrequest(
                request.get("method", "GET"), request.get("path", "/"), skip_host=True, skip_accept_encoding=True
            )
            connection.putheader("Host", request.get("host", name))
            for key, value in request.get("headers", []):
                connection.putheader(key, value)
            if size:
                connection.putheader("Content-Length", str(size))
            connection.endheaders()
            with contextlib.suppress(OSError):
                # It may be refused before all of it is there, and the answer is read all the same.
                plug.sendall(b"a" * size)
            answer = connection.getresponse()
            return [answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace")]
    except (OSError, http.client.HTTPException) as error:
        return [0, {}, f"{type(error).__name__}: {error}"]


def flood(address: str, connections: int = 4, count: int = 150) -> dict[str, int]:
    """Send so many requests on each of a few connections without waiting; return how often each status came.

    Under ``Retry-After`` is how many answers have told when to come back.
    """
    request = b"GET / HTTP/1.1\r\nHost: doors.test\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: doors.test\r\nConnection: close\r\n\r\n"

    def once(_number: int) -> bytes:
        read = b""
        with contextlib.closing(_connect(address, "doors.test")) as plug, contextlib.suppress(OSError):
            # Whoever is banned gets nothing any more.
            plug.settimeout(5)
            plug.sendall(request * (count - 1) + last)
            while piece := plug.recv(65536):
                read += piece
        return read

    with ThreadPoolExecutor(connections) as pool:
        read = b"".join(pool.map(once, range(connections)))
    words = {"200": b"HTTP/1.1 200", "429": b"HTTP/1.1 429", "Retry-After": b"\r\nRetry-After: 1\r\n"}
    return {name: read.count(word) for name, word in words.items()}


def _connect(address: str, name: str, plain: bool = False) -> socket.socket:
    plug = socket.create_connection((address, 80 if plain else 443), timeout=10)
    if plain:
        return plug
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(plug, server_hostname=name)
    except OSError:
        plug.close()
        raise


def hold(address: str, kind: str, count: int = 20, most: int = 120) -> list[float]:
    """Open connections and send as slowly as one can; return the seconds after which each has been closed.

    Args:
        address: the host.
        kind: ``headers``, a letter a second of a header that does not end; or ``body``, of which one byte comes.
        count: connections.
        most: seconds after which it is given up, and told as such.
    """
    request = "POST /upload HTTP/1.1\r\nHost: doors.test\r\nContent-Length: 1000\r\n"
    start = f"{request}X-Slow: " if kind == "headers" else f"{request}\r\na"

    def once(_number: int) -> float:
        with contextlib.closing(_connect(address, "doors.test")) as plug:
            begun = time.monotonic()
            plug.sendall(start.encode())
            plug.settimeout(1)
            while time.monotonic() - begun < most:
                try:
                    if not plug.recv(4096):
                        break
                except TimeoutError:
                    try:
                        plug.sendall(b"a" if kind == "headers" else b"")
                    except OSError:
                        break
                except OSError:
                    break
            return round(time.monotonic() - begun, 1)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(once, range(count)))


def log_in(address: str, users: list[str], way: str = "publickey") -> list[str]:
    """Try to log in by SSH, with a key of the attacker's own or with a password; return what ssh says of each."""
    key, script = Path("/root/attacker_key"), Path("/root/askpass")
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        script.write_text("#!/bin/sh\necho open sesame\n")
        script.chmod(0o700)
    options = {
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "ConnectTimeout": "5",
        "PreferredAuthentications": way, "IdentityFile": str(key), "IdentitiesOnly": "yes",
        "NumberOfPasswordPrompts": "1", "LogLevel": "ERROR",
    }  # fmt: skip
    said = []
    for user in users:
        command = ["ssh", *(f"-o{name}={value}" for name, value in options.items()), f"{user}@{address}", "id"]
        environment = {**os.environ, "SSH_ASKPASS": str(script), "SSH_ASKPASS_REQUIRE": "force"}
        # Who is banned in the middle of it is not told.
        result = subprocess.run(
            ["timeout", "8", *command], env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        said.append(f"{result.returncode} {result.stdout}{result.stderr}".strip())
    return said


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
