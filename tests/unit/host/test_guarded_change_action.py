"""The controller's half of a guarded change: which connection confirms it, and what is said when none can be made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from loading import load_plugin

PLUGIN = "plugins/action/guarded_change.py"
ARMED = {"changed": True, "armed": True, "left": 44.0, "reasons": ["x"]}
CONFIRMED = {"changed": True, "reasons": []}
RETURNED = {"changed": False, "reasons": [], "outcome": "ok"}
REFUSED = AnsibleConnectionFailure("Failed to connect to the host via ssh: Connection refused")
NO_SUDO = AnsibleError("Missing sudo password")
Answer = dict[str, Any] | Exception


class Connection:
    """A connection plugin of which only the options matter."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self._shell = SimpleNamespace(tmpdir=None)
        self.options: dict[str, Any] = {"ssh_args": "-o ControlMaster=auto", "port": None, "timeout": 15}
        self.resets = 0

    def get_option(self, name: str) -> Any:
        return self.options[name]

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value

    def reset(self) -> None:
        self.resets += 1


class Controller:
    """The action, with Ansible's side of it made up. A phase's last answer is its answer from then on."""

    def __init__(
        self, transport: str = "ssh", arguments: dict[str, Any] | None = None, **answers: list[Answer]
    ) -> None:
        self.plugin = load_plugin(PLUGIN)
        self.connection = Connection(transport)
        self.answers = {"apply": [ARMED], "confirm": [CONFIRMED], "returned": [RETURNED], **answers}
        self.asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.now = 0.0
        #: Seconds that a phase takes.
        self.takes: dict[str, float] = {}
        task = MagicMock(args={"name": "sshd", "service": "ssh.service", **(arguments or {})}, async_val=0)
        context = MagicMock(remote_user="debian", remote_addr="203.0.113.9", port=None)
        self.action = self.plugin.ActionModule(task, self.connection, context, MagicMock(), MagicMock(), MagicMock())
        self.action._execute_module = self.execute
        self.action._now = lambda: self.now
        self.action._sleep = self.sleep

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def execute(self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        assert (module_name, task_vars) == ("guarded_change", {"a": 1})
        phase = module_args["phase"]
        self.asked.append((phase, dict(module_args), dict(self.connection.options)))
        self.now += self.takes.get(phase, 1)
        answers = self.answers[phase]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def run(self) -> dict[str, Any]:
        before = dict(self.connection.options)
        result = self.action.run(task_vars={"a": 1})
        assert self.connection.options == before
        return result

    @property
    def phases(self) -> list[str]:
        return [phase for phase, _arguments, _options in self.asked]


def test_nothing_to_do_means_no_connection() -> None:
    controller = Controller(apply=[{"changed": False, "armed": False, "reasons": []}])
    assert controller.run()["changed"] is False
    assert controller.phases == ["apply"]


def test_the_confirmation_goes_over_a_connection_of_its_own() -> None:
    controller = Controller()
    result = controller.run()
    assert result["proven"]
    assert not result.get("failed")
    (_apply, first, usual), (_confirm, second, new) = controller.asked
    assert usual["ssh_args"] == "-o ControlMaster=auto"
    # ssh takes the first value that it is given.
    assert new["ssh_args"] == "-o ControlMaster=no -o ControlPath=none -o ControlMaster=auto"
    assert new["port"] is None
    assert first["nonce"] == second["nonce"]
    assert len(first["nonce"]) == 32


def test_each_run_has_a_nonce_of_its_own() -> None:
    first, second = Controller(), Controller()
    first.run()
    second.run()
    assert first.asked[0][1]["nonce"] != second.asked[0][1]["nonce"]


def test_a_new_port_is_where_it_is_proven() -> None:
    controller = Controller(arguments={"port": 2222}, confirm=[REFUSED])
    controller.run()
    ports = {phase: options["port"] for phase, _arguments, options in controller.asked}
    assert ports == {"apply": None, "confirm": 2222, "returned": None}


def test_sshd_may_need_a_moment() -> None:
    controller = Controller(confirm=[REFUSED, NO_SUDO, {"failed": True, "module_stdout": "sudo: x"}, CONFIRMED])
    assert controller.run()["proven"]
    assert controller.phases == ["apply", *["confirm"] * 4]


def test_a_slow_host_gets_the_time_that_its_own_timer_has_left() -> None:
    controller = Controller(apply=[{**ARMED, "left": 30.0}], confirm=[REFUSED, REFUSED, CONFIRMED])
    controller.takes = {"apply": 50, "confirm": 5}
    assert controller.run()["proven"]


def test_one_attempt_is_made_however_little_time_is_left() -> None:
    controller = Controller(apply=[{**ARMED, "left": 2.0}])
    assert controller.run()["proven"]
    assert Controller(apply=[{**ARMED, "left": 2.0}], confirm=[REFUSED]).run()["failed"]


@pytest.mark.parametrize("transport", ["local", "docker", "community.docker.docker"])
def test_where_no_ssh_can_be_cut_there_is_nothing_to_prove(transport: str) -> None:
    controller = Controller(transport)
    assert controller.run()["proven"] is False
    assert [arguments.get("direct") for _phase, arguments, _options in controller.asked] == [None, True]


def test_another_ssh_connection_is_opened_anew() -> None:
    controller = Controller("paramiko")
    assert controller.run()["proven"]
    assert controller.connection.resets == 1
    assert controller.asked[1][1].get("direct") is None


def test_a_change_that_cannot_be_confirmed_ends_with_the_old_state_and_says_so() -> None:
    controller = Controller(arguments={"port": 2222}, confirm=[REFUSED])
    result = controller.run()
    assert result["failed"]
    assert result["old_state"]
    assert result["changed"] is False
    for words in (
        "sshd was reverted",
        "as debian to 203.0.113.9, port 2222: Connection refused",
        "has reverted the change",
        "ssh -o ControlPath=none -p 2222 debian@203.0.113.9",
        "provider's firewall",
        "keeps port 2222 open until the next run that succeeds",
    ):
        assert words in result["msg"]
    # No attempt is begun when the host may already be at it.
    assert controller.phases.count("confirm") < 45 / 2
    assert controller.phases[-1] == "returned"


def test_the_old_way_may_need_to_come_back_first() -> None:
    controller = Controller(confirm=[REFUSED], returned=[REFUSED, REFUSED, RETURNED])
    assert controller.run()["old_state"]


def test_a_host_that_does_not_come_back_is_not_said_to_be_well() -> None:
    controller = Controller(confirm=[REFUSED], returned=[REFUSED])
    result = controller.run()
    assert result["failed"]
    assert not result["old_state"]
    assert "console" in result["msg"]
    assert controller.now < 45 + 45 + 2 * controller.plugin.WAY_BACK


def test_what_could_not_be_put_back_is_said() -> None:
    controller = Controller(confirm=[REFUSED], returned=[{**RETURNED, "outcome": "systemctl start ssh.socket; "}])
    result = controller.run()
    assert "except for: systemctl start ssh.socket" in result["msg"]
    assert not result["old_state"]


def test_the_hosts_own_no_is_not_asked_for_twice() -> None:
    too_late = {"failed": True, "msg": "it is too late", "old_state": True}
    controller = Controller(confirm=[too_late])
    assert "it is too late" in controller.run()["msg"]
    assert controller.phases == ["apply", "confirm", "returned"]


def test_a_connection_that_breaks_after_its_confirmation_has_confirmed() -> None:
    controller = Controller(confirm=[REFUSED], returned=[{**RETURNED, "outcome": "confirmed"}])
    result = controller.run()
    assert result["proven"]
    assert not result.get("failed")


def test_a_change_that_cuts_its_own_connection_is_waited_for() -> None:
    controller = Controller(apply=[AnsibleConnectionFailure("Broken pipe")], returned=[REFUSED, RETURNED])
    result = controller.run()
    assert result["failed"]
    assert result["old_state"]
    assert "Broken pipe" in result["msg"]


@pytest.mark.parametrize(
    ("old_state", "end"), [(True, "The host is unchanged."), (False, "The host is NOT in its old state.")]
)
def test_a_change_that_was_not_made_says_how_the_host_is(old_state: bool, end: str) -> None:
    controller = Controller(apply=[{"failed": True, "msg": "sshd rejects it", "old_state": old_state}])
    assert controller.run()["msg"] == f"sshd was not changed: sshd rejects it\n{end}"
    assert controller.phases == ["apply"]
