"""The other kind of app that Flaskhost must fit: one file, one dependency, no factory, no database, no Procfile.

TEST APP ONLY: /write and /read touch any path that a client names, and /attempt tries what an intruder would, so that
tests can probe the sandbox around the process from within; /headers shows what the proxy sent. Never put it where a
stranger can reach it.
"""

import ctypes
import errno
import hashlib
import os
import platform
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, Response, abort, request, url_for
from markupsafe import escape

MAX_SLEEP = 10.0
#: Other versions of the app, which the tests make, have another one here.
VERSION = "main"
RELEASE = os.environ.get("FLASKHOST_RELEASE", "")

app = Flask(__name__)


@app.after_request
def name_release(response: Response) -> Response:
    """Say which release has answered: a client that asks through a deploy sees where the switch was."""
    if RELEASE:
        response.headers["X-Release"] = RELEASE
    return response


@app.get("/")
def index() -> str:
    # The style sheets have their content's digest in their names, as those of a build tool have: see old-assets-1.
    sheets = sorted(path.name for path in Path(app.static_folder or "").glob("app.*.css"))
    links = "".join(f'<link rel="stylesheet" href="{url_for("static", filename=name)}">' for name in sheets)
    return f"<!doctype html><title>Hello</title>{links}<p>{escape(os.environ.get('GREETING', 'Hello'))}</p>\n"


@app.get("/whoami")
def whoami() -> dict:
    return {"uid": os.getuid(), "release": RELEASE or None, "pid": os.getpid(), "version": VERSION}


@app.get("/headers")
def headers() -> dict:
    """The request as it arrived. No ProxyFix here: it would hide what the proxy sent."""
    return {
        "headers": dict(request.headers),
        "url": request.url,
        "remote_addr": request.remote_addr,
        "scheme": request.scheme,
        "host": request.host,
    }


@app.get("/write")
def write() -> dict:
    """Try to write: a new file gets a line, one that exists is opened for writing and left as it was."""
    path = _named_path()
    try:
        is_new = not path.exists()
        # No blocking: a FIFO or a device must not hold the worker.
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o600)
        with os.fdopen(handle, "wb", buffering=0) as file:
            if is_new:
                file.write(b"probe\n")
    except OSError as error:
        return _failure(error)
    return {"ok": True, "errno": None}


@app.get("/read")
def read() -> dict:
    """Try to read a file or list a folder. The content stays here."""
    path = _named_path()
    try:
        if path.is_dir():
            list(path.iterdir())
        else:
            with path.open("rb") as file:
                file.read(1)
    except OSError as error:
        return _failure(error)
    return {"ok": True, "errno": None}


@app.get("/attempt")
def attempt() -> dict:
    """Try what an intruder would, by the kernel itself: no tool has to be there."""
    what = ATTEMPTS.get(request.args.get("what", "")) or abort(400, f"one of {', '.join(ATTEMPTS)}")
    try:
        told = what()
    except OSError as error:
        return _failure(error)
    return {"ok": True, "errno": None, **(told or {})}


def _call(function: str, *arguments: object) -> None:
    """A function of the C library that returns -1 and sets errno."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), function)


def _mount() -> None:
    _call("mount", b"none", b"/tmp", b"tmpfs", 0, None)


def _new_namespace() -> None:
    """Rights of root's in a namespace of one's own are the usual way to a hole in the kernel."""
    _call("unshare", 0x10000000)  # CLONE_NEWUSER


def _load_module() -> None:
    """The number of finit_module; a file that is no module is EBADF or ENOEXEC to whoever may load one."""
    _call("syscall", 313 if platform.machine() == "x86_64" else 273, -1, b"", 0)


def _trace() -> None:
    """Attach to the process that has started this one, which is the same user's."""
    _call("ptrace", 16, os.getppid(), None, None)  # PTRACE_ATTACH
    os.waitpid(os.getppid(), 0)
    _call("ptrace", 17, os.getppid(), None, None)  # PTRACE_DETACH


def _raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def _netlink() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def _set_clock() -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time())


def _set_user() -> None:
    os.setuid(0)


def _set_user_bit() -> None:
    path = Path(os.environ["HOME"]) / "probe-suid"
    path.touch()
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def _run_own_file() -> None:
    """What an intruder does who has found a way to upload: put a program down and run it."""
    path = Path.home() / f"attempt-{os.getpid()}"
    shutil.copyfile("/bin/true", path)
    try:
        path.chmod(0o700)
        os.waitpid(os.posix_spawn(path, [path.name], {}), 0)
    finally:
        path.unlink()


def _fork() -> dict:
    """Start processes until somebody says no. Bounded, for a machine on which nobody does."""
    children: list[int] = []
    refused = None
    try:
        while len(children) < 1000:
            # Small ones: it is their number that is to be refused, and not the memory that they take.
            children.append(os.posix_spawn("/bin/sleep", ["sleep", "30"], {}))
    except OSError as error:
        refused = errno.errorcode.get(error.errno or 0)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    return {"processes": len(children), "refused": refused}


def _eat() -> None:
    """Take memory until the kernel ends this process. Bounded, for a machine on which it does not."""
    eaten = [bytes([number % 255 + 1]) * 10_000_000 for number in range(200)]
    raise OSError(errno.ENOMEM, f"{len(eaten)} pieces were there for the taking")


def _connect() -> None:
    """Open a connection of TCP, to an address and a port that the client names."""
    with socket.create_connection((request.args["address"], int(request.args["port"])), timeout=3):
        pass


ATTEMPTS = {
    "mount": _mount,
    "namespace": _new_namespace,
    "module": _load_module,
    "ptrace": _trace,
    "raw socket": _raw_socket,
    "netlink": _netlink,
    "clock": _set_clock,
    "setuid": _set_user,
    "suid file": _set_user_bit,
    "run own file": _run_own_file,
    "fork": _fork,
    "memory": _eat,
    "connect": _connect,
}


@app.get("/slow")
def slow() -> dict:
    seconds = _named_seconds()
    time.sleep(seconds)
    return {"slept": seconds, "pid": os.getpid()}


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
    """Answer in small pieces over a while; one that was cut off has no last line."""
    seconds = _named_seconds()

    def lines() -> Iterator[str]:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            yield f"{left:.2f} s left\n"
            time.sleep(min(0.05, left))
        yield "end\n"

    return Response(lines(), mimetype="text/plain")


def _named_seconds() -> float:
    # In this order a NaN becomes the bound, and not the argument of sleep().
    return max(0.0, min(MAX_SLEEP, request.args.get("seconds", 1.0, type=float)))


def _named_path() -> Path:
    path = request.args.get("path", "")
    if not path.startswith("/") or "\0" in path:
        abort(400, "path must be absolute")
    return Path(path)


def _failure(error: OSError) -> dict:
    return {"ok": False, "errno": errno.errorcode.get(error.errno or 0)}
