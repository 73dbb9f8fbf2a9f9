"""The probes, and the release that answers."""

import pytest
from guestbook import create_app
from guestbook.models import db
from sqlalchemy.exc import OperationalError

DOWN = "postgresql+psycopg://guestbook:hunter2@127.0.0.1:1/guestbook"


@pytest.fixture
def without_database(production):
    production.setenv("SQLALCHEMY_DATABASE_URI", DOWN)
    return create_app().test_client()


def test_both_probes_are_content_when_all_is_well(client):
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.json["status"] == "ok"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers


def test_process_is_healthy_without_a_database(without_database):
    assert without_database.get("/healthz").status_code == 200


def test_not_ready_without_a_database_and_no_detail_given_away(without_database, caplog):
    answer = without_database.get("/readyz")
    assert answer.status_code == 503
    assert (answer.json["status"], answer.json["database"]) == ("unavailable", "not reachable")
    assert "database not reachable" in caplog.text
    assert "Traceback" not in caplog.text
    assert "hunter2" not in caplog.text


def test_not_ready_when_the_database_goes_away_during_the_probe(app, client, monkeypatch):
    with app.app_context():
        dialect = db.engine.dialect

    def gone(_connection):
        raise OperationalError("ROLLBACK", {}, Exception("the connection is lost"))

    monkeypatch.setattr(dialect, "do_rollback", gone)
    assert client.get("/readyz").status_code == 503


def test_without_redis_the_app_is_degraded_and_serves(monkeypatch, empty, caplog):
    assert create_app("testing").test_client().get("/readyz").json == {
        "status": "ok",
        "database": "ok",
        "cache": "ok",
        "queue": "ok",
    }
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/redis.sock")
    client = create_app("testing").test_client()
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "degraded",
        "database": "ok",
        "cache": "not reachable",
        "queue": "not reachable",
    }
    assert "cache not reachable" in caplog.text
    assert client.get("/").status_code == 200
    monkeypatch.delenv("REDIS_URL")
    assert create_app("testing").test_client().get("/readyz").json == {"status": "ok", "database": "ok"}


def test_release_is_named_in_the_probe_and_on_every_answer(monkeypatch):
    monkeypatch.setenv("FLASKHOST_RELEASE", "20261121T104500Z-1a2b3c4")
    client = create_app("testing").test_client()
    assert client.get("/healthz").json["release"] == "20261121T104500Z-1a2b3c4"
    for path in ("/healthz", "/static/style.css", "/nowhere"):
        assert client.get(path, buffered=True).headers["X-Release"] == "20261121T104500Z-1a2b3c4"


def test_without_a_release_none_is_named(client):
    answer = client.get("/healthz")
    assert "release" not in answer.json
    assert "X-Release" not in answer.headers
