"""A fresh app for each test, with real services whose data is empty. Forms are sent as a browser sends them.

`make sample-app-test` starts PostgreSQL and Redis, and names them in TEST_DATABASE_URI and TEST_REDIS_URL.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from guestbook import create_app
from guestbook.limits import limiter
from guestbook.models import db
from shared import DATABASE, REDIS, Visitor, find_token
from sqlalchemy import Engine, create_engine, text
from werkzeug.test import TestResponse

VARIABLES = (
    "CACHE_REDIS_URL DATABASE_URL FLASK_CONFIG FLASK_DEBUG FLASKHOST_RELEASE LOG_LEVEL MAX_CONTENT_LENGTH PROXIES "
    "RATELIMIT_STORAGE_URI REDIS_URL RQ_REDIS_URL SECRET_KEY SECRET_KEY_FALLBACKS SQLALCHEMY_DATABASE_URI TRUSTED_HOSTS"
).split()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The database, past the app, with the tables that the migrations create."""
    engine = create_engine(DATABASE)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    app = create_app("testing")
    with app.app_context():
        upgrade()
        db.engine.dispose()
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own variables decide nothing here."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REDIS_URL", REDIS)


@pytest.fixture
def empty(engine: Engine) -> Iterator[None]:
    """Remove all rows and keys after a test."""
    yield
    with engine.begin() as connection:
        tables = ", ".join(table.name for table in db.metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
    with redis.Redis.from_url(REDIS) as connection:
        connection.flushall()


@pytest.fixture(scope="session")
def one_app(engine: Engine) -> Iterator[Flask]:
    """One app for most tests, because each new one compiles all templates."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("REDIS_URL", REDIS)
        app = create_app("testing")
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def app(one_app: Flask, empty: None) -> Flask:
    # The limiter is one for all apps of a process, and counts where the last one has told it to.
    limiter.init_app(one_app)
    limiter._storage_dead = False
    return one_app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch, empty: None) -> pytest.MonkeyPatch:
    """An environment that the production configuration accepts."""
    monkeypatch.setenv("FLASK_CONFIG", "production")
    monkeypatch.setenv("SECRET_KEY", "0f6e2a9b7c4d1835" * 4)
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", DATABASE)
    return monkeypatch


@pytest.fixture
def visitor(app: Flask) -> Callable[[], Visitor]:
    """Make visitors, each with a browser of their own."""
    return lambda **options: Visitor(app, **options)


@pytest.fixture
def sign(client: FlaskClient) -> Callable[..., TestResponse]:
    """Fetch the form and send it."""

    def sign(author: str = "Ada", message: str = "Hello", **options) -> TestResponse:
        token = find_token(client.get("/"))
        return client.post("/", data={"author": author, "message": message, "csrf_token": token}, **options)

    return sign


@pytest.fixture
def instance(app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty instance folder, which holds the avatars."""
    monkeypatch.setattr(app, "instance_path", str(tmp_path))
    return tmp_path
