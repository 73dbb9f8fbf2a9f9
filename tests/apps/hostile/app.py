"""An app whose author is the attacker: it runs, as the app's own user and in the app's sandbox, what a test posts.

TEST APP ONLY. Never put it where a stranger can reach it.
"""

import contextlib
import io
import os
import traceback

from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "<!doctype html><title>Mallory</title><p>A harmless page\n"


@app.post("/run")
def run() -> tuple[str, int]:
    """Run Python code; return what it printed, or the traceback with status 500."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(request.get_data(), "<attack>", "exec"), {"__name__": "__attack__", "os": os})  # noqa: S102
    except BaseException:  # the attack is told how it failed
        return output.getvalue() + traceback.format_exc(), 500
    return output.getvalue(), 200
