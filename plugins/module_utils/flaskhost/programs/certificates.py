"""The files of the program flaskhost-certificates on a host, and how Ansible runs it and reads its answer.

The program itself is what the role certbot ships: it runs by a timer too, when no Ansible is near.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Whole names: Mitogen does not find what is imported by a relative one.
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.wanted import File

#: Where the program's configuration and certbot's settings are, unless a test says otherwise.
ETC = Path("/etc/flaskhost")
#: What to type next where a certificate could not be had.
HINT = (
    "The sites are up with the certificates that they have. The host tries again twice a day by itself; at once: "
    "ansible-playbook playbooks/certificates.yml"
)
#: Characters that would begin a new line, and so a new setting, in an INI file.
_LINE_ENDS = ("\n", "\r", "\x00")


class Refused(Exception):
    """A failure for the operator: a sentence, and the cure."""


def program_files(program: Mapping[str, str], launcher: str) -> list[File]:
    """The files of the program.

    Args:
        program: path to text.
        launcher: the one of them that is run.
    """
    # A diff of code says nothing to who reads it.
    return [File(Path(path), text, 0o755 if path == launcher else 0o644, shown=False) for path, text in program.items()]


def put_aside(files: Sequence[File], folder: Path, launcher: str) -> list[str]:
    """Put the program and its configuration into another folder, to ask it what it would do.

    Args:
        files: what :func:`program_files` and :func:`settings_files` return.
        folder: an empty folder that only root reads.
        launcher: the path of the program on the host.

    Returns:
        The command that runs it.
    """
    for file in files:
        File(folder / file.path.relative_to("/"), file.text, file.mode).write()
    config = next(file.path for file in files if file.path.name == "certificates.json")
    # The program finds its own parts from where it is itself.
    return [str(folder / Path(launcher).relative_to("/")), "--config", str(folder / config.relative_to("/"))]


def settings_files(settings: Mapping[str, Any], config: Mapping[str, Any], etc: Path = ETC) -> list[File]:
    """The configuration of the program, and certbot's own settings: what certbot must not be told by arguments.

    Args:
        settings: ``email``, ``directory``, ``root`` (PEM), ``external_account`` (``key_id`` and ``hmac_key``, or empty)
            and ``dns_credentials`` (a mapping, or empty).
        config: what becomes certificates.json.
        etc: the folder; another one in tests.

    Raises:
        Refused: a value has more than one line, and would be read as another setting.
    """
    account = settings.get("external_account") or {}
    lines = {"server": settings["directory"], "email": settings.get("email") or "", "agree-tos": "true"}
    if not lines["email"]:
        lines = {**lines, "register-unsafely-without-email": "true"}
        del lines["email"]
    if account:
        lines |= {"eab-kid": account["key_id"], "eab-hmac-key": account["hmac_key"]}
    credentials = settings.get("dns_credentials") or {}
    files = [
        File(etc / "certificates.json", json.dumps(config, indent=2, sort_keys=True) + "\n", 0o600),
        File(etc / "certbot" / "cli.ini", _ini(lines, "acme"), 0o600, shown=not account),
        # What is not wanted is emptied, not left with a secret in it.
        File(etc / "certbot" / "dns.ini", _ini(credentials, "acme.dns.credentials", quote=True), 0o600, shown=False),
    ]
    root = str(settings.get("root") or "").strip()
    return [*files, File(etc / "certbot" / "root.pem", f"{root}\n" if root else "")]


def _ini(values: Mapping[str, Any], variable: str, quote: bool = False) -> str:
    """Lines as certbot's two kinds of INI file have them.

    Args:
        values: the settings, in their order.
        variable: where they come from, for the message.
        quote: whether a value has to be quoted, since a comma or a ``#`` means something (ConfigObj, which reads the
            credentials of a DNS plugin, and not the settings of certbot itself).
    """
    lines = ["# Managed by Ansible. Role: certbot."]
    for name, value in values.items():
        text = str(value)
        if any(end in text for end in _LINE_ENDS):
            raise Refused(f"{variable}: the value of {name} has more than one line. Write it as one line.")
        if quote:
            mark = "'" if '"' in text else '"'
            text = f"{mark}{text}{mark}"
        lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"


def ask(run: Run, command: Sequence[str], own: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Run the program and read its answer.

    Args:
        run: runs a command.
        command: the program and its arguments; ``--json`` is added.
        own: the pairs of ``tls.mode: files``, ``name``, ``own_certificate`` and ``own_key`` each; they go through a
            pipe and never in an argument.

    Raises:
        Refused: it refuses, or does not run.
    """
    pairs = {item["name"]: {"certificate": item["own_certificate"], "key": item["own_key"]} for item in own}
    status, out, err = run([*command, "--json"], data=json.dumps({"files": pairs}))
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and not status:
        return answer
    raise Refused(tail(err or out, 12).strip() or f"{command[0]} ended with status {status} and said nothing.")


def warnings(answer: Mapping[str, Any], host: str = "") -> list[str]:
    """What the operator should know: a sentence for each certificate and problem.

    Args:
        answer: what the program has said.
        host: the host's name; Ansible shows a warning without.
    """
    where = f" on {host}" if host else ""
    return [
        f"The certificate of {item['name']}{where}: {problem}"
        for item in answer.get("certificates") or []
        for problem in item.get("problems") or []
    ]


def diff(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """What `--diff` shows of the certificates themselves: which becomes which, and which are deleted."""
    lines = [
        f"certificate of {item['name']}: {item.get('source') or 'none'}, serial {item.get('serial') or '-'}\n"
        for item in answer.get("certificates") or []
        if item.get("changed")
    ]
    lines += [f"certificate of {name}: deleted\n" for name in answer.get("deleted") or []]
    return [{"header": "certificates", "prepared": "".join(lines)}] if lines else []


def notes(answer: Mapping[str, Any]) -> list[str]:
    """What is worth saying and no problem, for each certificate."""
    return [f"{item['name']}: {note}" for item in answer.get("certificates") or [] for note in item.get("notes") or []]
