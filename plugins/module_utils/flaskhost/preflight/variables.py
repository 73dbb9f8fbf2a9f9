"""The variables of an app, ``env`` and ``secrets``: check names and values, and which of the two a value belongs in."""

from __future__ import annotations

import difflib
import itertools
import re
from typing import Any

from ..apps import instances, placeholders
from ..apps.names import DATABASE_VARIABLES, OWN_VARIABLES
from .report import Fault, Place, Report, Unreadable, get, path_text, read, show, snippet, type_name
from .rules.domains import PASSWORD_IN_URL

#: Characters. 32 hexadecimal digits are 128 bits; Flask's documentation generates a SECRET_KEY of 64.
SECRET_KEY_MINIMUM = 32

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(
    r"(?i)(?:.*_)?(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|API_?KEY|PRIVATE|CREDENTIALS?)(?:_.*)?"
)
#: A text in braces, in which typing errors of a placeholder are found by their similarity.
_BRACES = re.compile(r"\{(\w{4,30})\}")
_ALIKE = 0.8
#: Placeholders for secrets. No generator produces one of them: the shortest has 8 letters.
_PLACEHOLDER = re.compile(r"(?is)<[^<>]*>|.*(?:change|replace)[-_ ]?(?:me|this).*|(?:your|insert|enter)[-_ ].*|\.+")
#: The secrets that attackers try first, without hyphens, underscores and spaces.
_WEAK_SECRETS = frozenset(
    """
    abc123 admin apikey default dev development devkey example fixme foobar hunter2 key letmein mykey mypassword
    mysecret mysecretkey none null pass passphrase passw0rd password qwerty root secret secretkey supersecret
    supersecretkey tbd test testing thesecret thisisasecret todo token topsecret verysecret
    """.split()
)


