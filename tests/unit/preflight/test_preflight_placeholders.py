"""Placeholders in variables and files: what is fine, what is an error, and what only looks like one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from preflight_cases import GONE, GOOD_FACTS, GOOD_SETTINGS, SECRET, good_apps

FILES = {"a.toml": "{host} {data_dir}", "deep/er/.env": "", "uploads.py": "{!secret_key}", "instance-2": "x"}


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"APP_SECRET": "{secret_key}", "STORE": "{database_url}&a={host}", "U": "{sqlalchemy_database_uri}"}},
        {"secrets": {"APP_SECRET": "{secret_key}", "SECRET_KEY": GONE}},
        {"env": {"DATABASE_URL": "{sqlalchemy_database_uri}", "STORE": "{database_url}"}},
        {"database": False, "env": {"DATABASE_URL": "sqlite:///{data_dir}/a.db", "STORE": "{database_url}"}},
        {"database": False, "env": {"TEXT": "{!database_url} {!redis_url}"}},
        {"queue": "redis", "queue_mb": 9, "env": {"BROKER": "{redis_url}", "CELERY_RESULT_BACKEND": "{database_url}"}},
        {"cache": "redis", "cache_mb": 9, "secrets": {"STORE": "{redis_url}"}},
        # Somebody else's Redis.
        {"cache": "memcached", "cache_mb": 9, "env": {"REDIS_URL": "redis://cache.test/0", "STORE": "{redis_url}"}},
        {"env": {"CONFIG": "{release_dir}/a.toml", "JSON": '{"a": {"host": 1}}', "FORMAT": "{0} {name!r} {host:>8}"}},
        # Names like those of placeholders, which are no variables of Flaskhost's.
        {"env": {"HOST": "{host}", "DATA_DIR": "{data_dir}", "RELEASE_DIR": "{release_dir}", "db": "{database_url}"}},
        {"files": FILES},
        {"files": {"instance/config.py": "x"}, "persistent": []},
        # A module that the repository lacks.
        {"files": {"serve.py": "from shop import app"}, "wsgi": "serve:app"},
    ],
)
def test_what_is_fine(project: Path, changes: dict[str, Any]) -> None:
    apps = good_apps(changes)
    assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project) == []
    assert preflight.placeholder_warnings(apps) == []


def test_an_error_names_the_variable_and_the_cure(project: Path) -> None:
    apps = good_apps({"database": False, "env": {"STORE": "{database_url}"}})
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project)
    assert problem["path"] == "flask_apps.shop.env.STORE"
    assert "{!database_url}" in problem["problem"]
    assert problem["example"].startswith("database: true")


def test_a_file_that_cannot_be_evaluated_shows_no_part_of_it(project: Path) -> None:
    """Ansible's own error can contain the value."""
    apps = good_apps({"files": {"a.toml": preflight.Unreadable(f"unexpected {SECRET}")}})
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project)
    assert problem["path"] == 'flask_apps.shop.files["a.toml"]'
    assert SECRET not in str(problem)


@pytest.mark.parametrize("option", ["env", "secrets", "files"])
def test_a_misspelled_placeholder_is_told_and_its_value_is_not(project: Path, option: str) -> None:
    apps = good_apps({option: {"STORE": f"{SECRET}{{databse_url}}"}})
    assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project) == []
    (warning,) = preflight.placeholder_warnings(apps)
    assert warning == (
        f"flask_apps.shop.{option}.STORE: {{databse_url}} is not a placeholder, and is kept. Did you mean "
        "{database_url}?"
    )


@pytest.mark.parametrize("apps", [None, [], {"shop": None}, {"shop": {"env": ["a"]}}, {1: {"env": {2: 3}}}])
def test_any_input_has_no_warning(apps: Any) -> None:
    assert preflight.placeholder_warnings(apps) == []
