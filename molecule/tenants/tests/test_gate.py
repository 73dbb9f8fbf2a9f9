"""The gate's listener, and every other one on the host: what the hostile app can reach from inside its sandbox."""

from __future__ import annotations

import json
from typing import Any

from tenants import attack, playbook, with_app

#: The unix sockets that an app may connect to: PostgreSQL's, which lets in an app's own role alone, and those that
#: systemd and the distribution open to every local account. None of them leads to an app.
MAY_CONNECT = (
    "/run/postgresql/.s.PGSQL.",
    "/var/run/postgresql/.s.PGSQL.",
    "/run/systemd/journal/",
    # The same sockets by the names that they have on the host: those of its own journal, and of no other app's.
    "/run/systemd/journal.flask-mallory/",
    "/run/systemd/io.systemd.",
    # As Debian 12's systemd spells it.
    "/run/systemd/io.system.ManagedOOM",
    "/run/systemd/userdb/",
    "/run/systemd/notify",
    "/run/dbus/system_bus_socket",
    "/run/ssh-unix-local/socket",
    "/run/uuidd/request",
)
GATE = "/var/lib/nginx/gate/gate.sock"
#: Requests for another app's page by every TCP port that listens on the loopback, in the clear and over TLS.
KNOCK = """
import json, socket, ssl

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

def ask(number, tls):
    with socket.create_connection(("127.0.0.1", number), timeout=3) as stream:
        if tls:
            stream = context.wrap_socket(stream, server_hostname="office.test")
        stream.sendall(b"GET / HTTP/1.1\\r\\nHost: office.test\\r\\nConnection: close\\r\\n\\r\\n")
        return stream.recv(4096).decode("latin-1")

found = {}
for number in range(1, 65536):
    with socket.socket() as stream:
        stream.settimeout(1)
        if stream.connect_ex(("127.0.0.1", number)):
            continue
    for tls in (False, True):
        try:
            found[f"{number} {'tls' if tls else 'plain'}"] = ask(number, tls)
        except OSError as error:
            found[f"{number} {'tls' if tls else 'plain'}"] = repr(error)
print(json.dumps(found))
"""
CONNECT = """
import json, socket

found = {{}}
for path, kind in {sockets}:
    with socket.socket(socket.AF_UNIX, kind) as stream:
        stream.settimeout(3)
        try:
            stream.connect(chr(0) + path[1:] if path.startswith("@") else path)
            found[path] = "connected"
        except OSError as error:
            found[path] = error.strerror
print(json.dumps(found))
"""


def test_no_port_of_the_loopback_shows_another_apps_page(visitor: Any) -> None:
    """Its password is asked for on every way in: the gate's listener on port 7999 asked for none."""
    answers = json.loads(attack(visitor, KNOCK))
    # The positive control: the site itself, over HTTPS, was reached and wanted the password.
    assert answers["443 tls"].startswith("HTTP/1.1 401 "), answers
    assert "7999 plain" not in answers, answers["7999 plain"]
    shown = {way: text for way, text in answers.items() if "Come in" in text or "X-Answered-By" in text}
    assert not shown, shown


def test_no_unix_socket_of_another_is_open(host: Any, visitor: Any) -> None:
    """Not the gate's, not another app's slots, not systemd's: the kernel's list of all that are bound to a name."""
    # Type 1 is a stream, 2 a datagram, 5 a sequence of packets.
    sockets = {
        (fields[7], int(fields[4]))
        for line in host.file("/proc/net/unix").content_string.splitlines()[1:]
        if len(fields := line.split()) > 7
    }
    paths = {path for path, _kind in sockets}
    live = {host.run(f"readlink --no-newline /srv/{app}/live.sock").stdout for app in ("alice", "office")}
    assert {GATE, *live} <= paths, paths
    found = json.loads(attack(visitor, CONNECT.format(sockets=sorted(sockets))))
    connected = [path for path, answer in found.items() if answer == "connected"]
    # The positive control: the journal's.
    assert "/run/systemd/journal/stdout" in connected, found
    assert not [path for path in connected if not path.startswith(MAY_CONNECT)], connected


