"""The module that wsgi names is parsed before anything is touched: what is wrong with it is told with file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.preflight import wsgi_module

APP = "import flask\napp = flask.Flask(__name__)\n"


class Code:
    """The code of one app, and what preflight says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        put(self, **{"requirements.txt": "flask==3.1.3\n"})

    def apps(self, wsgi: str, **options: Any) -> dict[str, Any]:
        app = {"domains": ["a.test"], "source": {"path": "app"}, "wsgi": wsgi, "database": False, **options}
        return {"shop": app}

    def problems(self, wsgi: str, release: str = "", **options: Any) -> list[dict[str, str]]:
        facts = {"distribution": "Debian", "distribution_major_version": release} if release else {}
        found = preflight.find_problems(self.apps(wsgi, **options), {}, facts, self.folder)
        return [problem for problem in found if problem["kind"].startswith("wsgi")]


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


def put(code: Code, **files: str) -> None:
    for name, text in files.items():
        path = code.folder / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("place", ["shop.py", "shop/__init__.py", "src/shop.py", "src/shop/__init__.py"])
def test_a_syntax_error_is_told_with_its_place(code: Code, place: str) -> None:
    put(code, **{place: "import flask\napp = flask.Flask(\n"})
    (problem,) = code.problems("shop:app")
    assert problem["kind"] == "wsgi_syntax_error"
    assert problem["path"] == "flask_apps.shop.wsgi"
    assert problem["problem"] == f"{place}, line 2: '(' was never closed: app = flask.Flask(."


def test_the_packages_around_a_module_are_parsed_too(code: Code) -> None:
    put(code, **{"shop/__init__.py": "x = = 1\n", "shop/web.py": APP})
    (problem,) = code.problems("shop.web:app")
    assert problem["problem"].startswith("shop/__init__.py, line 1: invalid syntax")


def test_a_line_is_shown_without_what_may_be_a_secret(code: Code) -> None:
    put(code, **{"shop.py": 'SECRET_KEY = "hunter2\n'})
    (problem,) = code.problems("shop:app")
    assert "hunter2" not in str(problem)
    assert "SECRET_KEY = ***" in problem["problem"]


@pytest.mark.parametrize(
    "text",
    [
        APP,
        "from flask import Flask as app",
        "import app.core",
        "def app(): ...",
        "async def app(): ...",
        "class app: ...",
        "app: object = 1",
        "a, (app, *b) = x",
        "if x:\n    app = 1\nelse:\n    app = 2",
        "try:\n    app = 1\nexcept E as e:\n    pass",
        "with x() as app:\n    pass",
        "for app in x:\n    pass",
        "print(app := 1)",
        "match x:\n    case {'a': app}: pass",
        "def make():\n    global app\n    app = 1\nmake()",
        # Only running it would tell.
        "from shop.core import *",
        "globals()['app'] = 1",
        "exec('app = 1')",
        "def __getattr__(name): ...",
        "import sys\nsetattr(sys.modules[__name__], 'app', 1)",
        # An escape that Python only warns of.
        "app = '\\d'",
        "# coding: latin-1\napp = 1",
    ],
)
def test_a_module_that_defines_the_callable_is_in_order(code: Code, text: str) -> None:
    put(code, **{"shop.py": text})
    assert code.problems("shop:app") == []


@pytest.mark.parametrize(
    ("wsgi", "text", "words", "works"),
    [
        ("shop:create_ap()", "def create_app(): ...", "Did you mean create_app?", 'wsgi: "shop:create_app()"'),
        ("shop:application", "app = 1", "Did you mean app?", 'wsgi: "shop:app"'),
        ("shop:app", "def create_app():\n    app = 1\n    return app", "Did you mean create_app?", "create_app()"),
        ("shop:app.wsgi", "x = 1", "shop.py does not define app.", "wsgi: shop:name"),
        ("shop:app", "class Shop:\n    app = 1", "does not define app", ""),
        ("shop:app", "", "does not define app", ""),
    ],
)
def test_a_callable_that_is_nowhere_is_told_with_near_names(
    code: Code, wsgi: str, text: str, words: str, works: str
) -> None:
    put(code, **{"shop.py": text})
    (problem,) = code.problems(wsgi)
    assert problem["kind"] == "wsgi_name_not_found"
    assert words in problem["problem"]
    assert works in problem["example"]


def test_a_submodule_counts_as_defined(code: Code) -> None:
    put(code, **{"shop/__init__.py": "from . import app as _", "shop/app.py": APP})
    assert code.problems("shop:app") == []


def test_a_package_wins_over_a_module_as_in_python(code: Code) -> None:
    put(code, **{"shop.py": "x = 1", "shop/__init__.py": APP, "src/shop.py": "x = = 1"})
    assert code.problems("shop:app") == []


