"""nginx's settings of some sites, rendered and read back, for the tests of templates."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rendering import render

GATE = "unix:/var/lib/nginx/gate/gate.sock"
HSTS = "Strict-Transport-Security"
DEBIAN = {"12": {"distribution_major_version": "12"}, "13": {"distribution_major_version": "13"}}


class Directive(NamedTuple):
    """One directive of nginx: its words, and what is between its braces."""

    words: list[str]
    block: list[Any]

    def all(self, *words: str) -> list[Directive]:
        """The directives directly in it that begin with these words."""
        return [item for item in self.block if item.words[: len(words)] == list(words)]

    def one(self, *words: str) -> Directive:
        """The only such directive."""
        found = self.all(*words)
        assert len(found) == 1, f"{words}: {found}"
        return found[0]

    def deep(self, *words: str) -> list[Directive]:
        """All such directives, also those in blocks."""
        return self.all(*words) + [found for item in self.block for found in item.deep(*words)]


def parse_nginx(text: str) -> Directive:
    """Read settings of nginx; an assertion fails where the braces do not match."""
    root = Directive([], [])
    stack, words = [root], []
    for token in re.findall(r"#[^\n]*|'[^']*'|\"[^\"]*\"|[{};]|[^\s{};]+", text):
        if token.startswith("#"):
            continue
        if token == "}":
            assert not words, f"no semicolon after {words}"
            assert len(stack) > 1, "a brace too many"
            stack.pop()
        elif token in ("{", ";"):
            directive = Directive(words, [])
            stack[-1].block.append(directive)
            words = []
            if token == "{":
                stack.append(directive)
        else:
            words.append(token.strip("'\""))
    assert stack == [root]
    assert not words
    return root


def site(name: str = "shop", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "domains": [f"{name}.test", f"www.{name}.test", f"old.{name}.test"],
        "socket": f"/srv/{name}/live.sock",
        "certificate": f"/tls/{name}/fullchain.pem",
        "key": f"/tls/{name}/privkey.pem",
        "static_url": "/static/",
        "static_root": f"/srv/{name}/current/static",
        "body_mb": 16,
        "timeout": 30,
        "access_log": f"/logs/{name}.log",
        "gate_address": GATE,
        "gate_socket": f"/srv/{name}/gate.sock",
        "maintenance": f"/srv/{name}/maintenance",
        "hsts_map": f"/tls/{name}/hsts.map",
        **changes,
    }


#: A site whose app has nginx send its files.
FILES = {
    "protected_url": "/private.files/",
    "protected_root": "/srv/shop/data/uploads",
    "protected_top": "/srv/shop",
    "error_log": "/logs/shop.error.log",
}


def bare(*args: str) -> dict[str, Any]:
    """A site without what may be left out: no gate, no maintenance page, and no header of nginx's."""
    optional = ("gate_address", "gate_socket", "maintenance", "hsts_map")
    return {key: value for key, value in site(*args).items() if key not in optional}


def nginx(*sites: dict[str, Any], debian: str = "13", **variables: Any) -> Directive:
    return parse_nginx(render("nginx", "nginx.conf.j2", DEBIAN[debian], nginx_sites=list(sites), **variables)).one(
        "http"
    )


def server(http: Directive, name: str, port: str) -> Directive:
    """The server that answers to a name on a port."""
    found = [
        item
        for item in http.all("server")
        if name in item.one("server_name").words[1:] and any(port in line.words for line in item.all("listen"))
    ]
    assert len(found) == 1
    return found[0]


def proxied(http: Directive) -> list[Directive]:
    return [item for item in http.deep("location") if item.all("proxy_pass")]


def everything(**changes: Any) -> dict[str, Any]:
    """A site with all kinds of names."""
    domains = ["shop.test", "www.shop.test", "*.shop.test", "203.0.113.5", "2001:db8::5"]
    return site(
        **{
            "domains": domains,
            "redirects": ["www.shop.test", "203.0.113.5", "2001:db8::5"],
            "wildcards": ["*.shop.test"],
            "addresses": domains[3:],
            **changes,
        }
    )


def over_tls(http: Directive) -> list[Directive]:
    """The servers with a certificate."""
    return [item for item in http.all("server") if item.all("ssl_certificate")]


def names(item: Directive) -> list[str]:
    return item.one("server_name").words[1:]
