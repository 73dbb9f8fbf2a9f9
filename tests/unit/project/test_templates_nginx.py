"""The template of nginx, rendered as Ansible does it: names, headers, logs, the gate and the maintenance page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import slots
from nginx_config import DEBIAN, GATE, bare, nginx, over_tls, proxied, server, site
from rendering import render


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
    assert '"release":"$flaskhost_release"' in " ".join(http.one("log_format").words)
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
        assert visitors.one("error_page", "503").words[2:] == [page]
        assert visitors.one("location", "=", page).all("internal")
        for place in ("/", "@app"):
            assert not visitors.one("location", place).all("error_page"), "an app's own 503 stays its own"
        for address, port in ((GATE, "gate"), ("80", "challenges")):
            assert "maintenance" not in str(server(http, f"{name}.test", address)), port
    assert "proxy_intercept_errors" not in str(http)


@pytest.mark.parametrize("item", [site(), bare(), site(uploads=5, methods=["GET"])])
def test_nobody_sees_the_bare_error_of_nginx_where_no_slot_responds(item: dict[str, Any]) -> None:
    visitors = server(nginx(item), "shop.test", "443")
    assert visitors.one("recursive_error_pages").words[1:] == ["on"], "a missing static file is the app's, too"
    for status in ("502", "504"):
        (name,) = visitors.one("error_page", status).words[2:]
        page = visitors.one("location", name)
        assert page.one("return").words[1] == status
        assert page.one("add_header", "X-Content-Type-Options")
        assert page.one("types").block == []


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


def test_only_proxies_that_are_trusted_say_who_the_visitor_is() -> None:
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"])
    assert "set_real_ip_from" not in text
    assert "real_ip_header" not in text
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"], nginx_trusted_proxies=["203.0.113.0/24"])
    lines = [line.strip() for line in text.splitlines()]
    assert "set_real_ip_from 203.0.113.0/24;" in lines
    assert "real_ip_header X-Forwarded-For;" in lines
    assert "real_ip_recursive on;" in lines


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
