"""What a stack of PAM modules answers, worked out without asking PAM: nobody may be locked out by a change of it.

A stack is read as libpam reads it (pam.conf(5)), and played through with answers that are given for each module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SUCCESS, FAILURE = "success", "auth_err"
#: What the four words stand for, by pam.conf(5).
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
    """One line: what is done with each answer, the module, and its arguments."""

    control: Mapping[str, str]
    module: str
    arguments: tuple[str, ...]


def parse(text: str, kind: str) -> list[Entry]:
    """Read the entries of one kind (auth, account, password, session). Included files are not followed."""
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
    """Whether a stack lets in.

    Args:
        entries: the stack.
        answer: what a module answers; "ignore" for one that says nothing.
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
                return False  # libpam takes a jump that is too long for a broken stack.
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
    """What the modules answer to a user who is known, and has typed a right or a wrong password."""

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
    """Say what is wrong with the two files that decide who gets in.

    Args:
        auth: the text of common-auth.
        account: the text of common-account. SSH asks this one for every log-in, by key too.

    Returns:
        Sentences; none where the right ones get in and the wrong ones do not.
    """
    found = []
    stack = parse(auth, "auth")
    if not play(stack, answers(password_right=True)):
        found.append("common-auth refuses a right password")
    if play(stack, answers(password_right=False)):
        found.append("common-auth takes a wrong password")
    if not play(parse(account, "account"), answers(password_right=True)):
        found.append("common-account refuses an account that is in order, and with it every log-in by SSH")
    if play(parse(account, "account"), answers(password_right=True, account_good=False)):
        found.append("common-account takes an account that has expired")
    return found


def without(text: str, module: str, argument: str) -> str:
    """Take an argument away from the lines of a module. pam-auth-update keeps such a change of a line of its own."""
    its_line = re.compile(rf"^\s*(auth|account|password|session)\b.*\b{re.escape(module)}(\s|$)")
    word = re.compile(rf"\s+{re.escape(argument)}(?=\s|$)")
    lines = [word.sub("", line) if its_line.search(line) else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def having(text: str, kind: str, module: str, argument: str) -> str:
    """Give the lines of one kind and module an argument. pam-auth-update keeps such a change, as one by `without`."""
    its_line = re.compile(rf"^\s*{kind}\b.*\b{re.escape(module)}(\s|$)")
    word = re.compile(rf"\s{re.escape(argument)}(?=\s|$)")
    lines = [
        f"{line.rstrip()} {argument}" if its_line.search(line) and not word.search(line) else line
        for line in text.splitlines()
    ]
    return "\n".join(lines) + "\n"


def profile_lines(profile: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """The modules that a profile of pam-auth-update brings: the kind, the module and its arguments.

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
    """The modules of a profile that are not in the common files.

    Args:
        profile: the text of the profile.
        common: the texts of common-auth and the others, by their kinds.
    """
    missing = []
    for kind, module, arguments in profile_lines(profile):
        entries = parse(common.get(kind, ""), kind)
        if not any(entry.module == module and set(arguments) <= set(entry.arguments) for entry in entries):
            missing.append(f"{kind} {module}")
    return missing
