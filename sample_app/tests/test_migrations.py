"""The migrations, from an empty database."""

import os

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_migrate import downgrade, upgrade
from guestbook import create_app
from guestbook.models import Entry, db
from sqlalchemy import inspect, text


@pytest.fixture
def empty_app(monkeypatch, tmp_path):
    """An app whose database is empty: a new SQLite file, or the one that TEST_DATABASE_URI names."""
    if "TEST_DATABASE_URI" not in os.environ:
        monkeypatch.setenv("TEST_DATABASE_URI", f"sqlite:///{tmp_path / 'guestbook.db'}")
    app = create_app("testing")
    with app.app_context():
        yield app
        db.drop_all()
        db.session.execute(text("DROP TABLE IF EXISTS alembic_version"))
        db.session.commit()
        db.engine.dispose()


def test_migrated_database_is_what_the_models_say(empty_app: Flask):
    upgrade()
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, db.metadata) == []
    db.session.add(Entry(author="Ada", message="Hello"))
    db.session.commit()


def test_migrations_run_from_any_folder_twice_and_back(empty_app: Flask, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    upgrade()
    upgrade()
    assert "entry" in inspect(db.engine).get_table_names()
    downgrade(revision="base")
    assert "entry" not in inspect(db.engine).get_table_names()


def test_the_app_still_logs_after_a_migration(empty_app: Flask):
    assert not empty_app.logger.disabled
    upgrade()
    assert not empty_app.logger.disabled
