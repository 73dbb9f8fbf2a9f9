"""The commands that messages print work as printed: root's have sudo, and playbooks, verbs and variables exist.

The inventory of the run, and what else its operator has typed to reach the hosts, is added when a message is shown:
plugins/callback/flaskhost.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from flaskhost_backup import cli

ROOT = Path(__file__).resolve().parents[3]
#: Scripts that run as root themselves, and what tells of the machine that runs the tests.
NO_MESSAGES = ("guard.py",)
#: Commands that only root may run, or that show everything only to root.
ROOTS = re.compile(
    r"(?<![\w/@*-])(?:flaskhost-(?:backup|certificates) (?=[a-z])(?!is )|rm -r|mv /|mv \{|dropdb (?=\{)|nginx -t"
    r"|systemctl (?:start|stop|restart|reload|enable|disable|reset-failed) (?!says|\S+ failed)|journalctl (?=-))"
)
PLAYBOOK = re.compile(r"playbooks/([a-z_]+)\.yml((?: (?:-e (?:\"[^\"]*\"|'[^']*'|[^\s,;)]+)|--[a-z]+ ?[a-z]*))*)")


class Message(NamedTuple):
    """A text that somebody may read, and where it is from."""

    place: str
    text: str


def literal(node: ast.AST) -> str | None:
    """The text of a string, with {} in the place of what is filled in; None for what is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or "{}" for part in node.values)
    return None


def python_messages(path: Path) -> Iterator[Message]:
    """The texts of a module, without its docstrings, Ansible's documentation and the words of commands that it runs."""
    tree = ast.parse(path.read_text())
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and literal(node.value) is not None:
            left_out.add(id(node.value))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
            "DOCUMENTATION",
            "EXAMPLES",
            "RETURN",
        ):
            left_out.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        text = literal(node)
        if text and " " in text and id(node) not in left_out:
            yield Message(f"{path.relative_to(ROOT)}:{node.lineno}", text)


def yaml_messages(path: Path) -> Iterator[Message]:
    """The messages of a playbook or of a role's tasks."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("msg", "fail_msg") and isinstance(value, str):
                    yield value
                else:
                    yield from walk(value)
        elif isinstance(node, list):
            for item in node:
                yield from walk(item)

    yield from (Message(str(path.relative_to(ROOT)), text) for text in walk(yaml.safe_load(path.read_text())))


def all_messages() -> list[Message]:
    found: list[Message] = []
    for path in sorted([*ROOT.glob("plugins/**/*.py"), *ROOT.glob("roles/*/files/**/*.py")]):
        if path.name not in NO_MESSAGES:
            found += python_messages(path)
    for path in sorted([*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]):
        found += yaml_messages(path)
    return found


MESSAGES = all_messages()


def told(problems: list[str]) -> str:
    return "\n".join(problems)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 1000
    assert any("sudo flaskhost-backup abandon" in message.text for message in MESSAGES)


def test_what_needs_root_is_printed_with_sudo() -> None:
    problems = []
    for message in MESSAGES:
        for found in ROOTS.finditer(message.text):
            before = message.text[: found.start()]
            if not re.search(r"sudo (?:-u \S+ )?$", before):
                problems.append(f"{message.place}: {message.text[max(0, found.start() - 30) : found.end() + 30]!r}")
    assert not problems, told(problems)


def test_a_playbook_is_printed_as_a_command() -> None:
    problems = [
        f"{message.place}: {message.text[max(0, found.start() - 40) : found.end()]!r}"
        for message in MESSAGES
        for found in PLAYBOOK.finditer(message.text)
        if not message.text[: found.start()].endswith("ansible-playbook ")
    ]
    assert not problems, told(problems)


def test_printed_playbooks_and_their_variables_exist() -> None:
    problems = []
    for message in MESSAGES:
        for name, arguments in PLAYBOOK.findall(message.text):
            path = ROOT / f"playbooks/{name}.yml"
            text = path.read_text() if path.exists() else ""
            if not text:
                problems.append(f"{message.place}: there is no playbook {name}.yml")
            problems += [
                f"{message.place}: {name}.yml has no variable {variable}"
                for variable in re.findall(r"-e [\"']?(\w+)=", arguments)
                if not re.search(rf"\b{variable}\b", text)
            ]
    assert not problems, told(problems)


@pytest.mark.parametrize("program", ["backup", "certificates"])
def test_printed_verbs_exist(program: str) -> None:
    if program == "backup":
        verbs = set(next(action.choices for action in cli._parser()._actions if action.dest == "verb"))
    else:
        text = (ROOT / "roles/certbot/files/flaskhost_certificates/cli.py").read_text()
        verbs = set(re.findall(r"[\"']([a-z-]+)[\"']", text))
    printed = re.compile(rf"(?<![\w/@])flaskhost-{program} (?!is )([a-z][a-z-]*)")
    problems = [
        f"{message.place}: {verb}"
        for message in MESSAGES
        for verb in printed.findall(message.text)
        if verb not in verbs
    ]
    assert not problems, told(problems)
