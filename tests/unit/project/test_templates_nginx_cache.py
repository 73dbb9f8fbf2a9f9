"""nginx's settings for what it keeps: compressed copies, fingerprints, and pages for a second."""

from __future__ import annotations

import re

import pytest
from nginx_config import Directive, nginx, proxied, server, site


def mapped(item: Directive, value: str) -> str:
    """What a map of nginx makes of a value."""
    default = ""
    for line in item.block:
        key, result = line.words
        if key == "default":
            default = result
        elif key == value:
            return result
    for line in item.block:
        key, result = line.words
        if key.startswith("~"):
            pattern = key.removeprefix("~")
            flags = re.IGNORECASE if pattern.startswith("*") else 0
            if re.search(pattern.removeprefix("*"), value, flags):
                return result
    return default


# -- static files ----------------------------------------------------------------------------------------------------


def test_copies_that_the_deploy_has_made_are_sent() -> None:
    static = server(nginx(site()), "shop.test", "443").one("location", "/static/")
    assert static.one("gzip_static").words[1] == "on"
    assert static.one("brotli_static").words[1] == "on"
    # It would send the files of the release of before, when the link has changed.
    assert not static.all("open_file_cache")
    # It would drop the headers of the server.
    assert not static.all("add_header")


@pytest.mark.parametrize(
    ("uri", "refused"),
    [
        ("/note.txt", False),
        ("/a b/é-v1.0.tar.gz", False),
        ("/x\n2026-11-27 02:00:00 [error] 1#1: *1 user", True),
        ("/x\r", True),
        ("/x\x7f", True),
    ],
)
def test_a_name_of_a_file_cannot_forge_a_line_of_the_error_log(uri: str, refused: bool) -> None:
    """nginx writes names into that log as they are, and fail2ban reads it."""
    (place,) = server(nginx(site()), "shop.test", "443").one("location", "/static/").all("location", "~")
    # 404 for visitors; gixy takes "return" for a way around "allow".
    assert [item.words for item in place.block] == [["internal"]]
    # PCRE's class of control characters, in the C locale.
    assert bool(re.search(place.words[2].replace("[[:cntrl:]]", "[\\x00-\\x1f\\x7f]"), uri)) is refused


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("app.3f2a9c1b.css", True),
        ("app-3f2a9c1b4d5e6f70.js", True),
        ("app-3f2a9c1b.js.map", True),
        ("deep/app.d41d8cd98f00b204e9800998ecf8427e.css", True),
        ("app.css", False),
        ("photo-20260101.jpg", False),
        ("jquery-deadbeef.js", False),
        ("bootstrap-datepicker.js", False),
        ("app.3f2a9c1.css", False),
        ("3f2a9c1b", False),
        ("app.3f2a9c1b/style.css", False),
    ],
)
def test_names_with_a_fingerprint_never_change(name: str, fingerprint: bool) -> None:
    http = nginx(site())
    expires = http.one("map", "$uri", "$flaskhost_static_expires")
    assert mapped(expires, f"/static/{name}") == ("365d" if fingerprint else "1h")
    immutable = http.one("map", "$status:$upstream_addr:$uri", "$flaskhost_shop_immutable")
    for status in ("200", "206", "304"):
        assert mapped(immutable, f"{status}::/static/{name}") == ("immutable" if fingerprint else "")
    assert mapped(immutable, f"404::/static/{name}") == ""
    assert mapped(immutable, f"200:unix:/srv/shop/live.sock:/static/{name}") == "", "the app's own response"
    assert mapped(immutable, f"200::/other/{name}") == ""


# -- pages -----------------------------------------------------------------------------------------------------------


def test_no_page_is_kept_if_nobody_asks_for_it() -> None:
    http = nginx(site(), site("blog", microcache=0))
    assert not [item for item in http.block if "cache_path" in item.words[0]]
    assert not http.deep("proxy_cache")
    assert not http.deep("add_header", "Cache-Status")


def test_pages_of_one_site_are_kept_and_those_of_the_other_are_not() -> None:
    http = nginx(site(microcache=2), site("blog"))
    (path,) = http.all("proxy_cache_path")
    assert path.words[1] == "/var/lib/nginx/cache-shop"
    assert {"max_size=64m", "inactive=5s", "use_temp_path=off"} <= set(path.words)
    # nginx looks at max_size every ten seconds. In between, only the number of keys limits what strangers can write:
    # with 1 MB of keys, 722 MB were measured; with 256 kB, 209 MB.
    assert "keys_zone=flaskhost_shop_cache:256k" in path.words
    for name, kept in (("shop.test", True), ("blog.test", False)):
        places = proxied(server(http, name, "443"))
        assert places
        assert all((item.all("proxy_cache") != []) is kept for item in places)
    assert not [
        item for item in proxied(http) if "_gate" in item.one("proxy_pass").words[1] and item.all("proxy_cache")
    ]
    assert server(http, "shop.test", "443").one("add_header", "Cache-Status")


