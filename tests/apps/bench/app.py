"""BENCHMARK APP ONLY (benchmarks/serve): a page, the same page from the database, and a page that waits."""

import os
import time

from flask import Flask, Response
from page import QUERY, ROWS, SECONDS, template
from sqlalchemy import create_engine, text

app = Flask(__name__)
# No connection before the first request, so that workers do not share any.
engine = create_engine(os.environ.get("SQLALCHEMY_DATABASE_URI", "sqlite://"))


@app.get("/")
@app.get("/page")
def page() -> str:
    return template.render(title="A page", rows=ROWS)


@app.get("/query")
def query() -> str:
    with engine.connect() as connection:
        rows = connection.execute(text(QUERY)).all()
    return template.render(title="A page with a query", rows=rows)


@app.get("/assets/<path:name>")
def asset(name: str) -> Response:
    """Send a static file, at an address for which nginx has none."""
    return app.send_static_file(name)


@app.get("/wait")
def wait() -> str:
    """Wait as for another service."""
    time.sleep(SECONDS)
    return "waited\n"
