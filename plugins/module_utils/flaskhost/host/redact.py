"""Mask what may be a secret in a command or a line of code, before a message shows it.

Ansible masks the values of ``secrets`` itself. This is for what a user has written into a command all the same. If in
doubt, more is masked: the user knows the command, and the message only has to say which one it is.
"""

from __future__ import annotations

import re

MASK = "***"
#: Words in the names of options and variables whose values are secrets.
_SECRET = re.compile(
    r"(?i)pass(?:words?|wd|phrase|code|wort)?(?![a-z])|pwd|secret|token|credential|dsn|salt|auth(?![a-z])|authorization"
    r"|(?<![a-z])key(?![a-z])|api_?key"
)
# All repetitions are possessive, so that no text makes them slow.
#: A name, from its beginning.
_NAME = r"(?<![\w.-])(?P<name>[\w.-]++)"
#: A word of a shell's, with its quotes; a quote that does not end goes to the end.
_WORD = r"(?P<word>(?:\"(?:\\.|[^\"\\])*+\"?+|'[^']*+'?+|\\.|[^\s'\"\\;&|<>])++)"
#: A header's value, which ends where the header's quote does.
_VALUE = r"(?P<word>\"(?:\\.|[^\"\\])*+\"?+|'[^']*+'?+|[^\s'\"]++)"
_URL = re.compile(r"((?<![\w+.-])[A-Za-z][\w+.-]{0,40}+://)(?P<word>[^\s'\"@]*+(?:@[^\s'\"@]*+)*+)")
_VALUES = (
    re.compile(rf"{_NAME}(?P<between>['\"]?+\s*+:\s*+(?:(?:bearer|basic|token|digest)\s++)?+){_VALUE}", re.IGNORECASE),
    re.compile(rf"{_NAME}(?P<between>['\"\]]*+\s*+=\s*+){_WORD}"),
    re.compile(rf"(?<!\S)(?P<name>--?[\w.-]++)(?P<between>\s++)(?!-){_WORD}"),
)
_LOGIN = re.compile(rf"(?<!\S)(?P<option>(?:-u|--user)[\s=]++)(?=[^\s:]++:){_WORD}")
#: A reference to a variable is no secret, and says where the secret is.
_REFERENCE = re.compile(r"['\"]?\$(?:\w+|\{\w+\})['\"]?")
#: Subcommands that take a name and a password as words of their own, and words that can follow them.
_ACCOUNT = re.compile(r"(?i)user|passw|admin|account|login|token|secret")
_VERBS = frozenset("add change create list make new promote remove reset set show update".split())
_SEPARATOR = re.compile(r"(\n|;|&&?|\|\|?)")


def redact(text: str) -> str:
    """Return a command or a line of code without what may be a secret.

    Args:
        text: such as ``flask create-user --password hunter2``.

    Returns:
        The text with ``***`` in the place of passwords in URLs, of the values of options, variables and headers that
        have a name like ``password`` or ``token``, and of the words behind a subcommand like ``create-user``.
    """
    text = _URL.sub(_without_login, text)
    for pattern in _VALUES:
        text = pattern.sub(_without_value, text)
    text = _LOGIN.sub(lambda match: match["option"] + _masked(match["word"]), text)
    return "".join(_without_words(part) for part in _SEPARATOR.split(text))


def _without_login(match: re.Match[str]) -> str:
    _login, at, rest = match["word"].rpartition("@")
    return f"{match[1]}{MASK}@{rest}" if at else match[0]


def _without_value(match: re.Match[str]) -> str:
    if not _SECRET.search(match["name"]):
        return match[0]
    return match["name"] + match["between"] + _masked(match["word"])


def _masked(word: str) -> str:
    return word if _REFERENCE.fullmatch(word) else MASK


def _without_words(command: str) -> str:
    """Mask the words behind a subcommand that creates an account or sets a password."""
    words = list(re.finditer(_WORD, command))
    first = next((number for number, word in enumerate(words[1:], 1) if _is_account(word[0])), len(words))
    end = words[first].end() if first < len(words) else len(command)
    kept = command[:end]
    for word in words[first + 1 :]:
        plain = word[0].startswith("-") or word[0] in _VERBS or MASK in word[0]
        # The 2 of 2>&1 is a file descriptor.
        plain = plain or (word[0].isdigit() and command[word.end() : word.end() + 1] in ("<", ">"))
        kept += command[end : word.start()] + (word[0] if plain else _masked(word[0]))
        end = word.end()
    return kept + command[end:]


def _is_account(word: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.:-]*+", word) and _ACCOUNT.search(word))
