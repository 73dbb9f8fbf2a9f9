"""The template of nginx, rendered as Ansible does it: certificates, redirects, HSTS, challenges and HTTP/3."""

from __future__ import annotations

import re
from typing import Any

import pytest
from nginx_config import DEBIAN, GATE, HSTS, bare, everything, names, nginx, over_tls, proxied, server, site

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