def test_a_folder_without_init_does_not_hide_a_package_below_src(code: Code) -> None:
    put(code, **{"shop/README": "", "src/shop/__init__.py": "x = = 1"})
    assert [problem["kind"] for problem in code.problems("shop:app")] == ["wsgi_syntax_error"]


def test_the_users_own_file_replaces_the_module(code: Code) -> None:
    put(code, **{"shop.py": "x = = 1"})
    assert code.problems("shop:app", files={"shop.py": APP}) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [("requirements.txt", "Apache-Superset==4\n"), ("uv.lock", '[[package]]\nname = "superset"\n'),
     ("requirements.txt", "-r more.txt\n")],
)  # fmt: skip
def test_a_module_of_a_package_is_not_looked_for_in_the_code(code: Code, name: str, text: str) -> None:
    put(code, **{name: text, "more.txt": "superset==4\n"})
    assert code.problems("superset.app:create_app()") == []


def test_a_module_that_is_nowhere_is_told_once(code: Code) -> None:
    put(code, **{"shop.py": APP, "requirements.txt": "# superset\nflask==3.1.3\n"})
    (problem,) = code.problems("superset:app")
    assert problem["kind"] == "wsgi_not_found"
    assert "no package with this name" in problem["problem"]
    (problem,) = code.problems("shp:app")
    assert 'wsgi: "shop:app"' in problem["example"]


def test_the_name_of_the_project_itself_is_no_package(code: Code) -> None:
    put(code, **{"pyproject.toml": '[project]\nname = "my-shop"\ndependencies = ["flask"]\n'})
    (code.folder / "app/requirements.txt").unlink()
    assert [problem["kind"] for problem in code.problems("my_shop:app")] == ["wsgi_not_found"]
    assert code.problems("my_shop:app", install={"project": True}) == []
    assert code.problems("other:app", extra_packages=["other==1"]) == []


def test_syntax_that_the_hosts_python_does_not_have_is_an_error(code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    put(code, **{"shop.py": "app = 1\nmatch app:\n    case 1:\n        pass\n"})
    assert code.problems("shop:app", release="12") == code.problems("shop:app") == []
    monkeypatch.setattr(wsgi_module, "DISTRIBUTIONS", {"11": "3.9", "12": "3.11"})
    (problem,) = code.problems("shop:app", release="11")
    assert "Pattern matching is only supported in Python 3.10" in problem["problem"]


@pytest.mark.parametrize("line", ["type Name = = str", "class A[T=]: ...", "x = f'{= 1}'", "except A, B = :"])
def test_what_only_an_old_python_may_reject_is_a_warning(
    code: Code, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    put(code, **{"shop.py": f"{line}\n"})
    monkeypatch.setattr(wsgi_module.sys, "version_info", (3, 11, 2))
    apps, old = code.apps("shop:app"), {"distribution_major_version": "12"}
    assert [problem["kind"] for problem in code.problems("shop:app", release="12")] == ["wsgi_syntax_error"]
    assert preflight.wsgi_warnings(apps, code.folder, old) == []
    for release, facts in (("13", {"distribution_major_version": "13"}), ("", {})):
        assert code.problems("shop:app", release=release) == []
        (warning,) = preflight.wsgi_warnings(apps, code.folder, facts)
        assert warning.startswith("flask_apps.shop.wsgi: shop.py, line 1: ")
        assert "Python 3.11" in warning


def test_nothing_is_run(code: Code) -> None:
    put(code, **{"shop.py": f"open({str(code.folder / 'ran')!r}, 'w')\napp = 1\n"})
    assert code.problems("shop:app") == []
    assert not (code.folder / "ran").exists()


@pytest.mark.parametrize("kind", ["pipe", "large", "deep", "link", "loop"])
def test_a_file_that_cannot_be_judged_is_left_to_the_host(code: Code, kind: str) -> None:
    path = code.folder / "app/shop.py"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (code.folder / "private").write_text("x = = the key\n")
        path.symlink_to("../private")
    elif kind == "loop":
        path.symlink_to("shop.py")
        (code.folder / "app/shop").mkdir()
    else:
        texts = {"large": "x = = 1 #" + "x" * 1024 * 1024, "deep": "(" * 100_000}
        path.write_text(texts[kind], encoding="utf-8")
    found = code.problems("shop:app")
    assert "the key" not in str(found)
    if kind != "deep":
        assert found == []


def test_any_input_is_taken() -> None:
    for apps in (None, [], {"shop": None}, {"shop": {"source": {"path": 3}}}, {"shop": {"source": {"path": "\0"}}}):
        assert preflight.wsgi_warnings(apps, Path("/nonexistent"), None) == []
