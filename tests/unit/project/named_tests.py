"""Tests that a guide names: whether they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
#: A test as a guide names it: its file below molecule/, or tests/unit/ where no host is needed, and its function.
TEST = re.compile(r"`((?:[a-z_]+/)+test_\w+\.py)::(test_\w+)`")
#: A step of a scenario, by the file that names the steps.
STEP = re.compile(r"`((?:[a-z_]+/)+molecule\.yml)::(\w+)`")


def rows(guide: Path) -> list[list[str]]:
    """Return the cells of the rows of a guide's tables, without the heads and the lines below them."""
    lines = guide.read_text(encoding="utf-8").splitlines()
    pairs = zip(lines, [*lines[1:], ""], strict=True)
    found = [line for line, below in pairs if line.startswith("| ") and not below.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found]


def functions_of(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def nightly_of(path: Path) -> set[str]:
    """Return the names of a file's tests that have the marker ``nightly``, which make test leaves out."""
    marked = "pytest.mark.nightly"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    whole = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and marked in ast.unparse(node)
        for node in tree.body
    )
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name for node in found if whole or marked in map(ast.unparse, node.decorator_list)}


def missing(cell: str) -> list[str]:
    """Return the tests and steps that a cell names and that do not exist."""
    absent = []
    for file, name in TEST.findall(cell):
        path = ROOT / (file if file.startswith("tests/unit/") else f"molecule/{file}")
        if not path.is_file() or name not in functions_of(path):
            absent.append(f"{file}::{name}")
    for file, step in STEP.findall(cell):
        path = ROOT / "molecule" / file
        sequence = yaml.safe_load(path.read_text())["scenario"]["test_sequence"] if path.is_file() else []
        # A step can name its playbook, as in "verify audit.yml".
        if step not in [word.split()[0] for word in sequence]:
            absent.append(f"{file}::{step}")
    return absent
