"""The migrations, from an empty database, on PostgreSQL and on a developer's SQLite."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_migrate import downgrade, upgrade
from guestbook import create_app
from guestbook.models import Entry, db
from shared import DATABASE
from sqlalchemy import inspect, text


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_app(monkeypatch, tmp_path, request):
    """An app whose database is empty: a new SQLite file, or another schema of the tests' own database."""
    where = {"sqlite": f"sqlite:///{tmp_path / 'guestbook.db'}", "postgresql": DATABASE + "&options=-csearch_path%3Dx"}
    monkeypatch.setenv("TEST_DATABASE_URI", where[request.param])
    app = create_app("testing")
    with app.app_context():
        if request.param == "postgresql":
            db.session.execute(text("CREATE SCHEMA x"))
            db.session.commit()
        yield app
        db.session.rollback()
        if request.param == "postgresql":
            db.session.execute(text("DROP SCHEMA x CASCADE"))
            db.session.commit()
        db.session.remove()
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


def test_migrations_can_be_printed_as_sql(app: Flask, capsys):
    with app.app_context():
        upgrade(sql=True)
    assert "CREATE TABLE entry" in capsys.readouterr().out


def test_release_before_the_role_can_write_while_the_migration_runs(empty_app: Flask):
    """Expand, then contract: at 0004, both the flag and the role are there."""
    upgrade(revision="0003")
    columns = "name, password_hash, created_at"
    insert = f"INSERT INTO account ({columns}, is_moderator) VALUES (:name, '', CURRENT_TIMESTAMP, :flag)"
    db.session.execute(text(insert), {"name": "ada", "flag": True})
    db.session.commit()
    upgrade(revision="0004")
    db.session.execute(text(insert), {"name": "bob", "flag": False})
    db.session.commit()
    roles = "SELECT role FROM account ORDER BY name"
    assert db.session.scalars(text(roles)).all() == ["moderator", "member"]
    db.session.commit()
    upgrade()
    assert "is_moderator" not in [column["name"] for column in inspect(db.engine).get_columns("account")]
    downgrade(revision="0003")
    assert db.session.scalars(text("SELECT name FROM account WHERE is_moderator")).all() == ["ada"]


def test_entries_from_before_the_accounts_stay(empty_app: Flask):
    upgrade(revision="0001")
    db.session.execute(text("INSERT INTO entry (author, message, created_at) VALUES ('a', 'b', CURRENT_TIMESTAMP)"))
    db.session.commit()
    upgrade()
    assert db.session.query(Entry).one().account is None


def test_the_app_still_logs_after_a_migration(empty_app: Flask):
    assert not empty_app.logger.disabled
    upgrade()
    assert not empty_app.logger.disabled