def place() -> Directive:
    """The location of an app whose pages are kept."""
    return proxied(server(nginx(site(microcache=1)), "shop.test", "443"))[0]


def test_key_has_all_that_the_app_makes_its_urls_of() -> None:
    key = place().one("proxy_cache_key").words[1]
    assert key == "$scheme://$host$flaskhost_port$request_uri"


def test_errors_are_not_hidden_by_pages_of_before() -> None:
    """Else the watch over a new release would be blind."""
    assert place().one("proxy_cache_use_stale").words[1:] == ["updating"]
    assert place().one("proxy_cache_valid").words[1:] == ["200", "1s"]


def test_an_app_cannot_have_its_pages_kept_for_longer() -> None:
    """nginx would take these before its own setting, and pages of an earlier release would stay."""
    assert {"Cache-Control", "Expires", "X-Accel-Expires"} <= set(place().one("proxy_ignore_headers").words[1:])


@pytest.mark.parametrize(
    ("control", "expires", "kept"),
    [
        ("", "", True),
        ("public, max-age=600", "", True),
        ("max-age=600", "Thu, 01 Jan 2099 00:00:00 GMT", True),
        ("private", "", False),
        ("Private, max-age=600", "", False),
        ("no-store", "", False),
        ("no-cache", "", False),
        ("max-age=0", "", False),
        ("s-maxage=0, max-age=600", "", False),
        ("", "Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("", "0", False),
    ],
)
def test_what_the_app_says_about_keeping_counts(control: str, expires: str, kept: bool) -> None:
    # Before 1.23, $upstream_http_cache_control of nginx has only the first of several lines.
    item = nginx(site(microcache=1)).one("map", "$sent_http_cache_control;$upstream_http_expires")
    assert (mapped(item, f"{control};{expires}") == "") is kept
    assert item.words[2] in place().one("proxy_no_cache").words


@pytest.mark.parametrize(("length", "kept"), [("0", True), ("99999", True), ("100000", False), ("", False)])
def test_long_pages_and_streams_are_not_written_to_the_disk(length: str, kept: bool) -> None:
    item = nginx(site(microcache=1)).one("map", "$upstream_http_content_length")
    assert (mapped(item, length) == "") is kept
    assert item.words[2] in place().one("proxy_no_cache").words


def test_failed_logins_are_not_kept_for_others() -> None:
    """The line in the log would ban those who get the page from the cache."""
    assert "$flaskhost_login" in place().one("proxy_no_cache").words


#: The parts of a request whose sender may get a page that nobody else gets. The last four are a body, which is not in
#: the key: else, its sender would choose the page of the others.
PRIVATE = (
    "$http_cookie", "$http_authorization", "$http_x_api_key", "$http_x_auth_token",
    "$http_content_length", "$http_transfer_encoding", "$request_body", "$request_body_file",
)  # fmt: skip


def private_map(http: Directive) -> Directive:
    (item,) = [each for each in http.all("map") if each.words[2] == "$flaskhost_private"]
    return item


def test_all_that_can_make_a_page_a_visitors_own_counts() -> None:
    assert private_map(nginx(site(microcache=1))).words[1] == "".join(PRIVATE)


@pytest.mark.parametrize(("value", "private"), [("", False), ("a=1", True), ("Basic x", True), ("6", True)])
def test_who_may_have_pages_of_their_own_gets_them_from_the_app(value: str, private: bool) -> None:
    http = nginx(site(microcache=1))
    found = mapped(private_map(http), value)
    assert (found == "1") is private
    for setting in ("proxy_cache_bypass", "proxy_no_cache"):
        assert "$flaskhost_private" in place().one(setting).words
    for header, variable in (
        ("If-None-Match", "$http_if_none_match"),
        ("If-Modified-Since", "$http_if_modified_since"),
        ("Range", "$http_range"),
    ):
        passed = place().one("proxy_set_header", header).words[2]
        (item,) = [each for each in http.all("map", "$flaskhost_private") if each.words[2] == passed]
        assert mapped(item, found) == (variable if private else "")


@pytest.mark.parametrize(("status", "release"), [("HIT", False), ("UPDATING", False), ("MISS", True), ("", True)])
def test_pages_from_the_cache_say_nothing_about_the_release(status: str, release: bool) -> None:
    item = nginx(site()).one("map", "$upstream_cache_status", "$flaskhost_release")
    assert mapped(item, status) == ("$upstream_http_server" if release else "")
