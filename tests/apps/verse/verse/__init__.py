"""Poems, written in Markdown."""

from pathlib import Path

import markdown
from flask import Flask, abort

POEMS = Path(__file__).parent / "poems"


def create_app():
    app = Flask(__name__)

    @app.get("/")
    def index():
        return {"poems": sorted(path.stem for path in POEMS.glob("*.md"))}

    @app.get("/<name>")
    def poem(name):
        if name not in {path.stem for path in POEMS.glob("*.md")}:
            abort(404)
        return markdown.markdown((POEMS / f"{name}.md").read_text(encoding="utf-8"))

    return app
