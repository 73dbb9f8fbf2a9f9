"""The database: one connection per request, and the command that creates the tables."""

import sqlite3

import click
from flask import current_app, g


def get():
    if "db" not in g:
        g.db = sqlite3.connect(current_app.config["DATABASE"])
        g.db.row_factory = sqlite3.Row
    return g.db


def close(_error=None):
    if "db" in g:
        g.pop("db").close()


@click.command("init-db")
def init_db():
    """Delete all entries and create empty tables."""
    with current_app.open_resource("schema.sql", "r") as schema:
        get().executescript(schema.read())
    click.echo("The database is empty.")


def init_app(app):
    app.teardown_appcontext(close)
    app.cli.add_command(init_db)
