"""A fresh app and an empty database for each test. The forms are sent as a browser sends them, token included."""

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from guestbook import create_app
from guestbook.models import db
from werkzeug.test import TestResponse

VARIABLES = [
    "FLASK_CONFIG",
    "FLASK_DEBUG",
    "FLASKHOST_RELEASE",
    "MAX_CONTENT_LENGTH",
    "SECRET_KEY",
    "SECRET_KEY_FALLBACKS",
    "SQLALCHEMY_DATABASE_URI",
    "TRUSTED_HOSTS",
]

FindToken = Callable[[TestResponse], str]
Sign = Callable[..., TestResponse]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own variables decide nothing here."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def app() -> Iterator[Flask]:
    app = create_app("testing")
    with app.app_context():
        db.create_all()
    yield app
    with app.app_context():
        db.drop_all()
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch, tmp_path) -> pytest.MonkeyPatch:
    """An environment that the production configuration accepts."""
    monkeypatch.setenv("FLASK_CONFIG", "production")
    monkeypatch.setenv("SECRET_KEY", "0f6e2a9b7c4d1835" * 4)
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path / 'guestbook.db'}")
    return monkeypatch


@pytest.fixture
def find_token() -> FindToken:
    """Read the token out of a page's form."""

    def find_token(page: TestResponse) -> str:
        found = re.search(r'name="csrf_token" type="hidden" value="([^"]+)"', page.text)
        assert found, page.text
        return found[1]

    return find_token


@pytest.fixture
def sign(client: FlaskClient, find_token: FindToken) -> Sign:
    """Fetch the form and send it."""

    def sign(author: str = "Ada", message: str = "Hello", **options) -> TestResponse:
        token = find_token(client.get("/"))
        return client.post("/", data={"author": author, "message": message, "csrf_token": token}, **options)

    return sign
