"""A hostile package that is built, a release command and run.yml: each is held to what a slot is held to, or more."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from tenants import PROJECT, attack, playbook, with_app

#: A secret of a single run.
TOKEN = f"one-off-sesame-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile app's code with a package beside it, whose build runs what its author wants."""
    folder = tmp_path_factory.mktemp("mallory") / "code"
    shutil.copytree(PROJECT / "tests/apps/hostile", folder)
    shutil.copytree(PROJECT / "tests/apps/hostile_package", folder / "package")
    with (folder / "requirements.txt").open("a", encoding="utf-8") as requirements:
        requirements.write("./package\n")
    # Another one each time: a release that is there already is not built again.
    (folder / "package/number").write_text(uuid.uuid4().hex, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def reports(host: Any, code: Path) -> dict[str, dict[str, Any]]:
    """What each kind of command was held to, from a single deploy, and one run.yml."""
    command = 'python package/confinement.py > "$HOME/release.json"'
    variables = with_app("mallory", source={"path": str(code)}, release_command=command)
    status, output = playbook("deploy", host, app="mallory", **variables)
    assert status == 0, output
    read = "cat /srv/mallory/current/venv/lib/python3*/site-packages/hostile_package.json"
    found = {"build": json.loads(host.check_output(read))}
    found["release"] = json.loads(host.check_output("cat /srv/mallory/data/release.json"))
    status, output = playbook("run", host, app="mallory", command=f"{command.replace('release', 'run')}", **variables)
    assert status == 0, output
    found["run"] = json.loads(host.check_output("cat /srv/mallory/data/run.json"))
    return found


KINDS = ("build", "release", "run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_is_confined_like_a_slot(host: Any, reports: dict[str, dict[str, Any]], kind: str) -> None:
    told = reports[kind]
    assert told["seccomp"] == "2", told
    assert told["no_new_privileges"] == "1"
    assert int(told["capabilities"], 16) == 0
    assert told["users"][2] == "1", "PrivateUsers= maps one user alone"
    assert told["tasks"] == "512"
    assert told["files"] == 8192
    assert int(told["memory"]) <= int(host.check_output("awk '/MemTotal/ {print $2}' /proc/meminfo")) * 1024 * 0.51
    assert "Address family not supported" in told["netlink"]
    assert "Operation not permitted" in told["chown"]
    assert told["personality"] == -1


def test_a_command_of_the_app_has_its_data_and_its_database(reports: dict[str, dict[str, Any]]) -> None:
    for kind in ("release", "run"):
        assert reports[kind]["user"] == "mallory"
        assert "release.json" in reports[kind]["data"]
        assert reports[kind]["database"] == "connected"


def test_a_build_reads_its_code_and_nothing_else(reports: dict[str, dict[str, Any]]) -> None:
    told = reports["build"]
    assert told["user"] == "mallory_build"
    assert len(told["code"]) == 1, "it sees the release that is built, and no other"
    for name in ("data", "database", "neighbor", "secrets", "bus", "others_cache"):
        assert str(told[name]).startswith("refused"), (name, told[name])


def test_a_build_writes_its_environment_and_nothing_else(host: Any, reports: dict[str, dict[str, Any]]) -> None:
    told = reports["build"]
    assert {place for place, result in told["written"].items() if not result.startswith("refused")} == set()
    assert told["signaled"] == []
    assert "Operation not permitted" in told["suid"]
    assert [result for result in told["links"][:3] if result] == [], "the links that root meets were made"
    assert told["links"][3].startswith("refused")


def test_root_follows_no_link_of_a_build(host: Any, reports: dict[str, dict[str, Any]]) -> None:
    environment = host.check_output("readlink -f /srv/mallory/current/venv")
    assert host.file(f"{environment}/lib/file").is_symlink, "the attack left its links there"
    shadow = host.file("/etc/shadow")
    assert (shadow.user, shadow.group, shadow.mode) == ("root", "shadow", 0o640)
    assert host.file("/etc").mode == 0o755
    assert not host.file("/etc/planted").exists
    assert not host.file(f"{environment}/.complete").is_symlink
    assert host.check_output("find %s ! -user root -o -perm /7022 ! -type l", environment) == ""


def test_nothing_of_a_build_goes_on_when_it_has_ended(host: Any, reports: dict[str, dict[str, Any]]) -> None:
    assert host.run("pgrep --exact --full 'sleep 47114711'").rc == 1
    assert host.run("pgrep --uid mallory_build").rc == 1


def test_the_hostile_app_serves_with_what_was_built(visitor: Any, reports: dict[str, dict[str, Any]]) -> None:
    """The positive control: the build and the release command did what they were for."""
    assert visitor.ask("https://mallory.test/").status == 200
    assert attack(visitor, "import getpass; print(getpass.getuser())").strip() == "mallory"


def test_a_secret_of_one_run_is_in_no_list_no_log_and_no_output(host: Any, tmp_path: Path) -> None:
    variables = tmp_path / "secrets.yml"
    variables.write_text(f"run_secrets: {{ADMIN_PASSWORD: {TOKEN}}}\n", encoding="utf-8")
    # Seen by the command; and while it runs, by nobody who looks at the processes and the units of the host.
    command = 'echo "$ADMIN_PASSWORD" | sha256sum; echo "$ADMIN_PASSWORD"; sleep 5'
    watch = (
        "sleep 0; for second in $(seq 400); do ps axww -o args; systemctl show 'flask-alice_run-*'; sleep 0.5; "
        "[ ! -e /run/flaskhost-watched ] || break; done > /run/watched"
    )
    host.run_test("rm -f /run/flaskhost-watched")
    host.run_test("systemd-run --quiet --collect --unit=watcher /bin/sh -c %s", watch)
    began = host.check_output("date +@%s")
    status, output = playbook("run", host, "--extra-vars", f"@{variables}", "-vvv", app="alice", command=command)
    host.run_test("touch /run/flaskhost-watched")
    assert status == 0, output
    assert hashlib.sha256(f"{TOKEN}\n".encode()).hexdigest() in output, "the command had it"
    assert TOKEN not in output, "Ansible shows it"
    seen = host.check_output("cat /run/watched")
    assert "flask-alice_run-" in seen, "the watcher saw the command"
    assert "sleep 5" in seen
    assert TOKEN not in seen
    journal = host.check_output("journalctl --namespace='*' --since %s --output=export", began)
    assert "flask-alice_run-" in journal, "the journal has the run"
    assert TOKEN not in journal
    assert host.check_output("find /run/flaskhost -type f") == ""
