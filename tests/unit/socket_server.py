"""A server behind a Unix socket that says what a test has written, such as what Redis and Memcached say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

INFO = (
    "# Memory\r\nused_memory:{used}\r\nmaxmemory:67108864\r\n"
    "# Persistence\r\nloading:{loading}\r\naof_enabled:{saves}\r\n"
    "aof_last_write_status:{wrote}\r\n# Keyspace\r\ndb0:keys=7,expires=3,avg_ttl=5\r\n"
    "db1:keys=2,expires=0,avg_ttl=0,subexpiry=0\r\n"
)


def info(used: int = 3 << 20, saves: int = 1, wrote: str = "ok", loading: int = 0) -> bytes:
    """The answer of Redis to INFO."""
    text = INFO.format(used=used, saves=saves, wrote=wrote, loading=loading)
    return f"${len(text)}\r\n{text}\r\n".encode()


def stats(used: int = 2 << 20) -> bytes:
    """The answer of Memcached to stats."""
    return f"STAT pid 7\r\nSTAT bytes {used}\r\nSTAT limit_maxbytes 8388608\r\nEND\r\n".encode()


@contextmanager
def answering(path: Path, parts: list[bytes], *, stays: bool = True) -> Iterator[list[bytes]]:
    """Answer each connection with some parts; yield what was asked.

    Args:
        path: the socket.
        parts: what is sent, one after the other.
        stays: whether the connection stays open afterwards.
    """
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, parts, asked, stays), daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            # Wakes the thread.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(listener: socket.socket, parts: list[bytes], asked: list[bytes], stays: bool) -> None:
    kept: list[socket.socket] = []
    send: Callable[[socket.socket, bytes], None] = socket.socket.sendall
    while True:
        try:
            client, _address = listener.accept()
            asked.append(client.recv(1000))
            for part in parts:
                send(client, part)
        except ConnectionError:
            continue
        except OSError:
            break
        if stays:
            kept.append(client)
        else:
            client.close()
    for client in kept:
        client.close()
