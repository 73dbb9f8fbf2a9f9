"""The programs that run on hosts contain everything they import, also where the project's Python is not."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from rendering import ROLES, load_filters

PROGRAMS = {"flaskhost-backup": "backup", "flaskhost-certificates": "certbot"}
#: Packages that the role installs for its program.
PACKAGES = {"flaskhost-backup": set(), "flaskhost-certificates": {"configobj", "cryptography", "dns"}}


def texts(program: str) -> dict[Path, str]:
    """The files as the role passes them to its module."""
    found = load_filters()["host_program"](str(ROLES / PROGRAMS[program] / "files"), program)
    return {Path(path): text for path, text in found.items()}


def install(program: str, folder: Path) -> Path:
    """Install the program below a folder; returns its launcher."""
    for path, text in texts(program).items():
        place = folder / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder / "usr/local/sbin" / program


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_runs_from_what_is_installed(program: str, tmp_path: Path) -> None:
    launcher = install(program, tmp_path)
    # The virtual environment has an Ansible of its own, as a host can have; isolated, Python finds no module of ours.
    command = [sys.executable, "-I", str(launcher), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={}, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program} ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_shared_modules_are_its_own(program: str, tmp_path: Path) -> None:
    launcher = install(program, tmp_path)
    package = program.replace("-", "_")
    script = (
        "import runpy, sys\n"
        f"sys.argv = [{program!r}, '--help']\n"
        f"try:\n    runpy.run_path({str(launcher)!r}, run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        f"ours = [item for name, item in sys.modules.items() if name.startswith(('ansible', {package!r}))]\n"
        "found = [item.__file__ for item in ours if item.__file__]\n"
        f"print(len(found), [path for path in found if not path.startswith({str(tmp_path)!r})], file=sys.stderr)\n"
    )
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={}, timeout=300, check=False)
    count, _space, elsewhere = done.stderr.strip().partition(" ")
    assert elsewhere == "[]"
    assert int(count) > 20


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_needs_only_the_standard_library_and_the_roles_packages(program: str) -> None:
    known = {*sys.stdlib_module_names, *PACKAGES[program], "ansible", program.replace("-", "_")}
    for path, text in texts(program).items():
        for node in ast.walk(ast.parse(text)):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= known, path
            inside = "/usr/local/lib/flaskhost/{}/shared/ansible/".format(program.replace("-", "_"))
            if str(path).startswith(inside):
                outside = [name for name in names if name.startswith(program.replace("-", "_"))]
                assert outside == [], f"{path} is shared, and imports a program"


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_it_shares_is_there_before_what_imports_it(program: str) -> None:
    order = ["shared" not in path.parts for path in texts(program)]
    assert order == sorted(order)
    assert not all(order)
