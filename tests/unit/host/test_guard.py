"""A change that takes itself back: the files and the script that puts them back are real, systemd is made up.

The run is killed for real, by os._exit in a process of its own, at every step that it takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import guard as subject
from ansible.module_utils.flaskhost.host import guard_checks
from ansible.module_utils.flaskhost.host.guard import Guard
from ansible.module_utils.flaskhost.host.guard_change import Change, GuardError, wanted_files
from ansible.module_utils.flaskhost.host.wanted import File

NONCE = "4f0c8a7be1d24f0c"
#: systemd, for the script that puts the old state back: what it was asked is carried out afterwards.
SHIM = '#!/bin/sh\nprintf "%s\\n" "$*" >> "$FAKE_LOG"\n'


class Host:
    """A host of which only the files are real. What it knows is on the disk: a killed process leaves it behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.units, self.state, self.proc = folder / "units", folder / "state", folder / "proc"
        self.sshd = folder / "etc" / "00-flaskhost.conf"
        self.unit = self.units / "own.service"
        self.log, self.memory, self.bin = folder / "log", folder / "memory.json", folder / "bin"
        for path in (self.units, self.proc, self.bin, self.sshd.parent):
            path.mkdir(parents=True)
        (self.bin / "systemctl").write_text(SHIM)
        (self.bin / "systemctl").chmod(0o755)
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.refused: set[str] = set()
        self.slept = 0.0
        self.before_command: Callable[[], None] = lambda: None
        self.know({"ssh.service": {"active": True, "enabled": True, "since": time.time()}})

    def know(self, facts: dict[str, Any]) -> dict[str, Any]:
        known = json.loads(self.memory.read_text()) if self.memory.exists() else {"timer": False, "calls": []}
        known |= facts
        self.memory.write_text(json.dumps(known))
        return known

    @property
    def calls(self) -> list[str]:
        return self.know({})["calls"]

    def run(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        self.before_command()
        words = " ".join(command)
        self.know({"calls": [*self.calls, words]})
        if words in self.answers:
            return self.answers[words]
        if command[0] == "systemctl":
            return self.systemctl(command[1:])
        if command[0] == "systemd-run":
            if "systemd-run" in self.refused:
                return 1, "", "Failed to start transient timer unit"
            self.know({"timer": True})
            return 0, "", ""
        if command[0] == "/bin/sh":
            return self.put_back(*command[2:])
        return 0, "", ""

    def put_back(self, *arguments: str) -> tuple[int, str, str]:
        """Run the real script; what it has asked of systemctl happens after it."""
        self.log.write_text("")
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "FAKE_LOG": str(self.log)}
        script = [*("/bin/sh", str(self.state / "sshd" / "put-back")), *arguments]
        options: dict[str, Any] = {"env": environment, "capture_output": True, "text": True}
        done = subprocess.run(script, check=False, **options)
        for line in self.log.read_text().splitlines():
            self.know({"calls": [*self.calls, f"script: {line}"]})
            self.systemctl(line.split())
        return done.returncode, done.stdout, done.stderr

    def systemctl(self, words: list[str]) -> tuple[int, str, str]:
        verb, names = words[0], [word for word in words[1:] if not word.startswith("-")]
        if f"{verb} {' '.join(names)}" in self.refused:
            return 1, "", f"Job for {names[0]} failed."
        known = self.know({})
        if verb == "show":
            return 0, "".join(self.shown(known, name) for name in names), ""
        for name in names:
            unit = known.setdefault(name, {"active": False, "enabled": False, "since": 0})
            if name == "flaskhost-guard-sshd.timer" and verb == "stop":
                known["timer"] = False
            if verb in ("enable", "disable"):
                unit["enabled"] = verb == "enable"
            if verb in ("start", "restart", "reload", "reload-or-restart"):
                unit |= {"active": True, "since": time.time()}
            if verb == "stop" or (verb == "disable" and "--now" in words):
                unit["active"] = False
            if verb == "is-enabled":
                return int(not unit["enabled"]), "", ""
        self.know(known)
        return 0, "", ""

    @staticmethod
    def shown(known: dict[str, Any], name: str) -> str:
        unit = known.get(name, {"active": False, "enabled": False, "since": 0})
        active = known["timer"] if name.endswith(".timer") else unit["active"]
        since = f"{datetime.fromtimestamp(unit['since'], UTC):%a %Y-%m-%d %H:%M:%S.%f} UTC" if unit["since"] else ""
        return (
            f"LoadState=loaded\nActiveState={'active' if active else 'inactive'}\nNeedDaemonReload=no\n"
            f"UnitFileState={'enabled' if unit['enabled'] else 'disabled'}\nStateChangeTimestamp={since}\n"
        )

    def sleep(self, seconds: float) -> None:
        """The timer elapses while somebody waits for it."""
        self.slept += seconds
        if self.slept >= 45:
            self.elapse()

    def elapse(self) -> None:
        if self.know({})["timer"]:
            self.know({"timer": False})
            self.put_back()

    def connect(self, seconds_since_boot: float) -> int:
        """A process below an sshd that began then, with a sudo in between."""
        ticks = int(seconds_since_boot * os.sysconf("SC_CLK_TCK"))
        for number, name, parent, started in (
            (40, "sshd", 1, 1),
            (50, "sshd-session", 40, ticks),
            (60, "sudo) (x", 50, ticks + 1),
            (70, "python3", 60, ticks + 2),
        ):
            (self.proc / str(number)).mkdir(exist_ok=True)
            fields = ["S", str(parent), *["0"] * 17, str(started), "0"]
            (self.proc / str(number) / "stat").write_text(f"{number} ({name}) {' '.join(fields)}\n")
        return 70

    def guard(self, content: str = "new\n", **more: Any) -> Guard:
        files = (File(self.sshd, content, 0o600), File(self.unit, "[Unit]\n"))
        change = Change(name="sshd", files=files, service="ssh.service", **more)
        places = {"state": self.state, "units": self.units, "proc": self.proc}
        return Guard(self.run, change, **places, pause=self.sleep, clock=lambda: 1000.0)

    def has(self) -> str:
        """Which state the files are in."""
        states = {("old\n", False): "old", ("new\n", True): "new"}
        return states.get((self.sshd.read_text(), self.unit.exists()), "mixed")

    def converge(self, **more: Any) -> Guard:
        guard = self.guard(**more)
        guard.recover()
        if guard.reasons():
            guard.apply(NONCE)
            guard.confirm(NONCE, self.connect(1001))
        return guard


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.sshd.write_text("old\n")
    host.sshd.chmod(0o640)
    return host


