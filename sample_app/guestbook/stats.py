"""The statistics: counted by the database, computed with pandas in a short process, cached for all workers."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any

from flask import Blueprint, abort, current_app, render_template
from flask.typing import ResponseReturnValue
from flask_caching import Cache
from sqlalchemy import Date, cast, func, select

from .limits import READS, limiter
from .models import Entry, db, now

blueprint = Blueprint("stats", __name__)
cache = Cache()
SECONDS = 300
AUTHORS = 20
# One computation at a time in each worker: many visitors at once must not start many processes.
_computing = Lock()


@blueprint.get("/stats")
@limiter.limit(READS)
def show() -> ResponseReturnValue:
    with _computing:
        found = statistics()
    highest = max(count for _day, count, _mean in found["days"]) or 1
    return render_template("stats.html", highest=highest, seconds=SECONDS, **found)


@cache.cached(timeout=SECONDS, key_prefix="statistics")
def statistics() -> dict[str, Any]:
    program = Path(__file__).with_name("frames.py")
    # Isolated, and without this process's variables: neither the secrets nor the developer's settings reach it.
    command = [sys.executable, "-I", str(program)]
    done = subprocess.run(  # noqa: S603 - our own program
        command, input=json.dumps(counts()), env={"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        current_app.logger.error("statistics failed: %s", done.stderr)
        abort(503)
    return json.loads(done.stdout)


def counts() -> dict[str, Any]:
    """Let the database count: a few rows leave it, however many entries there are."""
    moment = Entry.created_at
    is_postgres = db.engine.dialect.name == "postgresql"
    day = cast(func.timezone("UTC", moment), Date) if is_postgres else func.date(moment)
    since = now() - timedelta(days=30)
    by_day = select(day, func.count()).where(moment > since).group_by(day)
    is_member = Entry.account_id.is_not(None)
    by_author = (
        select(Entry.author, is_member, func.count(), func.max(day))
        .group_by(Entry.author, is_member)
        .order_by(func.count().desc(), Entry.author)
        .limit(AUTHORS)
    )
    found = {
        "by_day": [[str(day), count] for day, count in db.session.execute(by_day)],
        "by_author": [[*row[:3], str(row[3])] for row in db.session.execute(by_author)],
        "today": str(now().date()),
    }
    # The connection goes back to the pool before the process runs.
    db.session.rollback()
    return found
