"""The files of the program flaskhost-certificates on a host, and how Ansible runs it and reads its result.

The role certbot ships the program itself, which a timer also runs without Ansible.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Absolute imports: Mitogen does not find relative ones.
from ansible.module_utils.flaskhost.host.runner import Run, tail
from ansible.module_utils.flaskhost.host.wanted import File

#: Default folder of the program's configuration and certbot's settings; tests use another one.
ETC = Path("/etc/flaskhost")
#: The next steps if a certificate could not be obtained.
HINT = (
    "The sites are up with the certificates that they have. The host tries again twice a day by itself; at once: "
    "ansible-playbook playbooks/certificates.yml"
)
#: Characters that would begin a new line, and thus a new setting, in an INI file.
_LINE_ENDS = ("\n", "\r", "\x00")


class Refused(Exception):
    """A failure for the operator: a sentence with the fix."""


def program_files(program: Mapping[str, str], launcher: str) -> list[File]:
    """Return the files of the program.

    Args:
        program: texts by path.
        launcher: the path of the executable.
    """
    # A diff of program code is of no use to the operator.
    return [File(Path(path), text, 0o755 if path == launcher else 0o644, shown=False) for path, text in program.items()]


def put_aside(files: Sequence[File], folder: Path, launcher: str) -> list[str]:
    """Copy the program and its configuration to another folder, to run it without touching the installed one.

    Args:
        files: the results of :func:`program_files` and :func:`settings_files`.
        folder: an empty folder that only root can read.
        launcher: the path of the program on the host.

    Returns:
        The command that runs it.
    """
    for file in files:
        File(folder / file.path.relative_to("/"), file.text, file.mode).write()
    config = next(file.path for file in files if file.path.name == "certificates.json")
    # The program finds its other parts relative to its own path.
    return [str(folder / Path(launcher).relative_to("/")), "--config", str(folder / config.relative_to("/"))]


def settings_files(settings: Mapping[str, Any], config: Mapping[str, Any], etc: Path = ETC) -> list[File]:
    """Return the configuration of the program, and certbot's settings that must not be passed as arguments.

    Args:
        settings: ``email``, ``directory``, ``root`` (PEM), ``external_account`` (``key_id`` and ``hmac_key``, or empty)
            and ``dns_credentials`` (a mapping, or empty).
        config: the contents of certificates.json.
        etc: the folder; another one in tests.

    Raises:
        Refused: a value has more than one line, so that the rest would be parsed as another setting.
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
        # Unused files are emptied instead of left with a secret in them.
        File(etc / "certbot" / "dns.ini", _ini(credentials, "acme.dns.credentials", quote=True), 0o600, shown=False),
    ]
    root = str(settings.get("root") or "").strip()
    return [*files, File(etc / "certbot" / "root.pem", f"{root}\n" if root else "")]


def _ini(values: Mapping[str, Any], variable: str, quote: bool = False) -> str:
    """Return lines in the format of certbot's two kinds of INI files.

    Args:
        values: the settings, in order.
        variable: the user's variable, for the message.
        quote: whether to quote values, because commas and ``#`` have a meaning in ConfigObj. It reads the credentials
            of a DNS plugin, but not the settings of certbot itself.
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
    """Run the program and parse its result.

    Args:
        run: runs a command.
        command: the program and its arguments; ``--json`` is added.
        own: the key pairs of ``tls.mode: files``, each with ``name``, ``own_certificate`` and ``own_key``. They are
            passed on standard input, never as arguments.

    Raises:
        Refused: the program reports an error, or does not run.
    """
    pairs = {item["name"]: {"certificate": item["own_certificate"], "key": item["own_key"]} for item in own}
    status, out, err = run([*command, "--json"], data=json.dumps({"files": pairs}))
    try:
        answer = json.loads(out)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and not status:
        return answer
    raise Refused(tail(err or out, 12).strip() or f"{command[0]} failed with exit code {status}, without output.")


def warnings(answer: Mapping[str, Any], host: str = "") -> list[str]:
    """Return the warnings for the operator: a sentence for each certificate and problem.

    Args:
        answer: the program's result.
        host: the host's name, which Ansible's warnings do not show.
    """
    where = f" on {host}" if host else ""
    return [
        f"The certificate of {item['name']}{where}: {problem}"
        for item in answer.get("certificates") or []
        for problem in item.get("problems") or []
    ]


def diff(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the diff of the certificates for `--diff`: replaced and deleted certificates."""
    lines = [
        f"certificate of {item['name']}: {item.get('source') or 'none'}, serial {item.get('serial') or '-'}\n"
        for item in answer.get("certificates") or []
        if item.get("changed")
    ]
    lines += [f"certificate of {name}: deleted\n" for name in answer.get("deleted") or []]
    return [{"header": "certificates", "prepared": "".join(lines)}] if lines else []


def notes(answer: Mapping[str, Any]) -> list[str]:
    """Return the notes about each certificate that are not problems."""
    return [f"{item['name']}: {note}" for item in answer.get("certificates") or [] for note in item.get("notes") or []]