# --- What is meant to happen -----------------------------------------------------------------------------------------


def test_the_seconds_that_are_left_are_those_of_the_timer(host: Host) -> None:
    """Not those since the run began: a slow host takes long to get as far as that."""
    guard = host.guard(seconds=45)
    guard.clock = lambda: 1000.0 + 10 * sum(call.startswith(("systemd-run", "systemctl show")) for call in host.calls)
    guard.reasons()
    began = guard.clock()
    guard.apply(NONCE)
    (timer,) = [number for number, call in enumerate(host.calls) if call.startswith("systemd-run")]
    since = 10 * sum(call.startswith(("systemd-run", "systemctl show")) for call in host.calls[timer:])
    assert began < guard.clock() - since
    assert guard.left == 45 - since


def test_a_confirmed_change_stays_and_leaves_nothing_behind(host: Host) -> None:
    guard = host.converge()
    assert host.has() == "new"
    assert host.sshd.stat().st_mode & 0o777 == 0o600
    assert not host.know({})["timer"]
    assert sorted(path.name for path in host.state.iterdir()) == ["sshd.confirmed"]
    assert guard.reasons() == []
    assert guard.diff() == []


def test_the_timer_is_started_before_anything_is_changed(host: Host) -> None:
    guard = host.guard()
    seen = []
    host.before_command = lambda: seen.append((host.know({})["timer"], host.has()))
    guard.apply(NONCE)
    assert (False, "old") in seen
    assert (True, "new") in seen
    assert all(timer or state == "old" for timer, state in seen)
    (timer,) = [call for call in host.calls if call.startswith("systemd-run")]
    assert "--on-active=45s" in timer
    # Without this it may come a minute late.
    assert "AccuracySec=1s" in timer


@pytest.mark.parametrize("how", ["timer", "boot"])
def test_a_change_that_nobody_confirms_takes_itself_back(host: Host, how: str) -> None:
    host.guard().apply(NONCE)
    assert host.has() == "new"
    if how == "boot":
        host.know({"timer": False})
        host.put_back("boot")
        # The services come up by themselves; asking for them would wait for ever.
        assert not [call for call in host.calls if call.startswith("script: re")]
    else:
        host.elapse()
        assert "script: reload-or-restart ssh.service" in host.calls
    assert host.has() == "old"
    assert host.sshd.stat().st_mode & 0o777 == 0o640
    assert host.guard().returned(NONCE) == "ok"
    assert not (host.state / "sshd").exists()


