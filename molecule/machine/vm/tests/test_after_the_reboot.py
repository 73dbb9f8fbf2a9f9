"""The machine after its reboot: everything is back, by itself."""

import json
import os
import re
from pathlib import Path

import pytest

SETTINGS = "/etc/sysctl.d/60-flaskhost.conf"
BLOCKED = "/etc/modprobe.d/60-flaskhost.conf"
#: What the kernel of a release of Debian does not have yet: io_uring can be switched off since Linux 6.6.
NEWER_THAN_THE_KERNEL = {"12": {"kernel.io_uring_disabled"}}


def properties(host, unit, *names):
    """What systemd knows of a unit."""
    shown = host.check_output(f"systemctl show {unit} --property={','.join(names)}")
    return dict(line.split("=", 1) for line in shown.splitlines())


@pytest.fixture(scope="module")
def report(host):
    """The report of the audit before the reboot."""
    reports = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".cache/vm/reports"
    files = sorted(reports.glob(f"{host.ansible.get_variables()['inventory_hostname']}-*.json"))
    return json.loads(files[-1].read_text())


# -- the boot --------------------------------------------------------------------------------------------------------


def test_everything_runs_and_nothing_has_failed(host):
    assert host.run("systemctl is-system-running").stdout == "running\n"
    assert host.run("systemctl --failed --no-legend --plain").stdout == ""


def test_journal_is_kept_across_the_boot(host):
    assert "before the reboot" in host.check_output("journalctl --boot=-1 --identifier=flaskhost-vm --no-pager")
    assert host.run("journalctl --boot=0 --identifier=flaskhost-vm --no-pager --quiet").stdout == ""


def test_kernel_was_started_with_our_arguments(host):
    given = host.file("/proc/cmdline").content_string.split()
    wanted = re.search(r'"(?:\$\w+ )?(.*)"', host.file("/etc/default/grub.d/60-flaskhost.cfg").content_string).group(1)
    assert "audit=1" in wanted
    assert [word for word in wanted.split() if word not in given] == []
    assert host.file("/boot/grub/grub.cfg").mode == 0o600


# -- the sites -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["guestbook.test", "hello.test"])
def test_site_is_served(visitor, name):
    assert visitor.ask(f"https://{name}/").status == 200
    assert visitor.ask(f"http://{name}/").status == 301


# -- the firewall ----------------------------------------------------------------------------------------------------


def test_firewall_was_there_before_the_network(host):
    ready = "ActiveEnterTimestampMonotonic"
    firewall = properties(host, "flaskhost-firewall.service", ready, "ActiveState")
    assert firewall["ActiveState"] == "active"
    for unit in ("network-pre.target", "systemd-networkd.service", "ssh.service", "nginx.service"):
        # When it was begun, not when it was ready.
        begun = properties(host, unit, "InactiveExitTimestampMonotonic")["InactiveExitTimestampMonotonic"]
        assert 0 < int(firewall[ready]) <= int(begun), unit
    # When each interface came up: the one to the outside among them.
    up = host.check_output("journalctl --boot --unit=systemd-networkd --output=short-monotonic --no-pager")
    links = dict(re.findall(r"(?m)^\[ *([\d.]+)\] .*: (\w+): Link UP$", up))
    assert set(links.values()) > {"lo"}
    assert all(int(firewall[ready]) / 1e6 < float(seconds) for seconds in links)


def test_rules_are_loaded(host):
    rules = host.check_output("nft --stateless list table inet flaskhost")
    assert "policy drop" in rules
    assert "tcp dport { 80, 443 } accept" in rules


# -- the kernel ------------------------------------------------------------------------------------------------------


def test_every_setting_of_the_kernel_is_in_force(host):
    lines = host.file(SETTINGS).content_string.splitlines()
    wanted = [line.lstrip("-").split("=", 1) for line in lines if "=" in line and not line.startswith(("#", ";"))]
    assert len(wanted) > 50
    paths = {name.strip(): value.split() for name, value in wanted}
    patterns = " ".join("/proc/sys/" + name.replace(".", "/") for name in paths)
    # One command for all: the shell knows what a * stands for.
    has = {}
    for line in host.check_output(f"grep --recursive --with-filename '' {patterns} || true").splitlines():
        path, value = line.split(":", 1)
        has[path.removeprefix("/proc/sys/").replace("/", ".")] = value.split()
    wrong = {}
    for name, value in paths.items():
        pattern = re.compile(re.escape(name).replace(r"\*", r"[^.]+"))
        found = {real: is_now for real, is_now in has.items() if pattern.fullmatch(real)}
        # The file says of each that it may be missing; a name with a mistake in it is found here.
        assert found or name in NEWER_THAN_THE_KERNEL.get(host.system_info.release.partition(".")[0], ()), name
        wrong |= {real: is_now for real, is_now in found.items() if is_now != value}
    assert wrong == {}


def test_blocked_modules_cannot_be_loaded(host):
    content = host.file(BLOCKED).content_string
    names = re.findall(r"^install\s+(\S+)\s", content, re.MULTILINE)
    assert len(names) > 20
    there = [name for name in names if host.run(f"modinfo --field=filename {name}").rc == 0]
    # A test that tries nothing would always be right.
    assert there
    for name in there:
        assert host.run(f"modprobe {name}").rc != 0, name
    loaded = {line.split()[0] for line in host.check_output("lsmod").splitlines()}
    assert loaded.isdisjoint(name.replace("-", "_") for name in names)


