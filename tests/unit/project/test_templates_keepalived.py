"""keepalived's settings, and the script with which it asks the web server."""

from __future__ import annotations

import http.server
import re
import socket
import subprocess
import threading
from pathlib import Path

from rendering import render

GIVEN = {
    "keepalived_address": "10.0.0.10",
    "keepalived_interface": "eth1",
    "keepalived_own_address": "10.0.0.11",
    "keepalived_peers": ["10.0.0.12", "10.0.0.13"],
    "keepalived_priority": 199,
}


def test_the_hosts_talk_only_to_each_other_and_none_takes_the_address_back() -> None:
    text = render("keepalived", "keepalived.conf.j2", {}, **GIVEN)
    words = " ".join(re.sub("#.*", "", text).split())
    assert "unicast_src_ip 10.0.0.11 unicast_peer { 10.0.0.12 10.0.0.13 }" in words
    assert "virtual_ipaddress { 10.0.0.10/32 dev eth1 }" in words
    assert "state BACKUP nopreempt interface eth1" in words, "with another state, nopreempt has no effect"
    assert "priority 199 advert_int 1 " in words
    assert "script_user keepalived_script enable_script_security" in words


def test_the_sandbox_is_closed_but_for_addresses_and_packets() -> None:
    lines = render("keepalived", "sandbox.conf.j2", {}, **GIVEN).splitlines()
    (capabilities,) = (line for line in lines if line.startswith("CapabilityBoundingSet="))
    assert capabilities.partition("=")[2].split() == [
        "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID", "CAP_KILL",
    ]  # fmt: skip
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "ReadWritePaths=/run/keepalived"} <= set(lines)


def ask(folder: Path, port: int) -> int:
    """Run the script with which keepalived asks the web server on a port."""
    path = folder / "probe"
    path.write_text(render("keepalived", "probe.sh.j2", {}, keepalived_probe=f"127.0.0.1:{port}"))
    return subprocess.run(["/bin/bash", path], capture_output=True, timeout=20, check=False).returncode


def test_the_probe_fails_if_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert ask(tmp_path, taken.getsockname()[1]) == 1, "nobody listens"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ask(tmp_path, silent.getsockname()[1]) != 0, "the kernel accepts connections, and the program hangs"
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert ask(tmp_path, server.server_port) == 0
        finally:
            server.shutdown()
