"""Production, behind one proxy that speaks HTTPS."""

import pytest
from flask import Flask, jsonify, request
from flask.testing import FlaskClient
from guestbook import create_app
from shared import PROXIED, find_token


def make_app() -> Flask:
    app = create_app()
    app.add_url_rule(
        "/seen", view_func=lambda: jsonify(url=request.url, address=request.remote_addr, root=request.script_root)
    )
    return app


@pytest.fixture
def client(production: pytest.MonkeyPatch) -> FlaskClient:
    return make_app().test_client()


def test_session_cookie_is_for_https_and_for_this_site_only(client):
    cookie = client.get("/", headers=PROXIED).headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=")
    for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert f"; {attribute}" in cookie
    assert "Domain" not in cookie


def test_address_scheme_and_host_come_from_the_proxy(client):
    # Named, because the test client would take https from PREFERRED_URL_SCHEME.
    assert client.get("/seen", headers=PROXIED, base_url="http://localhost").json == {
        "url": "https://guestbook.example.com/seen",
        "address": "203.0.113.7",
        "root": "",
    }


def test_only_the_last_proxy_is_believed_and_no_prefix(client):
    forged = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7", "X-Forwarded-Prefix": "//evil.example"}
    seen = client.get("/seen", headers=PROXIED | forged).json
    assert (seen["address"], seen["root"]) == ("203.0.113.7", "")


def test_two_proxies_are_believed_where_the_host_says_so(production):
    production.setenv("PROXIES", "2")
    seen = make_app().test_client().get("/seen", headers=PROXIED | {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"})
    assert seen.json["address"] == "198.51.100.1"


def test_development_believes_no_proxy(monkeypatch, tmp_path):
    monkeypatch.setenv("FLASK_CONFIG", "development")
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path / 'guestbook.db'}")
    assert make_app().test_client().get("/seen", headers=PROXIED).json["url"] == "http://localhost/seen"


def test_host_that_is_not_trusted_is_refused(production):
    production.setenv("TRUSTED_HOSTS", "guestbook.example.com, www.example.com,")
    client = make_app().test_client()
    assert client.get("/", headers=PROXIED).status_code == 200
    for path in ("/", "/healthz", "/nowhere"):
        refused = client.get(path, headers=PROXIED | {"X-Forwarded-Host": "evil.example"})
        assert refused.status_code == 400


def test_form_is_taken_from_a_page_of_this_site_only(client):
    token = find_token(client.get("/", headers=PROXIED, base_url="https://guestbook.example.com"))

    def post(referrer: str) -> int:
        return client.post(
            "/",
            data={"author": "Ada", "message": "Hello", "csrf_token": token},
            headers=PROXIED | {"Referer": referrer},
            base_url="https://guestbook.example.com",
        ).status_code

    assert post("https://evil.example/") == 400
    assert post("https://guestbook.example.com/") == 303
