"""TEST APP ONLY: answers that take long, each in another way, to see what an application server makes of them."""

import asyncio
import ctypes
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from mimetypes import guess_type
from pathlib import Path
from urllib.parse import quote

import psycopg
from flask import Flask, Response, abort, request

app = Flask(__name__)
UPLOADS = Path(app.root_path) / "uploads"
#: Headers that /token sends if they are named.
HEADERS = (
    "Cache-Control", "Expires", "Set-Cookie", "Vary", "Content-Security-Policy", "X-Flaskhost-Login",
    "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset",
)  # fmt: skip
RELEASE = os.environ.get("FLASKHOST_RELEASE", "")


def seconds() -> float:
    """How long the answer takes."""
    return max(0.0, min(20.0, request.args.get("seconds", 1.0, type=float)))


@app.after_request
def name_release(response: Response) -> Response:
    response.headers["X-Release"] = RELEASE
    return response


@app.get("/")
@app.get("/whoami")
def whoami() -> dict:
    return {"release": RELEASE, "version": os.environ.get("VERSION"), "pid": os.getpid(), "scheme": request.scheme}


@app.get("/slow")
def slow() -> dict:
    time.sleep(seconds())
    return {"slept": seconds()}


@app.get("/token")
def token() -> Response:
    """Another text each time, after as many seconds as are named, and with the headers that are named."""
    time.sleep(max(0.0, min(20.0, request.args.get("seconds", 0.0, type=float))))
    response = Response(secrets.token_hex(8))
    for name in HEADERS:
        for value in request.args.getlist(name):
            response.headers.add(name, value)
    return response


def send_protected(name: str) -> Response:
    """Have nginx send a file of the folder uploads."""
    response = Response(mimetype=guess_type(name)[0] or "application/octet-stream")
    response.headers["X-Accel-Redirect"] = quote(f"/protected/{name}")
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


@app.get("/files/<path:name>")
def download(name: str) -> Response:
    """Send a file to those who know the word; with the headers that are named, as /token does."""
    if request.args.get("word") != "open":
        abort(403)
    response = send_protected(name)
    for header in HEADERS:
        for value in request.args.getlist(header):
            response.headers[header] = value
    return response


@app.post("/files/<name>")
def keep(name: str) -> dict:
    """Keep an upload: as werkzeug writes files, or as tempfile does."""
    if "closed" not in request.args:
        request.files["file"].save(UPLOADS / name)
        return {}
    descriptor = os.open(UPLOADS / name, os.O_CREAT | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(request.files["file"].read())
    if mode := request.args.get("mode"):
        (UPLOADS / name).chmod(int(mode, 8))
    return {}


@app.post("/upload")
def upload() -> dict:
    """Count the bytes of the body as they come in."""
    digest, count = hashlib.sha256(), 0
    while chunk := request.stream.read(65536):
        digest.update(chunk)
        count += len(chunk)
    return {"bytes": count, "sha256": digest.hexdigest()}


@app.get("/stream")
def stream() -> Response:
    """Answer in small pieces; one that was cut off has no last line."""
    wanted = seconds()

    def lines() -> Iterator[str]:
        ends = time.monotonic() + wanted
        while (left := ends - time.monotonic()) > 0:
            yield f"{left:.2f} s left\n"
            time.sleep(min(0.05, left))
        yield "end\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/events")
def events() -> Response:
    """Send eight events within three and a half seconds."""

    def numbers() -> Iterator[str]:
        for number in range(8):
            yield f"data: {number}\n\n"
            time.sleep(0.5)

    return Response(numbers(), mimetype="text/event-stream")


@app.get("/async")
async def asynchronous() -> dict:
    """Two waits of half a second at once."""
    began = time.monotonic()
    await asyncio.gather(asyncio.sleep(0.5), asyncio.sleep(0.5))
    return {"took": time.monotonic() - began}


@app.get("/query")
def query() -> dict:
    """Wait in the database."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("SELECT pg_sleep(%s)", [seconds()])
    return {"pid": os.getpid()}


@app.get("/hold")
def hold() -> dict:
    """Wait with Python's lock held: no other thread of the process runs meanwhile."""
    ctypes.PyDLL(None).usleep(int(seconds() * 1_000_000))
    return {}