def test_who_waits_is_told_that_the_old_state_is_back(host: Host) -> None:
    guard = host.guard()
    guard.apply(NONCE)
    assert guard.returned(NONCE) == "ok"
    assert host.slept >= 45
    assert host.has() == "old"


def test_the_boot_unit_comes_before_sshd_and_the_firewall(host: Host) -> None:
    host.guard().apply(NONCE)
    text = (host.units / "flaskhost-guard.service").read_text()
    before = next(line for line in text.splitlines() if line.startswith("Before="))
    assert {"network-pre.target", "flaskhost-firewall.service", "ssh.service", "ssh.socket"} <= set(before[7:].split())
    assert '/bin/sh "$$script" boot' in text
    assert host.know({})["flaskhost-guard.service"]["enabled"]


# --- Who may confirm -------------------------------------------------------------------------------------------------


def test_the_connection_that_was_there_before_proves_nothing(host: Host) -> None:
    guard = host.guard()
    guard.apply(NONCE)
    with pytest.raises(GuardError, match="before the change"):
        guard.confirm(NONCE, host.connect(900))
    assert host.know({})["timer"]
    guard.confirm(NONCE, host.connect(1000.5))
    assert host.has() == "new"


def test_another_way_than_ssh_confirms_directly(host: Host) -> None:
    guard = host.guard()
    guard.apply(NONCE)
    guard.confirm(NONCE, 4711)
    assert host.has() == "new"


def test_a_confirmation_that_comes_too_late_is_refused(host: Host) -> None:
    guard = host.guard()
    guard.apply(NONCE)
    host.elapse()
    with pytest.raises(GuardError, match="too late") as caught:
        guard.confirm(NONCE, host.connect(1001))
    assert caught.value.old_state
    assert host.has() == "old"


def test_another_run_cannot_confirm(host: Host) -> None:
    guard = host.guard()
    guard.apply(NONCE)
    with pytest.raises(GuardError, match="too late"):
        guard.confirm("another", host.connect(1001))


def test_a_confirmation_whose_answer_was_lost_counts(host: Host) -> None:
    guard = host.converge()
    guard.confirm(NONCE, host.connect(1))
    assert guard.returned(NONCE) == "confirmed"


# --- What goes wrong -------------------------------------------------------------------------------------------------


def test_a_file_that_its_program_refuses_is_not_put_in_place(host: Host) -> None:
    item = File(host.sshd, "bad\n", validate=("/usr/sbin/sshd", "-t", "-f", "%s"))
    guard = Guard(lambda command: (255, "", f"{command[3]}: bad"), Change("sshd", (item,), "ssh.service"))
    with pytest.raises(GuardError, match=r"sshd rejects .*00-flaskhost.conf: bad") as caught:
        guard.validate()
    assert caught.value.old_state


