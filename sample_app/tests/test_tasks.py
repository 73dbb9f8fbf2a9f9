"""Exports by the worker and by the timer; what runs twice does no harm."""

from datetime import timedelta

import pytest
import redis
from guestbook import create_app
from guestbook.models import Export, db
from guestbook.tasks import queue, tidy, worker, write_export
from rq import SimpleWorker
from rq.worker import Worker
from shared import Visitor


@pytest.fixture
def ada(visitor):
    ada = visitor().sign_up("ada")
    ada.send("/", message="First")
    ada.send("/", message="=cmd|' /C calc'!A0")
    return ada


def ask(ada):
    assert ada.send("/account/exports", page="/account").status_code == 303


def work(app):
    """Do all jobs that wait, as `flask worker` does, in this process."""
    with app.app_context():
        SimpleWorker([queue()], connection=queue().connection).work(burst=True)


def age(app, **much):
    with app.app_context():
        for export in db.session.query(Export):
            export.created_at -= timedelta(**much)
            export.finished_at = export.finished_at and export.finished_at - timedelta(**much)
        db.session.commit()


def run(app, command):
    return app.test_cli_runner().invoke(command)


def test_worker_writes_the_export_of_its_owner(app, ada, visitor):
    visitor().sign_up("eve").send("/", message="Somebody else's")
    ask(ada)
    assert "not ready yet" in ada.get("/account").text
    assert ada.get("/account/exports/1").status_code == 404
    work(app)
    assert "Download of" in ada.get("/account").text
    file = ada.get("/account/exports/1")
    assert file.mimetype == "text/csv"
    assert "attachment" in file.headers["Content-Disposition"]
    assert file.headers["Cache-Control"] == "private, no-store"
    header, first, formula = file.text.splitlines()
    assert header == "created_at,message"
    assert first.endswith(",First")
    assert formula.endswith(",'=cmd|' /C calc'!A0")


def test_job_that_runs_twice_changes_nothing(app, ada):
    ask(ada)
    work(app)
    before = ada.get("/account/exports/1").text
    ada.send("/", message="Later")
    with app.app_context():
        assert write_export(1) is False
        assert write_export(99) is False
    assert ada.get("/account/exports/1").text == before


def test_what_the_queue_has_lost_is_written_by_the_timer(app, ada):
    ask(ada)
    with redis.Redis.from_url(app.config["QUEUE_REDIS_URL"]) as connection:
        connection.flushall()
    assert "0 exports written" in run(app, tidy).output
    age(app, minutes=11)
    assert "1 exports written, 0 removed" in run(app, tidy).output
    assert "First" in ada.get("/account/exports/1").text


def test_timer_removes_what_is_old_and_can_run_again(app, ada):
    ask(ada)
    work(app)
    assert "0 removed" in run(app, tidy).output
    age(app, days=1, minutes=1)
    assert "0 exports written, 1 removed" in run(app, tidy).output
    assert "0 exports written, 0 removed" in run(app, tidy).output
    assert ada.get("/account/exports/1").status_code == 404


@pytest.mark.parametrize("url", ["", "unix:///nowhere/redis.sock"])
def test_without_redis_an_export_waits_for_the_timer(monkeypatch, empty, url, caplog):
    monkeypatch.setenv("REDIS_URL", url)
    app = create_app("testing")
    ada = Visitor(app).sign_up("ada")
    ask(ada)
    assert "not ready yet" in ada.get("/account").text
    assert ("queue not reachable" in caplog.text) == bool(url)
    age(app, minutes=11)
    assert "1 exports written" in run(app, tidy).output
    with app.app_context():
        db.engine.dispose()


def test_worker_command_works_on_the_queue(app, monkeypatch):
    seen = []
    monkeypatch.setattr(Worker, "work", lambda self, **options: seen.append(self.queue_names()))
    assert run(app, worker).exit_code == 0
    assert seen == [["guestbook"]]


def test_worker_without_a_queue_says_what_to_set(monkeypatch):
    monkeypatch.delenv("REDIS_URL")
    done = run(create_app("testing"), worker)
    assert done.exit_code != 0
    assert "set REDIS_URL" in done.output
