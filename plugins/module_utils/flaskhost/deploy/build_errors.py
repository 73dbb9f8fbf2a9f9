"""Explain why uv could not install the packages of an app: which package, its first error, and what to do.

The patterns match the messages of the pinned uv, and those of compilers and build backends that uv passes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible.module_utils.flaskhost.host.runner import legible, tail

_FAILED = re.compile(r"Failed to (?:build|download and build) `(?P<name>[\w.-]+)(?:==(?P<version>[^`\s]+)| @ [^`]*)?`")
_OTHER_PYTHON = re.compile(
    r"only found wheels for `(?P<name>[\w.-]+)` \(v(?P<version>[^)\s]+)\) with the following Python(?: ABI)? tags?: "
    r"(?P<tags>.+)"
)
_OTHER_PLATFORM = re.compile(
    r"Wheels are available for `(?P<name>[\w.-]+)` \(v(?P<version>[^)\s]+)\) on the following platforms?: (?P<tags>.+)"
)
_REQUIRES_PYTHON = re.compile(
    r"current Python version \([\d.]+\) does not satisfy Python(?P<needs>\S+) and (?P<name>[\w.-]+)==(?P<version>\S+) "
    "depends"
)
#: What uv puts before each line of a build's output.
_INDENT = " " * 9
#: Lines that only repeat or announce an error.
_FRAME = re.compile(r"\s*\[std(?:out|err)\]$|.*returned non-zero exit status|.*DeprecationWarning")
#: What the first error of a build looks like.
_ERROR = re.compile(
    r"(?:^|[\s:(])(?:\w+\.)*(?:[A-Za-z]*[Ee]rror|ERROR|[A-Za-z]*Exception)(?: at [^:]{0,200})?: ?\S|cannot find \S"
    r"|: not found$"
)
_MISSING_HEADER = re.compile(r"fatal error: '?(?P<name>[\w./+-]+\.h\w*)'?(?:: No such file| file not found)")
_MISSING_LIBRARY = re.compile(r"cannot find (?:-l)?(?P<name>[\w.+-]+)")
_MISSING_PROGRAM = re.compile(
    r"(?:(?:file or directory: |unable to execute |[Cc]ommand )')(?:\S*/)?(?P<quoted>[\w.+-]+)'"
    r"|(?:^|[\s:])(?P<shell>[\w.+-]+): (?:command )?not found|(?<![\w-])(?P<config>[\w-]++) executable not found",
    re.MULTILINE,
)
#: The prefix of a compiler's name.
_MACHINE = re.compile(r"^\w+-linux-gnu-")
_C, _CPLUSPLUS = ("gcc", "python3-dev"), ("g++", "python3-dev")
#: The Debian packages of headers, by a pattern of the header's name. A compiler is needed too.
_HEADERS = {
    r"Python\.h": (),
    r"std\w+\.h|limits\.h|sys/.*": ("libc6-dev",),
    r"ffi\.h": ("libffi-dev",),
    r"libpq-fe\.h": ("libpq-dev",),
    r"(?:mysql/|mariadb/)?mysql\.h": ("default-libmysqlclient-dev",),
    r"openssl/.*": ("libssl-dev",),
    r"lib(?:xml|xslt)/.*": ("libxml2-dev", "libxslt1-dev"),
    r"xmlsec/.*": ("libxmlsec1-dev",),
    r"jpeglib\.h": ("libjpeg-dev",),
    r"zlib\.h": ("zlib1g-dev",),
    r"ldap\.h|lber\.h": ("libldap-dev", "libsasl2-dev"),
    r"sasl/.*": ("libsasl2-dev",),
    r"curl/.*": ("libcurl4-openssl-dev", "libssl-dev"),
    r"gmp\.h": ("libgmp-dev",),
    r"magic\.h": ("libmagic-dev",),
    r"sqlite3\.h": ("libsqlite3-dev",),
    r"yaml\.h": ("libyaml-dev",),
    r"cairo.*\.h": ("libcairo2-dev",),
    r"sql(?:ext)?\.h": ("unixodbc-dev",),
    r"snappy.*\.h": ("libsnappy-dev",),
}
#: Those of libraries, by the name after ``-l``.
_LIBRARIES = {
    r"S?crt\w*\.o|[cm]": ("libc6-dev",),
    r"ssl|crypto": ("libssl-dev",),
    r"pq": ("libpq-dev",),
    r"ffi": ("libffi-dev",),
    r"z": ("zlib1g-dev",),
    r"(?:mysql|mariadb)\w*": ("default-libmysqlclient-dev",),
    r"xml2|xslt|exslt": ("libxml2-dev", "libxslt1-dev"),
    r"ldap\w*|lber": ("libldap-dev", "libsasl2-dev"),
    r"jpeg": ("libjpeg-dev",),
    r"curl": ("libcurl4-openssl-dev", "libssl-dev"),
}
#: Those of programs.
_PROGRAMS = {
    r"gcc|cc|clang": _C,
    r"g\+\+|c\+\+|clang\+\+": _CPLUSPLUS,
    r"pg_config": (*_C, "libpq-dev"),
    r"mysql_config|mariadb_config": (*_C, "default-libmysqlclient-dev"),
    r"xml2-config|xslt-config": (*_C, "libxml2-dev", "libxslt1-dev"),
    r"curl-config": (*_C, "libcurl4-openssl-dev", "libssl-dev"),
    r"cargo|rustc": ("cargo", *_C),
    r"cmake": ("cmake", "make", *_CPLUSPLUS),
    r"make|swig|gfortran|bison|flex|autoconf": (),
    r"pkg-config|pkgconf": ("pkg-config",),
}
#: Those of what build backends say in words of their own.
_WORDS = {
    r"linker `cc` not found|Unknown compiler\(s\)|CMAKE_C_COMPILER|C compiler cannot create": _C,
    r"CMAKE_CXX_COMPILER": _CPLUSPLUS,
    r"pkg-config --exists mysqlclient|MYSQLCLIENT_CFLAGS": (*_C, "default-libmysqlclient-dev", "pkg-config"),
    r"libxml2 and libxslt development": (*_C, "libxml2-dev", "libxslt1-dev"),
    r"headers or library files could not be found for jpeg": (*_C, "libjpeg-dev", "zlib1g-dev"),
    r"headers or library files could not be found for zlib": (*_C, "zlib1g-dev"),
    r"Could not find directory of OpenSSL": (*_C, "libssl-dev", "pkg-config"),
    r"[Cc]an't find Rust compiler|[Cc]argo, the Rust package manager, is not installed": ("cargo", *_C),
    r"CMake must be installed": ("cmake", "make", *_CPLUSPLUS),
    r"[Dd]id not find pkg-config|pkg-config is required": ("pkg-config",),
}
#: The oldest minor version of Python 3 that the option python accepts.
_OLDEST = 10
#: Packages without a wheel for Linux, and what most apps can use instead.
_INSTEAD = {"psycopg2": "psycopg2-binary or psycopg[binary]", "mysqlclient": "PyMySQL", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Explanation:
    """Why packages could not be installed.

    Attributes:
        reason: what happened.
        cure: what to do.
    """

    reason: str
    cure: str


def explain(
    said: str,
    python: str,
    *,
    present: Iterable[str] = (),
    wheels_for: Callable[[str], list[str]] = lambda _pin: [],
) -> Explanation | None:
    """Explain a failed installation.

    Args:
        said: uv's output.
        python: the minor version of the environment's Python, such as ``3.13``.
        present: the app's ``build_packages``.
        wheels_for: returns the other minor versions of Python for which a pin has a wheel. It is called only if a
            package failed to build.

    Returns:
        The explanation; None if uv failed for another reason than a package without a wheel.
    """
    if match := _OTHER_PYTHON.search(said):
        name, tags = match["name"], match["tags"].replace("`", "")
        others = _pythons(tags)
        reason = f"{name} {match['version']} has wheels for {_list(others) or tags}, but not for {python}."
        return Explanation(reason, f"Pin a version of {name} that has a wheel for Python {python}.{_instead(others)}")
    if match := _OTHER_PLATFORM.search(said):
        name, tags = match["name"], match["tags"].replace("`", "")
        reason = f"{name} {match['version']} has wheels only for {tags}."
        return Explanation(reason, f"Replace {name}, or add a marker to its line: ; sys_platform == 'win32'.")
    if match := _REQUIRES_PYTHON.search(said):
        name = match["name"]
        reason = f"{name} {match['version']} needs Python {match['needs']}, but the environment has {python}."
        cure = f"Pin a version of {name} for Python {python}, or set the app's option python and run site.yml."
        return Explanation(reason, cure)
    if not (match := _FAILED.search(said)):
        return None
    name, version = match["name"], match["version"]
    output = _output(said[match.end() :])
    reason, cure = f"{name} could not be built.", f"Correct the build of {name}."
    if version:
        others = wheels_for(f"{name}=={version}")
        known = f", only for {_list(others)}" if others else ""
        reason = f"{name} {version} has no wheel for Python {python}{known}, and could not be built."
        cure = f"Pin a version of {name} that has a wheel for Python {python}."
        if name in _INSTEAD:
            cure = f"Replace {name} by {_INSTEAD[name]}, which needs no build."
        cure += _instead(others)
    reason += f" The first error of its build:\n{first_error(output)}"
    present, needs = [*present], needed(output)
    if {*needs} - {*present}:
        packages = ", ".join(dict.fromkeys((*present, *needs)))
        cure = f"Add to the app: build_packages: [{packages}]." + (f" Or: {cure}" if version else "")
        return Explanation(reason, cure)
    if (rest := tail(output, 8)).strip() != first_error(output):
        reason += f"\nIts last lines:\n{rest}"
    cure += " If a program, header or library is missing, name its Debian package in build_packages."
    return Explanation(reason, cure)


def needed(output: str) -> list[str]:
    """Return the Debian packages that a failed build lacks, as far as its output is known."""
    found: list[str] = []
    for match in _MISSING_PROGRAM.finditer(output):
        name = _MACHINE.sub("", match["quoted"] or match["shell"] or match["config"])
        packages = _look_up(_PROGRAMS, name)
        found += [] if packages is None else packages or (name,)
    for pattern, table in ((_MISSING_HEADER, _HEADERS), (_MISSING_LIBRARY, _LIBRARIES)):
        for match in pattern.finditer(output):
            packages = _look_up(table, match["name"])
            found += [] if packages is None else (*_C, *packages)
    for words, packages in _WORDS.items():
        found += packages if re.search(words, output) else ()
    return [*dict.fromkeys(found)]


def _look_up(table: dict[str, tuple[str, ...]], name: str) -> tuple[str, ...] | None:
    return next((packages for pattern, packages in table.items() if re.fullmatch(pattern, name)), None)


def first_error(output: str) -> str:
    """Return the first line of a build's output that is an error; the last line if none looks like one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else "It printed nothing.")
    return legible(found)[:500]


def _output(said: str) -> str:
    """Return the output of the build itself, which uv indents, without uv's own lines."""
    lines = [line.removeprefix(_INDENT) for line in said.splitlines() if line.startswith(_INDENT)]
    return "\n".join(line for line in lines if not _FRAME.match(line))


def _pythons(tags: str) -> list[str]:
    """Return the versions in a list of ABI tags, such as ``cp36m, cp310``."""
    found = re.findall(r"\b(?:cp|py)(\d)(\d{1,3})(?!\d)", tags)
    return [*dict.fromkeys(f"{major}.{minor}" for major, minor in found)]


def _instead(versions: list[str]) -> str:
    """Return the sentence that suggests the newest of some versions of Python; empty if Flaskhost supports none."""
    supported = [version for version in versions if version.startswith("3.") and int(version[2:]) >= _OLDEST]
    newest = max(supported, key=lambda version: int(version[2:]), default="")
    return f' Or set the app\'s option python: "{newest}", and run site.yml.' if newest else ""


def _list(versions: list[str]) -> str:
    *head, last = versions or [""]
    return f"Python {', '.join(head)} and {last}" if head else last and f"Python {last}"
