"""The template of nginx, rendered as Ansible does it: limits of rates, and who may see what of a site."""

from __future__ import annotations

import re

import pytest
from nginx_config import DEBIAN, FILES, GATE, HSTS, Directive, bare, nginx, proxied, server, site
from rendering import render

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


def test_a_place_with_headers_of_its_own_repeats_all_of_the_servers() -> None:
    """It inherits none of them. gixy finds each one that is missing."""
    for http in (nginx(site(**FRONT, **FILES, microcache=1)), nginx(site())):
        answering = server(http, "shop.test", "443")
        wanted = {item.words[1] for item in answering.all("add_header")}
        assert wanted >= {"Retry-After", "X-Content-Type-Options"}
        places = [place for place in answering.deep("location") if place.all("add_header")]
        assert len(places) >= 2
        for place in places:
            assert {item.words[1] for item in place.all("add_header")} >= wanted, place.words


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
            # A file with a fingerprint is not an error.
            always = [
                item for item in place.all("add_header") if item.words[1] != "Cache-Control" or place != answering
            ]
            assert all(item.words[-1] == "always" for item in always), "on errors too"


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
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"], nginx_sites=[site(**FRONT)])
    pattern = re.compile(re.search(r'"(.*)"', text.split("$request_method !~ ")[1])[1])
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