def test_an_app_cannot_tell_systemd_to_stop_another(host: Any, visitor: Any) -> None:
    slot = host.run("basename --suffix=.sock $(readlink /srv/office/live.sock)").stdout.strip()
    output = attack(
        visitor,
        f"""
        import subprocess
        unit = "flask-office@{slot}.service"
        for command in (["systemctl", "stop", unit], ["systemctl", "kill", unit], ["systemd-run", "--wait", "true"]):
            try:
                print(command, subprocess.run(command, capture_output=True, text=True, timeout=20).returncode)
            except OSError as error:
                print(command, error)
        """,
    )
    assert len(output.splitlines()) == 3, output
    assert "] 0" not in output, output
    assert host.service(f"flask-office@{slot}.service").is_running


def test_the_gate_lets_root_in_and_nobody_else(host: Any) -> None:
    folder = host.file(GATE.rpartition("/")[0])
    assert (folder.user, folder.group, folder.mode) == ("root", "root", 0o700)
    ask = f"curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' --unix-socket {GATE}"
    # The listener is there, and leads nowhere while no release is gated.
    assert host.run(f"{ask} --header 'Host: office.test' http://gate/").stdout == "502"
    for user in ("mallory", "www-data", "nobody"):
        assert host.run(f"setpriv --reuid={user} --clear-groups {ask} http://gate/").rc == 7
    assert host.run("find /srv -maxdepth 2 -name 'gate.sock'").stdout == ""


def test_a_deploy_goes_through_nginx_and_closes_the_gate_behind_it(host: Any, visitor: Any) -> None:
    # A link that a run has left that was killed at the gate.
    host.run_expect([0], "ln --symbolic --force --no-dereference /run/flask-office/blue.sock /srv/office/gate.sock")
    served = host.run("readlink /srv/office/current").stdout
    # Good over the slot's own socket, and bad through nginx, which does not pass this header on.
    health = {"path": "/headers", "body": '"Connection":"close"', "timeout": 5, "settle": 0}
    status, output = playbook("deploy", host, app="office", **with_app("office", health=health, env={"TRY": "1"}))
    assert status, output
    assert f"the request went through nginx (unix:{GATE})" in output, output
    assert host.run("readlink /srv/office/current").stdout == served
    assert host.run("find /srv -maxdepth 2 -name 'gate.sock'").stdout == ""
    health["body"] = '"host":"office.test"'
    status, output = playbook("deploy", host, app="office", **with_app("office", health=health, env={"TRY": "2"}))
    assert status == 0, output
    assert host.run("readlink /srv/office/current").stdout != served
    assert host.run("find /srv -maxdepth 2 -name 'gate.sock'").stdout == ""
    assert visitor.ask("https://office.test/").status == 401


def test_nginx_starts_beside_a_socket_that_was_left_behind(host: Any, visitor: Any) -> None:
    """It removes its sockets when it stops, and not when it is killed."""
    # Without systemd's restart a second later: it removes the socket, perhaps before this test could look.
    settings = "/run/systemd/system/nginx.service.d/no-restart.conf"
    host.run_expect([0], f"mkdir -p {settings.rpartition('/')[0]} && printf '[Service]\\nRestart=no\\n' > {settings}")
    try:
        host.run_expect([0], "systemctl daemon-reload && systemctl kill --signal=KILL nginx.service")
        host.run_expect([0], "timeout 30 sh -c 'while systemctl is-active --quiet nginx; do sleep 0.2; done'")
        assert host.file(GATE).is_socket
    finally:
        host.run_expect([0], f"rm {settings} && systemctl daemon-reload && systemctl start nginx.service")
    assert visitor.ask("https://office.test/").status == 401
    ask = f"curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}' --unix-socket {GATE}"
    assert host.run(f"{ask} --header 'Host: office.test' http://gate/").stdout == "502"
