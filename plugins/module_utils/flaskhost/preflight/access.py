"""The connection to the host: explain why the login or sudo fails, and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .report import Problem, make_problem

_NO_PYTHON = re.compile(r"interpreter .* was not found|python[\d.]*: (?:command )?not found")
#: The fix by SSH's error message. ``{login}`` is the command to try by hand, ``{target}`` the argument of ssh-copy-id.
_SSH_CURES = (
    (r"Connection refused", "{login} (does sshd run and listen on this port? ansible_port sets another one)"),
    (
        r"timed? ?out",
        "ansible_host: the server's address; ansible_port: its SSH port, if it has changed (is the server running, and "
        "does the provider's firewall allow SSH?)",
    ),
    (r"not resolve|not known", "ansible_host: a name that DNS resolves, or the server's IP address"),
    (r"No route|unreachable", "ansible_host: the server's address (is the control node's own network up?)"),
    (
        r"IDENTIFICATION HAS CHANGED",
        "ssh-keygen -R {address}, if you have reinstalled the server; otherwise, find out why first",
    ),
    (r"Host key verification", "{login} (once by hand: compare the fingerprint with your provider's, then answer yes)"),
    (r"Permission denied|Too many auth", "ssh-copy-id {target}, or set ansible_user and ansible_ssh_private_key_file"),
    (r"sshpass", "ssh-copy-id {target}, to log in with a key; or install sshpass on the control node"),
    (r"no such identity|bad permissions|UNPROTECTED", "ansible_ssh_private_key_file: a file that only you can read"),
)
#: The fix by sudo's error message.
_SUDO_CURES = (
    (
        r"Missing|password is required",
        "the same command with -K, which prompts for the sudo password of {user}; or ansible_become_password in\n"
        "vault.yml; or sudo without a password, with this line in /etc/sudoers.d: {user} ALL=(ALL) NOPASSWD:ALL",
    ),
    (
        r"Incorrect|try again",
        "the correct password of {user}, after -K or in ansible_become_password (try: {login} -t sudo -v)",
    ),
    (r"not in the sudoers|not allowed", "usermod -aG sudo {user}, run as root on the host"),
    (r"sudo: (?:command )?not found|sudo: No such file", "apt-get install sudo, run as root on the host"),
    (r"(?i)timed? ?out", "{login} -t sudo -v (if it is slow, sudo may be waiting for DNS)"),
)


def find_access_problems(attempts: Any, host: str) -> list[Problem]:
    """Explain why a host cannot be reached, or why root access fails.

    Args:
        attempts: the results of the action ``preflight_attempt``, in order. Each is a mapping whose ``attempt`` has
            ``address``, ``port``, ``user``, ``become`` (whether root access was requested), ``connected`` and
            ``refusal`` (the error of SSH, sudo or the module; empty on success). A skipped result has no ``attempt``.
        host: the host's name in the inventory.

    Returns:
        The problems, in the form of :func:`find_problems`.
    """
    problems: list[Problem] = []
    for result in attempts if isinstance(attempts, (list, tuple)) else []:
        attempt = result.get("attempt") if isinstance(result, Mapping) else None
        if isinstance(attempt, Mapping) and attempt.get("refusal"):
            problems.append(_access_problem(attempt, host))
    return problems


def _access_problem(attempt: Mapping[Any, Any], host: str) -> Problem:
    user, address, port = (str(attempt.get(key) or "") for key in ("user", "address", "port"))
    target = f"{user}@{address or host}" if user else address or host
    option = f"-p {port} " if port and port != "22" else ""
    words = {
        "login": f"ssh {option}{target}",
        "target": f"{option}{target}",
        "user": user or "the user",
        "address": address or host,
    }
    port = port or "22 (SSH's default)"
    there = f"as {user or 'the user of ~/.ssh/config, or your own,'} to {address or host}, port {port}"
    refusal = refusal_text(str(attempt["refusal"]))
    cures: tuple[tuple[str, str], ...] = ()
    cure = "{login} (once that works, run the same command again)"
    if _NO_PYTHON.search(refusal) and "sudo:" not in refusal:
        kind, problem = "no_python", f"The login works ({there}), but Ansible found no Python on the host"
        cure = "{login} -t sudo apt-get install python3"
    elif attempt.get("become"):
        kind, problem, cures = "no_root", f"The login works ({there}), but sudo did not give root access", _SUDO_CURES
    elif attempt.get("connected"):
        kind, problem = "no_facts", f"The login works ({there}), but the host's facts could not be read"
    else:
        kind, problem, cures = "unreachable", f"Login failed {there}", _SSH_CURES
    cure = next((better for pattern, better in cures if re.search(pattern, refusal)), cure)
    return make_problem(kind, f"host {host}", f"{problem}: {refusal}", cure.format(**words))


def refusal_text(text: str) -> str:
    """Extract the reason that SSH, sudo or a module gave from Ansible's message, on one line.

    Args:
        text: the exception's text, or the message of the failed module.

    Returns:
        The reason; a sentence of our own if there is none.
    """
    text = re.sub(r"Warning: Permanently added .*", "", text)
    text = re.sub(r"(?:Task failed: )?(?:Action failed: )?Failed to connect to the host via \w+: ", "", text)
    text = re.sub(
        r'Data could not be sent to remote host "[^"]*"\. Make sure this host can be reached over ssh: ', "", text
    )
    words = " ".join(text.replace("@@@", "").split())
    return words[-400:] or "no reason was given."