@pytest.mark.parametrize("step", ["validate", "check"])
def test_what_the_unit_makes_at_its_start_is_there_for_the_programs_that_are_asked(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Where ssh.socket holds the port and nobody has come in yet, sshd refuses any file without its folder."""
    monkeypatch.setattr(guard_checks, "RUN", host.folder / "run")
    host.answers["systemctl show --property=RuntimeDirectory ssh.service"] = (0, "RuntimeDirectory=sshd own/part\n", "")
    getattr(host.guard(), step)()
    assert (host.folder / "run/sshd").stat().st_mode & 0o777 == 0o755
    assert (host.folder / "run/own/part").is_dir()


@pytest.mark.parametrize("refused", ["reload ssh.service", "systemd-run"])
def test_a_step_that_fails_ends_in_the_old_state(host: Host, refused: str) -> None:
    host.refused = {refused}
    with pytest.raises(GuardError) as caught:
        host.guard().apply(NONCE)
    assert caught.value.old_state
    assert host.has() == "old"
    assert not host.know({})["timer"]
    assert not (host.state / "sshd").exists()


def test_what_could_not_be_put_back_is_named(host: Host) -> None:
    guard = host.guard()
    guard.apply(NONCE)
    away = (host.state / "sshd" / "0.old").rename(host.folder / "away")
    outcome = guard.returned(NONCE)
    assert outcome.startswith("restore 0.old")
    assert (host.state / "sshd").exists()
    with pytest.raises(GuardError, match="Not everything could be reverted"):
        guard.recover()
    # What stood in the way is gone, and the next run goes on.
    away.rename(host.state / "sshd" / "0.old")
    assert "that change was reverted first" in guard.recover()
    assert host.has() == "old"


CHECK = {"command": ["sshd", "-T"], "lines": ["port 2222", "permitrootlogin no"], "cure": "Look into the files."}


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ("port 2222\npermitrootlogin no\n", ""),
        ("Port 2222\nPermitRootLogin  NO\nlogingracetime 60\n", ""),
        ("port 2222\npermitrootlogin yes\n", "reports permitrootlogin yes, not permitrootlogin no"),
        # A Port in another file is one more, not none.
        ("port 2222\nport 22\npermitrootlogin no\n", "reports port 22, not port 2222"),
        ("permitrootlogin no\n", "nothing about port"),
    ],
)
def test_what_counts_is_what_the_service_says_of_all_its_files(host: Host, says: str, complaint: str) -> None:
    host.answers["sshd -T"] = (0, says, "")
    guard = host.guard(checks=(CHECK,))
    if not complaint:
        guard.apply(NONCE)
        assert host.has() == "new"
        return
    with pytest.raises(GuardError, match=complaint) as caught:
        guard.apply(NONCE)
    assert str(caught.value).endswith("\nLook into the files.")
    assert caught.value.old_state
    assert host.has() == "old"
    # The service has not seen it.
    assert "systemctl reload ssh.service" not in host.calls


# --- Reasons ---------------------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_before_the_reload_is_made_up_for(host: Host) -> None:
    guard = host.converge()
    os.utime(host.sshd)
    assert guard.reasons() == ["ssh.service: reload"]


def test_what_was_loaded_by_hand_is_a_reason(host: Host) -> None:
    host.answers["nft list"] = (0, "rules\n", "")
    guard = host.converge(live=("nft", "list"))
    assert guard.reasons() == []
    host.answers["nft list"] = (0, "rules and another\n", "")
    assert len(guard.reasons()) == 1
    guard.apply(NONCE)
    assert host.calls[-1] == "systemctl reload ssh.service"


def test_a_socket_hands_its_ports_over_and_gets_them_back(host: Host) -> None:
    off = {"active": True, "enabled": False, "since": time.time()}
    socket = {"ssh.service": off, "ssh.socket": {"active": True, "enabled": True, "since": 1}}
    host.know(socket)
    guard = host.guard(socket="ssh.socket")
    assert any("ssh.socket holds" in reason for reason in guard.reasons())
    guard.apply(NONCE)
    known = host.know({})
    assert not known["ssh.socket"]["active"]
    assert not known["ssh.socket"]["enabled"]
    assert known["ssh.service"]["enabled"]
    # A reload would go on with what the socket has handed over, and systemd forgets a service that it enables.
    steps = [call for call in host.calls if call.split()[1] in ("stop", "enable", "start", "restart", "reload")]
    assert steps[-3:] == ["systemctl stop ssh.service", "systemctl enable ssh.service", "systemctl start ssh.service"]
    host.elapse()
    known = host.know({})
    assert known["ssh.socket"]["active"]
    assert known["ssh.socket"]["enabled"]
    assert not known["ssh.service"]["enabled"]
    asked = [call for call in host.calls if call.startswith("script: st")]
    assert asked == [f"script: {step}" for step in ("stop ssh.service", "start ssh.socket", "start ssh.service")]


def test_a_service_that_was_not_there_is_gone_again(host: Host) -> None:
    host.know({"ssh.service": {"active": False, "enabled": False, "since": 0}})
    host.guard().apply(NONCE)
    assert host.know({})["ssh.service"]["active"]
    host.elapse()
    known = host.know({})["ssh.service"]
    assert not known["active"]
    assert not known["enabled"]
    # Stopped while its file, which says how, was there still.
    script = (host.state / "sshd" / "put-back").read_text()
    assert script.index("systemctl stop ssh.service") < script.index("rm -f")


# --- Killed ----------------------------------------------------------------------------------------------------------


def killed_at(host: Host, step: int, work: Callable[[], None]) -> bool:
    """Do some work in a process that is killed at its n-th step; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def tick(*_arguments: Any) -> None:
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)

        try:
            for place, name in ((subject, "_write"), (subject.atomic, "sync")):
                real = getattr(place, name)
                setattr(place, name, lambda *arguments, real=real: (tick(), real(*arguments), tick()))
            host.before_command = tick
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def revive(host: Host, how: str) -> None:
    """What the host does by itself."""
    if how == "boot":
        host.know({"timer": False})
        if (host.state / "sshd" / "put-back").exists():
            host.put_back("boot")
    elif how == "timer":
        host.elapse()


