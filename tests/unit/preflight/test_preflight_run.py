"""Runs of the real playbook that preflight refuses: each host is told everything, once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from loading import ROOT
from playing import play

INVENTORY = """\
all:
  vars:
    preflight_apps_variable: sites
    preflight_settings_variables: [admin_users, timezone, backup]
    preflight_same_repository: >-
      {{ ansible_play_hosts_all | flask_hosts_with_repository(inventory_hostname, hostvars) }}
    timezone: "{{ vault_zone }}"
    backup:
      passphrase: kP4vXq7uJm2s9TzR
      second: {repository: "sftp:backup@203.0.113.20:/flaskhost", known_hosts: 203.0.113.20 ssh-ed25519 AAAA}
    sites:
      shop:
        domains: [shop.localhost]
        source: {path: nowhere}
        wsgi: shop:app
        secrets: {TOKEN: "{{ vault_token }}"}
  hosts:
    web1: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: op, ansible_become: true}
    web2: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_user: op}
"""


@pytest.fixture(scope="module")
def refused_run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The real playbook on two hosts that nobody can reach, with faults in what the user wrote."""
    return run_preflight(tmp_path_factory.mktemp("inventory"), INVENTORY)


def run_preflight(folder: Path, hosts: str) -> subprocess.CompletedProcess[str]:
    """Run the real playbook on an inventory of this text."""
    inventory, content = folder / "hosts.yml", yaml.safe_load(hosts)
    # In an inventory's own files, where they are stronger than the wiring.
    (folder / "group_vars").mkdir()
    (folder / "group_vars" / "all.yml").write_text(yaml.safe_dump(content["all"].pop("vars", {})))
    inventory.write_text(yaml.safe_dump(content))
    return play("-i", inventory, "playbooks/preflight.yml", cwd=ROOT)


def test_a_run_that_is_refused_tells_each_host_everything(refused_run: subprocess.CompletedProcess[str]) -> None:
    assert refused_run.returncode == 2, refused_run.stdout + refused_run.stderr
    for host in ("web1", "web2"):
        message = refused_run.stdout.partition(f"fatal: [{host}]")[2].partition("Nothing has been changed on")[0]
        assert f"Preflight found 6 problems for {host}." in message
        for part in (
            "Login failed as op to 127.0.0.1, port 1",
            "Connection refused",
            "sites.shop.source.path",
            "sites.shop.secrets.TOKEN",
            "the variable vault_token is not defined",
            "the variable vault_zone is not defined",
            "backup.passphrase",
            f"backup.second.repository What is wrong: {'web2' if host == 'web1' else 'web1'} would use the same",
            "/flaskhost/{{ inventory_hostname }}",
        ):
            assert part in " ".join(message.split()), part


def test_a_run_that_is_refused_has_one_failure_per_host_and_no_stack_trace(
    refused_run: subprocess.CompletedProcess[str],
) -> None:
    output = refused_run.stdout + refused_run.stderr
    assert output.count("fatal: [") == 2, output
    assert "unreachable=0" in output
    assert "Traceback" not in output
    assert "UNREACHABLE" not in output


#: An SSH that is refused while Ansible still sends it the module, as happens on a busy machine.
SSH_THAT_ENDS_SLOWLY = """\
#!/bin/sh
exec <&-
sleep 0.3
echo "ssh: connect to host 127.0.0.1 port 1: Connection refused" >&2
exit 255
"""


def test_the_reason_of_ssh_is_told_though_it_ends_while_data_is_sent(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH_THAT_ENDS_SLOWLY)
    ssh.chmod(0o755)
    finished = run_preflight(tmp_path, INVENTORY.replace("vars:", f"vars:\n    ansible_ssh_executable: {ssh}", 1))
    assert finished.returncode == 2, finished.stdout + finished.stderr
    for host in ("web1", "web2"):
        message = finished.stdout.partition(f"fatal: [{host}]")[2].partition("Nothing has been changed on")[0]
        assert "port 1: Connection refused" in " ".join(message.split()), finished.stdout