def check_variables(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check ``env`` and ``secrets`` of one app.

    Args:
        report: collects the problems.
        place: the steps to the app.
        app: its options.
    """
    env, secrets = get(app, dict, "env") or {}, get(app, dict, "secrets") or {}
    for option, variables in (("env", env), ("secrets", secrets)):
        for name, value in variables.items():
            here = (*place, option, name)
            fault = _name_fault(option, name)
            if not fault and not isinstance(value, Unreadable):
                fault = _value_fault(option, name, value)
            if fault:
                report.add(fault.kind, here, fault.problem, fault.example)
            elif isinstance(value, str):
                for fault in _placeholder_faults(app, option, name, value):
                    report.add(fault.kind, here, fault.problem, fault.example)
            if kind := _of_instance(app, name):
                problem = f"Flaskhost sets {name} itself, to the address of the app's {kind}. Remove one of the two."
                report.add("own_variable", here, problem, f"{option} without {name}, or the app without {kind}")
            if option == "secrets" and name in env:
                problem = "The variable is also in env. Keep it in secrets, and remove it from env."
                report.add("variable_twice", here, problem, "env without it")


def _of_instance(app: dict[Any, Any], name: Any) -> str:
    """Return the option, cache or queue, that sets a variable of this name; empty if none does."""
    for kind in ("queue", "cache"):
        options = {other: get(app, str, other) if other == kind else "" for other in instances.KINDS}
        if options[kind] in instances.ENGINES[kind]:
            found = instances.variables(instances.of_app("", options))
            if name in found.keys() - instances.OPTIONAL_VARIABLES:
                return kind
    return ""


def _name_fault(option: str, name: Any) -> Fault | None:
    if not isinstance(name, str) or not _VARIABLE_NAME.fullmatch(name):
        problem = "Not a valid variable name. Use letters, digits and _, and do not start with a digit."
        return Fault("bad_variable_name", problem, snippet((option, "MAIL_FROM"), "some text"))
    if name == "FLASK_CONFIG":
        return Fault(
            "own_variable", "Flaskhost sets FLASK_CONFIG itself, from the option config.", "config: production"
        )
    if name in OWN_VARIABLES:
        return Fault("own_variable", f"Flaskhost sets {name} itself. Remove it.", f"{option} without {name}")
    return None


def _value_fault(option: str, name: str, value: Any) -> Fault | None:
    """Return what is wrong with the value of a variable. The message never shows the value."""
    example = snippet((option, name), "some text")
    if isinstance(value, (dict, list)):
        problem = f"Must be a string or a number, but is {type_name(value)}."
        return Fault("bad_variable_value", problem, example)
    if isinstance(value, str) and "\0" in value:
        return Fault("bad_variable_value", "Contains a NUL byte, which is not allowed.", example)
    if option == "secrets":
        return _secret_fault(name, value)
    if value is None:
        problem = 'The variable has no value. Write "" for an empty string, or remove the line.'
        return Fault("bad_variable_value", problem, snippet((option, name), ""))
    if isinstance(value, str) and value not in ("", f"{{{placeholders.KEY}}}"):
        problem = ""
        if _SECRET_NAME.fullmatch(name):
            problem = "Its name looks like a secret, and the values of env can end up in files and logs."
        elif PASSWORD_IN_URL.fullmatch(value):
            problem = "The URL contains a password, and the values of env can end up in files and logs."
        if problem:
            return Fault("secret_in_env", f"{problem} Move it to secrets.", _secret_example(name))
    return None


def _placeholder_faults(app: dict[Any, Any], option: str, name: str, value: str) -> list[Fault]:
    """Return what is wrong with the placeholders in the value of a variable."""
    used, given = placeholders.used(value), {*(get(app, dict, "env") or {}), *(get(app, dict, "secrets") or {})}
    databases, faults = used & {*placeholders.DATABASE}, []
    keeps = "To keep the text as it is, write {!%s}."
    sources = {**dict.fromkeys(DATABASE_VARIABLES, databases)}
    sources |= {word.upper(): used & {word} for word in (placeholders.KEY, placeholders.REDIS)}
    if value == placeholders.WITH_DRIVER and name == "DATABASE_URL":
        sources = {}
    if circular := sources.get(name):
        problem = f"{{{min(circular)}}} cannot be part of {name}, from which Flaskhost takes its value."
        cure = f"{option} without {name}: Flaskhost sets it"
        cure += " with cache: redis or queue: redis" if name == placeholders.REDIS.upper() else ""
        cure += ". For another driver: database_driver" if databases else ""
        return [Fault("circular_placeholder", problem, cure)]
    for word in sorted(databases):
        if get(app, bool, "database") is False and word.upper() not in given:
            problem = f"{{{word}}} needs a database, but the app has none. {keeps % word}"
            cure = f"database: true, or secrets with {word.upper()}"
            faults.append(Fault("placeholder_without_value", problem, cure))
    word = placeholders.REDIS
    if word in used and word.upper() not in given and not _of_instance(app, word.upper()):
        problem = f"{{{word}}} needs a Redis, but the app has none. {keeps % word}"
        faults.append(Fault("placeholder_without_value", problem, snippet(("cache",), "redis")))
    if placeholders.KEY in used and value != f"{{{placeholders.KEY}}}":
        problem = f"{{{placeholders.KEY}}} must be the whole value, so that a rotation of the key can change it."
        problem = f"{problem} {keeps % placeholders.KEY}"
        faults.append(Fault("mixed_placeholder", problem, snippet((option, name), f"{{{placeholders.KEY}}}")))
    if databases and "release_dir" in used:
        problem = f"{{{min(databases)}}} and {{release_dir}} cannot be in one value: the login of the tables' owner is "
        problem += "not part of a release. Use two variables."
        faults.append(Fault("mixed_placeholder", problem, snippet((option, name), f"{{{min(databases)}}}")))
    return faults


def placeholder_warnings(apps: Any) -> list[str]:
    """Warn about texts that look like misspelled placeholders. The texts stay as they are.

    Args:
        apps: the user's ``flask_apps``, of any type.
    """
    apps, found = read(Report([]), (), apps), []
    for app, option in itertools.product(apps if isinstance(apps, dict) else (), ("env", "secrets", "files")):
        for name, value in (get(apps[app], dict, option) or {}).items():
            for word in sorted({*_BRACES.findall(value)} - {*placeholders.NAMES}) if isinstance(value, str) else ():
                if near := difflib.get_close_matches(word, placeholders.NAMES, 1, _ALIKE):
                    place = path_text(("flask_apps", app, option, name))
                    found.append(f"{place}: {{{word}}} is not a placeholder, and is kept. Did you mean {{{near[0]}}}?")
    return found


def _secret_fault(name: str, value: Any) -> Fault | None:
    text = "" if value is None else (value if isinstance(value, str) else show(value)).strip()
    word = re.sub(r"[-_ ]", "", text.lower())
    weak = word in _WEAK_SECRETS or len(set(word)) == 1 or (word.isdigit() and word in "012345678901234567890")
    cure = _secret_example(name)
    if name == "SECRET_KEY":
        cure = "secrets without SECRET_KEY: the host then generates a strong one and keeps it"
    if not text or weak or _PLACEHOLDER.fullmatch(text):
        shown = "a placeholder, or easy to guess" if text else "empty"
        return Fault("placeholder_secret", f"The secret is {shown}. Use the real one, with ansible-vault.", cure)
    if name == "SECRET_KEY" and len(text) < SECRET_KEY_MINIMUM:
        problem = f"It needs {SECRET_KEY_MINIMUM} characters, not {len(text)}. Anyone who guesses it can sign sessions."
        return Fault("short_secret_key", problem, cure)
    return None


def _secret_example(name: str) -> str:
    return snippet(("secrets", name), f"{{{{ vault_{name.lower()} }}}}")
