"""What the role hardening asks of sshd: who comes in, by which port, and that what is checked is what is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.deploy.build_room import build_account
from ansible.module_utils.flaskhost.host.program_accounts import administrators, matching
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from rendering import load_filters

ROLE = Path(__file__).resolve().parents[3] / "roles/hardening"
REFUSAL, BLOCK = yaml.safe_load((ROLE / "tasks/sshd.yml").read_text())
TASKS = {task["name"].partition(" | ")[2]: task for task in BLOCK["block"]}


class Host:
    """The role's names as Ansible works them out."""

    def __init__(
        self, user: str = "debian", port: int = 22, release: str = "12", programs: Any = (), **options: Any
    ) -> None:
        facts: dict[str, Any] = {"distribution_major_version": release}
        if user:
            facts["env"] = {"USER": user, "SSH_CONNECTION": f"203.0.113.9 50000 192.0.2.1 {port}"}
        trusted = DataLoader()
        path = str(ROLE / "tasks/sshd.yml")
        names = trusted.load_from_file(path, trusted_as_template=True)[1]["vars"]
        defaults = trusted.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True)
        internal = trusted.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
        names |= {
            name: text for name, text in internal.items() if name.startswith(("__hardening_ssh_", "__hardening_op"))
        }
        names["__hardening_host"] = {"accounts": {"programs": list(programs), "administrators": ["root", "ada"]}}
        self.known = {"ansible_managed": "x", "ansible_facts": facts, **defaults, **names, **options}

    def value(self, text: str) -> Any:
        return Templar(loader=DataLoader(), variables=self.known).template(trust_as_template(text))

    def ports(self, task: str = "Configure sshd") -> list[int]:
        return self.value(TASKS[task]["vars"]["__hardening_ssh_ports"])

    def config(self, task: str = "Configure sshd") -> dict[str, list[str]]:
        self.known["__hardening_ssh_ports"] = self.ports(task)
        templar = Templar(loader=DataLoader(), variables=self.known)
        text = trust_as_template((ROLE / "templates/sshd.conf.j2").read_text())
        found: dict[str, list[str]] = {}
        for line in str(templar.template(text, overrides={"trim_blocks": True})).splitlines():
            if line and not line.startswith("#"):
                key, _space, value = line.partition(" ")
                found.setdefault(key.lower(), []).append(value)
        return found


@pytest.mark.parametrize(
    ("user", "answer"), [("debian", "no"), ("ada", "no"), ("root", "prohibit-password"), ("", "prohibit-password")]
)
def test_root_is_shut_out_by_somebody_else_only(user: str, answer: str) -> None:
    assert Host(user).config()["permitrootlogin"] == [answer]


def test_keys_only() -> None:
    config = Host().config()
    assert config["passwordauthentication"] == ["no"]
    assert config["kbdinteractiveauthentication"] == ["no"]
    assert config["authenticationmethods"] == ["publickey"]
    # A list of names would lock out who is forgotten in it.
    assert not {"allowusers", "allowgroups", "denyusers", "denygroups"} & config.keys()


@pytest.mark.parametrize(
    ("came_by", "wanted", "first", "then"),
    [
        (22, 0, [], None),
        (2222, 0, [], None),
        (22, 22, [22], None),
        (22, 2222, [2222, 22], [2222]),
        (2222, 2222, [2222], None),
        (2222, 22, [22, 2222], [22]),
    ],
)
def test_a_port_is_opened_before_another_is_closed(
    came_by: int, wanted: int, first: list[int], then: list[int] | None
) -> None:
    host = Host(port=came_by, hardening_ssh_port=wanted)
    assert host.ports() == first
    assert host.config().get("port", []) == [str(port) for port in first]
    assert host.value("{{ __hardening_ssh_moves }}") is (then is not None)
    if then:
        assert host.ports("Close the old port") == then


def test_the_old_port_is_closed_by_who_comes_in_by_the_new_one() -> None:
    close = TASKS["Close the old port"]["when"]
    for port, closed in (({}, False), ({"ansible_port": 22}, False), ({"ansible_port": 2222}, True)):
        host = Host(hardening_ssh_port=2222, ansible_check_mode=False, **port)
        assert all(host.value("{{ %s }}" % condition) for condition in close) is closed  # noqa: UP031 - braces


@pytest.mark.parametrize("release", ["12", "13"])
@pytest.mark.parametrize("classic", [False, True])
def test_key_exchange_is_post_quantum_where_nothing_else_is_asked_for(release: str, classic: bool) -> None:
    (text,) = Host(release=release, hardening_ssh_classic_key_exchange=classic).config()["kexalgorithms"]
    methods = text.split(",")
    assert ("mlkem768x25519-sha256" in methods) is (release == "13")
    assert "sntrup761x25519-sha512@openssh.com" in methods
    assert any(method.startswith(("curve25519", "diffie")) for method in methods) is classic
    # No group exchange: nobody has to look after moduli.
    assert not [method for method in methods if "exchange" in method or "sha1" in method or "nistp" in method]


