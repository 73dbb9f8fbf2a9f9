"""Log lines: what is in them, and what never is."""

import functools
import json
import logging

import pytest
from guestbook import create_app
from guestbook.models import db
from shared import PASSWORD, PROXIED, SITE, Visitor
from sqlalchemy import text


@pytest.fixture
def lines(capsys):
    """Read what the app has written to standard error since the last time, line by line."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_request_is_one_line_of_json_in_production(production, lines):
    client = create_app().test_client()
    given = "4b3f1e7a9c8d4f6e8a1b2c3d4e5f6071"
    answer = client.get("/?token=hunter2", base_url=SITE, headers=PROXIED | {"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given
    written = lines()
    (line,) = [line for line in written if line["message"] == "request"]
    assert line["level"] == "INFO"
    assert (line["request_id"], line["method"], line["route"], line["status"]) == (given, "GET", "/", 200)
    assert line["account"] is None
    assert line["duration_ms"] > 0
    assert line["time"].endswith("+00:00")
    assert "hunter2" not in json.dumps(written)


@pytest.mark.parametrize("forged", ["short", "with spaces in it", "x" * 65, "a\u00e9bcdefgh"])
def test_request_id_that_is_none_is_replaced(production, forged):
    answer = create_app().test_client().get("/", base_url=SITE, headers=PROXIED | {"X-Request-ID": forged})
    assert answer.headers["X-Request-ID"] != forged
    assert len(answer.headers["X-Request-ID"]) == 32


def test_without_a_proxy_nobody_chooses_the_request_id(client):
    assert client.get("/", headers={"X-Request-ID": "a-forged-id"}).headers["X-Request-ID"] != "a-forged-id"


def test_info_is_logged_in_production_and_probes_only_when_asked_for(production, lines):
    app = create_app()
    app.test_client().get("/healthz", base_url=SITE, headers=PROXIED)
    app.logger.info("the app says something")
    assert [line["message"] for line in lines()] == ["the app says something"]
    production.setenv("LOG_LEVEL", "DEBUG")
    create_app().test_client().get("/healthz", base_url=SITE, headers=PROXIED)
    assert lines()[-1]["route"] == "/healthz"


def test_failure_has_its_traceback_in_the_line_of_the_request(production, lines):
    app = create_app()

    def fail():
        raise RuntimeError("boom")

    app.add_url_rule("/fail", view_func=fail)
    page = app.test_client().get("/fail", base_url=SITE, headers=PROXIED)
    (line,) = [line for line in lines() if line["level"] == "ERROR"]
    assert "RuntimeError: boom" in line["exception"]
    assert line["request_id"] == page.headers["X-Request-ID"]


def test_developer_reads_plain_lines(monkeypatch, capsys):
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", "sqlite://")
    app = create_app("development")
    app.logger.warning("plain words")
    assert "WARNING plain words" in capsys.readouterr().err


def test_second_app_replaces_the_handler_of_the_first():
    create_app("testing")
    before = len(logging.getLogger().handlers)
    create_app("testing")
    assert len(logging.getLogger().handlers) == before


def test_no_password_token_or_cookie_is_in_any_line(visitor, lines, monkeypatch):
    """All that a member does, and a failure in the middle of it."""
    app = create_app("testing")  # its lines go to where this test reads
    visitor = functools.partial(Visitor, app)
    ada = visitor().sign_up("ada")
    ada.log_in("ada", "Wrong-otter-41")
    ada.send("/account/password", page="/account", current=PASSWORD, password="Loud-badger-72")
    ada.send("/", message="A private thought")
    with monkeypatch.context() as broken:
        broken.setattr(db.session, "commit", lambda: db.session.execute(text("SELECT :a FROM gone"), {"a": PASSWORD}))
        broken.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)
        assert ada.send("/", message="Another private thought").status_code == 500
    cookies = [ada.client.get_cookie(name).value for name in ("session", "device")]
    written = lines()
    assert {line["account"] for line in written if line["message"] == "request"} == {None, 1}
    assert any(line["message"] == "login failed" for line in written)
    assert any("exception" in line for line in written)
    for secret in (PASSWORD, "Wrong-otter-41", "Loud-badger-72", "private thought", *cookies):
        assert secret not in json.dumps(written)
