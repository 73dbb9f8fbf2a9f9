"""A change that would lock the operator out, on a machine where everything is slow and whose plug can be pulled."""

import os
import signal
import subprocess
from subprocess import DEVNULL

from plug import PROJECT, command_of, log_in, pull, put_in, run_playbook

GUARD = "/var/lib/flaskhost/guard/firewall"
RULES = "/etc/nftables-flaskhost.conf"
# Rules without the port that the run comes in by, as where a role is used without the fact that tells of it.
CUT = {"__firewall_connection_port": [], "firewall_ssh_ports": [2222]}
#: The playbook, and the options that limit it to the firewall.
FIREWALL = ("site.yml", "--tags", "firewall")


def loaded(host):
    """The rules that are loaded, without what they have counted."""
    return host.check_output("nft --stateless --terse list table inet flaskhost")


def test_rules_that_would_cut_ssh_are_taken_back(host):
    before, file = loaded(host), host.file(RULES).sha256sum
    play = run_playbook(*FIREWALL, **CUT)
    assert play.returncode != 0
    assert "The change of firewall was reverted, because no new SSH connection could be made" in play.stdout
    assert "The host has reverted the change, and responds as before." in play.stdout
    assert log_in(host, "sudo --non-interactive whoami").stdout == "root\n"
    assert (loaded(host), host.file(RULES).sha256sum) == (before, file)


def test_plug_pulled_amid_such_a_change_leaves_no_door_locked(host):
    """The timer that would take the change back does not outlive the boot; what runs at every boot does it then."""
    before, file, boot = loaded(host), host.file(RULES).sha256sum, host.file("/proc/sys/kernel/random/boot_id")
    old_boot = boot.content_string
    with subprocess.Popen(
        command_of(*FIREWALL, **CUT), cwd=PROJECT, start_new_session=True, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    ) as play:
        # Over the connection that is there already. The new rules are in force, and would be after the boot.
        changed = host.check_output(f"until [ -e {GUARD}/applied ]; do sleep 0.2; done; sha256sum {RULES}").split()[0]
        pull(host)
        os.killpg(play.pid, signal.SIGKILL)
    assert changed != file
    put_in(host)
    assert boot.content_string != old_boot
    assert (loaded(host), host.file(RULES).sha256sum) == (before, file)
    said = host.check_output("journalctl --boot --unit=flaskhost-guard --output=cat --no-pager")
    assert "Revert changes that were not confirmed before the boot" in said
    # The next run clears up what is left, and has nothing to change.
    again = run_playbook(*FIREWALL)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "changed=0" in again.stdout
    assert not host.file(GUARD).exists
