"""The code of an app: check its source, and compare the options with the contents of a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..deploy import lockfiles, pins, source_files
from ..deploy.selection import Selection, check_project, find_fault, missing_lock_cure
from ..deploy.sources import archives, git
from .report import Place, Report, closest, get, path_text, show, snippet
from .rules.source import EXAMPLE_ARCHIVE, EXAMPLE_REPO
from .wsgi_module import check_wsgi, is_installed

_EXAMPLE_PATH = "source: {path: sample_app}"


def check_source(report: Report, place: Place, app: dict[Any, Any], project_dir: Path) -> tuple[Path, Path] | None:
    """Check the source of the code.

    Args:
        report: collects the problems.
        place: the steps to the app.
        app: its options.
        project_dir: the base folder for a relative path.

    Returns:
        The app's folder and the folder of the whole source, if both are on the control node and valid.
    """
    source = get(app, dict, "source")
    if not source:
        return None
    here, example = (*place, "source"), snippet(("source",), EXAMPLE_REPO)
    given = {key for key, value in source.items() if value not in (None, "")}
    named = [key for key in ("path", "repo", "archive") if key in given]
    if not named:
        problem = (
            "The source is missing. Set path (a folder on the control node), repo and version (a git repository), or "
            "archive and checksum."
        )
        report.add("no_source", here, problem, _EXAMPLE_PATH)
    if len(named) > 1:
        problem = f"Only one source is allowed, but there are {len(named)}: {' and '.join(named)}. Keep one of them."
        report.add("two_sources", here, problem, example)
    else:
        _check_companions(report, here, given, example)
    if "repo" in given and "version" not in given:
        problem = "The version is missing: the branch, tag or commit of repo to deploy."
        report.add("repo_without_version", (*here, "version"), problem, example)
    repo, version = get(source, str, "repo") or "", get(source, str, "version") or ""
    if version and report.clean((*here, "repo")) and git.needs_commit(repo, version):
        problem = (
            f"{repo.partition(':')[0]}:// is not encrypted: anyone on the network path can serve other code as "
            f"{show(version)}. Use https:// or SSH, or a full commit hash (40 digits), which git verifies."
        )
        works = f"source: {{repo: {re.sub('^[a-z]+', 'https', repo)}, version: {version}}}"
        report.add("forgeable_version", (*here, "version"), problem, works)
    if repo and report.clean((*here, "repo")) and not re.match(r"(?i)ssh://|[^/]+@", repo):
        for key in sorted(given & {"key", "known_hosts"}):
            problem = f"{key} only works with a repository over SSH, but repo is another kind of URL."
            cure = 'source: {repo: "git@github.com:ada/shop.git", version: v1.4.0}  # and the key'
            report.add("key_without_ssh", (*here, key), problem, cure)
    if archive := get(source, str, "archive"):
        _check_archive(report, here, archive, get(source, str, "checksum") or "", project_dir)
    path = get(source, str, "path")
    if not path or not report.clean((*here, "path")):
        return None
    return _find_code(report, here, project_dir / path, get(source, str, "subdir") or "")


def _check_companions(report: Report, here: Place, given: set[Any], example: str) -> None:
    """Check that options of one kind of source are not combined with another kind."""
    if "repo" not in given:
        if "version" in given:
            problem = "version only works with repo. A folder or an archive has no versions."
            report.add("version_without_repo", (*here, "version"), problem, example)
        for key in sorted(given & {"key", "known_hosts"}):
            problem = f"{key} only works with a repo over SSH. Remove it."
            report.add("key_without_repo", (*here, key), problem, example)
    if "checksum" in given and "archive" not in given:
        problem = "checksum only works with archive. Remove it."
        report.add("checksum_without_archive", (*here, "checksum"), problem, example)


def _check_archive(report: Report, here: Place, archive: str, checksum: str, project_dir: Path) -> None:
    """Check that an archive has a checksum and, if it is on the control node, that it exists and matches."""
    example = snippet(("source",), EXAMPLE_ARCHIVE)
    if not checksum and report.clean((*here, "checksum")):
        problem = "An archive needs a checksum that the host can verify. 'sha256sum ARCHIVE' prints it."
        report.add("archive_without_checksum", (*here, "checksum"), problem, example)
    if archives.is_url(archive) or not report.clean((*here, "archive")):
        return
    path = project_dir / archive
    if not _exists(path):
        hint = " ~ is not expanded here: write the full path." if "~" in path.parts else ""
        problem = f"There is no file {path} on the control node.{hint}"
        report.add("archive_not_found", (*here, "archive"), problem, example)
    elif _is_folder(path):
        problem = f"{path} is a folder. Name an archive, or use path instead of archive."
        report.add("archive_is_a_folder", (*here, "archive"), problem, example)
    elif checksum and report.clean((*here, "checksum")):
        try:
            got = archives.file_digest(path)
        except OSError as error:
            problem = f"{path} cannot be read: {error.strerror}."
            report.add("archive_not_found", (*here, "archive"), problem, example)
            return
        if got != checksum.partition(":")[2].lower():
            problem = (
                f"{path} has the checksum sha256:{got}, but {path_text((*here, 'checksum'))} is {checksum}. Find out "
                "which one is correct."
            )
            works = f"checksum: sha256:{got}  # if the archive is correct"
            report.add("wrong_checksum", (*here, "checksum"), problem, works)


def _find_code(report: Report, here: Place, top: Path, subdir: str) -> tuple[Path, Path] | None:
    if not _exists(top):
        hint = " ~ is not expanded here: write the full path." if "~" in top.parts else ""
        report.add(
            "source_not_found", (*here, "path"), f"There is no folder {top} on the control node.{hint}", _EXAMPLE_PATH
        )
    elif not _is_folder(top):
        report.add("source_not_a_folder", (*here, "path"), f"{top} is a file. Name the app's folder.", _EXAMPLE_PATH)
    elif report.clean((*here, "subdir")):
        if _is_folder(top / subdir):
            return top / subdir, top
        problem = f"There is no folder {subdir} in {top}. {_there('Folders', _names(top, folders=True))}"
        report.add("subdir_not_found", (*here, "subdir"), problem, "source without subdir, if the app is at the top")
    return None


def check_code(report: Report, place: Place, app: dict[Any, Any], code: Path, top: Path, *, facts: Any = None) -> None:
    """Check the app's options against its code.

    Args:
        report: collects the problems.
        place: the steps to the app.
        app: its options.
        code: the app's folder.
        top: the folder of the whole source.
        facts: the host's facts.
    """
    if report.clean((*place, "requirements")):
        _check_requirements(report, (*place, "requirements"), get(app, str, "requirements") or "", code, top)
    _check_install(report, place, app, code, top)
    if (wheelhouse := get(app, str, "wheelhouse")) and report.clean((*place, "wheelhouse")):
        _check_wheelhouse(report, (*place, "wheelhouse"), wheelhouse, code, top)
    if report.clean((*place, "wsgi")) and (wsgi := get(app, str, "wsgi")):
        if not is_installed(app, wsgi.partition(":")[0], code, top):
            _check_module(report, (*place, "wsgi"), wsgi, code, get(app, dict, "files") or {})
        check_wsgi(report, place, app, code, top, facts=facts)
    # The build command can create this folder.
    static = "" if get(app, str, "build_command") else get(app, str, "static", "path")
    if static and report.clean((*place, "static", "path")) and not _is_folder(code / static):
        problem = f"There is no folder {static} in {code}. {_there('Folders', _names(code, folders=True))}"
        cure = "static without path: the folder static beside the WSGI module"
        report.add("static_not_found", (*place, "static", "path"), problem, cure)


def _check_requirements(report: Report, place: Place, named: str, code: Path, top: Path) -> None:
    try:
        found = source_files.find_requirements(code, named, top)
    except (OSError, ValueError):
        found = None
    if found:
        return
    cure = "uv lock, or pip freeze > requirements.txt, in the app's folder"
    if named:
        files = [name for name in _names(code) if re.search(r"req|lock|toml", name)]
        problem = f"There is no file {named} in {code}. {_there('Possible files', files)}"
        report.add("requirements_not_found", place, problem, cure)
    else:
        wanted = ", ".join(source_files.CANDIDATES[:-1]) + f" or {source_files.CANDIDATES[-1]} with dependencies"
        problem = f"{code} does not pin the packages of the app: there is no {wanted}."
        report.add("no_requirements", place, problem, missing_lock_cure(code))


def _check_install(report: Report, place: Place, app: dict[Any, Any], code: Path, top: Path) -> None:
    """Check that the lock file can be read, and that it has the extras, groups and project of the option install."""
    if not report.clean((*place, "requirements")) or not report.clean((*place, "install")):
        return
    chosen = Selection.from_options(get(app, dict, "install"))
    try:
        found = source_files.find_requirements(code, get(app, str, "requirements") or "", top)
        if found:
            check_project(found)
        fault = find_fault(chosen, found, code) if found and chosen else None
        # uv reads its own lock file, on the host.
        if found and not fault and lockfiles.kind(found.name) not in ("", "uv.lock"):
            pins.read(lockfiles.lines(found.name, source_files.read_lock(found), chosen), found.name, found.parent, top)
    except source_files.ReleaseError as error:
        report.add("unusable_lock", (*place, "requirements"), f"In {code}: {error.reason}", error.cure)
    except (OSError, ValueError):
        return
    else:
        if fault:
            report.add("install_not_found", (*place, "install", fault.option), fault.problem, fault.cure)


def _check_wheelhouse(report: Report, place: Place, named: str, code: Path, top: Path) -> None:
    try:
        source_files.find_wheelhouse(code, named, top)
    except source_files.ReleaseError as error:
        problem = f"In {code}: {error.reason} {_there('Folders', _names(code, folders=True))}"
        report.add("wheelhouse_not_found", place, problem, error.cure)
    except (OSError, ValueError) as error:
        report.add(
            "wheelhouse_not_found", place, f"It cannot be read: {error}.", "a folder in the source that contains wheels"
        )


def _check_module(report: Report, place: Place, wsgi: str, code: Path, files: dict[Any, Any]) -> None:
    module, _colon, target = wsgi.partition(":")
    if {f"{module.replace('.', '/')}{end}" for end in (".py", "/__init__.py")} & files.keys():
        return
    there: set[str] = set()
    for root in (code, code / "src"):
        path = root.joinpath(*module.split("."))
        if _is_folder(path) or _exists(path.with_name(f"{path.name}.py")):
            return
        there |= {name.removesuffix(".py") for name in _names(root) if name.endswith(".py")}
        there |= {name for name in _names(root, folders=True) if _exists(root / name / "__init__.py")}
    near = closest(module, there) or (min(there) if len(there) == 1 else "")
    works = (
        snippet(("wsgi",), f"{near}:{target}") if near else "wsgi: module:object, with module.py in the app's folder"
    )
    problem = (
        f"There is no module {module} in {code} or its folder src, and no package with this name in the files that pin "
        f"the packages. {_there('Modules', there)}"
    )
    report.add("wsgi_not_found", place, problem, works)


def _there(what: str, names: list[str] | set[str]) -> str:
    """Return a hint with a few existing names."""
    return f"{what} there: {', '.join(sorted(names)[:8])}." if names else f"{what} there: none."


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _names(folder: Path, folders: bool = False) -> list[str]:
    """Return the names of the files, or of the folders, in a folder, without hidden ones."""
    try:
        return [item.name for item in folder.iterdir() if item.is_dir() == folders and item.name[0] not in "._"]
    except (OSError, ValueError):
        return []
