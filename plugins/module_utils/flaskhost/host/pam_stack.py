"""Evaluate a stack of PAM modules without PAM, so that no change to it locks anyone out.

Stacks are parsed like in libpam (pam.conf(5)), and evaluated with a given result for each module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SUCCESS, FAILURE = "success", "auth_err"
#: The meaning of the four keywords, from pam.conf(5).
WORDS = {
    "required": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
    "requisite": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
    "sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
    "optional": {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}
_LINE = re.compile(
    r"^-?(?P<kind>auth|account|password|session)\s+(?P<control>\[[^]]*\]|\w+)\s+(?P<module>\S+)(?P<args>.*)$"
)


@dataclass(frozen=True)
class Entry:
    """One line: the action for each result, the module, and its arguments."""

    control: Mapping[str, str]
    module: str
    arguments: tuple[str, ...]


def parse(text: str, kind: str) -> list[Entry]:
    """Parse the entries of one type (auth, account, password, session). Included files are not followed."""
    entries = []
    for raw in text.replace("\\\n", " ").splitlines():
        match = _LINE.match(raw.split("#")[0].strip())
        if not match or match["kind"] != kind:
            continue
        control = match["control"]
        if control.startswith("["):
            pairs = dict(part.split("=", 1) for part in control.strip("[]").split() if "=" in part)
        else:
            pairs = WORDS.get(control, WORDS["required"])
        entries.append(Entry(pairs, match["module"].rpartition("/")[2], tuple(match["args"].split())))
    return entries


def play(entries: list[Entry], answer: Callable[[Entry], str]) -> bool:
    """Evaluate a stack: return whether access is granted.

    Args:
        entries: the stack.
        answer: returns a module's result; "ignore" for a module without one.
    """
    good, bad, index = False, False, 0
    while index < len(entries):
        entry = entries[index]
        index += 1
        said = answer(entry)
        action = entry.control.get(said, entry.control.get("default", "bad"))
        if action.isdigit():
            index += int(action)
            if index > len(entries):
                return False  # libpam treats a jump beyond the end as a broken stack.
        elif action in ("ok", "done"):
            good = good or said == SUCCESS
            if action == "done" and not bad:
                return True
        elif action in ("bad", "die"):
            bad = True
            if action == "die":
                return False
        elif action == "reset":
            good = bad = False
    return good and not bad


def answers(password_right: bool, account_good: bool = True) -> Callable[[Entry], str]:
    """Return the modules' results for a known user who entered the right or a wrong password."""

    def answer(entry: Entry) -> str:
        if entry.module == "pam_deny.so":
            return FAILURE
        if entry.module == "pam_unix.so":
            return SUCCESS if password_right and account_good else FAILURE
        if entry.module == "pam_faillock.so" and "authfail" in entry.arguments:
            return FAILURE
        if entry.module in ("pam_permit.so", "pam_faillock.so"):
            return SUCCESS
        return "ignore"

    return answer


def faults(auth: str, account: str) -> list[str]:
    """Check the two files that decide who can log in.

    Args:
        auth: the text of common-auth.
        account: the text of common-account, which SSH uses for every login, including key-based logins.

    Returns:
        One sentence for each problem; empty if the right users can log in and all others cannot.
    """
    found = []
    stack = parse(auth, "auth")
    if not play(stack, answers(password_right=True)):
        found.append("common-auth rejects a correct password")
    if play(stack, answers(password_right=False)):
        found.append("common-auth accepts a wrong password")
    if not play(parse(account, "account"), answers(password_right=True)):
        found.append("common-account rejects a valid account, which would block every login over SSH")
    if play(parse(account, "account"), answers(password_right=True, account_good=False)):
        found.append("common-account accepts an expired account")
    return found


def without(text: str, module: str, argument: str) -> str:
    """Remove an argument from the lines of a module. pam-auth-update preserves such local changes."""
    its_line = re.compile(rf"^\s*(auth|account|password|session)\b.*\b{re.escape(module)}(\s|$)")
    word = re.compile(rf"\s+{re.escape(argument)}(?=\s|$)")
    lines = [word.sub("", line) if its_line.search(line) else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def having(text: str, kind: str, module: str, argument: str) -> str:
    """Add an argument to the lines of one type and module. pam-auth-update preserves such local changes."""
    its_line = re.compile(rf"^\s*{kind}\b.*\b{re.escape(module)}(\s|$)")
    word = re.compile(rf"\s{re.escape(argument)}(?=\s|$)")
    lines = [
        f"{line.rstrip()} {argument}" if its_line.search(line) and not word.search(line) else line
        for line in text.splitlines()
    ]
    return "\n".join(lines) + "\n"


def profile_lines(profile: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the modules in a profile of pam-auth-update: the type, the module and its arguments.

    Args:
        profile: the text of a file in /usr/share/pam-configs.
    """
    found, kind = [], ""
    for line in profile.splitlines():
        heading = re.match(r"^(Auth|Account|Password|Session):\s*$", line)
        if heading:
            kind = heading[1].lower()
        elif line.startswith(("\t", " ")) and kind:
            entries = parse(f"{kind} {line.strip()}", kind)
            found += [(kind, entry.module, entry.arguments) for entry in entries]
        else:
            kind = ""
    return found


def missing_lines(profile: str, common: Mapping[str, str]) -> list[str]:
    """Return the modules of a profile that are missing in the common files.

    Args:
        profile: the text of the profile.
        common: the texts of common-auth and the other files, by type.
    """
    missing = []
    for kind, module, arguments in profile_lines(profile):
        entries = parse(common.get(kind, ""), kind)
        if not any(entry.module == module and set(arguments) <= set(entry.arguments) for entry in entries):
            missing.append(f"{kind} {module}")
    return missing
