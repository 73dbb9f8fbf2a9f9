"""What the scenarios' tests share: which of them run, visits to the sites from outside, the journal after a failure."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any

import pytest
from runs import NIGHTLY


@dataclass
class Answer:
    """An answer of a site.

    Attributes:
        status: the status.
        headers: the headers, their names in lower case; the last value where one comes twice.
        cookies: the cookies set, by name.
        body: the body.
    """

    status: int
    headers: dict[str, str]
    cookies: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Visitor:
    """Somebody outside, who reaches a host by its published ports as if by its public address.

    Attributes:
        ports: the published port of each port of the host.
        cookies: what the visitor has been given, as a browser keeps it.
    """

    ports: dict[int, int]
    cookies: dict[str, str] = field(default_factory=dict)

    def connect(self, port: int = 443) -> socket.socket:
        """Open a plain connection to a port of the host."""
        return socket.create_connection(("127.0.0.1", self.ports[port]), timeout=15)

    def handshake(self, domain: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a TLS connection; the certificate is ours and not checked."""
        if not context:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(self.connect(443), server_hostname=domain)

    def ask(
        self,
        url: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: str | None = None,
        timeout: float = 15,
    ) -> Answer:
        """Ask for a URL without following redirects.

        Args:
            url: such as ``https://guestbook.test/readyz``.
            method: the method.
            headers: headers on top; ``Host`` among them to lie about the name.
            body: the body, sent as a form.
            timeout: how long to wait for each part of the answer, in seconds.

        Returns:
            The answer.
        """
        scheme, domain, path = re.fullmatch(r"(https?)://([^/]+)(/.*)", url).groups()
        connection = http.client.HTTPConnection(domain, timeout=15)
        connection.sock = self.handshake(domain) if scheme == "https" else self.connect(80)
        connection.sock.settimeout(timeout)
        wanted = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            wanted["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body=body, headers={**wanted, **(headers or {})})
        response = connection.getresponse()
        given = dict(
            line.split(";", 1)[0].split("=", 1) for line in response.headers.get_all("Set-Cookie") or [] if "=" in line
        )
        self.cookies.update(given)
        answer = Answer(
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            given,
            response.read().decode("utf-8", "replace"),
        )
        connection.close()
        return answer


@pytest.fixture
def visitor(host: Any) -> Visitor:
    """A visitor of the host."""
    published = host.ansible.get_variables()["published_ports"]
    return Visitor({int(port): int(here) for port, here in published.items()})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests with the marker ``nightly``, except in a nightly run."""
    left_out = [] if NIGHTLY else [item for item in items if item.get_closest_marker("nightly")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the host's last log lines to a test that failed."""
    outcome = yield
    report = outcome.get_result()
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host:
        try:
            log = host.run(
                "journalctl --namespace='*' --no-pager --lines=40; tail -n 10 /var/log/nginx/error.log"
            ).stdout
        except RuntimeError as error:
            # A test that fails with its host down must not end the others, nor hide why it failed.
            log = f"The host does not answer: {error}"
        report.sections.append(("the host's journals", log))
