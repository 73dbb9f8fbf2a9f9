"""Lock files of Poetry, PDM, Pipenv and PEP 751: what they pin for production, and what is refused."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import lockfiles, pins
from ansible.module_utils.flaskhost.deploy.selection import Selection
from ansible.module_utils.flaskhost.host.runner import ReleaseError

A, B = ("sha256:" + letter * 64 for letter in "ab")
COMMIT = "1" * 40
POETRY = f"""
[[package]]
name = "flask"
version = "3.1.3"
optional = false
python-versions = "*"
groups = ["main", "dev"]
files = [
    {{file = "flask-3.1.3-py3-none-any.whl", hash = "{A}"}},
    {{file = "flask-3.1.3.tar.gz", hash = "{B}"}},
]

[[package]]
name = "tool"
version = "1.0"
optional = true
python-versions = "*"
groups = ["main"]
markers = "extra == \\"database\\" and python_version >= \\"3.11\\""
files = [{{file = "tool-1.0-py3-none-any.whl", hash = "{A}"}}]

[[package]]
name = "winonly"
version = "1.0"
optional = false
python-versions = "*"
groups = ["main", "prod"]
files = [{{file = "winonly-1.0-py3-none-any.whl", hash = "{A}"}}]
markers = {{main = "sys_platform == \\"win32\\""}}

[package.source]
type = "legacy"
url = "https://index.test/simple"
reference = "local"

[[package]]
name = "mail"
version = "1.0"
optional = false
python-versions = "*"
groups = ["dev"]
files = [{{file = "mail-1.0-py3-none-any.whl", hash = "{A}"}}]

[extras]
database = ["tool"]

[metadata]
lock-version = "2.1"
python-versions = ">=3.11,<4"
content-hash = "{"c" * 64}"
"""
PDM = f"""
[metadata]
groups = ["default", "database", "dev", "prod"]
strategy = ["inherit_metadata"]
lock_version = "4.5.1"
content_hash = "sha256:{"c" * 64}"

[[metadata.targets]]
requires_python = ">=3.11"

[[package]]
name = "flask"
version = "3.1.3"
summary = ""
groups = ["default", "dev"]
files = [
    {{file = "flask-3.1.3-py3-none-any.whl", hash = "{A}"}},
    {{file = "flask-3.1.3.tar.gz", hash = "{B}"}},
]

[[package]]
name = "tool"
version = "1.0"
extras = ["fast"]
groups = ["database"]
marker = "python_version >= \\"3.11\\""
files = [{{file = "tool-1.0-py3-none-any.whl", hash = "{A}"}}]

[[package]]
name = "winonly"
version = "1.0"
groups = ["prod"]
files = [{{url = "https://files.test/winonly-1.0-py3-none-any.whl", hash = "{A}"}}]

[[package]]
name = "mail"
version = "1.0"
groups = ["dev"]
files = [{{file = "mail-1.0-py3-none-any.whl", hash = "{A}"}}]
"""
PIPENV = {
    "_meta": {"hash": {"sha256": "c" * 64}, "pipfile-spec": 6, "requires": {}, "sources": []},
    "default": {
        "flask": {"hashes": [A, B], "index": "pypi", "version": "==3.1.3"},
        # Locked on Linux: pipenv leaves it out.
        "winonly": {"markers": "sys_platform == 'win32'", "version": "*"},
        "tool": {"hashes": [A], "markers": "python_version >= '3.11'", "version": "==1.0", "extras": ["fast"]},
    },
    "develop": {"mail": {"hashes": [A], "version": "==1.0"}},
    "prod": {"winonly": {"hashes": [A], "version": "==1.0"}},
}
PYLOCK = f"""
lock-version = "1.0"
extras = ["database"]
dependency-groups = ["default", "prod", "dev"]
default-groups = ["default"]
created-by = "pdm"

[[packages]]
name = "flask"
version = "3.1.3"
marker = "'default' in dependency_groups or \\"dev\\" in dependency_groups"
index = "https://index.test/simple"
sdist = {{name = "flask-3.1.3.tar.gz", url = "https://files.test/flask-3.1.3.tar.gz", hashes = {{sha256 = "{B[7:]}"}}}}
wheels = [{{name = "flask-3.1.3-py3-none-any.whl", url = "https://files.test/f.whl", hashes = {{sha256 = "{A[7:]}"}}}}]

[[packages]]
name = "tool"
version = "1.0"
marker = "python_version >= '3.11' and 'database' in extras"
wheels = [{{name = "tool-1.0-py3-none-any.whl", url = "https://files.test/t.whl", hashes = {{sha256 = "{A[7:]}"}}}}]

