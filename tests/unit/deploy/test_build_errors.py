"""Why uv could not install packages: the messages are those of the pinned uv, as it has printed them."""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.deploy.build_errors import explain, first_error, needed

GCC = "x86_64-linux-gnu-gcc -DNDEBUG -O2 -Werror=format-security -I/usr/include/python3.11 -c speedy.c -o speedy.o"


def failed(package: str, said: str) -> str:
    """What uv prints of a build that failed."""
    body = "".join(f"         {line}\n" if line else "\n" for line in said.splitlines())
    return (
        f"error: Failed to build `{package}`\n"
        "  cause: The build backend returned an error\n"
        "  cause: Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)\n\n"
        f"{body}\n"
        "hint: Build failures usually indicate a problem with the package or the build environment\n"
    )


NO_COMPILER = failed(
    "speedy==1.2.3",
    f"""[stdout]
running bdist_wheel
building 'speedy' extension
{GCC}

[stderr]
error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'""",
)
NO_HEADER = failed(
    "needsffi==1.2.3",
    f"""[stdout]
{GCC}

[stderr]
speedy.c:2:10: fatal error: ffi.h: No such file or directory
    2 | #include <ffi.h>
      |          ^~~~~~~
compilation terminated.
error: Command '['x86_64-linux-gnu-gcc', '-c', 'speedy.c']' returned non-zero exit status 1.""",
)
NO_LIBRARY = failed(
    "needslib @ file:///srv/shop/releases/1/src/needslib",
    f"""[stdout]
{GCC.replace("-c speedy.c", "-lssl -lz")}

[stderr]
/usr/bin/ld: cannot find -lldap: No such file or directory
collect2: error: ld returned 1 exit status
error: Command '['x86_64-linux-gnu-gcc', '-lldap']' returned non-zero exit status 1.""",
)
PSYCOPG = failed(
    "psycopg2==2.9.5",
    """[stdout]
running egg_info

[stderr]
/tmp/lib/setuptools/dist.py:765: SetuptoolsDeprecationWarning: License classifiers are deprecated.
!!
        License :: OSI Approved :: GNU Library or Lesser General Public License (LGPL)
!!

Error: pg_config executable not found.

pg_config is required to build psycopg2 from source.  Please add the directory
containing pg_config to the $PATH or specify the full executable path with the
option:""",
)
MYSQL = failed(
    "mysqlclient==2.2.4",
    """[stdout]
Trying pkg-config --exists mysqlclient
Command 'pkg-config --exists mysqlclient' returned non-zero exit status 1.

[stderr]
Traceback (most recent call last):
  File "<string>", line 155, in <module>
Exception: Can not find valid pkg-config name.
Specify MYSQLCLIENT_CFLAGS and MYSQLCLIENT_LDFLAGS env vars manually""",
)
LXML = failed(
    "lxml==4.9.3",
    """[stdout]
Building lxml version 4.9.3.
Building without Cython.
Error: Please make sure the libxml2 and libxslt development packages are installed.""",
)


def test_the_package_comes_first_then_its_first_error_then_the_cure() -> None:
    found = explain(NO_COMPILER, "3.11")
    assert found
    assert found.reason == (
        "speedy 1.2.3 has no wheel for Python 3.11, and could not be built. The first error of its build:\n"
        "error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'"
    )
    assert found.cure == (
        "Add to the app: build_packages: [gcc, python3-dev]. Or: Pin a version of speedy that has a wheel for Python "
        "3.11."
    )


@pytest.mark.parametrize(
    ("said", "error", "packages"),
    [
        (NO_HEADER, "speedy.c:2:10: fatal error: ffi.h: No such file or directory", "gcc, python3-dev, libffi-dev"),
        (
            NO_LIBRARY,
            "/usr/bin/ld: cannot find -lldap: No such file or directory",
            "gcc, python3-dev, libldap-dev, libsasl2-dev",
        ),
        (PSYCOPG, "Error: pg_config executable not found.", "gcc, python3-dev, libpq-dev"),
        (
            MYSQL,
            "Exception: Can not find valid pkg-config name.",
            "gcc, python3-dev, default-libmysqlclient-dev, pkg-config",
        ),
        (
            LXML,
            "Error: Please make sure the libxml2 and libxslt development packages are installed.",
            "gcc, python3-dev, libxml2-dev, libxslt1-dev",
        ),
    ],
)
def test_a_usual_fault_has_its_debian_packages(said: str, error: str, packages: str) -> None:
    found = explain(said, "3.11")
    assert found
    assert f":\n{error}" in found.reason
    assert f"build_packages: [{packages}]." in found.cure
    assert found.reason.endswith(error), "not the tail of the output"


