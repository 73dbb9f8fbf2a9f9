"""Release commands that look as if they delete data are told, wherever they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.preflight import release_warnings


def warned(command: Any, folder: Path = Path("/nonexistent"), **app: Any) -> list[str]:
    return release_warnings({"shop": {"release_command": command, **app}}, folder)


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("flask init-db", "init-db"),
        ("flask --app shop init_db", "init_db"),
        ("python manage.py initdb", "initdb"),
        ("flask reset-db && flask seed", "reset-db"),
        ("python -c 'from shop import db; db.drop_all(); db.create_all()'", "drop_all"),
        ('psql -c "DROP TABLE entry"', "DROP TABLE"),
        ("psql -c 'truncate entry'", "truncate"),
    ],
)
def test_a_command_that_may_delete_all_data_is_told(command: str, word: str) -> None:
    (warning,) = warned(command)
    assert warning.startswith(f"flask_apps.shop.release_command: {word!r} often deletes all data")
    assert "setup_command" in warning


@pytest.mark.parametrize(
    "command",
    ["", None, 3, [], "flask db upgrade", "flask db upgrade && flask seed", "flask create-all", "alembic upgrade head",
     "test -e instance/notes.sqlite || flask init-db", "flask initialize-cache", "python backdrop.py",
     "flask drop-cache"],
)  # fmt: skip
def test_any_other_command_is_not(command: Any) -> None:
    assert warned(command) == []


def test_a_new_folder_of_migrations_has_a_cure_of_its_own() -> None:
    (warning,) = warned("flask --app shop db init && flask db upgrade")
    assert "commit the folder" in warning
    assert "'flask db upgrade'" in warning


def test_the_procfile_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "code/web").mkdir(parents=True)
    (tmp_path / "code/web/Procfile").write_text("web: gunicorn app\nrelease: flask init-db\n", encoding="utf-8")
    (warning,) = warned("", tmp_path, source={"path": "code", "subdir": "web"})
    assert warning.startswith("flask_apps.shop: the release line of its Procfile: 'init-db' often")
    assert warned("flask db upgrade", tmp_path, source={"path": "code", "subdir": "web"}) == [], "the option counts"
    assert warned("", tmp_path, source={"path": "code"}) == []
    assert warned("", tmp_path, source={"repo": "https://example.invalid/x.git"}) == []


@pytest.mark.parametrize("apps", [None, "", [], {"shop": None}, {"shop": {"source": 3}}])
def test_no_input_ends_it(apps: Any) -> None:
    assert release_warnings(apps, Path("/nonexistent")) == []
