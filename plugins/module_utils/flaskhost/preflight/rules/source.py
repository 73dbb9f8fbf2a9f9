"""Rules about an app's code: where it comes from, and the paths in it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ...apps.options import APP_OPTIONS
from ...deploy.sources.archives import is_url
from ..report import Fault, path_parts, show, snippet
from .domains import PASSWORD_IN_URL, PLACEHOLDER, RESERVED_DOMAINS

EXAMPLE_REPO = {"repo": "https://github.com/pallets/flask.git", "version": "3.1.2", "subdir": "examples/tutorial"}
EXAMPLE_ARCHIVE = {
    "archive": "https://codeload.github.com/pallets/flask/tar.gz/refs/tags/3.1.2",
    "checksum": f"sha256:{'0123456789abcdef' * 4}",
    "subdir": "examples/tutorial",
}


def repo(value: str) -> Fault | None:
    """Check the URL of a repository. The message shows no part of it: it may contain a token."""
    example = snippet(("source",), EXAMPLE_REPO)
    if PASSWORD_IN_URL.fullmatch(value):
        problem = (
            "The URL contains a password or token, which would end up in logs and on the host. Use a deploy key: "
            "a URL that starts with git@, and source.key from ansible-vault."
        )
        return Fault("secret_in_repo", problem, 'source: {repo: "git@github.com:ada/shop.git", version: v1.4.0}')
    if PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(_host_of(value)):
        problem = "The URL is a placeholder. Use the one that works with git clone."
        return Fault("placeholder_repo", problem, example)
    if not re.fullmatch(APP_OPTIONS["source"].options["repo"].pattern, value):
        problem = "Not a git URL. It must start with https://, ssh://, git://, file:/// or user@host:"
        return Fault("malformed", problem, example)
    return None


def _host_of(url: str) -> str:
    """Return the host name in a URL, or in git's user@host:path."""
    return re.split(r"[/:]", re.sub(r"(?i)^[a-z+]+://", "", url).rpartition("@")[2], maxsplit=1)[0].lower()


def archive(value: str) -> Fault | None:
    """Check the file name or URL of an archive."""
    if PASSWORD_IN_URL.fullmatch(value):
        problem = (
            "The URL contains a password or token, which would end up in logs and on the host. Download the archive to "
            "the control node, and name the file."
        )
        return Fault("secret_in_archive", problem, snippet(("source",), EXAMPLE_ARCHIVE))
    if is_url(value) and (PLACEHOLDER.fullmatch(value) or RESERVED_DOMAINS.fullmatch(_host_of(value))):
        problem = "The URL is a placeholder. Use one that works with curl, or a file on the control node."
        return Fault("placeholder_archive", problem, snippet(("source",), EXAMPLE_ARCHIVE))
    if not re.fullmatch(APP_OPTIONS["source"].options["archive"].pattern, value):
        problem = (
            f"{show(value)} is not an archive. Use a .tar.gz, .tar.xz or .tar on the control node, or an https:// URL."
        )
        return Fault("malformed", problem, snippet(("source",), EXAMPLE_ARCHIVE))
    return None


def checksum(value: str) -> Fault | None:
    """Check the checksum of an archive."""
    if re.fullmatch(APP_OPTIONS["source"].options["checksum"].pattern, value):
        return None
    problem = f"{show(value)} is not sha256: and 64 hexadecimal digits. 'sha256sum ARCHIVE' prints the digits."
    works = f"sha256:{value.strip()}" if re.fullmatch(r"\s*[0-9a-fA-F]{64}\s*", value) else ""
    return Fault("malformed", problem, snippet(("source", "checksum"), works) if works else "")


def inner_path(value: str) -> Fault | None:
    """Check the path of a folder or file inside the code."""
    if value.startswith(("/", "~")):
        problem = f"{show(value)} is not inside the code. Write it relative to the app's folder."
        return Fault("unsafe_path", problem)
    if ".." in PurePosixPath(value).parts:
        return Fault("unsafe_path", f"{show(value)} leaves the app's folder. Write a path without '..'.")
    return None


def persistent(value: str) -> Fault | None:
    """Check the path of a folder that outlives releases."""
    if not path_parts(value):
        problem = "This is the whole code, which each release replaces. Name the folders that contain data."
        return Fault("persistent_is_everything", problem)
    return inner_path(value)


def protected_folder(value: str) -> Fault | None:
    """Check the path of a folder in the data."""
    if not path_parts(value) and value.strip("/"):
        problem = "This is all data of the app. Name the persistent folder that contains the files, or one in it."
        return Fault("protected_is_everything", problem)
    return inner_path(value)


def wsgi(value: str) -> Fault | None:
    """Check the import path of the WSGI callable."""
    pattern = APP_OPTIONS["wsgi"].pattern
    if re.fullmatch(pattern, value):
        return None
    module, _colon, target = value.partition(":")
    better = f"{re.sub(r'[.]py$', '', module).strip('/').replace('/', '.')}:{target.strip() or 'app'}"
    works = snippet(("wsgi",), better) if re.fullmatch(pattern, better) else ""
    problem = f"{show(value)} does not name a WSGI application: write module:object, or module:factory()."
    return Fault("malformed", problem, works)


def python(value: str) -> Fault | None:
    """Check the version of Python."""
    pattern = APP_OPTIONS["python"].pattern
    if re.fullmatch(pattern, value):
        return None
    found = re.fullmatch(r"\s*(?:c?python[ -]?|v|==|~=|>=|\^)?\s*(\d+\.\d+(?:\.\d+)?)(?:\.[*x])?\s*", value, re.I)
    number = found[1] if found else ""
    if re.fullmatch(pattern, number):
        problem = f"{show(value)} is not a version. Write two numbers, or three to choose the patch level."
        return Fault("malformed", problem, snippet(("python",), number))
    if re.fullmatch(r"[23](?:\.\d(?:\.\d+)?)?", number or value.strip()):
        return Fault("malformed", f"Python {number or value.strip()} is too old: the app server needs 3.10 or newer.")
    return Fault("malformed", f"{show(value)} is not a final release of Python 3. Write two numbers, such as 3.12.")