def test_no_user_makes_the_kernel_load_a_blocked_protocol(host):
    program = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)"
    assert "Protocol not supported" in host.run(f"sudo -u debian python3 -c '{program}'").stderr


def test_crash_leaves_no_core(host):
    said = host.run("cd /tmp && sudo -u nobody sh -c 'ulimit -c unlimited; ulimit -c; kill -SEGV $$'")
    assert said.rc != 0
    assert "unlimited" not in said.stdout
    assert host.run("ls /tmp/core* /var/lib/systemd/coredump/* 2>/dev/null").stdout == ""


def test_no_program_runs_from_shared_memory(host):
    assert "noexec" in host.check_output("findmnt --noheadings --output=OPTIONS /dev/shm").split(",")


# -- what watches ----------------------------------------------------------------------------------------------------


def test_audit_runs_with_our_rules(host):
    assert host.service("auditd").is_running
    status = host.check_output("auditctl -s")
    assert re.search(r"^enabled [12]$", status, re.MULTILINE)
    lost = re.search(r"^lost (\d+)$", status, re.MULTILINE)
    assert int(lost.group(1)) == 0, status
    loaded = host.check_output("auditctl -l").splitlines()
    keys = {key for line in loaded for key in re.findall(r"(?:-k |key=)(\S+)", line)}
    written = host.file("/etc/audit/rules.d/60-flaskhost.rules").content_string
    assert keys == set(re.findall(r"(?:-k |key=)(\S+)", written))


def test_change_of_sudos_rules_is_recorded_with_who_made_it(host):
    host.run_expect([0], "touch /etc/sudoers.d/flaskhost-vm-test && rm /etc/sudoers.d/flaskhost-vm-test")
    said = host.check_output("ausearch --key actions --start recent --interpret --input-logs")
    record = next(part for part in said.split("----") if "flaskhost-vm-test" in part)
    # Became root by sudo; the record knows who had logged in.
    assert "auid=debian" in record
    assert "uid=root" in record


def test_apparmor_confines(host):
    state = json.loads(host.check_output("aa-status --json"))
    enforced = [name for name, mode in state["profiles"].items() if mode == "enforce"]
    assert enforced
    unconfined = [name for name, processes in state["processes"].items() for one in processes
                  if one["status"] == "unconfined"]  # fmt: skip
    assert unconfined == []


@pytest.mark.parametrize("name", ["guestbook", "hello"])
def test_every_process_of_an_app_is_confined_by_its_profile(host, name):
    processes = host.check_output(f"ps --no-headers -o label:64 -u {name}").splitlines()
    assert len(processes) >= 2
    assert set(processes) == {f"flask-{name} (enforce)"}


def test_app_cannot_run_what_it_has_written(visitor):
    answer = visitor.ask("https://hello.test/attempt?what=run%20own%20file").json
    assert (answer["ok"], answer["errno"]) == (False, "EACCES")


def test_profiles_hold_nothing_against_the_apps(host, visitor):
    """What the apps need is allowed: the tests above alone have been refused."""
    for name in ("guestbook", "hello"):
        assert visitor.ask(f"https://{name}.test/").status == 200
    # auditd has them, and not the kernel's own log; ausearch does not know AppArmor's.
    log = host.check_output("cat /var/log/audit/audit.log").splitlines()
    ours = [line for line in log if line.startswith("type=AVC ") and re.search(r'DENIED".*profile="flask-', line)]
    # The test above.
    assert ours
    assert [line for line in ours if "/data/attempt-" not in line] == []


def test_clock_is_kept_by_chrony_alone(host):
    assert host.service("chrony").is_running
    assert host.run("chronyc tracking").rc == 0
    assert not host.service("systemd-timesyncd").is_running


def test_updates_would_be_installed(host):
    assert host.run("unattended-upgrade --dry-run").rc == 0
    assert host.service("apt-daily-upgrade.timer").is_running


# -- what others say -------------------------------------------------------------------------------------------------


def test_nothing_listens_that_nobody_has_asked_for(report):
    scan = next(scan for scan in report["scans"] if scan["scanner"] == "listeners")
    assert scan["ran"]
    assert [finding["id"] for finding in scan["findings"] if finding["status"] == "failed"] == []


def test_lynis_counts_what_the_guide_says_and_warns_of_nothing(report):
    scan = next(scan for scan in report["scans"] if scan["scanner"] == "lynis")
    # What was measured, so that it does not get worse. The aim is 90, and it is not reached: docs/audit.md, What Lynis
    # counts, says which points are missing, and what would get each of them.
    # An app with Redis costs a point: Lynis reads the configuration of Debian's service, which does not run.
    assert scan["score"] >= 79, [finding["id"] for finding in scan["findings"] if finding["status"] != "passed"]
    # Every point that is missing has a reason, but for a few that a new version of Lynis may bring.
    assert scan["score_without_waived"] >= 95, [item for item in scan["findings"] if item["status"] == "failed"]
    # But for those that are waived, each with its reason.
    warnings = [finding for finding in scan["findings"] if finding["severity"] == "high"]
    assert [finding for finding in warnings if finding["status"] == "failed"] == []


def test_audit_leaves_nothing_grave_to_do(report):
    assert [step for step in report["next"] if step["severity"] == "high"] == []
