"""nginx's settings where web hosts forward to app hosts: who trusts whom, what is sent again, who does what."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from loading import ROOT
from nginx_config import DEBIAN, GATE, Directive, everything, nginx, proxied, server, site
from rendering import render

PEER = {
    "nginx_peer_certificate": "/id/own.crt",
    "nginx_peer_key": "/id/own.key",
    "nginx_peer_trusted": "/id/trusted.pem",
    "nginx_peer_name": "app.internal",
}
BACKENDS = ["10.0.0.21", "fd00::22"]
SITE = everything(rate=5, login_paths=["/login"], login_rate=3, uploads=4, microcache=1, basic_auth={"ada": "x"})


def web(*sites: dict[str, Any], debian: str = "13", **variables: Any) -> Directive:
    return nginx(*(sites or (SITE,)), debian=debian, nginx_backends=BACKENDS, **PEER, **variables)


def app(*sites: dict[str, Any], debian: str = "13", **variables: Any) -> Directive:
    given = {"nginx_private_address": "10.0.0.21", "nginx_private_clients": ["10.0.0.11", "10.0.0.12"], **variables}
    return nginx(*(sites or (SITE,)), debian=debian, **given, **PEER)


def set_headers(location: Directive) -> dict[str, str]:
    return {item.words[1]: item.words[2] for item in location.all("proxy_set_header")}


# --- The web host ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("debian", DEBIAN)
def test_a_web_host_forwards_to_all_app_hosts_and_spares_one_that_fails(debian: str) -> None:
    upstream = web(debian=debian).one("upstream", "flask-shop")
    assert [item.words[1:] for item in upstream.all("server")] == [
        ["10.0.0.21:7443", "max_fails=1", "fail_timeout=5s"],
        ["[fd00::22]:7443", "max_fails=1", "fail_timeout=5s"],
    ]
    assert upstream.one("zone").words[1] == "flask-shop", "all workers know which host has failed"
    assert upstream.one("keepalive").words[1] == "32"


def test_a_web_host_proves_itself_and_trusts_only_the_app_hosts() -> None:
    http = web()
    assert http.one("proxy_ssl_verify").words[1] == "on"
    assert http.one("proxy_ssl_trusted_certificate").words[1] == "/id/trusted.pem"
    assert http.one("proxy_ssl_name").words[1] == "app.internal"
    assert http.one("proxy_ssl_certificate").words[1] == "/id/own.crt"
    assert http.one("proxy_ssl_certificate_key").words[1] == "/id/own.key"
    assert http.one("proxy_ssl_protocols").words[1:] == ["TLSv1.3"]
    assert {item.one("proxy_pass").words[1] for item in proxied(http)} == {"https://flask-shop"}


def test_what_cannot_be_repeated_is_not_sent_again() -> None:
    locations = proxied(web())
    assert len(locations) == 3
    for location in locations:
        conditions = location.one("proxy_next_upstream").words[1:]
        is_static = "/static/" in location.words
        # A response of an app, as of one that crashes, never takes a host out: a visitor could cause it on all hosts.
        assert conditions == ["error", "timeout", *(["http_404"] if is_static else [])]
        assert location.one("proxy_next_upstream_tries").words[1] == "2"
        assert location.one("proxy_connect_timeout").words[1] == "1s"


def test_the_app_host_answers_before_the_web_host_gives_up() -> None:
    (of_app,) = {item.one("proxy_read_timeout").words[1] for item in proxied(app())}
    (of_web,) = {item.one("proxy_read_timeout").words[1] for item in proxied(web())}
    assert (of_app, of_web) == ("35s", "40s")


def test_a_missing_static_file_is_a_request_to_the_app_with_its_limits() -> None:
    answering = server(web(), "shop.test", "443")
    static = answering.one("location", "/static/")
    assert set_headers(static)["X-Flaskhost-Static"] == "1"
    assert static.one("error_page").words[1:] == ["404", "=", "@app"]
    assert static.one("proxy_intercept_errors").words[1] == "on"
    assert static.all("limit_req") == []
    assert static.one("auth_basic_user_file").words[1] == "/etc/nginx/shop.htpasswd"
    fallback = answering.one("location", "@app")
    assert set_headers(fallback)["X-Flaskhost-Static"] == "", "a visitor's own is replaced"
    assert len(fallback.all("limit_req")) == 2
    assert answering.deep("alias", "/srv/shop/current/static/") == []


def test_a_web_host_has_no_gate() -> None:
    assert [line for line in web().deep("listen") if "unix:" in line.words[1]] == []
    sandbox = render("nginx", "sandbox.conf.j2", DEBIAN["13"], nginx_sites=[SITE], nginx_backends=BACKENDS)
    assert "gate.sock" not in sandbox


def test_the_log_of_a_web_host_names_the_release_and_not_the_app_hosts_nginx() -> None:
    http = web()
    served = http.one("map", "$upstream_cache_status:$upstream_http_server", "$flaskhost_release_served")
    (pattern,) = (item.words[0] for item in served.block if item.words[0].startswith("~"))
    assert re.search(pattern[1:], ":nginx")
    assert not re.search(pattern[1:], ":20261121T101500Z-1a2b3c4")
    assert '"release":"$flaskhost_release_served"' in " ".join(http.one("log_format").words)


# --- The app host ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("debian", DEBIAN)
def test_an_app_host_listens_only_for_web_hosts_and_for_the_gate(debian: str) -> None:
    http = app(debian=debian)
    private = "unix:/var/lib/nginx/private/listen.sock"
    assert {line.words[1] for line in http.deep("listen")} == {private, GATE}
    for item in http.all("server"):
        assert item.all("listen"), "without one, nginx listens on port 80"
        if item.one("listen").words[1] == GATE:
            continue
        assert item.one("include").words[1] == "/etc/nginx/private/*.conf"
        assert item.one("ssl_verify_client").words[1] == "on"
        assert item.one("ssl_client_certificate").words[1] == "/id/trusted.pem"
        assert item.one("ssl_certificate_key").words[1] == "/id/own.key"
        assert item.one("ssl_protocols").words[1:] == ["TLSv1.3"]


def test_the_first_server_of_an_app_host_refuses_unknown_names() -> None:
    first = app().all("server")[0]
    assert first.one("server_name").words[1] == "_"
    assert first.one("return").words[1] == "444"


def test_an_app_host_takes_the_visitor_from_the_web_hosts() -> None:
    http = app(nginx_trusted_proxies=["203.0.113.0/24"])
    assert [item.words[1] for item in http.all("set_real_ip_from")] == ["10.0.0.11", "10.0.0.12"]
    assert http.one("real_ip_header").words[1] == "X-Real-IP"
    assert '"request_id":"$http_x_request_id"' in " ".join(http.one("log_format").words)
    for location in proxied(http):
        headers = set_headers(location)
        if "_gate" in location.one("proxy_pass").words[1]:
            assert headers["X-Forwarded-For"] == "127.0.0.1"
            continue
        assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == "$remote_addr"
        assert headers["X-Forwarded-Proto"] == "$http_x_forwarded_proto"
        assert headers["Host"] == headers["X-Forwarded-Host"] == "$http_host"
        assert headers["X-Request-ID"] == "$http_x_request_id"
        assert headers["X-Flaskhost-Static"] == headers["Forwarded"] == headers["X-Forwarded-Prefix"] == ""


def test_the_app_gets_the_same_headers_as_on_a_single_server() -> None:
    (single, *_others) = (set_headers(item) for item in proxied(nginx(site())))
    (cluster, *_more) = (set_headers(item) for item in proxied(app(site())))
    assert cluster.keys() - {"X-Flaskhost-Static"} == single.keys()


def test_limits_bans_and_passwords_are_those_of_the_web_host() -> None:
    http = app(everything(rate=5, basic_auth={"ada": "x"}, allow=["10.0.0.0/8"], bans={"login": "/bans/login"}))
    answering = next(item for item in http.all("server") if "shop.test" in item.one("server_name").words)
    for name in ("limit_req", "limit_conn", "auth_basic", "allow", "deny"):
        assert answering.deep(name) == [], name
    assert "/bans/login" not in str(answering)
    assert "/srv/shop/maintenance" not in str(answering)


def test_static_files_are_those_of_the_app_host() -> None:
    answering = next(item for item in app().all("server") if "shop.test" in item.one("server_name").words)
    static = answering.one("location", "/static/")
    assert static.one("alias").words[1] == "/srv/shop/current/static/"
    assert static.one("error_page").words[1:] == ["404", "=", "$flaskhost_missing"]
    missing = app().one("map", "$http_x_flaskhost_static", "$flaskhost_missing")
    assert [item.words for item in missing.block] == [["default", "@app"], ["1", "@missing"]]
    assert answering.one("location", "@missing").one("return").words[1] == "404"


def test_an_app_leads_nginx_nowhere_and_writes_into_its_own_error_log() -> None:
    http = app(site(error_log="/logs/shop.error.log"))
    answering = next(item for item in http.all("server") if "shop.test" in item.one("server_name").words)
    assert answering.one("error_log").words[1] == "/logs/shop.error.log"
    for location in proxied(http):
        assert location.one("proxy_ignore_headers").words[1:] == ["X-Accel-Redirect"]


def test_without_a_release_a_host_ends_the_connection_so_that_another_one_is_tried() -> None:
    answering = next(item for item in app().all("server") if "shop.test" in item.one("server_name").words)
    for place in ("/", "@app"):
        (condition,) = answering.one("location", place).all("if")
        # nginx's -e knows files, folders and links, and not sockets.
        assert condition.words == ["if", "(!-d", "/srv/shop/current)"]
        assert condition.one("return").words[1] == "444"


def test_names_are_found_on_the_app_host_as_on_the_web_host() -> None:
    visited = server(web(), "shop.test", "443").one("server_name").words
    found = next(item for item in app().all("server") if "shop.test" in item.one("server_name").words)
    assert found.one("server_name").words == visited


def test_the_sockets_folders_are_closed() -> None:
    sandbox = render("nginx", "sandbox.conf.j2", DEBIAN["13"], nginx_sites=[SITE], nginx_private_address="10.0.0.21")
    for name in ("gate/gate.sock", "private/listen.sock"):
        assert f"ExecStartPre=/usr/bin/rm --force /var/lib/nginx/{name}" in sandbox


def test_the_private_address_is_a_file_that_a_drained_host_lacks() -> None:
    (task,) = yaml.safe_load((ROOT / "roles/nginx/tasks/listen.yml").read_text())
    (file,) = task["host_files"]["files"]
    assert file["path"].startswith("/etc/nginx/private/")
    assert file["unless"] == "{{ nginx_drained }}"
    for address, listens in (("10.0.0.21", "10.0.0.21:7443"), ("fd00::21", "[fd00::21]:7443")):
        text = render("nginx", "listen.conf.j2", nginx_private_address=address)
        assert [line for line in text.splitlines() if not line.startswith("#")] == [f"listen {listens} ssl;"]


def test_programs_of_the_host_can_ask_whether_nginx_answers() -> None:
    servers = web(nginx_probe="127.0.0.1:7444").all("server")
    (found,) = (item for item in servers if ["listen", "127.0.0.1:7444"] in [each.words for each in item.all("listen")])
    assert found.one("return").words[1] == "204"
    assert found.one("access_log").words[1] == "off"