@pytest.mark.parametrize("how", ["timer", "boot", "next run"])
def test_a_change_may_be_killed_at_any_step(tmp_path: Path, how: str) -> None:
    step, killed = 0, True
    while killed:
        step += 1
        host = Host(tmp_path / str(step))
        host.sshd.write_text("old\n")
        guard = host.guard()
        killed = killed_at(host, step, lambda guard=guard: guard.apply(NONCE))
        revive(host, how)
        if how != "next run":
            assert host.has() == "old", step
        host.converge()
        assert host.has() == "new", step
        assert sorted(path.name for path in host.state.iterdir()) == ["sshd.confirmed"], step
    assert step > 20


@pytest.mark.parametrize("how", ["timer", "boot", "next run"])
def test_a_confirmation_may_be_killed_at_any_step(tmp_path: Path, how: str) -> None:
    step, killed, states = 0, True, []
    while killed:
        step += 1
        host = Host(tmp_path / str(step))
        host.sshd.write_text("old\n")
        guard = host.guard()
        guard.apply(NONCE)
        process = host.connect(1001)
        killed = killed_at(host, step, lambda guard=guard, process=process: guard.confirm(NONCE, process))
        decided = guard._is_confirmed(NONCE)
        revive(host, how)
        if how != "next run":
            assert host.has() == ("new" if decided else "old"), step
        states.append(decided)
        host.converge()
        assert host.has() == "new", step
    # Once it is decided it stays so. (There is a step before the decision only in the kernel.)
    assert states == sorted(states)
    assert states[-1]


@pytest.mark.parametrize("program", ["cp", "mv", "systemctl"])
@pytest.mark.parametrize("call", [1, 2])
def test_putting_back_may_be_killed_and_goes_on_at_boot(host: Host, program: str, call: int) -> None:
    host.guard().apply(NONCE)
    real = (host.bin / program).read_text().partition("\n")[2] if program == "systemctl" else f'/bin/{program} "$@"\n'
    count = host.folder / "count"
    killer = f'#!/bin/sh\necho x >> {count}\n[ "$(wc -l < {count})" -eq {call} ] && kill -9 "$PPID"\n{real}'
    (host.bin / program).write_text(killer)
    (host.bin / program).chmod(0o755)
    host.elapse()
    host.put_back("boot")
    assert host.has() == "old"
    assert (host.state / "sshd" / "outcome").read_text() == "ok\n"


def test_two_runs_do_not_disturb_each_other(host: Host) -> None:
    host.guard().apply(NONCE)
    second = host.guard("newer\n")
    # The first one has not been confirmed: the second waits until the host has taken it back.
    assert "killed before" in second.recover()
    assert host.slept >= 45
    assert host.has() == "old"


# --- A block in somebody else's file ---------------------------------------------------------------------------------

THEIRS = "# theirs\nInclude /etc/ssh/sshd_config.d/*.conf\nSubsystem sftp x\n"
OURS = "# --- flaskhost: begin ---\nMaxSessions 10\n# --- flaskhost: end ---\n"


def block(path: Path, content: str = "MaxSessions 10") -> File:
    wanted = {"dest": str(path), "content": content, "behind": r"^\s*Include\s", "mode": "0600"}
    return wanted_files([wanted])[0]


def test_a_block_goes_behind_the_line_that_reads_the_drop_ins(tmp_path: Path) -> None:
    path = tmp_path / "sshd_config"
    path.write_text(THEIRS)
    assert block(path).text == THEIRS.replace("Subsystem", f"{OURS}Subsystem")


def test_a_block_is_renewed_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "sshd_config"
    path.write_text(THEIRS)
    path.write_text(block(path, "MaxSessions 2\nCompression yes").text)
    path.write_text(block(path).text)
    assert path.read_text() == THEIRS.replace("Subsystem", f"{OURS}Subsystem")
    path.chmod(0o600)
    assert block(path).is_there()


def test_without_that_line_a_block_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "sshd_config"
    path.write_text("Match User x\n")
    assert block(path).text == f"{OURS}Match User x\n"


def test_a_file_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sshd_config"
    path.write_bytes(b"\xff\n")
    with pytest.raises(GuardError, match="nothing was changed"):
        block(path)
