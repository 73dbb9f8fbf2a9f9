"""An app at whose doors the tests knock: it fails when it is asked to, and refuses every password.

TEST APP ONLY: /headers shows what the proxy has sent. Never put it where a stranger can reach it.
"""

import time

from flask import Flask, Response, request

MAX_SLEEP = 10.0

app = Flask(__name__)


@app.after_request
def sign(response: Response) -> Response:
    """Say that it was the app that has answered, and not what stands in front of it."""
    response.headers["X-Answered-By"] = "doors"
    return response


@app.get("/")
def index() -> str:
    return "<!doctype html><title>Doors</title><p>Come in\n"


@app.get("/headers")
def headers() -> dict:
    """The request as it arrived. No ProxyFix here: it would hide what the proxy sent."""
    return {"headers": dict(request.headers), "host": request.host}


@app.get("/own-words")
def own_words() -> Response:
    """An answer with headers of its own, in the place of the usual ones."""
    own = {"X-Frame-Options": "DENY", "Content-Security-Policy": "default-src 'none'", "X-Robots-Tag": "all"}
    return Response("mine\n", headers=own)


@app.get("/boom")
def boom() -> str:
    raise RuntimeError("the test has asked for this")


@app.get("/slow")
def slow() -> dict:
    seconds = max(0.0, min(MAX_SLEEP, request.args.get("seconds", 1.0, type=float)))
    time.sleep(seconds)
    return {"slept": seconds}


@app.post("/upload")
def upload() -> dict:
    return {"bytes": len(request.get_data())}


@app.post("/login")
def login() -> tuple[str, int, dict[str, str]]:
    """Nobody's password is right. The header is the one that the documentation asks apps for."""
    return "No.\n", 403, {"X-Flaskhost-Login": "failed"}


@app.route("/<path:path>", methods=["GET", "POST", "PUT", "DELETE"])
def anything_else(path: str) -> tuple[str, int]:
    """What else is asked for gets here as well: a test sees whether it did."""
    return f"There is no {len(path)} letters long path like this.\n", 404
