"""playbooks/audit.yml on a host that Flaskhost never touched: a report that makes sense, and nothing stays there.

The attacker's host is one: only Molecule has it in the inventory.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from audits import Audit, as_a_machine, ids, parts, run_audit
from fleet import ATTACKER, Host

#: What parts() does not read: the times of apt's lists and cache, the logs' names, and what runs, waits or is mounted.
RUNNING = (
    "find /var/lib/apt /var/cache/apt -printf '%p %T@\\n'; "
    "find /var/log /run/systemd/system /run/systemd/transient -xdev -not -path '*/session-*' -not -path '*/user-*'; "
    "systemctl list-unit-files --no-legend --no-pager; cut -d ' ' -f 2 /proc/mounts | grep -v ^/run/user; "
    "ss --no-header --listening --tcp --udp --numeric; cat /proc/[0-9]*/comm | grep -e '^apt' -e oscap -e lynis; "
    "sysctl --all 2>/dev/null | grep -e '^net.ipv4.conf.all' -e '^kernel.yama'"
)
#: What Flaskhost's own programs would tell, and what is not there to be looked at.
ABSENT = {
    "certificates": "flaskhost-certificates is not on this host.",
    "backup": "flaskhost-backup is not on this host.",
    "gixy": "There is no nginx on this host.",
    "testssl": "No name is served over HTTPS here (audit_tls_names).",
}
LOOKED = ("updates", "listeners", "exposure", "lynis", "openscap-anssi_bp28_minimal", "ssh_audit", "ports")


@dataclass(frozen=True)
class Bare:
    """The host, its audit, and what there was before and after it."""

    host: Host
    done: Audit
    before: set[str]
    after: set[str]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """A bare host that has been audited by all scanners."""
    host = Host.of(ATTACKER)

    def look() -> set[str]:
        return parts(host) | set(host.run(RUNNING).splitlines())

    with as_a_machine(host):
        before = look()
        done = run_audit(
            host, tmp_path_factory.mktemp("bare"), seconds=3000,
            audit_scap_profiles=["anssi_bp28_minimal"], audit_port_rate=4000,
        )  # fmt: skip
        return Bare(host, done, before, look())


def test_the_host_was_bare(bare):
    """The positive control of all below."""
    assert "flaskhost" not in bare.host.run("ls /etc /etc/systemd/system /usr/local/sbin /var/lib")
    assert "passwordauthentication yes" in bare.host.run("sshd -T").splitlines()


def test_the_audit_changes_nothing_and_leaves_nothing_there(bare):
    assert bare.done.status == 0, bare.done.output
    assert "changed=0" in bare.done.output
    assert len(bare.before) > 2000
    assert sorted(bare.after ^ bare.before) == []
    assert bare.host.run("find / -xdev -name '*flaskhost*'; find /tmp /run -name '*flaskhost*' -o -name 'lynis*'") == ""


@pytest.mark.parametrize("name", LOOKED)
def test_scanner_has_looked_at_it(bare, name):
    assert len(bare.done.scan(name)["findings"]) > 0


@pytest.mark.parametrize(("name", "reason"), ABSENT.items())
def test_what_is_not_there_is_told_and_not_passed(bare, name, reason):
    found = bare.done.asked(name)
    assert not found["ran"]
    assert found["why_not"] == reason
    assert found["passed"] == 0


def test_what_waits_for_it_is_told(bare):
    """A bare host has faults that each scanner sees, and they are in the list of what to do next."""
    steps = {step["id"] for step in bare.done.report["next"]}
    for name in ("lynis", "openscap-anssi_bp28_minimal", "ssh_audit"):
        failed = ids(bare.done.scan(name), "failed")
        assert failed, name
        assert set(failed) <= steps
    assert ids(bare.done.scan("ports"), "passed") == ["tcp/22"]
    assert ids(bare.done.scan("ports"), "failed") == []


def test_no_waiver_of_flaskhosts_own_holds_there(bare):
    """Only what the shared kernel keeps from it is set aside."""
    waived = [each for found in bare.done.report["scans"] for each in found["findings"] if each["status"] == "waived"]
    assert waived
    assert [each["id"] for each in waived if not each["out_of_reach"] or "shares its" not in each["reason"]] == []


def test_the_report_says_what_the_host_is(bare):
    assert bare.done.report["host"] == ATTACKER
    assert bare.done.report["system"].startswith("Debian GNU/Linux 13")
    assert "What to do next" in bare.done.page.read_text(encoding="utf-8")
