"""A client of HTTP/2 that may break off in the middle of a body, which no library lets one do (RFC 9113 and 7541)."""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Mapping
from typing import Any

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
#: Bytes of a frame that a server takes without having said so.
FRAME = 16 << 10
#: The statuses that HPACK has a number for.
STATUSES = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}


class Client:
    """One connection with many requests at a time.

    Attributes:
        answers: the status of each stream that was answered; 0 for one that was reset before.
        bodies: what was received of each response's body.
        over: whether the server has closed the connection.
    """

    def __init__(self, visitor: Any, domain: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self.domain, self.next, self.pending = domain, 1, b""
        self.answers: dict[int, int] = {}
        self.bodies: dict[int, bytes] = {}
        self.over = False
        self.connection = visitor.handshake(domain, context)
        assert self.connection.selected_alpn_protocol() == "h2"
        self.connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(SETTINGS, 0, 0, b"")

    def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, *, ends: bool = False) -> int:
        """Begin a request, and return the number of its stream.

        Args:
            method: the method.
            path: the path.
            headers: more headers, in lower case; the length of the body is in none unless it is said here.
            ends: whether there is no body.
        """
        stream, self.next = self.next, self.next + 2
        fields = {":method": method, ":scheme": "https", ":authority": self.domain, ":path": path, **(headers or {})}
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._send(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block)
        return stream

    def body(self, stream: int, size: int, *, ends: bool = False) -> None:
        """Send a part of a body; at most the 64 kB that a server takes without being asked."""
        while size > 0:
            part, size = min(size, FRAME), size - FRAME
            self._send(DATA, END_STREAM if ends and size <= 0 else 0, stream, b"x" * part)

    def read(self, seconds: float) -> None:
        """Read what comes until nothing has come for some time."""
        self.connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            while received := self.connection.recv(1 << 16):
                self.pending += received
                self._frames()
            self.over = True

    def _frames(self) -> None:
        while len(self.pending) >= 9:
            size, kind, flags, stream = (*_head(self.pending),)
            if len(self.pending) < 9 + size:
                return
            payload, self.pending = self.pending[9 : 9 + size], self.pending[9 + size :]
            if kind == HEADERS:
                self.answers.setdefault(stream, _status(payload))
            elif kind == DATA:
                self.bodies[stream] = self.bodies.get(stream, b"") + payload
            elif kind == RST_STREAM:
                self.answers.setdefault(stream, 0)
            elif kind == SETTINGS and not flags & ACK:
                self._send(SETTINGS, ACK, 0, b"")

    def _send(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        with contextlib.suppress(OSError):  # closed by the server
            self.connection.sendall(head + payload)


def _head(data: bytes) -> tuple[int, int, int, int]:
    kind, flags, stream = struct.unpack(">BBI", data[3:9])
    return int.from_bytes(data[:3], "big"), kind, flags, stream & 0x7FFFFFFF


def _text(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def _status(block: bytes) -> int:
    """The status, which is the first field: by its number, or as three digits. A table's new size may precede it."""
    while block[0] & 0xE0 == 0x20:
        block = block[1:]
    return STATUSES[block[0]] if block[0] & 0x80 else int(block[2:5])