[[packages]]
name = "winonly"
version = "1.0"
marker = "'prod' in dependency_groups"
wheels = [{{name = "winonly-1.0-py3-none-any.whl", url = "https://files.test/w.whl", hashes = {{sha256 = "{A[7:]}"}}}}]
"""
TEXTS = {"poetry.lock": POETRY, "pdm.lock": PDM, "Pipfile.lock": json.dumps(PIPENV), "pylock.toml": PYLOCK}
TRUE, FALSE = "python_version >= '0'", "python_version < '0'"


def lines(name: str, text: str = "", **selection: tuple[str, ...]) -> list[str]:
    return lockfiles.lines(name, text or TEXTS[name], Selection(**selection))


# -- what is pinned -------------------------------------------------------------------------------------------------


def test_the_packages_of_production_with_all_their_hashes() -> None:
    flask = f"flask==3.1.3 --hash={A} --hash={B}"
    tool = f'tool==1.0 ; {FALSE} and python_version >= "3.11" --hash={A}'
    assert lines("poetry.lock") == [flask, tool, f'winonly==1.0 ; sys_platform == "win32" --hash={A}']
    assert lines("pdm.lock") == [flask]
    assert lines("Pipfile.lock") == [flask, f"tool==1.0 ; python_version >= '3.11' --hash={A}"]
    assert lines("pylock.toml") == [
        f"flask==3.1.3 ; {TRUE} or {FALSE} --hash={A} --hash={B}",
        f"tool==1.0 ; python_version >= '3.11' and {FALSE} --hash={A}",
        f"winonly==1.0 ; {FALSE} --hash={A}",
    ]


@pytest.mark.parametrize("extra", ["database", "Database"])
def test_an_extra(extra: str) -> None:
    assert f'tool==1.0 ; {TRUE} and python_version >= "3.11" --hash={A}' in lines("poetry.lock", extras=(extra,))
    assert f'tool==1.0 ; python_version >= "3.11" --hash={A}' in lines("pdm.lock", extras=(extra,))
    assert f"tool==1.0 ; python_version >= '3.11' and {TRUE} --hash={A}" in lines("pylock.toml", extras=(extra,))


def test_a_group() -> None:
    """Poetry says for each group when it needs a package; one without a condition needs it always."""
    for name in ("poetry.lock", "pdm.lock", "Pipfile.lock"):
        assert f"winonly==1.0 --hash={A}" in lines(name, groups=("prod",))
    assert f"winonly==1.0 ; {TRUE} --hash={A}" in lines("pylock.toml", groups=("prod",))
    assert f"mail==1.0 --hash={A}" in lines("poetry.lock", groups=("dev",))
    assert f"mail==1.0 --hash={A}" in lines("Pipfile.lock", groups=("develop",))


def test_two_conditions_of_poetry_are_alternatives() -> None:
    text = POETRY.replace('{main = "sys_platform == \\"win32\\""}', '{main = "a == \\"1\\"", prod = "b == \\"2\\""}')
    assert f'winonly==1.0 ; (a == "1") or (b == "2") --hash={A}' in lines("poetry.lock", text, groups=("prod",))


@pytest.mark.parametrize("name", TEXTS)
def test_the_names_of_extras_and_groups(name: str) -> None:
    extras, groups = lockfiles.declared(name, TEXTS[name])
    assert "database" in extras or name == "Pipfile.lock"
    assert {"prod"} < groups
    assert "main" not in groups


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("uv.lock", "uv.lock"),
        ("pylock.toml", "pylock.toml"),
        ("pylock.prod.toml", "pylock.toml"),
        ("pylock.a.b.toml", ""),
        ("requirements.txt", ""),
        ("pyproject.toml", ""),
        ("poetry.lock", "poetry.lock"),
    ],
)
def test_which_lock_file_it_is(name: str, kind: str) -> None:
    assert lockfiles.kind(name) == kind


# -- where packages come from ---------------------------------------------------------------------------------------

SOURCES = {
    "git": (f'git = "{{}}"\nrevision = "{COMMIT}"', "type = 'git'\nurl = '{}'\nresolved_reference = '" + COMMIT + "'"),
    "url": ("url = '{}'", "type = 'url'\nurl = '{}'"),
    "path": ("path = '{}'", "type = 'directory'\nurl = '{}'"),
}


def with_source(name: str, kind: str, where: str) -> str:
    """A lock file with one package from somewhere else than an index."""
    if name == "poetry.lock":
        source = SOURCES[kind][1].format(where)
        package = f'name = "lib"\nversion = "1"\ngroups = ["main"]\nfiles = []\n[package.source]\n{source}\n'
        return f'[[package]]\n{package}[metadata]\nlock-version = "2.1"\n'
    if name == "pdm.lock":
        package = f'name = "lib"\nversion = "1"\ngroups = ["default"]\n{SOURCES[kind][0].format(where)}\n'
        return (
            f'[metadata]\ngroups = []\nstrategy = ["inherit_metadata"]\nlock_version = "4.5.1"\n[[package]]\n{package}'
        )
    if name == "Pipfile.lock":
        entry = {"git": {"git": where, "ref": COMMIT}, "url": {"file": where}, "path": {"path": where}}[kind]
        return json.dumps({"_meta": PIPENV["_meta"], "default": {"lib": entry}})
    entry = {
        "git": f"vcs = {{type = 'git', url = '{where}', commit-id = '{COMMIT}'}}",
        "url": f"archive = {{url = '{where}', hashes = {{}}}}",
        "path": f"directory = {{path = '{where}'}}",
    }[kind]
    return f'lock-version = "1.0"\n[[packages]]\nname = "lib"\n{entry}\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The code of a release, with an app in a folder and a link that leads out."""
    app = tmp_path / "src/app"
    (app / "lib").mkdir(parents=True)
    (tmp_path / "src/shared").mkdir()
    (tmp_path / "other").mkdir()
    (app / "link").symlink_to(tmp_path / "other")
    return app


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("kind", "where", "line"),
    [
        ("git", "https://h.test/a/b.git", f"lib @ git+https://h.test/a/b.git@{COMMIT}"),
        ("git", "ssh://git@h.test/a/b.git", f"lib @ git+ssh://git@h.test/a/b.git@{COMMIT}"),
        ("git", "git@h.test:a/b.git", f"lib @ git+ssh://git@h.test/a/b.git@{COMMIT}"),
        ("url", "https://h.test/lib-1-py3-none-any.whl", "lib @ https://h.test/lib-1-py3-none-any.whl"),
        ("path", "lib", "./lib"),
        ("path", "./lib", "./lib"),
        ("path", "../shared", "../shared"),
    ],
)
def test_packages_from_elsewhere(source: Path, name: str, kind: str, where: str, line: str) -> None:
    found = pins.read(lines(name, with_source(name, kind, where)), name, source, source.parent)
    assert [pin.line for pin in found] == [line]
    assert found[0].local == (kind == "path")
    assert found[0].hashed == (kind != "url")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("git", "http://h.test/a.git"),
        ("git", "git://h.test/a.git"),
        ("git", "file:///srv/other/repository.git"),
        ("git", "/srv/other/repository.git"),
        ("git", "../../other"),
        ("git", f"https://h.test/a.git@{COMMIT}#"),
        ("git", "https://h.test/a b"),
        ("git", "ext::sh -c id"),
        ("url", "http://h.test/lib-1-py3-none-any.whl"),
        ("url", "file:///etc/lib-1-py3-none-any.whl"),
        ("url", "https://h.test/lib.whl --index-url https://evil.test"),
        ("path", "../../other"),
        ("path", "/srv/other"),
        ("path", "link"),
        ("path", "file:///srv/other"),
        ("path", "lib --index-url=x"),
        ("path", "lib\n--index-url https://evil.test"),
        ("path", "$HOME"),
        ("path", "-r requirements.txt"),
    ],
)
def test_a_lock_leads_nowhere_else(source: Path, name: str, kind: str, where: str) -> None:
    text = with_source(name, kind, "WHERE")
    shown = json.dumps(where) if name == "Pipfile.lock" or "\n" in where else f"'{where}'"
    text = text.replace("'WHERE'", shown).replace('"WHERE"', json.dumps(where))
    with pytest.raises(ReleaseError, match=rf"{name} contains "):
        pins.read(lines(name, text), name, source, source.parent)


