"""The templates of the roles, rendered as Ansible does it, without a host: what in their logic can go wrong.

Whether nginx, nft, systemd and PostgreSQL do what the files say is tested on real hosts, with Molecule.
"""

from __future__ import annotations

import configparser
import gc
import json
import re
import sys
import time
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible.module_utils.flaskhost.deploy import slots
from ansible.module_utils.flaskhost.host.runner import temporary
from rendering import render

ROLES = Path(__file__).resolve().parents[3] / "roles"
GATE = "unix:/var/lib/nginx/gate/gate.sock"
DEBIAN = {"12": {"distribution_major_version": "12"}, "13": {"distribution_major_version": "13"}}


# --- nginx -----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("debian", "listens", "switch"),
    [
        ("12", [["listen", "443", "ssl", "http2"], ["listen", "[::]:443", "ssl", "http2"]], []),
        ("13", [["listen", "443", "ssl"], ["listen", "[::]:443", "ssl"]], [["http2", "on"]]),
    ],
)
def test_http2_in_the_form_that_this_nginx_knows(debian: str, listens: list[Any], switch: list[Any]) -> None:
    http = nginx(site(), debian=debian)
    for name in ("shop.test", "www.shop.test"):
        answering = server(http, name, "443")
        assert [item.words for item in answering.all("listen")] == listens
        assert [item.words for item in answering.all("http2")] == switch


@pytest.mark.parametrize("debian", DEBIAN)
def test_without_ipv6_nothing_listens_on_it(debian: str) -> None:
    assert nginx(site(), debian=debian, nginx_ipv6=True).deep("listen", "[::]:80")
    ports = {line.words[1] for line in nginx(site(), debian=debian, nginx_ipv6=False).deep("listen")}
    assert ports == {"80", "443", GATE}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_site_is_there_and_unknown_names_are_refused(count: int) -> None:
    http = nginx(*[bare(f"app{number}") for number in range(count)])
    refusing = [item for item in http.all("server") if any("default_server" in line.words for line in item.block)]
    assert len(refusing) == 2
    assert all(item.all("return", "444") for item in refusing), "also who shook hands under a known name"
    assert [item.all("ssl_reject_handshake", "on") != [] for item in refusing] == [False, True]
    assert len(http.all("upstream")) == count
    assert len(http.all("server")) == 2 + 3 * count
    for number in range(count):
        assert server(http, f"app{number}.test", "443").one("ssl_certificate_key").words[1] == (
            f"/tls/app{number}/privkey.pem"
        )


def test_other_names_redirect_to_the_first() -> None:
    http = nginx(site())
    plain = server(http, "www.shop.test", "80")
    assert plain.one("server_name").words[1:] == ["shop.test", "www.shop.test", "old.shop.test"]
    assert plain.one("location", "/").one("return").words == ["return", "301", "https://shop.test$request_uri"]
    other = server(http, "www.shop.test", "443")
    assert other.one("server_name").words[1:] == ["www.shop.test", "old.shop.test"]
    assert other.one("return").words[2].startswith("https://shop.test$")
    assert server(http, "shop.test", "443").one("server_name").words[1:] == ["shop.test"]


def test_a_site_with_one_name_has_nothing_to_redirect() -> None:
    http = nginx({**bare(), "domains": ["shop.test"]})
    assert len(http.all("server")) == 2 + 2


def test_challenges_are_answered_before_the_redirect() -> None:
    plain = server(nginx(site(), nginx_acme_root="/acme"), "shop.test", "80")
    challenge = plain.one("location", "^~", "/.well-known/acme-challenge/")
    assert challenge.one("location", "~").one("root").words[1] == "/acme"
    assert not plain.all("return"), "it would come before every location"


def test_a_challenge_is_a_file_with_the_name_of_a_token() -> None:
    challenge = server(nginx(site()), "shop.test", "80").one("location", "^~", "/.well-known/acme-challenge/")
    assert challenge.one("return").words[1] == "404"
    place = challenge.one("location", "~")
    folder = "/.well-known/acme-challenge/"
    # The token of RFC 8555, 8.1.
    assert re.search(place.words[2], f"{folder}LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0")
    assert re.search(place.words[2], f"{folder}a-b_c")
    for other in ("", ".hidden", "folder/file", "../../secret", "a.txt"):
        assert not re.search(place.words[2], folder + other)
    assert not place.one("types").block, "whatever it is called, it is plain text"


def proxied(http: Directive) -> list[Directive]:
    return [item for item in http.deep("location") if item.all("proxy_pass")]


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Proto",
        # gunicorn goes by this one too, and answers 400 where it contradicts the one above.
        "X-Forwarded-Protocol",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Real-IP",
        "X-Script-Name",
        "X-Original-URL",
        "X-Rewrite-URL",
    ],
)
def test_no_forwarded_header_comes_from_a_visitor(header: str) -> None:
    """In each place that hands a request on: one proxy_set_header there takes away all that stand further out."""
    places = proxied(nginx(site(), site("hello")))
    assert len(places) == 6, "for visitors, for what is no static file, and for the gate"
    for place in places:
        value = place.one("proxy_set_header", header).words[2]
        assert "$http_" not in value
        assert "$proxy_add" not in value


def test_what_the_app_learns_of_the_request() -> None:
    sent = {item.words[1]: item.words[2] for item in proxied(nginx(site()))[0].all("proxy_set_header")}
    assert sent["X-Forwarded-For"] == "$remote_addr"
    assert sent["X-Forwarded-Proto"] == "$scheme"
    assert sent["Host"] == sent["X-Forwarded-Host"]
    assert sent["Host"].startswith("$host")
    assert sent["Connection"] == "", "a connection to the app is kept"
    assert not [value for value in sent.values() if "$http_" in value]


def test_the_port_beside_the_host_is_digits_and_nothing_else() -> None:
    mapping = nginx().one("map", "$http_host")
    (pattern,) = [item.words for item in mapping.block if item.words[0].startswith("~")]
    allowed = re.compile(pattern[0].removeprefix("~").replace("(?<", "(?P<"))
    found = allowed.search("shop.test:8443")
    assert found
    assert found["port"] == ":8443"
    for wrong in ("shop.test", "shop.test:8443.evil.test", "shop.test:80/evil", "shop.test:"):
        assert not allowed.search(wrong)


def test_the_upstream_follows_the_live_link() -> None:
    upstream = nginx(site()).one("upstream", "flask-shop")
    assert upstream.one("server").words[1:] == ["unix:/srv/shop/live.sock", "max_fails=0"]
    # A connection is put aside until it is this old, and used again until it has idled this long: the slot that served
    # before is stopped only after both.
    times = [upstream.one(name).words[1] for name in ("keepalive_time", "keepalive_timeout")]
    assert sum(int(text.removesuffix("ms")) for text in times) < slots.KEEPALIVE_SECONDS * 1000
    assert int(upstream.one("keepalive").words[1]) > 0
    place = proxied(nginx(site()))[0]
    assert place.one("proxy_pass").words[1] == "http://flask-shop"
    assert place.one("proxy_http_version").words[1] == "1.1"


def test_the_static_folder_cannot_be_left() -> None:
    """Without a slash at the end of both, /static../live.sock is a file beside the folder."""
    place = server(nginx(site(static_url="/assets/")), "shop.test", "443").one("location", "/assets/")
    assert place.one("alias").words[1] == "/srv/shop/current/static/"
    assert place.one("error_page").words[1:] == ["404", "=", "@app"]


def test_the_body_limit_is_the_sites() -> None:
    http = nginx(site(body_mb=3), site("hello"))
    assert server(http, "shop.test", "443").one("client_max_body_size").words[1] == "3m"
    assert server(http, "hello.test", "443").one("client_max_body_size").words[1] == "16m"


def test_queries_are_not_logged() -> None:
    http = nginx()
    log_format = " ".join(http.one("log_format").words)
    for leak in ("$request ", '$request"', "$request_uri", "$args", "$query_string", "$http_referer", "$http_cookie"):
        assert leak not in log_format
    assert "escape=json" in log_format
    assert '"path":"$flaskhost_path"' in log_format
    (pattern,) = [item.words[0] for item in http.one("map", "$request_uri").block if item.words[0].startswith("~")]
    kept = re.compile(pattern.removeprefix("~").replace("(?<", "(?P<"))
    for asked, path in (("/a/b?token=secret", "/a/b"), ("/a%3Fb?c?d", "/a%3Fb"), ("/a", "/a"), ("?token=secret", "")):
        found = kept.search(asked)
        assert found
        assert found["path"] == path


