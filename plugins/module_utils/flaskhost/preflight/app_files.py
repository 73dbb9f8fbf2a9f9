"""The configuration files of an app, ``files``: check their paths and contents."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ..apps import placeholders
from ..apps.options import APP_OPTIONS
from ..deploy import assets
from .report import Fault, Place, Report, Unreadable, get, path_parts, show, snippet, type_name

#: Bytes. A file system allows 255 for a name, and the temporary file beside the new one has a longer name.
LONGEST_NAME, LONGEST_PATH = 200, 1000
#: Bytes of one file's content.
LARGEST = 1024 * 1024

_EXAMPLE = snippet(("files",), APP_OPTIONS["files"].example)


def check_files(report: Report, place: Place, app: dict[Any, Any]) -> None:
    """Check ``files`` of one app.

    Args:
        report: collects the problems.
        place: the steps to the app.
        app: its options.
    """
    files = get(app, dict, "files") or {}
    for path, content in files.items():
        here = (*place, "files", path)
        fault = _path_fault(path) or _place_fault(app, path, files)
        if not fault and not isinstance(content, Unreadable):
            fault = _content_fault(content)
        if fault:
            report.add(fault.kind, here, fault.problem, fault.example or _EXAMPLE)


def _path_fault(path: Any) -> Fault | None:
    if not isinstance(path, str):
        return Fault("bad_file_path", f"A path must be a string, but is {type_name(path)}. Write it in quotes.")
    parts, normal, problem = path.split("/"), str(PurePosixPath(path)), ""
    *sizes, size = (len(text.encode("utf-8", "replace")) for text in (*parts, path))
    if path.startswith(("/", "~")) or ".." in parts:
        problem = "The path leads out of the code. Write it relative to the app's folder, without '..'."
        return Fault("unsafe_path", problem)
    if not path.isprintable():
        problem = "The path contains a control character, or is not valid UTF-8."
    elif normal == ".":
        problem = "The path does not name a file. Write it relative to the app's folder."
    elif path != normal:
        problem = f"Write the path as {show(normal)}."
    elif max(sizes) > LONGEST_NAME or size > LONGEST_PATH:
        problem = f"The path is too long. The limits are {LONGEST_NAME} bytes per name and {LONGEST_PATH} in all."
    return Fault("bad_file_path", problem) if problem else None


def _place_fault(app: dict[Any, Any], path: str, files: dict[Any, Any]) -> Fault | None:
    """Return what is wrong with the place of a file among the app's folders and its other files."""
    parts, persistent = path_parts(path), get(app, list, "persistent")
    for folder in APP_OPTIONS["persistent"].default if persistent is None else persistent:
        kept = path_parts(folder) if isinstance(folder, str) else ()
        if kept and (parts[: len(kept)] == kept or kept[: len(parts)] == parts):
            problem = f"{show(folder)} is a persistent folder, which the app can write and which outlasts releases."
            cure = "another path, or persistent without this folder if the app does not write to it"
            return Fault("file_in_persistent", problem, cure)
    for folder in assets.places(get(app, str, "wsgi") or "", get(app, str, "static", "path") or ""):
        if parts[: len(folder.parts)] == folder.parts:
            problem = f"nginx publishes the static files in {show(str(folder))}, but files are for the app only."
            return Fault("file_in_static", problem, "another path, or the file in the app's repository")
    for other in files:
        if other != path and isinstance(other, str) and path_parts(other) == parts[: len(path_parts(other))]:
            return Fault("file_in_file", f"{show(other)} is a file, so nothing can be inside of it.")
    return None


def _content_fault(content: Any) -> Fault | None:
    """Return what is wrong with the content of a file. The message never shows the content."""
    if not isinstance(content, str):
        cure = "" if content is None else " For a mapping or list, use the filter to_nice_json or to_nice_yaml."
        return Fault("bad_file_content", f"The content must be a string, but is {type_name(content)}.{cure}")
    try:
        size = len(content.encode())
    except UnicodeEncodeError:
        return Fault("bad_file_content", "The content is not valid UTF-8. Encode binary content as base64.")
    if size > LARGEST:
        problem = f"The content has more than {LARGEST >> 20} MB. Put the file into the repository or the data folder."
        return Fault("bad_file_content", problem)
    used = placeholders.used(content)
    for word in (placeholders.KEY, *placeholders.DATABASE, placeholders.REDIS):
        if word in used:
            problem = f"{{{word}}} is not possible in a file: a rollback would bring an old value back. "
            problem += f"Read {word.upper()} from the environment. To keep the text as it is, write {{!{word}}}."
            return Fault("placeholder_in_file", problem, f'os.environ["{word.upper()}"], in the code or in the file')
    return None