@pytest.mark.parametrize(
    "line",
    [
        "flask",
        "flask>=3",
        "flask==3.*",
        "-r other.txt",
        "-c other.txt",
        "--index-url https://evil.test",
        "--extra-index-url=https://evil.test",
        "-e /srv/other",
        "-e ../../other",
        "-e git+https://h.test/a@main",
        "flask==3.1.3 --index-url https://evil.test",
        "flask==3.1.3 ; python_version > '3' # comment",
        "flask==3.1.3 ; python_version > '3' \\",
        "flask==3.1.3\n--index-url https://evil.test",
        f"flask==3.1.3 ; x\n --hash={A}",
        "flask==3.1.3 --hash=md5:0123",
        f"flask==3.1.3 --hash={A} --index-url https://evil.test",
        f"flask==3.1.3 --hash={A[:-1]}",
        f"lib @ git+https://h.test/a@{'1' * 39}",
        "lib @ git+https://h.test/a@main",
        "lib @ git+https://h.test/a",
        f"lib @ git+https://h.test@{COMMIT}",
        f"lib @ git+https://h.test/a@{COMMIT}#egg=x",
        f"lib @ git+https://h.test/a@{COMMIT}#subdirectory=../../x",
        f"lib @ git+https://h.test/a#@{COMMIT}",
        "lib @ hg+https://h.test/a",
        "lib @ /srv/other",
        "lib @ ../other",
    ],
)
def test_a_line_that_is_not_a_pinned_package_is_refused(source: Path, line: str) -> None:
    with pytest.raises(ReleaseError, match=r"uv.lock contains "):
        pins.read([line], "uv.lock", source, source.parent)


