"""Error pages, problem details, and what neither must give away."""

import pytest
from flask import abort
from guestbook import create_app
from guestbook.errors import TEXTS
from guestbook.models import db
from shared import PROXIED, SITE
from sqlalchemy import text

STATUSES = sorted(TEXTS)


@pytest.fixture
def failing(production):
    """A production client of an app with views that fail."""
    production.setenv("TRUSTED_HOSTS", "guestbook.example.com")
    app = create_app()

    def fail(status: int):
        if status == 500:
            raise RuntimeError("hunter2 was in this variable")
        abort(status)

    app.add_url_rule("/fail/<int:status>", view_func=fail, endpoint="fail")
    app.add_url_rule("/api/fail/<int:status>", view_func=fail, endpoint="fail_api")
    app.add_url_rule("/sql", view_func=lambda: db.session.execute(text("SELECT * FROM no_such_table")), endpoint="sql")
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


def ask(client, path, **options):
    return client.get(path, base_url=SITE, headers=PROXIED, **options)


@pytest.mark.parametrize("status", STATUSES)
def test_page_of_each_error_has_the_sites_look(failing, status):
    page = ask(failing, f"/fail/{status}")
    assert page.status_code == status
    assert TEXTS[status][0] in page.text
    assert 'href="/static/style.css"' in page.text
    assert page.headers["X-Request-ID"] in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "hunter2" not in page.text
    assert "Set-Cookie" not in page.headers


@pytest.mark.parametrize("status", STATUSES)
def test_api_has_the_same_errors_as_problem_details(failing, status):
    answer = ask(failing, f"/api/fail/{status}")
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert answer.json["type"] == "about:blank"
    assert answer.json["status"] == status
    assert answer.json["title"]
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert "hunter2" not in answer.text


def test_other_errors_have_a_general_page(failing):
    assert TEXTS[400][0] in ask(failing, "/fail/418").text
    assert TEXTS[500][0] in ask(failing, "/fail/504").text


def test_unknown_page_and_wrong_method(client):
    assert "There is no such page" in client.get("/nowhere").text
    refused = client.put("/")
    assert refused.status_code == 405
    assert "POST" in refused.headers["Allow"]
    assert client.get("/api/nowhere").json["status"] == 404


def test_body_over_the_limit_is_refused(monkeypatch, empty):
    monkeypatch.setenv("MAX_CONTENT_LENGTH", "1000")
    page = create_app("testing").test_client().post("/", data={"message": "x" * 1001})
    assert page.status_code == 413
    assert "more than we can take" in page.text


def test_failed_query_shows_no_detail(failing):
    page = ask(failing, "/sql")
    assert page.status_code == 500
    assert "no_such_table" not in page.text


def test_page_without_the_database_says_that_it_will_be_back(production):
    production.setenv("SQLALCHEMY_DATABASE_URI", "postgresql+psycopg://guestbook:hunter2@127.0.0.1:1/guestbook")
    page = create_app().test_client().get("/", base_url=SITE, headers=PROXIED)
    assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
    assert "We will be right back" in page.text


def test_wrong_host_name_has_a_page_too(failing):
    page = failing.get("/", base_url=SITE, headers=PROXIED | {"X-Forwarded-Host": "evil.example"})
    assert page.status_code == 400
    assert TEXTS[400][0] in page.text


def test_release_is_in_the_links_of_an_error_page(monkeypatch):
    monkeypatch.setenv("FLASKHOST_RELEASE", "20261121T104500Z-1a2b3c4")
    assert "style.css?v=20261121T104500Z-1a2b3c4" in create_app("testing").test_client().get("/nowhere").text
