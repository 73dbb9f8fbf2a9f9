"""nginx's settings for the files that an app has nginx send, and for apps that must not."""

from __future__ import annotations

import re

import pytest
from nginx_config import FILES, HSTS, Directive, bare, nginx, proxied, server, site


def protected(**options: object) -> Directive:
    return server(nginx(site(**FILES, **options)), "shop.test", "443")


@pytest.mark.parametrize("options", [{}, {"uploads": 8}, {"microcache": 1}], ids=str)
def test_an_app_cannot_lead_nginx_anywhere(options: dict[str, int]) -> None:
    """X-Accel-Redirect reaches internal locations, and a line break in it reaches the error log."""
    http = nginx(site(**options))
    places = proxied(http)
    assert len(places) > 2, "the gate is one of them"
    for place in places:
        assert "X-Accel-Redirect" in place.one("proxy_ignore_headers").words
    assert server(http, "shop.test", "443").deep("proxy_ignore_headers")


def test_files_are_below_the_folder_and_no_link_is_followed() -> None:
    place = protected().one("location", "^~", "/private.files/")
    assert place.all("internal")
    assert place.one("alias").words[1] == "/srv/shop/data/uploads/"
    # The app can replace each folder below this one.
    assert place.one("disable_symlinks").words[1:] == ["on", "from=/srv/shop"]
    assert place.one("try_files").words[1:] == ["$uri", "=404"]
    assert place.one("open_file_cache_valid").words[1] == "1s"
    # It would take the ranges of a response.
    assert place.one("gzip").words[1] == "off"
    (control,) = place.all("location", "~")
    assert control.words[2] == "[[:cntrl:]]"
    assert control.one("return").words[1] == "404"


@pytest.mark.parametrize("options", [{}, {"uploads": 8}, {"microcache": 1}], ids=str)
def test_an_app_leads_nginx_to_these_files_only(options: dict[str, int]) -> None:
    site_server = protected(**options)
    assert site_server.one("set", "$flaskhost_sent", "$upstream_http_x_accel_redirect")
    (here,) = [item for item in site_server.all("if") if item.words[1:3] == ["($uri", "~"]]
    pattern = here.words[3].removesuffix(")").strip('"')
    assert re.search(pattern, "/private.files/a") and not re.search(pattern, "/privateXfiles/a")
    assert not re.search(pattern, "/x/private.files/a")
    (refusal,) = [item for item in site_server.all("if") if item.words[1] == "($flaskhost_sent"]
    assert refusal.one("return").words[1] == "404"
    for place in proxied(site_server):
        # A named location is reached without the server's check.
        (named,) = [item for item in place.all("if") if "x_accel_redirect" in item.words[1]]
        assert named.one("rewrite").words[1:] == ["^", "/.flaskhost-none", "last"]
        assert not [item for item in place.all("proxy_ignore_headers") if "X-Accel-Redirect" in item.words]
    (hidden,) = [item for item in site_server.all("location", "~") if re.search(item.words[2], "/.flaskhost-none")]
    assert hidden.one("return").words[1] == "404"
    http = nginx(site(**FILES, **options))
    (gate,) = [item for item in proxied(http) if "_gate" in item.one("proxy_pass").words[1]]
    assert "X-Accel-Redirect" in gate.one("proxy_ignore_headers").words


def test_names_of_the_app_are_not_in_the_log_of_all_sites() -> None:
    assert protected().one("error_log").words[1] == "/logs/shop.error.log"
    assert not server(nginx(site()), "shop.test", "443").all("error_log")


def test_other_sites_have_nothing_of_it() -> None:
    http = nginx(site(**FILES), site("blog"))
    other = server(http, "blog.test", "443")
    assert not other.all("location", "^~")
    assert "X-Accel-Redirect" in proxied(other)[0].one("proxy_ignore_headers").words
    assert not [item for item in http.all("map") if item.words[2].startswith("$flaskhost_blog_sent")]


def test_headers_of_the_apps_own_response_count() -> None:
    http = nginx(site(**FILES, csp="base-uri 'self'; frame-ancestors https:", noindex=True))
    place = server(http, "shop.test", "443").one("location", "^~", "/private.files/")
    sent = {item.words[1]: item.words[2] for item in place.all("add_header")}
    assert sent["X-Content-Type-Options"] == "nosniff"
    assert sent["Content-Security-Policy"] == "$flaskhost_shop_sent_content_security_policy"
    assert sent["X-Robots-Tag"] == "noindex, nofollow"
    assert HSTS in sent
    assert sent["Vary"] == "$upstream_http_vary"
    everywhere = {item.words[1] for item in server(http, "shop.test", "443").all("add_header")}
    assert everywhere - {"Retry-After", "Cache-Control"} <= sent.keys(), "a location with headers inherits none"
    csp = http.one("map", "$upstream_http_content_security_policy")
    assert {item.words[0]: item.words[1] for item in csp.block} == {
        "default": "$upstream_http_content_security_policy",
        "": "base-uri 'self'; frame-ancestors https:",
    }
    kept = http.one("map", "$upstream_http_cache_control$upstream_http_expires")
    assert {item.words[0]: item.words[1] for item in kept.block} == {"default": "", "": "private, no-cache"}
    assert sent["Cache-Control"] == kept.words[2]


def test_without_other_options() -> None:
    place = server(nginx({**bare(), **FILES}), "shop.test", "443").one("location", "^~", "/private.files/")
    assert place.all("internal")