def test_a_message_about_a_lock_is_one_line_and_short(source: Path) -> None:
    with pytest.raises(ReleaseError) as caught:
        pins.read(["\x1b[31m\n" + "x" * 100_000], "uv.lock", source, source.parent)
    assert len(caught.value.reason) < 300
    assert caught.value.reason.isprintable()


def test_a_message_about_a_lock_shows_no_token(source: Path) -> None:
    line = f"lib @ git+http://ada:t0ken@h.test/a.git@{COMMIT}"
    with pytest.raises(ReleaseError) as caught:
        pins.read([line], "uv.lock", source, source.parent)
    assert "t0ken" not in caught.value.reason
    assert "git+http://h.test/a.git" in caught.value.reason


# -- what cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "cure"),
    [
        ("poetry.lock", POETRY.replace('"2.1"', '"2.0"'), "poetry export"),
        ("poetry.lock", POETRY.replace('"2.1"', '"1.1"'), "poetry lock"),
        ("pdm.lock", PDM.replace("inherit_metadata", "cross_platform"), "pdm export"),
        ("pdm.lock", PDM.replace("4.5.1", "3.1"), "pdm lock --strategy inherit_metadata"),
        ("pylock.toml", PYLOCK.replace('"1.0"', '"2.0"', 1), "pylock.toml 1.0"),
        ("poetry.lock", POETRY.replace("extra ==", "extra !="), "requirements.txt"),
    ],
)
def test_a_format_that_says_too_little_is_refused_with_the_command_that_helps(name: str, text: str, cure: str) -> None:
    assert text != TEXTS[name]
    with pytest.raises(ReleaseError) as caught:
        lines(name, text)
    assert cure in caught.value.cure


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "text",
    [
        "not a lock",
        "[]",
        "{}",
        "x = " + "[" * 9999,
        "[" * 9999,
        '{"a":' * 9999,
        "package = 7",
        "packages = [7]",
    ],
    ids=range(8),
)
def test_a_damaged_lock_is_refused(name: str, text: str) -> None:
    with pytest.raises(ReleaseError, match=rf"{name} is damaged"):
        lines(name, text)


@pytest.mark.parametrize("name", TEXTS)
def test_a_lock_with_other_types_than_the_tools_write_is_refused(source: Path, name: str) -> None:
    """Each value of a lock is exchanged for another type: it is refused, or of no interest, and never an error."""
    if name == "Pipfile.lock":
        variants = [TEXTS[name].replace(item, "7") for item in ('"==3.1.3"', '"default"', f'["{A}", "{B}"]', f'"{A}"')]
    else:
        rows = TEXTS[name].splitlines()
        variants = [
            "\n".join([*rows[:number], f"{row.partition('=')[0]}= {value}", *rows[number + 1 :]])
            for number, row in enumerate(rows)
            if " = " in row
            for value in ("7", "[7]", "{x = 7}", '"x"')
        ]
    refused = 0
    for text in variants:
        try:
            pins.read(lines(name, text), name, source, source.parent)
        except ReleaseError:
            refused += 1
    assert refused > 2


@pytest.mark.parametrize("unit", ["'a' in ", "extra == 'a' ", "extra ", "'", " ", "(", "extra == '"])
def test_no_marker_keeps_root_busy(unit: str) -> None:
    text = PYLOCK.replace("python_version >= '3.11' and 'database' in extras", unit * (1_000_000 // len(unit)))
    began = time.monotonic()
    with contextlib.suppress(ReleaseError):
        pins.read(lines("pylock.toml", text), "pylock.toml", Path("/x"), Path("/x"))
    assert time.monotonic() - began < 10


def test_a_million_default_groups_do_not_keep_root_busy() -> None:
    groups = ", ".join(f'"g{number}"' for number in range(50_000))
    text = f'lock-version = "1.0"\ndefault-groups = [{groups}]\n' + '[[packages]]\nname = "a"\nversion = "1"\n' * 500
    began = time.process_time()
    assert lockfiles.lines("pylock.toml", text, Selection()) == ["a==1"] * 500
    assert time.process_time() - began < 10


def test_a_pipfile_lock_of_lists_does_not_fill_roots_memory() -> None:
    """Five million of them fit into 16 MB, and took 400 MB."""
    text = '{"default": {}, "x": [' + "[]," * 2_000_000 + "1]}"
    tracemalloc.start()
    with pytest.raises(ReleaseError, match="is damaged"):
        lockfiles.lines("Pipfile.lock", text, Selection())
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
