"""TOML files of a source: what is valid is read, and nothing fills root's memory or keeps it busy."""

from __future__ import annotations

import resource
import time
import tomllib
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import source_files, toml
from ansible.module_utils.flaskhost.deploy.python_range import find_fault
from ansible.module_utils.flaskhost.deploy.selection import read_project
from ansible.module_utils.flaskhost.host.runner import ReleaseError

VALID = r"""
# a.b.c comment with " and '
[project]
name = "shop"
version = '1.0.0'
a.b."c.d".'e.f' = 1.5
text = "a \" b \\"
long = '''
it's "here" ''''
other = '''''five'''''
basic = QQQa "" b \" c \\QQQ"
when = 2026-11-26T19:00:00.123456Z
dependencies = ["a==1.2.3; python_version >= '3.11'", "b==4.5.6"] # and "more
""".replace("QQQ", '"' * 3)


def test_valid_files_are_read_as_ever() -> None:
    assert toml.loads(VALID) == tomllib.loads(VALID)
    many = "dependencies = [" + ", ".join(f'"package{number}==1.2.3.4.5"' for number in range(500)) + "]\n"
    many += f'description = "{"a.b." * 1000}" # {"a.b." * 1000}\n' + "".join(
        f"k{number} = 1.5\n" for number in range(99)
    )
    assert toml.loads(many) == tomllib.loads(many)


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 100_000) + " = 1",
        "[" + " . ".join(["a"] * 100_000) + "]",
        "x = {" + '."".'.join(["a"] * 50_000) + " = 1}",
        ".".join(['"a\\""'] * 100_000) + " = 1",
        "x = '''''\n" + ".".join(["'\"'"] * 100_000) + " = 1",
        'x = """\\""""""\n' + ".".join(["a"] * 100_000) + " = 1",
        "x = " + "9" * 5000,
        "x = " + "[" * 200 + "]" * 200,
        "\n".join(f"[{'.'.join(['a'] * 40 * number)}]" for number in (1, 2)),
        'x = "' + '\\"' * 500_000,
        "x = " + '"""\n\\' * 200_000,
        '"""' * 300_001,
        "'" * 999_999,
        "x = " + "1_" * 500_000 + "1",
        "".join(f"[{number:x}]\n" for number in range(200_001)),
        "x = [" + "[]," * 200_001 + "]",
        "x = [" + "{}," * 500_001 + "]",
        "".join(f"{number:x}{'.a' * 20} = 1\n" for number in range(10_001)),
    ],
)
def test_a_bomb_is_damaged_at_once(text: str) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(toml.Damaged):
        toml.loads(text)
    assert time.process_time() - began < 5
    # In KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("text", ["x = " + "9" * 5000, ".".join(["a"] * 5000) + " = 1"])
def test_a_project_with_a_bomb_is_refused_and_breaks_nothing_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.uv]\n{text}\n")
    (tmp_path / "requirements.txt").write_text("flask==3.1.3\n")
    with pytest.raises(ReleaseError, match=r"pyproject\.toml is damaged"):
        read_project(tmp_path)
    assert source_files.find_requirements(tmp_path) == tmp_path / "requirements.txt"
    assert source_files.uv_settings(tmp_path / "requirements.txt", tmp_path) == []
    assert find_fault(tmp_path / "requirements.txt", tmp_path, "3.13", chosen=False) is None


def test_only_one_module_parses_toml() -> None:
    plugins = Path(__file__).parents[3] / "plugins"
    found = [path.name for path in plugins.rglob("*.py") if "import tomllib" in path.read_text()]
    assert found == ["toml.py"]
