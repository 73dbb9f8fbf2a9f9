"""Each app has a journal of its own: whatever it writes, the lines of others stay."""

from __future__ import annotations

import uuid
from typing import Any

from tenants import attack

#: MB that the journal of an app may take, and MB that the hostile one writes: in messages of a megabyte, which no limit
#: of lines stops. The blob is noise, since journald compresses what it can.
LARGEST, FLOOD = 100, 160
NATIVE = """
import array, fcntl, os, socket, struct, time
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for number in range(COUNT):
    memory = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
    blob = os.urandom(1 << 20)
    os.write(memory, b"MESSAGE=MARKER-flood %d\\nBLOB\\n" % number + struct.pack("<Q", len(blob)) + blob + b"\\n")
    fcntl.fcntl(memory, 1033, 15)  # F_ADD_SEALS: journald takes no memory that can still be changed
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))]
    log.sendmsg([b""], rights, 0, "/run/systemd/journal/socket")
    os.close(memory)
print("sent")
"""
#: Every way to a journal that is in the file system, with one message down each.
DOORS = """
import glob, os, socket
for path in glob.glob("/run/systemd/journal*/*") + ["/dev/log"]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        door = socket.socket(socket.AF_UNIX, kind)
        try:
            door.connect(path)
        except OSError as error:
            if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)) and error.errno != 91:
                print("refused", path)
            continue
        print("open", path)
        if path.endswith("stdout"):
            door.sendall(b"hostile\\n\\n6\\n0\\n0\\n0\\n0\\nMARKER-stdout\\n")
        elif path.endswith("log"):
            door.sendall(b"<3>hostile: MARKER-syslog")
        elif path.endswith("socket"):
            door.sendall(b"MESSAGE=MARKER-native\\n_SYSTEMD_UNIT=flask-alice@blue.service\\n")
"""


def lines(host: Any, marker: str, *options: str) -> list[str]:
    """The messages that begin with a word; of the host's journal by default. (sudo logs the word in between.)"""
    return host.run(f"journalctl --quiet --output=cat {' '.join(options)} | grep --text ^{marker}").stdout.splitlines()


def megabytes(host: Any, namespace: str = "") -> int:
    """How much of the disk a journal takes."""
    machine = host.check_output("cat /etc/machine-id") + (f".{namespace}" if namespace else "")
    return int(host.check_output(f"du -sm /var/log/journal/{machine}").split()[0])


def sync(host: Any, *namespaces: str) -> None:
    """Wait until everything sent so far is in the journals."""
    host.run_test("journalctl --sync")
    for namespace in namespaces:
        host.run_test(f"journalctl --namespace={namespace} --sync")


def test_an_app_displaces_no_lines_but_its_own(host: Any, visitor: Any) -> None:
    marker = uuid.uuid4().hex
    host.run_test(f"systemd-cat --identifier=innocent echo {marker}-innocent")
    attack(visitor, f"import os; os.write(2, b'{marker}-earlier\\n')")
    sync(host, "flask-mallory", "flask-alice")
    neighbors = host.check_output("journalctl --namespace=flask-alice --quiet --output=cat | wc -l")
    before = megabytes(host)
    assert lines(host, f"{marker}-earlier", "--namespace='*'")

    flood = NATIVE.replace("MARKER", marker).replace("COUNT", str(FLOOD // 2))
    # In two halves: a request ends with the app's timeout.
    for _half in range(2):
        assert attack(visitor, flood).strip() == "sent"
    sync(host, "flask-mallory", "flask-alice")

    assert lines(host, f"{marker}-innocent"), "the host's lines stay"
    assert not lines(host, f"{marker}-flood"), "nothing of the flood is in the host's journal"
    assert megabytes(host) < before + 20
    after = host.check_output("journalctl --namespace=flask-alice --quiet --output=cat | wc -l")
    assert int(after) >= int(neighbors), "and the neighbor's stay"
    assert lines(host, f"{marker}-flood", "--namespace=flask-mallory"), "the flood came in"
    assert not lines(host, f"{marker}-earlier", "--namespace=flask-mallory"), "the app's own lines made room for it"
    assert megabytes(host, "flask-mallory") <= LARGEST * 1.1


def test_an_app_writes_into_no_journal_but_its_own(host: Any, visitor: Any) -> None:
    marker = uuid.uuid4().hex
    doors = attack(visitor, DOORS.replace("MARKER", marker)).splitlines()
    # The last ones are the same sockets by another name.
    folders = ("/run/systemd/journal", "/run/systemd/journal.flask-mallory")
    mine = {"/dev/log", *(f"{folder}/{name}" for folder in folders for name in ("stdout", "socket", "dev-log"))}
    assert {line.split()[1] for line in doors if line.startswith("open ")} == mine, doors
    for neighbor in ("alice", "office"):
        for name in ("stdout", "socket", "dev-log", "io.systemd.journal"):
            assert f"refused /run/systemd/journal.flask-{neighbor}/{name}" in doors, doors
    sync(host, "flask-mallory", "flask-alice", "flask-office")
    found = lines(host, marker, "--namespace=flask-mallory")
    assert {line.rpartition("-")[2] for line in found} == {"stdout", "syslog", "native"}, "its own has them"
    for other in ("", "--namespace=flask-alice", "--namespace=flask-office"):
        assert not lines(host, marker, other), other or "the host's journal"


def test_an_operator_finds_an_apps_lines_and_those_about_it(host: Any, visitor: Any) -> None:
    marker = uuid.uuid4().hex
    said = attack(
        visitor,
        f"""
        import logging.handlers, os, subprocess
        os.write(1, b"{marker}-output\\n")
        logging.handlers.SysLogHandler("/dev/log").emit(
            logging.makeLogRecord({{"msg": "{marker}-syslog", "levelno": logging.ERROR, "levelname": "ERROR"}})
        )
        # A process that is gone before journald looks at it has no unit.
        print(subprocess.run(["systemd-cat", "sh", "-c", "echo {marker}-cat; sleep 1"]).returncode)
        """,
    )
    assert said.strip() == "0", said
    sync(host, "flask-mallory")
    slots = ("--namespace=+flask-mallory", "-u 'flask-mallory@*'")
    found = {line.strip("\x00").rpartition("-")[2] for line in lines(host, marker, *slots)}
    assert found == {"output", "syslog", "cat"}
    assert lines(host, "Started", *slots), "systemd's own lines are in between"
    status = host.run("systemctl status --no-pager --lines=200 'flask-mallory@*'").stdout
    assert f"{marker}-output" in status