@pytest.mark.parametrize(
    ("line", "packages"),
    [
        ("error: command 'gcc' failed: No such file or directory", ["gcc", "python3-dev"]),
        ("unable to execute 'aarch64-linux-gnu-gcc': No such file or directory", ["gcc", "python3-dev"]),
        ("/bin/sh: 1: gcc: not found", ["gcc", "python3-dev"]),
        ("error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-g++'", ["g++", "python3-dev"]),
        ("speedy.c:1:10: fatal error: Python.h: No such file or directory", ["gcc", "python3-dev"]),
        ("a.c:1:10: fatal error: stdio.h: No such file or directory", ["gcc", "python3-dev", "libc6-dev"]),
        ("a.c:1:10: fatal error: openssl/ssl.h: No such file or directory", ["gcc", "python3-dev", "libssl-dev"]),
        ("../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]", ["gcc", "python3-dev"]),
        ("error: can't find Rust compiler", ["cargo", "gcc", "python3-dev"]),
        ("/bin/sh: 1: make: not found", ["make"]),
        ("error: linker `cc` not found", ["gcc", "python3-dev"]),
        ("gcc -Wall -lssl -lz -I/usr/include/openssl -c a.c", []),
        ("a.c:3:4: error: unknown type name 'PyThing'", []),
        ("a.c:1:10: fatal error: own.h: No such file or directory", []),
        ("KeyError: 'gcc'", []),
    ],
)
def test_what_is_missing_is_told_by_a_line(line: str, packages: list[str]) -> None:
    assert needed(line) == packages


def test_packages_that_the_app_has_already_stay_in_the_list() -> None:
    found = explain(PSYCOPG, "3.13", present=["ffmpeg-dev", "gcc"])
    assert found
    assert "build_packages: [ffmpeg-dev, gcc, python3-dev, libpq-dev]." in found.cure
    assert found.cure.endswith("Replace psycopg2 by psycopg2-binary or psycopg[binary], which needs no build.")


def test_an_unknown_fault_has_its_last_lines_too() -> None:
    said = failed("old==1.0", "[stderr]\nTraceback (most recent call last):\nValueError: no\nmore about it")
    found = explain(said, "3.13", present=["gcc"])
    assert found
    assert found.reason.endswith(
        "ValueError: no\nIts last lines:\nTraceback (most recent call last):\nValueError: no\nmore about it"
    )
    assert "Pin a version of old that has a wheel for Python 3.13. If a program, header" in found.cure
    assert first_error("") == "It printed nothing."


def test_the_pythons_that_have_a_wheel_are_named() -> None:
    asked: list[str] = []

    def wheels_for(pin: str) -> list[str]:
        asked.append(pin)
        return ["3.8", "3.9", "3.10"]

    found = explain(failed("numpy==1.21.6", "[stderr]\nImportError: x"), "3.11", wheels_for=wheels_for)
    assert found
    assert found.reason.startswith("numpy 1.21.6 has no wheel for Python 3.11, only for Python 3.8, 3.9 and 3.10, and")
    assert asked == ["numpy==1.21.6"]


def test_a_package_with_wheels_for_another_python_only() -> None:
    said = """error: No solution found when resolving dependencies
  cause: Because torch==1.9.0 has no wheels with a matching Python ABI tag (e.g., `cp311`) and you require \
torch==1.9.0, we can conclude that your requirements are unsatisfiable.

hint: You require CPython 3.11 (`cp311`), but we only found wheels for `torch` (v1.9.0) with the following Python ABI \
tags: `cp36m`, `cp37m`, `cp38`, `cp39`
"""
    found = explain(said, "3.11")
    assert found
    assert found.reason == "torch 1.9.0 has wheels for Python 3.6, 3.7, 3.8 and 3.9, but not for 3.11."
    assert found.cure == "Pin a version of torch that has a wheel for Python 3.11."


def test_a_package_for_another_system() -> None:
    said = """error: No solution found when resolving dependencies
  cause: Because pywin32==306 has no wheels with a matching platform tag (e.g., `manylinux_2_36_x86_64`) and you \
require pywin32==306, we can conclude that your requirements are unsatisfiable.

hint: Wheels are available for `pywin32` (v306) on the following platforms: `win32`, `win_amd64`, `win_arm64`
"""
    found = explain(said, "3.11")
    assert found
    assert found.reason == "pywin32 306 has wheels only for win32, win_amd64, win_arm64."


def test_a_package_that_needs_a_newer_python() -> None:
    said = """error: No solution found when resolving dependencies
  cause: Because the current Python version (3.11.2) does not satisfy Python>=3.12 and django==6.0 depends on \
Python>=3.12, we can conclude that django==6.0 cannot be used.
         And because you require django==6.0, we can conclude that your requirements are unsatisfiable.
"""
    found = explain(said, "3.11")
    assert found
    assert found.reason == "django 6.0 needs Python >=3.12, but the environment has 3.11."


@pytest.mark.parametrize("said", ["", "error: No solution found when resolving dependencies\n", "Connection refused"])
def test_any_other_failure_is_not_explained(said: str) -> None:
    assert explain(said, "3.11") is None


def test_a_tag_with_thousands_of_digits_is_no_version() -> None:
    said = f"only found wheels for `x` (v1) with the following Python tags: `cp3{'1' * 5000}`, `cp312`\n"
    found = explain(said, "3.13")
    assert found
    assert found.reason == "x 1 has wheels for Python 3.12, but not for 3.13."