@pytest.mark.parametrize("user", ["debian", "root"])
@pytest.mark.parametrize("wanted", [0, 22, 2222])
def test_what_is_checked_is_what_is_written(user: str, wanted: int) -> None:
    host = Host(user, hardening_ssh_port=wanted, hardening_ssh_host_keys=["ed25519", "rsa"])
    config = host.config()
    lines = host.value("{{ __hardening_ssh_lines }}")
    assert len(lines) > 10
    for line in lines:
        key, _space, value = line.partition(" ")
        # sshd has an older name for it.
        value = value.replace("without-password", "prohibit-password")
        assert value in [item.lower() for item in config[key]], line
    checked = [line.partition(" ")[0] for line in lines]
    assert checked.count("hostkey") == 2
    assert checked.count("port") == len(config.get("port", []))


def test_the_block_in_sshd_config_says_what_the_drop_in_says_and_nothing_twice() -> None:
    files = yaml.safe_load((ROLE / "tasks/sshd_change.yml").read_text())[0]["guarded_change"]["files"]
    (block,) = [file["content"] for file in files if file.get("behind")]
    host = Host(hardening_ssh_port=2222, hardening_ssh_host_keys=["ed25519", "rsa"])
    config = host.config()
    host.known["text"] = "".join(f"{key} {value}\n\n# x\n" for key, values in config.items() for value in values)
    text = host.value(block.replace("lookup('ansible.builtin.template', 'sshd.conf.j2')", "text"))
    keys = [line.partition(" ")[0].lower() for line in text.splitlines()]
    # A second Port or HostKey would be one more.
    assert sorted(keys) == sorted(config.keys() - {"port", "hostkey"})
    assert len(keys) > 20


def test_what_an_app_writes_into_its_home_is_no_key() -> None:
    """One line: OpenSCAP wants exactly one."""
    host = Host(hardening_ssh_denied_users=["office", "shop"])
    assert host.config()["denyusers"] == ["office shop"]
    lines = host.value("{{ __hardening_ssh_lines }}")
    assert {"denyusers office", "denyusers shop"} <= set(lines)


def test_what_removed_apps_have_left_is_refused_too() -> None:
    host = Host(hardening_ssh_denied_users=["shop", "shop_build"], programs=["gone", "gone_build", "shop_build"])
    assert host.config()["denyusers"] == ["gone gone_build shop shop_build"]
    assert "denyusers gone_build" in host.value("{{ __hardening_ssh_lines }}")


@pytest.mark.parametrize(
    ("user", "denied", "locked_out"),
    [("debian", ["shop"], []), ("debian", ["ada", "shop"], ["ada"]), ("shop", ["shop"], ["shop"])],
)
def test_no_administrator_is_locked_out(user: str, denied: list[str], locked_out: list[str]) -> None:
    host = Host(user, hardening_ssh_denied_users=denied)
    assert host.value("{{ __hardening_ssh_denied_admins }}") == locked_out
    assert host.value("{{ %s }}" % REFUSAL["ansible.builtin.assert"]["that"]) is not bool(locked_out)  # noqa: UP031


def test_the_wiring_names_the_accounts_of_apps_and_of_their_builders() -> None:
    long = "a" * 30
    assert load_filters()["flask_app_accounts"]({"shop": {}, long: {}}) == sorted(
        ["shop", "shop_build", long, build_account(long)]
    )
    wired = yaml.safe_load((ROLE.parents[1] / "group_vars/all/hardening.yml").read_text())
    users = [user("gone", "/srv/gone/data"), user("gone_build"), user("ci_build", "/home/ci_build", "/bin/bash")]
    assert matching(wired["hardening_ssh_denied_programs"], users) == ["gone", "gone_build"]


def user(name: str, home: str = "/nonexistent", shell: str = "/usr/sbin/nologin", uid: int = 999, gid: int = 99) -> Any:
    return SimpleNamespace(pw_name=name, pw_dir=home, pw_shell=shell, pw_uid=uid, pw_gid=gid)


def test_only_an_account_without_a_shell_is_a_programs() -> None:
    home = {"home": "/srv/*/data"}
    for odd in (
        user("deploy", "/srv/deploy/data", "/bin/bash"),
        user("x", "/srv/a/b/data"),
        user("x", "/srv/x/data/more"),
        user("x", "/opt/srv/x/data"),
        user("x*", "/srv/x/data"),
        user("x y", "/srv/x/data"),
    ):
        assert matching([home], [odd]) == []
    assert matching([home, {"name": "*_build"}], [user("b", "/srv/b/data"), user("a_build")]) == ["a_build", "b"]
    assert matching([], [user("a")]) == []


def test_who_may_become_root_is_an_administrator() -> None:
    groups = [
        SimpleNamespace(gr_name="sudo", gr_gid=27, gr_mem=["ada"]),
        SimpleNamespace(gr_name="shop", gr_gid=99, gr_mem=["eve"]),
    ]
    users = [user("root", uid=0, gid=0), user("toor", uid=0), user("ben", gid=27), user("shop")]
    assert administrators(users, groups) == ["ada", "ben", "root", "toor"]


def test_strict_asks_for_fewer_sessions_and_forwards_nothing() -> None:
    config = Host(hardening_level="strict").config()
    assert (config["maxsessions"], config["allowtcpforwarding"], config["allowagentforwarding"]) == (
        ["2"],
        ["no"],
        ["no"],
    )
    assert Host(hardening_level="strict", hardening_ssh_tcp_forwarding=True).config()["allowtcpforwarding"] == ["local"]
