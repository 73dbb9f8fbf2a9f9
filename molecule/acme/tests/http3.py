"""A visitor who speaks HTTP/3.

Debian's curl is built on OpenSSL's QUIC, which at times leaves a request unsent and waits for ever (curl's issue
18336).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent


class _Request(QuicConnectionProtocol):
    """A connection for one request.

    Attributes:
        headers: those of the answer, once it is there.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = H3Connection(self._quic)
        self.headers: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: QuicEvent) -> None:
        """Take in what the server has sent."""
        if self.headers.done():
            return
        if isinstance(event, ConnectionTerminated):
            self.headers.cancel()
        for part in self._http.handle_event(event):
            if isinstance(part, HeadersReceived) and not self.headers.done():
                self.headers.set_result({name.decode(): value.decode() for name, value in part.headers})

    def send(self, domain: str, path: str) -> None:
        """Ask for a path."""
        words = {":method": "GET", ":scheme": "https", ":authority": domain, ":path": path}
        headers = [(name.encode(), value.encode()) for name, value in words.items()]
        self._http.send_headers(self._quic.get_next_available_stream_id(), headers, end_stream=True)
        self.transmit()


async def _ask(address: str, domain: str, path: str) -> dict[str, str]:
    settings = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=domain, verify_mode=ssl.CERT_NONE, idle_timeout=10
    )
    try:
        async with (
            asyncio.timeout(10),
            connect(address, 443, configuration=settings, create_protocol=_Request) as request,
        ):
            request.send(domain, path)
            return await request.headers
    except (ConnectionError, TimeoutError, asyncio.CancelledError):
        return {}


def ask_by_http3(address: str, domain: str, path: str = "/") -> dict[str, str]:
    """Ask a host for a page by HTTP/3 and nothing else; the certificate is not checked.

    Args:
        address: the host's own address: UDP's port is not published.
        domain: the name in the handshake and in the request.
        path: the path.

    Returns:
        The headers of the answer with ``:status``; empty where there was none within 10 s.
    """
    return asyncio.run(_ask(address, domain, path))
