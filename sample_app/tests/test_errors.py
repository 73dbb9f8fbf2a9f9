"""Error pages, and what they must not give away."""

from guestbook import create_app
from guestbook.models import db


def test_unknown_page_has_a_friendly_answer(client):
    page = client.get("/nowhere")
    assert page.status_code == 404
    assert "There is no such page" in page.text


def test_body_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setenv("MAX_CONTENT_LENGTH", "1000")
    page = create_app("testing").test_client().post("/", data={"message": "x" * 1001})
    assert page.status_code == 413
    assert "more than we can take" in page.text


def test_failure_shows_no_detail(production):
    app = create_app()  # its database has no tables
    page = app.test_client().get("/", base_url="https://localhost")
    assert page.status_code == 500
    assert "Something went wrong on our side" in page.text
    assert "sqlite" not in page.text.lower()
    with app.app_context():
        db.engine.dispose()
