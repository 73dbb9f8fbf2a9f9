"""The module that ``wsgi`` names, in a folder on the control node: where it is, whether it parses, what it defines.

The code is only parsed, never run.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..deploy import source_files
from ..deploy.pins import normalized
from ..deploy.selection import read_project
from ..host import tree
from ..host.redact import redact
from .python_versions import DISTRIBUTIONS
from .report import Place, Report, closest, get, path_text, snippet

#: Maximum number of bytes of a module that are parsed.
_LARGEST = 1024 * 1024
#: Names with which code can define others that no parser sees.
_DYNAMIC = frozenset({"__getattr__", "exec", "globals", "locals", "setattr", "vars"})
#: The newest Python of a supported release of Debian.
_NEWEST = max((int(major), int(minor)) for major, minor in (text.split(".") for text in DISTRIBUTIONS.values()))
#: Code that only a newer Python than 3.11 may accept: other errors are errors in each version.
_NEWER = re.compile(
    r"\b(?:type|lazy)\s+\w|\b(?:def|class)\s+\w+\s*\[|\b(?:f|fr|rf|t|tr|rt)['\"]|\bexcept\b[^(:]*,", re.IGNORECASE
)
#: The usual names of an app or of its factory, for a hint.
_USUAL = ("create_app", "make_app", "app", "application")
#: The folders in which a slot looks for modules, below the app's folder.
ROOTS = ("", "src")


class Finding(NamedTuple):
    """A fault of a module.

    Attributes:
        kind: its identifier.
        problem: what is wrong.
        example: what works.
        certain: whether the host's Python rejects it too.
    """

    kind: str
    problem: str
    example: str
    certain: bool = True


def check_wsgi(
    report: Report, place: Place, app: Mapping[Any, Any], code: Path, top: Path, *, facts: Any = None
) -> None:
    """Check that the module can be parsed, and that it defines the callable.

    Args:
        report: collects the problems.
        place: the steps to the app.
        app: its options.
        code: the app's folder.
        top: the folder of the whole source.
        facts: the host's facts.
    """
    for finding in _findings(app, code, top, facts):
        if finding.certain:
            report.add(finding.kind, (*place, "wsgi"), finding.problem, finding.example)


def wsgi_warnings(apps: Any, project_dir: Path, facts: Any) -> list[str]:
    """Warn about modules that this machine's Python cannot parse, although the newer one of the host perhaps can.

    Args:
        apps: the user's ``flask_apps``, of any type.
        project_dir: the base folder for a relative ``source.path``, on the control node.
        facts: the host's facts.
    """
    found = []
    for name, app in apps.items() if isinstance(apps, dict) else ():
        path, subdir = get(app, str, "source", "path"), get(app, str, "source", "subdir") or ""
        top = project_dir / path if path else None
        for finding in _findings(app, top / subdir, top, facts) if top else ():
            if not finding.certain:
                version = f"{sys.version_info[0]}.{sys.version_info[1]}"
                found.append(
                    f"{path_text(('flask_apps', name, 'wsgi'))}: {finding.problem} This machine's Python {version} "
                    "says so. A newer one on the host may accept it."
                )
    return found


def _findings(app: Mapping[Any, Any], code: Path, top: Path, facts: Any) -> Iterator[Finding]:
    """Return the first fault of a module and of the packages around it."""
    module, _colon, target = (get(app, str, "wsgi") or "").partition(":")
    files, wanted = get(app, dict, "files") or {}, re.match(r"[A-Za-z_]\w*", target)
    chain = _chain(code, module)
    parsed: ast.Module | Finding | None = None
    for file in chain:
        shown = file.relative_to(code)
        if str(shown) in files:
            # The user's own file replaces it.
            return
        parsed = _parse(file, top, str(shown), _host_python(app, facts))
        if isinstance(parsed, Finding):
            yield parsed
        if not isinstance(parsed, ast.Module):
            return
    if not isinstance(parsed, ast.Module) or not wanted:
        return
    names, own = _names(parsed), chain[-1]
    # A submodule is an attribute of its package once it has been imported.
    if names is None or wanted[0] in names or (own.name == "__init__.py" and _chain(own.parent, wanted[0])):
        return
    near = closest(wanted[0], names) or next((name for name in _USUAL if name in names), "")
    call = "()" if near in _functions(parsed) else ""
    works = (
        snippet(("wsgi",), f"{module}:{near}{call}") if near else f"wsgi: {module}:name, with a name that it defines"
    )
    problem = f"{own.relative_to(code)} does not define {wanted[0]}."
    yield Finding("wsgi_name_not_found", f"{problem} Did you mean {near}?" if near else problem, works)


def _chain(code: Path, module: str) -> list[Path]:
    """Return the files that Python runs to import a module, the outermost package first; empty if it is not found."""
    *packages, last = module.split(".")
    for root in ROOTS:
        folder = code / root
        files = [folder.joinpath(*packages[: number + 1]) / "__init__.py" for number in range(len(packages))]
        place = folder.joinpath(*packages)
        own = next((path for path in (place / last / "__init__.py", place / f"{last}.py") if _is_file(path)), None)
        if own:
            return [*filter(_is_file, files), own]
    return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_installed(app: Mapping[Any, Any], module: str, code: Path, top: Path) -> bool:
    """Check whether a module can come from a package: its name is part of one in the files that name the packages.

    Args:
        app: the app's options.
        module: the module.
        code: the app's folder.
        top: the folder of the whole source.
    """
    if get(app, bool, "install", "project"):
        return True
    # Compared without the difference between hyphens, dots and underscores; apache-superset contains superset.
    name = re.sub(r"[_.-]+", "[_.-]+", module.partition(".")[0])
    pattern = re.compile(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", re.IGNORECASE)
    texts = [text for text in get(app, list, "extra_packages") or [] if isinstance(text, str)]
    try:
        if normalized(get(read_project(code), str, "project", "name") or "") == normalized(module.partition(".")[0]):
            # The project itself is in its own files, but it is not installed.
            return False
        found = source_files.find_requirements(code, get(app, str, "requirements") or "", top)
        texts += source_files.read_all(found, top).values() if found else []
    except (OSError, ValueError, source_files.ReleaseError):
        return False
    lines = (line for text in texts for line in text.splitlines() if not line.lstrip().startswith("#"))
    return any(pattern.search(line) for line in lines)


def _host_python(app: Mapping[Any, Any], facts: Any) -> tuple[int, int] | None:
    """Return the version of Python with which the host runs an app; None if it is unknown."""
    if chosen := get(app, str, "python"):
        version = chosen
    else:
        version = DISTRIBUTIONS.get(get(facts, str, "distribution_major_version") or "", "")
    match = re.match(r"3\.(\d{1,3})(?!\d)", version)
    return (3, int(match[1])) if match else None


def _parse(path: Path, top: Path, shown: str, host: tuple[int, int] | None) -> ast.Module | Finding | None:
    """Parse a file.

    Args:
        path: the file.
        top: the folder of the whole source. A link that leads out of it is not followed.
        shown: its name in messages.
        host: the host's version of Python.

    Returns:
        Its content; a fault; None if it cannot be read, or is too large or nested too deeply to say.
    """
    own, source = sys.version_info[:2], b""
    try:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(top)):
            return None
        with tree.regular_file(real) as file, open(file, "rb", closefd=False) as stream:
            source = stream.read(_LARGEST + 1)
        if len(source) > _LARGEST:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = ast.parse(source, shown)
            if host and host < own:
                # Finds most of the syntax that is newer than the host's Python.
                ast.parse(source, shown, feature_version=host)
    except SyntaxError as error:
        text = redact(" ".join((error.text or "").split()))
        line = f", line {error.lineno}" if error.lineno else ""
        problem = f"{shown}{line}: {error.msg}{f': {text[:80]}' if text else ''}."
        lines = source.decode("utf-8", "replace").splitlines()
        around = "\n".join(lines[max(0, (error.lineno or 1) - 2) : error.end_lineno or error.lineno or 1])
        certain = own >= (host or _NEWEST) or not _NEWER.search(around)
        cure = f"the file without the error, which 'python3 -m py_compile {shown}' shows too"
        return Finding("wsgi_syntax_error", problem, cure, certain)
    except (OSError, ValueError, RecursionError, MemoryError):
        return None
    return parsed


# --- What a module defines -------------------------------------------------------------------------------------------


def _names(module: ast.Module) -> set[str] | None:
    """Return the names that a module can define; None if only running it would tell."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            return None
        if getattr(node, "id", None) in _DYNAMIC or getattr(node, "name", None) == "__getattr__":
            return None
        if isinstance(node, ast.Global):
            found.update(node.names)
    for node in _top_level(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
    return found


def _functions(module: ast.Module) -> set[str]:
    return {node.name for node in _top_level(module) if isinstance(node, ast.FunctionDef)}


def _top_level(module: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes of a module, without the bodies of its functions and classes."""
    queue: list[ast.AST] = [module]
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            queue.extend(ast.iter_child_nodes(node))
