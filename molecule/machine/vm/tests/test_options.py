"""Options of the kernel, of its file systems and of auditd, which a container does not have: their effect."""

import pytest
from plug import run_playbook


def runs_from(host, folder):
    """Whether a program that is in a folder can be started."""
    file = f"{folder}/flaskhost-vm-program"
    host.run_expect([0], f"cp /usr/bin/true {file}")
    try:
        return host.run(file).rc == 0
    finally:
        host.run_expect([0], f"rm {file}")


def test_swap_is_in_use_and_of_the_wanted_size(host):
    _title, *lines = host.file("/proc/swaps").content_string.splitlines()
    sizes = {line.split()[0]: int(line.split()[2]) for line in lines}
    # In KiB, less the page that describes it.
    assert sizes == {"/swapfile": 256 * 1024 - 4}
    assert host.file("/swapfile").mode == 0o600


def test_module_of_the_option_cannot_be_loaded(host):
    assert host.run("modinfo --field=filename cifs").rc == 0
    assert host.run("modprobe cifs").rc != 0
    # modprobe loads the modules first that it depends on, such as cifs_arc4.
    assert "cifs" not in {line.split()[0] for line in host.check_output("lsmod").splitlines()}


def test_module_that_is_allowed_can_be_loaded(host):
    host.run_expect([0], "modprobe tipc")
    host.run_expect([0], "modprobe --remove tipc")


def test_kernel_has_the_arguments_of_the_option_alone(host):
    given = host.file("/proc/cmdline").content_string.split()
    assert "init_on_alloc=1" in given
    # One of the default's.
    assert "slab_nomerge=yes" not in given


def test_rules_of_auditd_are_locked(host):
    assert "enabled 2" in host.check_output("auditctl -s").splitlines()
    before = host.check_output("auditctl -l")
    # auditctl ends with 255, which Testinfra takes for a lost connection.
    assert host.run("auditctl -D || exit 1").rc == 1
    assert host.check_output("auditctl -l") == before


def test_no_program_runs_from_a_tmp_in_memory(host):
    in_memory = host.run("findmnt --noheadings --output=FSTYPE --mountpoint /tmp").stdout.strip() == "tmpfs"
    # Debian 13's is, Debian 12's is a folder of the disk.
    assert in_memory == host.system_info.release.startswith("13")
    assert runs_from(host, "/tmp") == (not in_memory)


@pytest.mark.parametrize("noexec", [False, True])
def test_program_runs_from_shared_memory_as_the_option_says(host, noexec):
    """Last with the default: the machine is then as it was."""
    play = run_playbook("site.yml", "--tags", "hardening", hardening_shm_noexec=noexec)
    assert play.returncode == 0, play.stdout + play.stderr
    assert runs_from(host, "/dev/shm") == (not noexec)
