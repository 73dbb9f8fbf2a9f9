"""Which package of the project's Python may import which, and what travels to a host with a module.

Ansible sends a module with everything that it imports, each time that it runs it. So what only the controller needs,
such as the schema of all options, must not be among that; and two packages that import each other are one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOP = ROOT / "plugins" / "module_utils" / "flaskhost"
NAME = "ansible.module_utils.flaskhost"
#: The packages, and those that each may import.
MAY_IMPORT = {
    "host": set(),
    "postgres": {"host"},
    "programs": {"host"},
    "apps": set(),
    "settings": {"apps"},
    "deploy": {"host", "apps"},
    "operate": {"host", "apps", "deploy", "programs"},
    "audit": {"host", "apps", "operate"},
    "requests": {"apps", "deploy", "operate"},
    "preflight": {"host", "apps", "settings", "deploy", "programs"},
}
#: What only the controller needs.
OF_THE_CONTROLLER = (
    "preflight", "requests", "settings", "apps.options", "apps.record", "apps.schema", "apps.sizing", "audit.page",
    "programs.installed",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """All modules by their names below flaskhost."""
    return {
        ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__").removesuffix("__init__"): path
        for path in sorted(TOP.rglob("*.py"))
    }


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """What a file imports of flaskhost, by the names below it."""
    inside = path.relative_to(TOP).parts[:-1] if path.is_relative_to(TOP) else ()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (item.name.removeprefix(f"{NAME}.") for item in node.names if item.name.startswith(NAME))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join([*inside[: len(inside) - node.level + 1], *([module] if module else [])])
            elif module.startswith(NAME):
                module = module.removeprefix(NAME).removeprefix(".")
            else:
                continue
            for item in node.names:
                name = f"{module}.{item.name}".removeprefix(".")
                yield name if name in MODULES else module


def shipped(path: Path) -> set[str]:
    """What travels to a host with a module: all that it imports, and the packages that this is in."""
    found: set[str] = set()
    left = list(imports(path))
    while left:
        name = left.pop()
        if name and name not in found:
            found.add(name)
            left += [*imports(MODULES[name]), name.rpartition(".")[0]]
    return found


@pytest.mark.parametrize("package", sorted({name.partition(".")[0] for name in MODULES if name}))
def test_a_package_imports_those_below_it_alone(package: str) -> None:
    assert package in MAY_IMPORT, f"{package} is new: say in MAY_IMPORT which packages it may import"
    mine = [path for name, path in MODULES.items() if name.partition(".")[0] == package]
    used = {name.partition(".")[0] for path in mine for name in imports(path)} - {package}
    assert used <= MAY_IMPORT[package]


def test_no_two_packages_import_each_other() -> None:
    reach = {name: set(below) for name, below in MAY_IMPORT.items()}
    for _round in reach:
        for name, below in reach.items():
            reach[name] = below.union(*(reach[other] for other in below))
    assert [name for name, below in reach.items() if name in below] == []


@pytest.mark.parametrize("module", sorted((ROOT / "plugins" / "modules").glob("*.py")), ids=lambda path: path.stem)
def test_what_only_the_controller_needs_does_not_travel(module: Path) -> None:
    travels = shipped(module)
    assert [name for name in travels if name.startswith(OF_THE_CONTROLLER)] == []


def test_what_travels_is_found() -> None:
    """The positive control."""
    release = shipped(ROOT / "plugins" / "modules" / "flask_release.py")
    assert {"deploy.release", "deploy", "deploy.flip", "host.runner", "host", "apps.names"} <= release
    assert "operate.status" not in release
