"""The statistics: right figures, escaped, cached, and computed outside of the worker."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from guestbook import create_app, stats
from guestbook.frames import DAYS, compute
from guestbook.models import Entry, db


@pytest.fixture
def entries(app, visitor):
    """Three entries of a guest, one of a member, one that is too old for the days."""
    visitor().sign_up("ada")
    today = datetime.now(UTC)
    with app.app_context():
        db.session.add_all(Entry(author="<b>Grace</b>", message="x", created_at=today) for _number in range(2))
        db.session.add(Entry(author="<b>Grace</b>", message="x", created_at=today - timedelta(days=2)))
        db.session.add(Entry(author="ada", message="x", account_id=1, created_at=today))
        db.session.add(Entry(author="ada", message="x", created_at=today - timedelta(days=40)))
        db.session.commit()
    return today


def test_tables_and_chart_show_the_figures_escaped(client, entries):
    page = client.get("/stats")
    assert page.status_code == 200
    assert "&lt;b&gt;Grace&lt;/b&gt;" in page.text
    assert "<b>Grace" not in page.text
    assert "<td>60.0 %</td>" in page.text
    assert f'<th scope="row">{entries:%Y-%m-%d}</th><td>3</td>' in page.text
    assert page.text.count("<rect") == DAYS
    # A member and a guest of the same name are two.
    assert page.text.count("ada</th>") + page.text.count('ada <span class="badge">member</span></th>') == 2
    for inline in ("<style", "<script", "style="):
        assert inline not in page.text


def test_page_without_entries(client):
    page = client.get("/stats")
    assert "No entries yet." in page.text
    assert page.text.count('height="0.0"') == DAYS


def test_days_are_those_of_utc_whatever_the_database_thinks(app):
    with app.app_context():
        late = datetime.now(UTC).replace(hour=23, minute=59, second=59) - timedelta(days=1)
        db.session.add(Entry(author="Ada", message="x", created_at=late))
        db.session.commit()
        db.session.connection().exec_driver_sql("SET SESSION TIME ZONE 'Pacific/Auckland'")
        assert stats.counts()["by_day"] == [[f"{late:%Y-%m-%d}", 1]]
        db.session.connection().exec_driver_sql("RESET TIME ZONE")


def test_sqlite_counts_the_same(monkeypatch):
    app = create_app("testing")
    monkeypatch.setenv("TEST_DATABASE_URI", "sqlite://")
    app = create_app("testing")
    with app.app_context():
        db.create_all()
        db.session.add(Entry(author="Ada", message="x"))
        db.session.commit()
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        assert stats.counts() == {"by_day": [[today, 1]], "by_author": [["Ada", False, 1, today]], "today": today}


def test_figures_are_cached_for_all_processes(app, client, entries, monkeypatch):
    assert "60.0 %" in client.get("/stats").text
    monkeypatch.setattr(stats, "counts", lambda: pytest.fail("counted again"))
    assert "60.0 %" in client.get("/stats").text
    assert "60.0 %" in create_app("testing").test_client().get("/stats").text


def test_without_redis_they_are_computed(monkeypatch, entries):
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/redis.sock")
    assert "60.0 %" in create_app("testing").test_client().get("/stats").text


def test_computation_that_fails_is_a_page_and_a_line(client, monkeypatch, caplog):
    monkeypatch.setattr(stats, "counts", dict)
    page = client.get("/stats")
    assert page.status_code == 503
    assert "We will be right back" in page.text
    assert "statistics failed" in caplog.text


def test_worker_never_imports_pandas_and_its_process_sees_no_secret(monkeypatch):
    code = "import sys; from guestbook import create_app; create_app('testing'); print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "False\n"
    seen = {}

    def run(command, **options):
        seen.update(options["env"])
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", run)
    app = create_app("testing")
    with app.app_context(), pytest.raises(subprocess.TimeoutExpired):
        stats.statistics()
    assert seen == {"OPENBLAS_NUM_THREADS": "1"}


def test_frames_fill_the_gaps_and_order_the_authors():
    found = compute(
        [["2026-11-26", 7], ["2026-11-27", 1]],
        [["b", False, 1, "2026-11-27"], ["a", True, 1, "2026-11-27"], ["c", False, 6, "2026-11-26"]],
        "2026-11-27",
    )
    assert found["days"][-3:] == [["2026-11-25", 0, 0.0], ["2026-11-26", 7, 1.0], ["2026-11-27", 1, 1.1]]
    assert len(found["days"]) == DAYS
    assert [author[0] for author in found["authors"]] == ["c", "a", "b"]
    assert found["authors"][0] == ["c", False, 6, 75.0, "2026-11-26"]