def test_the_log_names_the_release_and_its_file_is_the_sites() -> None:
    http = nginx(site())
    assert '"release":"$upstream_http_server"' in " ".join(http.one("log_format").words)
    assert not [item for item in http.deep("proxy_pass_header") if "Server" in item.words], "visitors do not learn it"
    for name, port in (("shop.test", "443"), ("www.shop.test", "443"), ("shop.test", "80")):
        assert server(http, name, port).one("access_log").words[1:] == ["/logs/shop.log", "flaskhost_json"]


def test_the_gate_is_asked_like_the_site() -> None:
    """As if over HTTPS: else an app that forces HTTPS answers with a redirect."""
    http = nginx(site(), site("my-blog"))
    for name in ("shop", "my-blog"):
        gate, visitors = server(http, f"{name}.test", GATE), server(http, f"{name}.test", "443")
        assert gate.one("server_name").words[1:] == [f"{name}.test"], "the other names redirect"
        assert gate.one("access_log").words[1] == "off"
        (place,), (real, missing) = proxied(gate), proxied(visitors)
        assert missing.block == real.block
        assert place.one("proxy_pass").words[1] == f"http://flask-{name}_gate"
        upstream = http.one("upstream", f"flask-{name}_gate")
        assert [item.words for item in upstream.block] == [["server", f"unix:/srv/{name}/gate.sock", "max_fails=0"]]
        sent, usual = ({item.words[1]: item.words[2] for item in at.all("proxy_set_header")} for at in (place, real))
        # A client on a unix socket has no address, which an app could not read.
        client = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"}
        assert sent == {**usual, **client, "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}
        assert place.one("proxy_read_timeout") == real.one("proxy_read_timeout")


def test_an_unknown_name_is_refused_at_the_gate() -> None:
    http = nginx(site(), site("hello"), site("elsewhere", gate_address="unix:/run/other.sock"), bare("open"))
    for address in (GATE, "unix:/run/other.sock"):
        (refusing,) = [item for item in http.all("server") if item.all("listen", address, "default_server")]
        assert refusing.one("return").words[1] == "444"
        assert not refusing.all("location")
    assert len(http.deep("listen", GATE)) == 3


def test_without_a_gate_nothing_listens_for_it() -> None:
    for item in (bare(), site(gate_address="", gate_socket="")):
        http = nginx(item)
        assert {line.words[1] for line in http.deep("listen")} == {"80", "[::]:80", "443", "[::]:443"}
        assert len(http.all("upstream")) == 1


def test_the_page_closes_the_site_and_not_the_gate() -> None:
    """What the directives do is tested with a real nginx, in the scenario deploy."""
    http = nginx(site(), site("my-blog"))
    for name in ("shop", "my-blog"):
        page = f"/srv/{name}/maintenance/page.html"
        visitors = server(http, f"{name}.test", "443")
        assert (
            visitors.one("if", "(-f", f"{page})").one("set").words[2] == f"$flaskhost_{name.replace('-', '_')}_closed"
        )
        assert visitors.one("error_page").words[1:] == ["503", page]
        assert visitors.one("location", "=", page).all("internal")
        for place in ("/", "@app"):
            assert not visitors.one("location", place).all("error_page"), "an app's own 503 stays its own"
        for address, port in ((GATE, "gate"), ("80", "challenges")):
            assert "maintenance" not in str(server(http, f"{name}.test", address)), port
    assert "proxy_intercept_errors" not in str(http)


def test_settings_of_the_page_may_be_missing() -> None:
    """nginx refuses to start where a file is missing, unless its name is a pattern."""
    includes = [item.words[1] for item in nginx(site()).deep("include") if "/srv/" in item.words[1]]
    assert len(includes) == 3
    assert all("*" in path for path in includes)


@pytest.mark.parametrize("without", [bare(), site(maintenance="", hsts_map="")])
def test_a_site_without_a_maintenance_page(without: dict[str, Any]) -> None:
    http = nginx(without)
    assert not http.deep("if")
    assert not http.deep("error_page", "503")
    assert not http.all("map", "on")


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


LEFT_OUT = {key: value for key, value in everything().items() if key != "redirects"}


@pytest.mark.parametrize("wanted", [everything(), everything(redirects=None), LEFT_OUT])
def test_every_name_but_a_wildcard_redirects(wanted: dict[str, Any]) -> None:
    http = nginx(wanted)
    others = ["www.shop.test", "203.0.113.5", "[2001:db8::5]"]
    assert names(server(http, "www.shop.test", "443")) == others
    assert names(server(http, "www.shop.test", "80")) == ["shop.test", *others]
    assert names(server(http, "shop.test", "443"))[0] == "shop.test"


def test_the_app_answers_a_wildcard_and_port_80_keeps_the_name() -> None:
    http = nginx(everything())
    (pattern,) = names(server(http, "shop.test", "443"))[1:]
    assert pattern.startswith("~^")
    kept = server(http, pattern, "80")
    assert kept.one("location", "/").one("return").words == ["return", "301", "https://$host$request_uri"]
    assert kept.one("location", "^~", "/.well-known/acme-challenge/")
    allowed = re.compile(pattern.removeprefix("~"))
    assert allowed.search("tenant-1.shop.test")
    # nginx lets such hosts pass, and a browser that is sent to the third one asks evil.test.
    for wrong in (
        "shop.test",
        "a.b.shop.test",
        "evil.test?.shop.test",
        "evil.test#.shop.test",
        "a.shopxtest",
        "a.shop.test.evil.test",
    ):
        assert not allowed.search(wrong), wrong


def test_nothing_but_wildcards_redirects_to_the_name_that_was_asked_for() -> None:
    targets = [item.words[2] for item in nginx(everything(), site("hello")).deep("return", "301")]
    assert len(targets) == 5
    assert {target.split("$", 1)[0] for target in targets} == {"https://shop.test", "https://hello.test", "https://"}
    assert [target for target in targets if target.startswith("https://$")] == ["https://$host$request_uri"]


def test_who_asks_for_an_address_gets_the_sites_certificate() -> None:
    """Such a client sends no name, so it meets the default server; names that no site has are refused elsewhere."""
    http = nginx(site("hello"), everything())
    (default,) = [item for item in http.all("server") if item.all("listen", "443", "ssl", "default_server")]
    assert default.one("ssl_certificate").words[1] == "/tls/shop/fullchain.pem"
    assert default.one("ssl_certificate_key").words[1] == "/tls/shop/privkey.pem"
    assert default.one("return").words[1] == "444"
    assert not default.all("ssl_reject_handshake")
    last = http.block[-1]
    assert names(last) == ["~."], "after every other pattern, also those of conf.d"
    assert last.all("ssl_reject_handshake", "on")
    assert last.one("return").words[1] == "444"


def test_an_address_may_be_the_canonical_name() -> None:
    http = nginx(site(domains=["2001:db8::5"], redirects=[], addresses=["2001:db8::5"]))
    assert proxied(server(http, "[2001:db8::5]", "443"))
    plain = server(http, "[2001:db8::5]", "80")
    assert plain.one("location", "/").one("return").words[2] == "https://[2001:db8::5]$request_uri"
    assert names(server(http, "[2001:db8::5]", GATE)) == ["[2001:db8::5]"]


HSTS = "Strict-Transport-Security"


def test_every_answer_over_tls_says_what_the_map_says() -> None:
    """A place with an add_header of its own has none of those further out."""
    http = nginx(everything(), site("my-blog"), nginx_http3=True)
    servers = over_tls(http)
    assert len(servers) == 5
    for item in servers:
        for place in [item, *item.deep("location")]:
            if place is item or place.all("add_header"):
                variable = "my_blog" if "my-blog" in str(item) else "shop"
                assert place.one("add_header", HSTS).words[2:] == [f"$flaskhost_{variable}_hsts", "always"]
                offers = [line.words[2:] for line in place.all("add_header", "Alt-Svc")]
                # The default server answers only what is no HTTP.
                assert offers == ([] if item.all("return", "444") else [['h3=":443"; ma=86400', "always"]])
    for name in ("shop", "my-blog"):
        mapping = http.one("map", "on", f"$flaskhost_{name.replace('-', '_')}_hsts")
        # A second default would be an error, so the file alone has one. Its name is a pattern: it may be missing.
        assert [item.words for item in mapping.block] == [["include", f"/tls/{name}/hsts.ma[p]"]]


def test_no_answer_without_tls_and_no_gate_speaks_of_it() -> None:
    """RFC 6797, 7.2."""
    http = nginx(everything(), site("my-blog"), nginx_http3=True)
    for item in http.all("server"):
        if item not in over_tls(http):
            assert not item.deep("add_header")


def test_the_apps_own_header_is_replaced_where_nginx_has_one() -> None:
    for item, ours in ((site(), True), (bare(), False)):
        answering = server(nginx(item), "shop.test", "443")
        assert (answering.all("add_header", HSTS) != []) is ours
        for place in proxied(answering):
            assert (place.all("proxy_hide_header", HSTS) != []) is ours, "else there are none, or two"
            assert place.all("proxy_hide_header", "X-Content-Type-Options")


def test_no_browser_guesses_what_an_answer_is() -> None:
    for item in (site(), bare()):
        servers = over_tls(nginx(item))
        assert len(servers) == 2
        for place in [*servers, *(found for item in servers for found in item.deep("location"))]:
            if place in servers or place.all("add_header"):
                assert place.one("add_header", "X-Content-Type-Options").words[2:] == ["nosniff", "always"]


def test_what_the_app_answers_is_compressed_only_when_asked_for() -> None:
    for changes, found in (({}, True), ({"compress": False}, True), ({"compress": True}, False)):
        visitors = server(nginx(site(**changes)), "shop.test", "443")
        assert [place.all("gzip", "off") != [] for place in proxied(visitors)] == [found, found]
        assert not visitors.one("location", "/static/").all("gzip")


@pytest.mark.parametrize("debian", DEBIAN)
def test_the_policy_decides_what_clients_may_speak(debian: str) -> None:
    intermediate = nginx(site(), debian=debian)
    assert intermediate.one("ssl_protocols").words[1:] == ["TLSv1.2", "TLSv1.3"]
    ciphers = intermediate.one("ssl_ciphers").words[1].split(":")
    assert len(ciphers) == 6
    assert all(cipher.startswith("ECDHE-") and ("GCM" in cipher or "POLY1305" in cipher) for cipher in ciphers)
    modern = nginx(site(), debian=debian, nginx_tls_policy="modern")
    assert modern.one("ssl_protocols").words[1:] == ["TLSv1.3"]
    for http in (intermediate, modern):
        groups = http.one("ssl_ecdh_curve").words[1].split(":")
        # nginx with OpenSSL 3.0 does not start with any other.
        assert groups == {"12": [], "13": ["?X25519MLKEM768"]}[debian] + ["X25519", "prime256v1", "secp384r1"]
        assert http.one("ssl_session_tickets").words[1] == "off"
        assert http.one("ssl_prefer_server_ciphers").words[1] == "off"
        assert not http.deep("ssl_stapling")


def test_a_challenge_that_is_not_here_is_asked_of_the_other_hosts() -> None:
    http = nginx(everything(), site("hello"), nginx_acme_peers=["192.0.2.12", "2001:db8::12"])
    upstream = http.one("upstream", "flaskhost_acme_peers")
    assert [item.words[1] for item in upstream.block] == ["192.0.2.12:80", "[2001:db8::12]:80"]
    plain = [item for item in http.all("server") if item.all("location", "^~", "/.well-known/acme-challenge/")]
    assert len(plain) == 3
    for item in plain:
        token = item.one("location", "^~", "/.well-known/acme-challenge/").one("location", "~")
        assert token.one("error_page").words[1:] == ["404", "=", "@acme_peers"]
        asked = item.one("location", "@acme_peers")
        assert asked.one("proxy_pass").words[1] == "http://flaskhost_acme_peers"
        assert "http_404" in asked.one("proxy_next_upstream").words
        assert asked.one("proxy_set_header", "Host").words[2] == "$host"
        assert asked.one("proxy_connect_timeout").words[1] == "2s"
        # Nothing counts what a visitor sends to port 80.
        for place in (token, asked):
            assert place.one("client_max_body_size").words[1] == "1k"


def test_a_peer_that_is_asked_asks_nobody() -> None:
    asked = server(nginx(site(), nginx_acme_peers=["192.0.2.12"]), "shop.test", "80").one("location", "@acme_peers")
    (condition,) = asked.all("if")
    (header,) = [item.words[1] for item in asked.all("proxy_set_header") if item.words[2] == "1"]
    assert condition.words[1] == f"($http_{header.lower().replace('-', '_')})"
    assert condition.one("return").words[1] == "404"


@pytest.mark.parametrize("peers", [[], ["web2.example.test", "192.0.2.1:80", "fe80::1%eth0", ""]])
def test_nginx_starts_whatever_the_peers_are_called(peers: list[str]) -> None:
    """It does not where a name in an upstream cannot be looked up, nor with an upstream that has no server."""
    http = nginx(site(), nginx_acme_peers=peers)
    assert not http.all("upstream", "flaskhost_acme_peers")
    assert "acme_peers" not in str(http)


def test_http3_is_offered_where_nginx_has_it_and_it_is_asked_for() -> None:
    for http in (nginx(everything()), nginx(everything(), debian="12", nginx_http3=True)):
        for trace in ("quic", "http3", "Alt-Svc", "quic_retry"):
            assert trace not in str(http)
    http = nginx(everything(), site("hello"), nginx_http3=True)
    for address in ("443", "[::]:443"):
        udp = [item.words[3:] for item in http.deep("listen", address, "quic")]
        assert len(udp) == len(http.deep("listen", address, "ssl")) == 6
        assert [words for words in udp if words] == [["reuseport", "default_server"]], "once for each address"
    assert http.one("quic_retry").words[1] == "on"
    assert http.one("ssl_early_data").words[1] == "off"
    assert not nginx(everything(), nginx_http3=True, nginx_ipv6=False).deep("listen", "[::]:443")


FRONT = {
    "rate": 20,
    "burst": 100,
    "connections": 150,
    "login_paths": ["/login", "/auth/log-in.html/"],
    "login_rate": 10,
    "basic_auth": {"ada": "$6$salt$hash"},
    "allow": ["203.0.113.0/24", "2001:db8::/32"],
    "noindex": True,
    "methods": ["GET", "HEAD", "POST"],
    "csp": "default-src 'self'; frame-ancestors 'none'",
    "headers": {"x-frame-options": "DENY", "Cross-Origin-Opener-Policy": "", "X-Quoted": 'a "b"'},
}


def serving(http: Directive, name: str = "shop.test") -> list[Directive]:
    """The places of a site that hand something out: files, or what the app answers."""
    return [item for item in server(http, name, "443").all("location") if item.all("proxy_pass") or item.all("expires")]


def test_a_site_that_says_nothing_has_no_limits_and_is_for_everybody() -> None:
    text = str(nginx(bare()))
    for trace in (
        "limit_req_zone",
        "limit_conn_zone",
        "'limit_req'",
        "'limit_conn'",
        "'allow'",
        "auth_basic",
        "htpasswd",
    ):
        assert trace not in text
    assert "X-Robots-Tag" not in text
    assert "Content-Security-Policy" not in text


def test_what_reaches_the_app_is_counted_for_each_site_and_address() -> None:
    http = nginx(site(**FRONT), site("my-blog", rate=5))
    assert http.one("limit_req_status").words[1] == http.one("limit_conn_status").words[1] == "429"
    zones = {item.words[2].split(":")[0]: item.words for item in http.all("limit_req_zone")}
    assert zones["zone=flaskhost_shop_rate"][1:] == ["$flaskhost_client", "zone=flaskhost_shop_rate:10m", "rate=20r/s"]
    assert zones["zone=flaskhost_my_blog_rate"][3] == "rate=5r/s"
    for place in proxied(server(http, "shop.test", "443")):
        limits = [item.words[1:] for item in place.all("limit_req")]
        assert limits == [
            ["zone=flaskhost_shop_rate", "burst=100", "nodelay"],
            ["zone=flaskhost_shop_login", "burst=9", "nodelay"],
        ]
    assert [item.words[1:] for item in serving(http, "my-blog.test")[-1].all("limit_req")] == [
        ["zone=flaskhost_my_blog_rate", "nodelay"]
    ]
    assert server(http, "shop.test", "443").one("limit_conn").words[1:] == ["flaskhost_shop_connections", "150"]
    for port in ("80", GATE):
        assert "limit_" not in str(server(http, "shop.test", port)), "a gate that refuses would stop every deploy"


def test_what_an_address_can_put_on_the_disk_is_bounded() -> None:
    http = nginx(site(**FRONT, uploads=8), site("my-blog", uploads=0))
    assert server(http, "shop.test", "443").all("limit_conn")[-1].words[1:] == ["flaskhost_uploads", "8"]
    assert not server(http, "my-blog.test", "443").all("limit_conn")
    assert http.one("proxy_max_temp_file_size").words[1] == "2m"
    mapping = http.one("map", "$request_method:$http_transfer_encoding:$http_content_length")
    uncounted = [item.words[0].removeprefix("~") for item in mapping.block if item.words[1] == ""]
    for request, counted in {
        "GET::": False,
        "HEAD::": False,
        "POST::999999": False,
        "POST::1000000": True,
        "GET::16000000": True,
        "POST:chunked:": True,
        "GET:chunked:": True,
        "POST:chunked:5": True,
        # Over HTTP/2 a body needs no length.
        "POST::": True,
    }.items():
        assert any(re.search(pattern, request) for pattern in uncounted) != counted, request


def test_what_is_not_counted_has_no_body_or_a_small_one() -> None:
    http = nginx(site(**FRONT, uploads=8), site("my-blog", uploads=0))
    words = "$server_protocol:$request_method:$http_transfer_encoding:$http_content_length"
    (pattern,) = [
        item.words[0].removeprefix("~") for item in http.one("map", words).block if item.words[0] != "default"
    ]
    for request, small in {
        "HTTP/2.0:GET::": True,
        "HTTP/3.0:DELETE::": True,
        "HTTP/2.0:GET::16000000": False,
        "HTTP/2.0:POST::": False,
        # Without a length there is no body.
        "HTTP/1.1:GET::": False,
    }.items():
        assert bool(re.search(pattern, request)) == small, request
    shop, blog = server(http, "shop.test", "443"), server(http, "my-blog.test", "443")
    main, small_, large = (shop.one("location", name) for name in ("/", "@app", "@with_bodies"))
    assert [item.words[1:] for item in main.all("error_page")] == [["418", "=", "@app"]]
    assert main.one("if", "($flaskhost_bodiless)").one("return").words[1] == "418"
    assert main.one("try_files").words[-1] == "@with_bodies"
    # A return answers before anybody is asked who they are.
    assert not any(main.all(name) for name in ("allow", "deny", "auth_basic", "proxy_pass"))
    assert small_.one("client_max_body_size").words[1] == "8k"
    assert not large.all("client_max_body_size")
    for name in ("limit_req", "auth_basic", "allow", "deny", "proxy_pass", "proxy_set_header"):
        found = [[item.words for item in place.all(name)] for place in (large, small_)]
        assert found[0] == found[1], name
    assert not blog.deep("if", "($flaskhost_bodiless)")
    assert not blog.one("location", "@app").all("client_max_body_size")


def test_an_ipv6_visitor_counts_with_its_network() -> None:
    mapping = nginx().one("map", "$binary_remote_addr")
    (pattern,) = [item.words[0] for item in mapping.block if item.words[0].startswith("~")]
    found = re.compile(pattern.removeprefix("~").replace("(?<", "(?P<").encode())
    network = bytes([0x20, 1, 0xD, 0xB8, 0, 0xA, 0, 1])
    match = found.search(network + b"\n" * 8)
    assert match
    assert match["flaskhost_network"] == network
    assert not found.search(bytes([203, 0, 113, 5])), "an IPv4 address is the whole of it"


def test_a_log_in_is_told_by_its_path_and_method() -> None:
    mapping = nginx(site(**FRONT)).one("map", "$request_method:$uri")
    assert mapping.block[0].words == ["default", ""], "what is not counted has no name"
    counted = re.compile(mapping.block[1].words[0].removeprefix("~"))
    for request in ("POST:/login", "POST:/login/", "POST:/auth/log-in.html"):
        assert counted.search(request)
    for request in ("GET:/login", "POST:/login/x", "POST:/a/login", "POST:/auth/log-inxhtml", "POST:/"):
        assert not counted.search(request)
    for changes in ({"login_rate": 0}, {"login_paths": []}):
        assert "flaskhost_shop_login" not in str(nginx(site(**{**FRONT, **changes})))


@pytest.mark.parametrize("name", ["shop.test", "www.shop.test"])
def test_no_place_loses_a_header(name: str) -> None:
    """A place with an add_header of its own has none of those further out."""
    answering = server(nginx(site(**FRONT)), name, "443")
    wanted = {"X-Content-Type-Options", "Content-Security-Policy", "Permissions-Policy", "Referrer-Policy"}
    wanted |= {"x-frame-options", "X-Quoted", "X-Robots-Tag", HSTS}
    for place in [answering, *answering.deep("location")]:
        found = [item.words[1] for item in place.all("add_header")]
        if place is answering or found:
            assert wanted <= set(found), place.words
            assert len(found) == len(set(found)), "each once"
            assert all(item.words[-1] == "always" for item in place.all("add_header")), "on errors too"


def test_the_apps_own_word_wins() -> None:
    http = nginx(site(**FRONT), site("my-blog"))
    values = {item.words[1]: item for item in http.all("map") if item.words[1].startswith("$sent_http_")}
    assert "$sent_http_content_security_policy" in values
    for item in http.all("map"):
        if item.words[1].startswith("$sent_http_"):
            assert [line.words[0] for line in item.block] == ["default", ""], "ours only where there is none"
            assert item.block[0].words[1] == ""
    frames = [item.block[1].words[1] for item in http.all("map", "$sent_http_x_frame_options")]
    assert frames == ["DENY", "SAMEORIGIN"]
    # The site has taken it away; the other one has it.
    (opener,) = http.all("map", "$sent_http_cross_origin_opener_policy")
    assert opener.words[2] == "$flaskhost_my_blog_header_cross_origin_opener_policy"
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"], nginx_sites=[site(**FRONT)])
    assert '"" "a \\"b\\"";' in text, "a quote in a value does not end it"
    assert """"" "default-src 'self'; frame-ancestors 'none'";""" in text


def test_who_may_see_it_is_asked_in_every_place_that_serves() -> None:
    http = nginx(site(**FRONT), site("my-blog"))
    places = serving(http)
    assert len(places) == 3
    for place in places:
        assert [item.words[1] for item in place.all("allow")] == FRONT["allow"]
        assert place.one("deny").words[1] == "all"
        assert place.one("auth_basic_user_file").words[1] == "/etc/nginx/shop.htpasswd"
        assert not place.all("satisfy"), "both are asked for"
        if place.all("proxy_pass"):
            assert place.one("proxy_set_header", "Authorization").words[2] == ""
    for port in ("80", GATE):
        assert "auth_basic" not in str(server(http, "shop.test", port))
    assert not serving(http, "my-blog.test")[0].all("auth_basic")
    assert "$6$" not in str(http), "the hashes are in a file of their own"


def test_search_engines_are_told_whatever_the_app_says() -> None:
    answering = server(nginx(site(**FRONT)), "shop.test", "443")
    assert answering.one("add_header", "X-Robots-Tag").words[2] == "noindex, nofollow"
    assert all(place.all("proxy_hide_header", "X-Robots-Tag") for place in proxied(answering))


def test_other_methods_are_refused_and_told_what_works() -> None:
    answering = server(nginx(site(**FRONT)), "shop.test", "443")
    (condition,) = answering.all("if", "($request_method")
    pattern = re.compile(re.search(r'"(.*)"', render("nginx", "nginx.conf.j2", DEBIAN["13"],
                                                   nginx_sites=[site(**FRONT)]).split("$request_method !~ ")[1])[1])  # type: ignore[index]  # fmt: skip
    assert [bool(pattern.search(word)) for word in ("GET", "POST", "PUT", "GETS", "TRACE")] == [True, True] + [
        False
    ] * 3
    assert condition.one("return").words[1] == "405"
    assert condition.one("set", "$flaskhost_allow").words[2] == "GET, HEAD, POST"
    assert answering.one("add_header", "Allow").words[2] == "$flaskhost_allow"


def test_hidden_files_are_not_there() -> None:
    place = server(nginx(site()), "shop.test", "443").one("location", "~")
    assert place.one("return").words[1] == "404"
    hidden = re.compile(place.words[2])
    for path in ("/.env", "/static/.git/config", "/.well-known", "/.well-known/.git", "/a/.htaccess"):
        assert hidden.search(path), path
    for path in ("/", "/a.b", "/.well-known/security.txt", "/files/report.2026.pdf"):
        assert not hidden.search(path), path


def test_who_waits_is_told_for_how_long_only_by_nginx_itself() -> None:
    http = nginx(site(**FRONT))
    values = {item.words[0]: item.words[1] for item in http.one("map", "$status:$upstream_status").block}
    assert values == {"default": "", "429:": "1"}
    assert server(http, "shop.test", "443").one("add_header", "Retry-After").words[2] == "$flaskhost_retry_after"


def test_a_slow_client_does_not_hold_a_place_for_long() -> None:
    http = nginx(site())
    for name, most in (("client_header_timeout", 15), ("client_body_timeout", 30), ("send_timeout", 30)):
        assert 5 <= int(http.one(name).words[1].removesuffix("s")) <= most
    assert "proxy_request_buffering" not in str(http), "the app gets whole requests"


# --- fail2ban --------------------------------------------------------------------------------------------------------

#: What fail2ban puts in the place of <ADDR>: its RE_IP4 and RE_IP6 in ipdns.py and failregex.py.
ADDRESS = (
    r"(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
    r"|\[?(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|:){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):))\]?)"
)


def fail2ban_filter(mode: str) -> dict[str, str]:
    """The filter in one of its modes, as fail2ban reads it: <names> are replaced, and %% is a percent sign."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(render("fail2ban", "filter.conf.j2"))
    options = {**parser["Definition"], "mode": mode}
    for _round in range(8):
        for name, value in options.items():
            options[name] = re.sub(r"<([\w-]+)>", lambda tag: options.get(tag[1], tag[0]), value)
    return {name: value.replace("%%", "%").replace("<ADDR>", ADDRESS) for name, value in options.items()}


def banned(mode: str, *lines: str) -> list[str]:
    """Whose failures these lines are. The date is cut out before the line is compared, as fail2ban does it."""
    options = fail2ban_filter(mode)
    date = options["datepattern"].replace("%Y-%m-%dT%H:%M:%S%z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")
    found = []
    for line in lines:
        rest, cut = re.subn(date, "", line, count=1) if date else (line, 1)
        match = re.search(options["failregex"], rest) if cut else None
        if match:
            found.append(match["ip4"] or match["ip6"])
    return found


def access(path: str = "/", status: int = 404, address: str = "198.51.100.7", **changes: Any) -> str:
    """A line of the access log, in the form that nginx.conf.j2 gives it."""
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"]).partition("log_format flaskhost_json escape=json")[2]
    log_format = "".join(re.findall(r"'(.*)'", text.partition(";\n")[0]))
    values = {
        "time_iso8601": "2026-11-21T18:39:00+00:00",
        "request_id": "a34814a36d1ee12c106b7679bb6fb749",
        "remote_addr": address,
        "host": "shop.test",
        "flaskhost_method": "GET",
        "flaskhost_path": path,
        "server_protocol": "HTTP/2.0",
        "status": str(status),
        "body_bytes_sent": "162",
        "request_time": "0.003",
        "upstream_response_time": "0.002",
        "upstream_status": str(status),
        "flaskhost_login": "",
        "upstream_http_server": "20261121T183900-1a2b3c4",
        "http_user_agent": "curl/7.88.1",
        **changes,
    }
    return re.sub(r"\$(\w+)", lambda found: json.dumps(values[found[1]])[1:-1], log_format)


def test_the_lines_of_these_tests_are_those_of_the_log() -> None:
    # Written by nginx 1.22 with these settings.
    real = (
        '{"time":"2026-11-21T18:39:00+00:00","request_id":"a34814a36d1ee12c106b7679bb6fb749","remote_addr":"198.51.100.7",'
        '"host":"shop.test","method":"GET","path":"/","protocol":"HTTP/2.0","status":429,"bytes":162,"request_time":0.000,'
        '"upstream_time":"","upstream_status":"","login":"","release":"","user_agent":"curl/7.88.1"}'
    )
    empty = {"upstream_response_time": "", "upstream_status": "", "upstream_http_server": "", "request_time": "0.000"}
    assert access(status=429, **empty) == real
    assert banned("limits", real) == ["198.51.100.7"]


@pytest.mark.parametrize(
    "path",
    ["/wp-login.php", "/blog/xmlrpc.PHP", "/.env", "/a/.git/config", "/cgi-bin/luci", "/phpmyadmin/", "/%2e/.aws/x"],
)
def test_a_scanner_is_told_by_what_it_asks_for(path: str) -> None:
    assert banned("probes", access(path), access(path, 403, "2001:db8::7")) == ["198.51.100.7", "2001:db8::7"]
    assert banned("probes", access(path, 200), access(path, 302), access(path, 502)) == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/login",
        "/.well-known/security.txt",
        "/.well-known/acme-challenge/x",
        "/wp",
        "/php",
        "/a.phpx",
        "/solr-panels",
    ],
)
def test_a_visitor_who_is_lost_is_no_scanner(path: str) -> None:
    assert banned("probes", access(path)) == []


def test_missing_pages_count_and_missing_pictures_do_not() -> None:
    assert banned("missing", access("/nothing"), access("/a/b")) == ["198.51.100.7"] * 2
    assert banned("missing", access("/static/app.1a2b.css"), access("/favicon.ico"), access("/a.PNG")) == []
    assert banned("missing", access("/", 200), access("/", 500)) == []


def test_a_limit_counts_where_nginx_refused_and_not_the_app() -> None:
    assert banned("limits", access(status=429, upstream_status="", upstream_response_time="")) == ["198.51.100.7"]
    assert banned("limits", access(status=429), access(status=503, upstream_status="")) == []


@pytest.mark.parametrize("mode", ["probes", "missing", "limits", "login"])
@pytest.mark.parametrize("part", ["/.php", "/.a", ".css", "/", '"', "\\"])
def test_a_path_made_for_it_does_not_hold_up_fail2ban(mode: str, part: str) -> None:
    """Four times as long as nginx lets one be: where the time grows with the square, it is ten seconds."""
    began = time.process_time()
    for status in (200, 404, 429):
        banned(mode, access(part * (32000 // len(part)), status))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("mode", ["probes", "missing", "limits", "login"])
def test_nobody_gets_another_one_banned(mode: str) -> None:
    forged = (
        '","remote_addr":"192.0.2.66","host":"x","method":"GET","path":"/wp-login.php","protocol":"x","status":404,"'
        'bytes":1,"request_time":0.1,"upstream_time":"0.1","upstream_status":"404","login":"failed","release":"'
    )
    lines = [
        access(forged, 200),
        access("/", 200, http_user_agent=forged),
        access("/", 200, host=forged),
        access("/", 200, http_user_agent=access("/.env", address="192.0.2.66")),
        "x" + access("/.env"),
    ]
    assert banned(mode, *lines) == []
    assert "192.0.2.66" not in banned(mode, access(forged), access("/.env", http_user_agent=forged))


def test_an_app_reports_the_client_that_it_responds_to() -> None:
    lines = (access("/login", status, flaskhost_login="failed") for status in (200, 302, 401, 500))
    assert banned("login", *lines) == ["198.51.100.7"] * 4
    assert banned("login", access("/login", address="2001:db8::7", flaskhost_login="failed")) == ["2001:db8::7"]
    assert banned("login", access("/login", 401), access("/login", http_user_agent="failed")) == []


def test_the_guides_tell_apps_the_header_that_is_read() -> None:
    http = nginx(site())
    (variable,) = [item for item in http.all("map") if item.words[2] == "$flaskhost_login"]
    assert {item.words[0]: item.words[1] for item in variable.block} == {"default": "", "failed": "failed"}
    for guide in ("docs/apps.md", "roles/fail2ban/README.md"):
        text = (ROLES.parent / guide).read_text()
        ((name, value),) = set(re.findall(r'response\.headers\["([\w-]+)"\] = "(\w+)"', text))
        assert variable.words[1] == "$upstream_http_" + name.lower().replace("-", "_")
        assert value == "failed"
        assert all(place.all("proxy_hide_header", name) for place in proxied(server(http, "shop.test", "443")))


def test_a_banned_address_gets_nothing_of_its_site() -> None:
    http = nginx(site(bans={"login": "/bans/shop/login", "probes": "/bans/shop/probes"}), site("my-blog"))
    answering = server(http, "shop.test", "443")
    checks = answering.all("if", "(-f")
    folders = [item.words[2].removesuffix(")") for item in checks if "$flaskhost_address" in item.words[2]]
    assert folders == ["/bans/shop/login/$flaskhost_address", "/bans/shop/probes/$flaskhost_address"]
    assert all(item.one("return").words[1] == "403" for item in checks[:2])
    assert "$flaskhost_address" not in str(server(http, "my-blog.test", "443"))
    name = http.one("map", "$remote_addr").block[1].words[0].removeprefix("~").replace("(?<", "(?P<")
    assert re.search(name, "::ffff:192.0.2.7")["flaskhost_mapped"] == "192.0.2.7"  # type: ignore[index]
    assert not re.search(name, "2001:db8::ffff:1")
    assert "$flaskhost_address" not in str(nginx(site()))


def jails(connection: str = "", **variables: Any) -> dict[str, dict[str, str]]:
    """The jails that are on, with what they share."""
    facts = {"env": {"SSH_CONNECTION": connection}} if connection else {}
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(render("fail2ban", "jail.conf.j2", facts, **variables))
    return {name: dict(parser[name]) for name in parser.sections() if parser[name]["enabled"] == "true"}


WATCHED = {
    "fail2ban_access_logs": ["/logs/access.log"],
    "fail2ban_error_logs": ["/logs/error.log"],
    "fail2ban_sites": [
        {
            "name": name,
            "access_log": f"/logs/{name}.log",
            "bans": {jail: f"/bans/{name}/{jail}" for jail in ("login", "missing", "probes")},
        }
        for name in ("shop", "hello")
    ],
}


def test_a_jail_is_there_for_what_is_watched() -> None:
    assert list(jails()) == ["sshd"]
    found = jails(**WATCHED)
    web = {"flaskhost-probes", "flaskhost-missing", "flaskhost-limits", "nginx-http-auth"}
    sites = {f"{jail}-{name}": (jail, name) for jail in ("login", "missing", "probes") for name in ("shop", "hello")}
    assert set(found) == {"sshd", *web, *sites}
    nothing = "/etc/fail2ban/filter.d/flaskhost.conf"
    for name in web:
        assert (found[name]["port"], found[name]["protocol"]) == ("80,443", "tcp,udp"), "SSH stays open"
        assert found[name]["logpath"].startswith(f"{nothing}\n/logs/")
        assert "action" not in found[name]
    # No app has a say in what nginx itself refuses. A flood has to end at the firewall.
    assert found["flaskhost-limits"]["logpath"].split()[1:] == ["/logs/access.log", "/logs/shop.log", "/logs/hello.log"]
    for name, (jail, site_name) in sites.items():
        assert found[name]["logpath"].split() == [nothing, f"/logs/{site_name}.log"]
        assert found[name]["action"] == f'flaskhost-site[bans="/bans/{site_name}/{jail}"]', "no two share a folder"
        assert found[name]["filter"] == f"flaskhost[mode={jail}]"
    assert found["sshd"]["bantime.overalljails"] == "false", "an app does not make the bans of others longer"
    assert found["sshd"]["backend"] == "systemd"
    assert found["flaskhost-probes"]["backend"] == "polling"


def test_the_jail_of_ssh_believes_only_what_journald_knows_itself() -> None:
    """A process chooses its own name and its identifier, and any process may write to the journal."""
    fields = [match.partition("=")[0] for match in jails()["sshd"]["journalmatch"].split(" + ")]
    assert set(fields) == {"_SYSTEMD_UNIT", "_SYSTEMD_SLICE"}


@pytest.mark.parametrize(
    ("connection", "ignored", "ports"),
    [
        ("", set(), "22"),
        ("203.0.113.9 50000 192.0.2.1 2222", {"203.0.113.9"}, "22,2222"),
        ("2001:db8::9 50000 2001:db8::1 22", {"2001:db8::9"}, "22"),
        ("fe80::9%eth0 50000 fe80::1%eth0 22", {"fe80::9"}, "22"),
    ],
)
def test_who_runs_the_playbook_is_never_banned(connection: str, ignored: set[str], ports: str) -> None:
    wanted = {"fail2ban_ignore": ["198.51.100.0/24"], "fail2ban_peers": ["192.0.2.12", "web2.test", "fe80::1%eth0", ""]}
    found = jails(connection, **wanted)["sshd"]
    assert set(found["ignoreip"].split()) == {"127.0.0.0/8", "::1", "198.51.100.0/24", "192.0.2.12"} | ignored
    assert found["port"] == ports


def test_bans_are_remembered_for_longer_than_the_longest() -> None:
    text = render("fail2ban", "fail2ban.conf.j2", fail2ban_bantime_max=1000)
    assert int(re.search(r"^dbpurgeage = (\d+)$", text, re.MULTILINE)[1]) > 1000  # type: ignore[index]
    assert jails(fail2ban_bantime_max=1000)["sshd"]["bantime.maxtime"] == "1000"


# --- gunicorn --------------------------------------------------------------------------------------------------------


def slot(**changes: Any) -> dict[str, Any]:
    return {
        "name": "shop",
        "user": "shop",
        "unit": "flask-shop",
        "config": "/etc/gunicorn/shop.conf.py",
        "root": "/srv/shop",
        "slots": "/srv/shop/slots",
        "data": "/srv/shop/data",
        "socket_dir": "/run/flask-shop",
        "worker_class": "gthread",
        "workers": 2,
        "threads": 8,
        "timeout": 30,
        "drain": 30,
        "memory_mb": 512,
        **changes,
    }


def unit(template: str, **changes: Any) -> dict[str, list[str]]:
    """The settings of a systemd unit: each with all its values."""
    found: dict[str, list[str]] = {}
    for line in render("gunicorn", template, item=slot(**changes)).splitlines():
        if line and not line.startswith(("#", "[")):
            name, _equals, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def gunicorn(**changes: Any) -> dict[str, Any]:
    """Run the settings of gunicorn, as gunicorn does."""
    text = render("gunicorn", "gunicorn.conf.py.j2", item=slot(**changes))
    settings: dict[str, Any] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), settings)  # noqa: S102 - our own file
    return settings


@pytest.mark.parametrize("drain", [1, 30, 3600])
def test_systemd_waits_longer_than_gunicorn(drain: int) -> None:
    service = unit("slot.service.j2", drain=drain)
    stop, start = int(service["TimeoutStopSec"][0]), int(service["TimeoutStartSec"][0])
    assert stop > gunicorn(drain=drain)["graceful_timeout"]
    # What an app prolongs by sd_notify(3) ends all the same.
    assert int(service["JobRunningTimeoutSec"][0]) > stop + start


@pytest.mark.parametrize("timeout", [1, 30, 3600])
def test_nginx_waits_longer_than_gunicorn(timeout: int) -> None:
    read = proxied(nginx(site(timeout=timeout)))[0].one("proxy_read_timeout").words[1]
    assert int(read.removesuffix("s")) > gunicorn(timeout=timeout)["timeout"]


def test_nginx_closes_an_idle_connection_before_gunicorn_does() -> None:
    """Else nginx sends a request into a connection that has just been closed."""
    idle = nginx(site()).one("upstream", "flask-shop").one("keepalive_timeout").words[1]
    assert int(idle.removesuffix("ms")) < gunicorn()["keepalive"] * 1000


def test_the_settings_are_those_of_the_app() -> None:
    settings = gunicorn(workers=3, threads=5, worker_class="sync")
    assert (settings["workers"], settings["threads"], settings["worker_class"]) == (3, 5, "sync")
    # READY is true only when the app has been loaded, and systemd hands over the only socket.
    assert settings["preload_app"] is True
    assert settings["control_socket_disable"] is True
    assert "bind" not in settings


def test_a_worker_class_may_be_left_out() -> None:
    item = {name: value for name, value in slot().items() if name != "worker_class"}
    assert 'worker_class = "gthread"' in render("gunicorn", "gunicorn.conf.py.j2", item=item)


class FakeEngine:
    """Stands for an SQLAlchemy engine that the app made while it was loaded."""

    disposed = False

    def dispose(self) -> None:
        self.disposed = True


class FakeCollector:
    """Stands for the module gc, so that the tests' own objects are not frozen."""

    def __init__(self) -> None:
        self.searched = self.frozen = False

    def get_objects(self) -> list[Any]:
        self.searched = True
        return gc.get_objects()

    def freeze(self) -> None:
        self.frozen = True


@pytest.mark.parametrize("loaded", [True, False])
def test_database_connections_are_not_inherited(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the workers are forked the engines are emptied. An app without SQLAlchemy is not given it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"]:
        monkeypatch.delitem(sys.modules, name)
    if loaded:
        module = types.ModuleType("sqlalchemy.engine.base")
        module.Engine = FakeEngine  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    engine, collector, settings = FakeEngine(), FakeCollector(), gunicorn()
    settings["gc"] = collector
    settings["when_ready"](None)
    assert engine.disposed is loaded
    assert collector.searched is loaded
    assert collector.frozen
    assert ("sqlalchemy" in sys.modules) is False


def test_a_slot_runs_the_release_that_its_link_names() -> None:
    service = unit("slot.service.j2")
    assert service["WorkingDirectory"] == ["/srv/shop/slots/%i/app"]
    assert service["EnvironmentFile"] == ["/srv/shop/slots/%i/env"]
    (command,) = service["ExecStart"]
    assert command.startswith("/srv/shop/slots/%i/venv/bin/gunicorn --config /srv/shop/slots/%i/server.conf.py ")
    # Braces: one word, whatever is in it, such as create_app('production').
    assert command.endswith(" ${FLASK_APP}")


def test_an_app_that_may_not_connect_has_a_network_of_its_own() -> None:
    assert "PrivateNetwork" not in unit("slot.service.j2")
    assert unit("slot.service.j2", outbound=False)["PrivateNetwork"] == ["yes"]


def test_a_slot_writes_its_data_and_nothing_else() -> None:
    service = unit("slot.service.j2", memory_mb=300)
    assert service["User"] == service["Group"] == ["shop"]
    assert service["ReadWritePaths"] == ["/srv/shop/data"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    assert (service["MemoryMax"], service["MemorySwapMax"]) == (["300M"], ["150M"])


def test_a_slot_is_confined_by_the_profile_that_is_on_the_disk() -> None:
    service = unit("slot.service.j2")
    # Neither is fatal: a host without AppArmor runs the app in its sandbox.
    assert service["AppArmorProfile"] == ["-flask-shop"]
    load = service["ExecStartPre"][-1]
    assert load.startswith("-+/bin/sh -c ")
    assert load.endswith("/usr/sbin/apparmor_parser --replace /etc/apparmor.d/flask-shop'")


def test_a_slot_has_temporary_files_of_its_own_in_its_apps_folder() -> None:
    service = unit("slot.service.j2")
    # The same as every other unit of the app.
    remove, close, create, tmp, var_tmp, removed = temporary("/srv/shop", "%N", "shop")
    assert [f"ExecStartPre={line}" for line in service["ExecStartPre"][:3]] == [remove, close, create]
    assert close.endswith("install -d -m 0700 /srv/shop/tmp"), "the app's other units have the same user"
    assert [f"BindPaths={line}" for line in service["BindPaths"]] == [tmp, var_tmp]
    assert [f"ExecStopPost={line}" for line in service["ExecStopPost"]] == [removed]


def test_only_the_temporary_files_of_apps_are_removed_at_boot() -> None:
    limits = [{"app": "shop", "root": "/srv/shop", "disk": "1G"}, {"app": "blog", "root": "/srv/blog", "disk": "50%"}]
    lines = render("app", "tmpfiles.conf.j2", app_limits=limits).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["R! /srv/shop/tmp/*", "R! /srv/blog/tmp/*"]


def test_each_app_has_a_journal_of_its_own() -> None:
    assert unit("slot.service.j2")["LogNamespace"] == ["flask-shop"]
    lines = render("gunicorn", "journal.conf.j2", item=slot(), gunicorn_journal_max_use="70M").splitlines()
    assert {"Storage=persistent", "SystemMaxUse=70M", "SystemKeepFree=1G"} < set(lines)
    socket = unit("journal.socket.j2")
    assert (socket["SocketGroup"], socket["SocketMode"]) == (["shop"], ["0660"])
    service = unit("journal.service.j2")
    # Else journald makes the sockets its own group's.
    assert service["RuntimeDirectory"] == [""]
    # A message that is too large for its memory ends it, and it comes back each time.
    assert (service["MemoryMax"], service["Restart"]) == (["64M"], ["on-failure"])
    assert service["StartLimitIntervalSec"] == ["0"]
    # Commands that follow each other would find units of the journal that are about to stop.
    assert socket["StopWhenUnneeded"] == unit("journal.units.j2")["StopWhenUnneeded"] == ["no"]


def profile(name: str) -> tuple[list[str], dict[str, str]]:
    """A profile of an app: its lines, and the rights by path."""
    text = render("gunicorn", "apparmor.j2", item=slot())
    _, begin, rest = text.partition(f"profile {name} ")
    lines = [line.split("#")[0].strip() for line in (begin + rest.partition("\n}\n")[0]).splitlines()]
    return lines, dict(line.rstrip(",").rsplit(" ", 1) for line in lines if line.startswith("/"))


def test_a_build_writes_the_new_environment_and_its_cache() -> None:
    _lines, rules = profile("flask-shop_build")
    written = {path for path, rights in rules.items() if "w" in rights}
    writable = {"/tmp/{,**}", "/var/tmp/{,**}", "/dev/shm/{,**}"}
    assert written == {"/srv/shop/venvs/**", "/var/cache/flaskhost/shop/{,**}"} | writable
    assert not [path for path in rules if "data" in path or "/run" in path]


def test_a_profile_lets_nothing_run_that_the_app_can_write() -> None:
    lines, rules = profile("flask-shop")
    assert {path for path, rights in rules.items() if set(rights) & set("wk") and set(rights) & set("mix")} == set()
    assert rules["/srv/shop/data/**"] == "rwkl"
    assert rules["/srv/shop/{releases,venvs}/**"] == "mrix"
    # Another app's folders are in no rule.
    assert {path for path in rules if path.startswith("/srv/")} == {
        path for path in rules if path.startswith("/srv/shop/")
    }
    assert "profile flask-shop flags=(attach_disconnected) {" in lines


def test_a_slot_has_a_socket_of_its_own() -> None:
    socket, service = unit("slot.socket.j2"), unit("slot.service.j2")
    assert socket["ListenStream"] == ["/run/flask-shop/%i.sock"]
    assert (socket["SocketMode"], socket["SocketGroup"]) == (["0660"], ["www-data"])
    assert service["Requires"] == ["flask-shop@%i.socket"]
    # systemd counts the starts of a socket as well, and a service does not start without its socket.
    assert socket["StartLimitIntervalSec"] == service["StartLimitIntervalSec"] == ["0"]
    # A folder that a service owns goes when it stops, and the other slot's socket with it.
    assert "RuntimeDirectory" not in service


# --- firewall --------------------------------------------------------------------------------------------------------


def rules(connection: str = "", **variables: Any) -> list[str]:
    facts = {"env": {"SSH_CONNECTION": connection}} if connection else {}
    text = render("firewall", "rules.nft.j2", facts, **variables)
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def opened(**variables: Any) -> list[str]:
    """The rules that an option has added: those that are not there without it."""
    usual = rules()
    return [line for line in rules(**variables) if line not in usual]


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        ({"port": 9100}, ["tcp dport 9100 accept"]),
        ({"port": 9100, "from": []}, ["tcp dport 9100 accept"]),
        ({"port": 51820, "protocol": "udp"}, ["udp dport 51820 accept"]),
        ({"port": 9100, "from": ["203.0.113.0/24"]}, ["ip saddr { 203.0.113.0/24 } tcp dport 9100 accept"]),
        ({"port": 9100, "from": ["2001:db8::/32"]}, ["ip6 saddr { 2001:db8::/32 } tcp dport 9100 accept"]),
        (
            {"port": 53, "protocol": "udp", "from": ["198.51.100.7", "2001:db8::1", "203.0.113.0/24"]},
            [
                "ip saddr { 198.51.100.7, 203.0.113.0/24 } udp dport 53 accept",
                "ip6 saddr { 2001:db8::1 } udp dport 53 accept",
            ],
        ),
    ],
)
def test_a_port_is_open_to_those_who_are_named(rule: dict[str, Any], lines: list[str]) -> None:
    assert opened(firewall_allow=[rule]) == lines


def test_public_ports_are_open_to_everybody() -> None:
    assert opened(firewall_public_ports=[80, 443]) == ["tcp dport { 80, 443 } accept"]
    assert opened(firewall_public_ports=[]) == []
    assert opened(firewall_public_udp_ports=[443]) == ["udp dport { 443 } accept"]


@pytest.mark.parametrize(
    ("connection", "ports", "line"),
    [
        ("", [22], "tcp dport { 22 } accept"),
        ("203.0.113.9 50000 192.0.2.1 22", [22], "tcp dport { 22 } accept"),
        ("203.0.113.9 50000 192.0.2.1 2222", [22], "tcp dport { 22, 2222 } accept"),
        ("2001:db8::9 50000 2001:db8::1 2222", [2022, "22"], "tcp dport { 22, 2022, 2222 } accept"),
    ],
)
def test_the_port_that_the_operator_came_in_by_stays_open(connection: str, ports: list[Any], line: str) -> None:
    assert line in rules(connection, firewall_ssh_ports=ports)


def test_the_table_is_ours_and_drops_what_nobody_asked_for() -> None:
    lines = rules()
    assert lines[:3] == ["table inet flaskhost", "delete table inet flaskhost", "table inet flaskhost {"]
    assert [line for line in lines if line.startswith("type filter hook")] == [
        "type filter hook input priority filter; policy drop;",
        "type filter hook output priority filter - 1; policy accept;",
    ]
    unit_file = render("firewall", "flaskhost-firewall.service.j2")
    for line in [*lines, *unit_file.splitlines()]:
        assert line.startswith("#") or "flush" not in line
    assert re.findall(r"delete table .*", unit_file) == ["delete table inet flaskhost"]


def test_ipv6_finds_its_neighbours() -> None:
    neighbours = [line for line in rules() if "nd-neighbor-solicit" in line]
    assert len(neighbours) == 1
    assert neighbours[0].endswith("accept")
    for kind in ("nd-router-advert", "nd-neighbor-advert"):
        assert kind in neighbours[0]


def test_hosts_that_work_together_come_in_by_their_addresses_alone() -> None:
    peers = [{"port": 5432, "from": ["10.0.0.2/32", "2001:db8::3/128"]}, {"port": 5433, "from": []}]
    found = [line for line in rules(firewall_peers=peers) if "543" in line]
    assert found == [
        "ip saddr { 10.0.0.2/32 } tcp dport 5432 accept",
        "ip6 saddr { 2001:db8::3/128 } tcp dport 5432 accept",
    ], "without an address nobody"


# --- postgres --------------------------------------------------------------------------------------------------------


def hba(**variables: Any) -> list[list[str]]:
    """The lines after the one of the backup program's session roles, which is always the second."""
    text = render("postgres", "pg_hba.conf.j2", DEBIAN["13"], **variables)
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    # Without quotes: they would make the group's name a role's.
    assert lines.pop(1) == ["local", "all", "+flaskhost_session", "scram-sha-256"]
    return lines


def test_a_role_logs_in_to_its_own_database_and_nothing_else() -> None:
    """The first line that fits decides, so that an "all" before the others would open every database."""
    lines = hba(postgres_databases=[{"name": "shop"}, {"name": "my-blog"}])
    assert lines == [
        ["local", "all", "postgres", "peer"],
        ["local", '"shop"', '"shop"', "peer"],
        ["local", '"my-blog"', '"my-blog"', "peer"],
    ]


def test_an_app_keeps_its_login_and_its_pool_until_a_release_serves_that_does_without() -> None:
    databases, leaving = [{"name": "blog", "pool": 0}], [{"name": "shop", "pool": 0}, {"name": "blog", "pool": 4}]
    known = {"postgres_databases": databases, "__postgres_access_now": {"leaving": leaving}}
    lines = hba(**known, postgres_networks=["192.0.2.1/32"])
    assert lines == [
        ["local", "all", "postgres", "peer"],
        ["local", '"blog"', '"blog"', "peer", "map=flaskhost"],
        ["local", '"shop"', '"shop"', "peer"],
        ["hostssl", "all", "postgres", "all", "reject"],
        ["hostssl", '"blog"', '"blog"', "192.0.2.1/32", "scram-sha-256"],
        ["hostssl", '"shop"', '"shop"', "192.0.2.1/32", "scram-sha-256"],
    ]
    assert '"postgres" "blog"' in render("postgres", "pg_ident.conf.j2", DEBIAN["13"], **known)
    pools = render("postgres", "pgbouncer.ini.j2", DEBIAN["13"], **known)
    assert "blog = host=/var/run/postgresql pool_size=4\n" in pools
    assert "shop" not in pools


def test_the_network_comes_last_and_needs_a_password() -> None:
    databases = [{"name": "shop", "owner": "shop-owner", "owner_file": "/etc/x.env"}, {"name": "blog"}]
    networks, logins = ["192.0.2.1/32", "2001:db8::/64"], {"shop": {"owner": "x", "a": "y"}}
    lines = hba(postgres_databases=databases, postgres_networks=networks, postgres_logins=logins)
    assert [line[0] for line in lines] == [*["local"] * 4, *["hostssl"] * 9], "never without TLS"
    assert lines[4] == ["hostssl", "all", "postgres", "all", "reject"]
    assert [line[1:4] for line in lines[5:]] == [
        [f'"{database}"', f'"{role}"', network]
        for database, roles in (("shop", ("shop", "shop-a", "shop-owner")), ("blog", ("blog",)))
        for role in roles
        for network in networks
    ]
    assert {line[-1] for line in lines[5:]} == {"scram-sha-256"}


def test_a_pool_logs_in_as_the_app_and_as_nobody_else() -> None:
    databases = [{"name": "shop", "pool": 8}, {"name": "blog", "pool": 0}, {"name": "wiki"}]
    lines = hba(postgres_databases=databases)
    assert [line[-1] for line in lines] == ["peer", "map=flaskhost", "peer", "peer"]
    text = render("postgres", "pg_ident.conf.j2", DEBIAN["13"], postgres_databases=databases)
    names = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert names == [["flaskhost", '"postgres"', '"shop"'], ["flaskhost", '"shop"', '"shop"']]


@pytest.mark.parametrize(("release", "prepared"), [("12", False), ("13", True)])
def test_pgbouncer_is_on_the_local_socket_alone(release: str, prepared: bool) -> None:
    databases = [{"name": "shop", "pool": 8}, {"name": "blog", "pool": 0}]
    lines = render("postgres", "pgbouncer.ini.j2", DEBIAN[release], postgres_databases=databases).splitlines()
    assert "shop = host=/var/run/postgresql pool_size=8" in lines
    assert not any(line.startswith("blog") for line in lines)
    assert "listen_addr =" in lines
    # Version 1.18 does not start with a setting that it does not know.
    assert any(line.startswith("max_prepared_statements") for line in lines) is prepared


def test_an_owner_logs_in_by_password_where_one_was_made() -> None:
    apart = {"name": "shop", "owner": "shop-owner", "owner_file": "/etc/x.env"}
    assert ["local", '"shop"', '"shop-owner"', "scram-sha-256"] in hba(postgres_databases=[apart])
    for other in ({**apart, "owner_file": ""}, {**apart, "owner": ""}, {**apart, "owner": "shop"}):
        assert {line[-1] for line in hba(postgres_databases=[other])} == {"peer"}


@pytest.mark.parametrize(
    ("addresses", "line"),
    [
        ([], "listen_addresses = ''"),
        (["192.0.2.1"], "listen_addresses = '192.0.2.1'"),
        (["192.0.2.1", "2001:db8::1"], "listen_addresses = '192.0.2.1, 2001:db8::1'"),
    ],
)
def test_postgresql_listens_where_it_is_told_to(addresses: list[str], line: str) -> None:
    text = render("postgres", "flaskhost.conf.j2", DEBIAN["12"], postgres_listen_addresses=addresses)
    assert line in text.splitlines()
    assert "password_encryption = 'scram-sha-256'" in text.splitlines()


def test_settings_are_written_as_postgresql_reads_them() -> None:
    given = {"work_mem": "8MB", "shared_preload_libraries": "a, b", "jit": False, "random_page_cost": 1.1, "x": "it's"}
    text = render(
        "postgres", "flaskhost.conf.j2", DEBIAN["13"], postgres_settings=given, postgres_extra_settings={"x": 0}
    )
    lines = text.splitlines()
    for line in ("work_mem = '8MB'", "shared_preload_libraries = 'a, b'", "jit = 'off'", "random_page_cost = '1.1'"):
        assert line in lines
    assert "x = '0'" in lines, "the operator's own win"
    text = render("postgres", "flaskhost.conf.j2", DEBIAN["13"], postgres_settings=given)
    assert "x = 'it''s'" in text.splitlines()


@pytest.mark.parametrize("command", ["", "pgbackrest --stanza=main archive-push %p"])
def test_the_log_is_archived_where_there_is_a_command(command: str) -> None:
    lines = render("postgres", "flaskhost.conf.j2", DEBIAN["12"], postgres_archive_command=command).splitlines()
    wanted = {
        "archive_mode = 'on'",
        f"archive_command = '{command}'",
        "archive_timeout = '60s'",
        "wal_level = 'replica'",
    }
    assert wanted & set(lines) == (wanted if command else set())


# --- base ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[], ["ada"], ["ada", "grace"]])
def test_sudo_is_for_the_administrators(names: list[str]) -> None:
    users = [{"name": name, "keys": []} for name in names]
    text = render("base", "sudoers.j2", base_admin_users=users)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == [f"{name} ALL=(ALL:ALL) NOPASSWD: ALL" for name in names]
    assert text.endswith("\n"), "sudo refuses a last line without an end"


@pytest.mark.parametrize(("wanted", "value"), [(True, "1"), (False, "0")])
def test_security_updates_can_be_switched_off(wanted: bool, value: str) -> None:
    text = render("base", "unattended-upgrades.j2", base_unattended_upgrades=wanted)
    settings = dict(re.findall(r'^([\w:-]+) "(.*)";$', text, re.MULTILINE))
    assert settings["APT::Periodic::Unattended-Upgrade"] == value
    assert settings["APT::Periodic::Update-Package-Lists"] == value
    assert all(line.startswith("//") or line.endswith('";') for line in text.splitlines() if line)


def test_the_journal_is_kept_and_bounded() -> None:
    lines = render("base", "journald.conf.j2", base_journal_max_use="200M").splitlines()
    settings = lines[lines.index("[Journal]") + 1 :]
    assert "Storage=persistent" in settings
    assert "SystemMaxUse=200M" in settings
    assert "SystemKeepFree=1G" in settings


def test_only_proxies_that_are_trusted_say_who_the_visitor_is() -> None:
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"])
    assert "set_real_ip_from" not in text
    assert "real_ip_header" not in text
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"], nginx_trusted_proxies=["203.0.113.0/24"])
    lines = [line.strip() for line in text.splitlines()]
    assert "set_real_ip_from 203.0.113.0/24;" in lines
    assert "real_ip_header X-Forwarded-For;" in lines
    assert "real_ip_recursive on;" in lines
