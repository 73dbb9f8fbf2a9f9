"""TEST APP ONLY: the answers of the test app waiter, from an ASGI app."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from mimetypes import guess_type
from urllib.parse import quote

from quart import Quart, Response, abort, request

app = Quart(__name__)
RELEASE = os.environ.get("FLASKHOST_RELEASE", "")


def seconds() -> float:
    """How long the answer takes."""
    return max(0.0, min(20.0, request.args.get("seconds", 1.0, type=float)))


@app.after_request
async def name_release(response: Response) -> Response:
    response.headers["X-Release"] = RELEASE
    return response


@app.get("/")
@app.get("/whoami")
async def whoami() -> dict:
    return {"release": RELEASE, "version": os.environ.get("VERSION"), "pid": os.getpid(), "scheme": request.scheme}


@app.get("/slow")
async def slow() -> dict:
    await asyncio.sleep(seconds())
    return {"slept": seconds()}


@app.get("/files/<path:name>")
async def download(name: str) -> Response:
    """Have nginx send a file of the folder instance/files to those who know the word."""
    if request.args.get("word") != "open":
        abort(403)
    response = Response(b"", mimetype=guess_type(name)[0] or "application/octet-stream")
    response.headers["X-Accel-Redirect"] = quote(f"/private.files/{name}")
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


@app.post("/upload")
async def upload() -> dict:
    """Count the bytes of the body as they come in."""
    digest, count = hashlib.sha256(), 0
    async for chunk in request.body:
        digest.update(chunk)
        count += len(chunk)
    return {"bytes": count, "sha256": digest.hexdigest()}


@app.get("/stream")
async def stream() -> Response:
    """Answer in small pieces; one that was cut off has no last line."""
    wanted = seconds()

    async def lines() -> AsyncIterator[str]:
        ends = time.monotonic() + wanted
        while (left := ends - time.monotonic()) > 0:
            yield f"{left:.2f} s left\n"
            await asyncio.sleep(min(0.05, left))
        yield "end\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/events")
async def events() -> Response:
    """Send eight events within three and a half seconds."""

    async def numbers() -> AsyncIterator[str]:
        for number in range(8):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.5)

    return Response(numbers(), mimetype="text/event-stream")


@app.get("/async")
async def asynchronous() -> dict:
    """Two waits of half a second at once."""
    began = time.monotonic()
    await asyncio.gather(asyncio.sleep(0.5), asyncio.sleep(0.5))
    return {"took": time.monotonic() - began}
