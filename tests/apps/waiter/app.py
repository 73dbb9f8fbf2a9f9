"""TEST APP ONLY: answers that take long, each in another way, to see what an application server makes of them."""

import asyncio
import ctypes
import hashlib
import os
import secrets
import time
from collections.abc import Iterator

import psycopg
from flask import Flask, Response, request

app = Flask(__name__)
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
    for name in ("Cache-Control", "Expires", "Set-Cookie", "Vary", "X-Accel-Expires", "X-Flaskhost-Login"):
        for value in request.args.getlist(name):
            response.headers.add(name, value)
    return response


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
