"""Runs the migrations against the database that the app is configured for."""

from typing import Any, Literal

from alembic import context
from flask import current_app
from sqlalchemy import TypeDecorator, text


def render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write the plain type that one of ours stands for: a migration must not change when the app's code does."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


extension = current_app.extensions["migrate"]
options: dict[str, Any] = {
    "target_metadata": extension.db.metadata,
    "render_item": render_item,
    **extension.configure_args,
}


def print_sql() -> None:
    """`flask db upgrade --sql`: write the statements, with no connection."""
    context.configure(url=extension.db.engine.url, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()


def migrate() -> None:
    with extension.db.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # The old release serves meanwhile: a statement that waits for a lock makes all later ones queue behind it.
            connection.execute(text("SET lock_timeout = '5s'"))
            connection.commit()
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    migrate()
