"""A diary in SQLite, built the way beginners learn it: an application factory and an ``init-db`` command."""

from pathlib import Path

from flask import Flask, redirect, render_template_string, request, url_for

from . import db

PAGE = """<!doctype html>
<title>Diary</title>
<form method="post"><input name="text" required><button>Write</button></form>
<ul>{% for entry in entries %}<li>{{ entry["text"] }}</li>{% endfor %}</ul>
"""


def create_app(settings=None):
    app = Flask(__name__)
    Path(app.instance_path).mkdir(exist_ok=True)
    app.config.from_mapping(DATABASE=Path(app.instance_path) / "diary.sqlite")
    app.config.from_mapping(settings)
    db.init_app(app)

    @app.get("/")
    def index():
        return render_template_string(PAGE, entries=db.get().execute("SELECT text FROM entry ORDER BY id").fetchall())

    @app.post("/")
    def write():
        db.get().execute("INSERT INTO entry (text) VALUES (?)", [request.form["text"]])
        db.get().commit()
        return redirect(url_for("index"))

    return app
