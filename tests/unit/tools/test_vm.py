"""The machines on QEMU: recipes, commands, and whose process is whose. No QEMU is started here."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

import vm
from common import Problem


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(vm, "HOME", tmp_path)
    return tmp_path


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script of an image, without what this machine's environment adds to it."""
    key = tmp_path / "key"
    key.with_suffix(".pub").write_text("ssh-ed25519 AAAA it's a key\n")
    monkeypatch.setattr(vm, "KEY", key)
    monkeypatch.setattr(vm, "extra_authorities", str)
    monkeypatch.setattr(vm, "passed_on", dict)
    return vm.image_script("trixie")


@pytest.fixture
def sleeper(home):
    """A process whose command names the disk of the machine one."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", str(home / "one.disk")]
    with subprocess.Popen(command) as process:
        # For a moment after its start a process has no words yet.
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        yield process
        process.kill()


def test_script_is_a_shell_script_with_nothing_left_to_fill_in(script):
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    for line in vm.SCRIPT.splitlines():
        assert "{" not in line or line not in script
    assert "fh-vm-trixie" in script
    assert vm.UUID in script


def test_key_with_a_quote_arrives_whole(script):
    line = next(line for line in script.splitlines() if "AAAA" in line)
    said = subprocess.run(["sh", "-c", line.split(">")[0]], capture_output=True, text=True, check=True)
    assert said.stdout == "ssh-ed25519 AAAA it's a key\n"


def test_recipe_changes_with_what_it_is_made_of(monkeypatch):
    trixie = vm.Image("trixie")
    before = trixie.digest("", "script")
    assert before == vm.Image("trixie").digest("", "script")
    assert before != vm.Image("bookworm").digest("", "script")
    assert before != vm.Image("trixie", ("aide-common",)).digest("", "script")
    assert before != trixie.digest("http://mirror.test", "script")
    assert before != trixie.digest("", "another")
    monkeypatch.setattr(vm, "GRUB_LIST", "another")
    assert before != trixie.digest("", "script")


def test_image_with_another_package_is_another_image(home):
    assert vm.Image("trixie").folder != vm.Image("trixie", ("aide-common",)).folder


def test_parts_of_the_disk_do_not_overlap():
    assert vm.LOADER_START + vm.LOADER <= vm.SYSTEM_START
    assert vm.SYSTEM_START + vm.SYSTEM < vm.DISK


def test_command_forwards_each_port_on_this_computer_alone(home):
    command = vm.machine_command(vm.Machine("one"), {22: 22070, 443: 14370}, ["-accel", "tcg"])
    network = next(word for word in command if word.startswith("user,"))
    assert "hostfwd=tcp:127.0.0.1:22070-:22" in network
    assert "hostfwd=tcp:127.0.0.1:14370-:443" in network
    assert network.count("hostfwd") == network.count("127.0.0.1") == 2
    assert any(str(home / "one.disk") in word for word in command)


def test_process_of_the_machine_is_known_by_its_disk(home, sleeper):
    (home / "one.pid").write_text(str(sleeper.pid))
    (home / "two.pid").write_text(str(sleeper.pid))
    assert vm.Machine("one").pid() == sleeper.pid
    assert vm.Machine("two").pid() is None


@pytest.mark.parametrize("words", ["", "nonsense", "999999999"])
def test_file_with_no_living_process_is_no_machine(home, words):
    (home / "one.pid").write_text(words)
    assert vm.Machine("one").pid() is None


def test_removing_deletes_its_files_and_nobody_elses(home, sleeper):
    for kind in ("disk", "console", "log", "image"):
        (home / f"one.{kind}").touch()
        (home / f"two.{kind}").touch()
    (home / "one.pid").write_text(str(sleeper.pid))
    machine = vm.Machine("one")
    # As the init system does for a real one: a child that has ended is gone when somebody has asked for it.
    sleeper.terminate()
    sleeper.wait()
    machine.remove()
    assert sorted(file.name for file in home.iterdir()) == ["two.console", "two.disk", "two.image", "two.log"]


def test_start_is_refused_where_a_port_is_taken(home, monkeypatch):
    monkeypatch.setattr(vm, "port_is_taken", lambda port: port == 8070)
    with pytest.raises(Problem, match="8070"):
        vm.Machine("one").start(vm.Image("trixie"), {22: 22070, 80: 8070})
    assert not (home / "one.disk").exists()


def test_kvm_counts_only_where_it_boots_a_kernel(home, monkeypatch):
    monkeypatch.setattr(vm.os, "access", lambda *_: True)
    answer = subprocess.CompletedProcess([], 0, "[ 0.3] Kernel panic - not syncing: VFS", "")
    monkeypatch.setattr(vm, "attempt", lambda *_command, **_options: answer)
    assert vm.acceleration(home)[1] == "kvm"
    answer.stdout = ""
    assert vm.acceleration(home)[1].startswith("tcg")


def test_kvm_is_not_tried_where_there_is_none(home, monkeypatch):
    monkeypatch.setattr(vm.os, "access", lambda *_: False)
    monkeypatch.setattr(vm, "attempt", lambda *_command, **_options: pytest.fail("KVM was tried"))
    assert not vm.kvm_boots(home)


def test_acceleration_can_be_said(home, monkeypatch):
    monkeypatch.setattr(vm, "kvm_boots", lambda _folder: pytest.fail("KVM was tried"))
    monkeypatch.setenv("FLASKHOST_VM_ACCEL", "kvm")
    assert vm.acceleration(home)[1] == "kvm"
    monkeypatch.setenv("FLASKHOST_VM_ACCEL", "xen")
    with pytest.raises(Problem, match="xen"):
        vm.acceleration(home)


def test_image_out_of_date_is_not_replaced_under_a_machines_disk(home, monkeypatch, script):
    (home / "one.disk").touch()
    (home / "one.image").write_text("trixie")
    monkeypatch.setattr(vm, "build_image", lambda *_: pytest.fail("it was replaced"))
    with pytest.raises(Problem, match="the disk of one lies over it"):
        vm.ensure_image(vm.Image("trixie"))
