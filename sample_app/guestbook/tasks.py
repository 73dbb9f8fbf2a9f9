"""Background work: a worker that writes exports, and a timer that tidies up. Both can run twice and do no harm.

The request is a row of the database; the queue only says that it is there. So nothing is lost without Redis: the
timer also writes the exports that no worker has written.
"""

import csv
import io
from datetime import timedelta
from typing import TYPE_CHECKING

import click
import redis
from flask import Blueprint, Response, abort, current_app, flash, redirect, url_for
from flask.cli import with_appcontext
from flask.typing import ResponseReturnValue
from sqlalchemy import delete, select

from . import lockout
from .limits import WRITES, limiter
from .models import Entry, Export, db, now
from .sessions import current_account, login_required

if TYPE_CHECKING:
    from rq import Queue

blueprint = Blueprint("tasks", __name__)
KEPT = timedelta(days=1)
# Older than this and not finished: the queue has lost it.
OVERDUE = timedelta(minutes=10)


def queue() -> "Queue | None":
    from rq import Queue  # noqa: PLC0415 - web workers rarely need it

    url = current_app.config["QUEUE_REDIS_URL"]
    return Queue("guestbook", connection=redis.Redis.from_url(url)) if url else None


@blueprint.post("/account/exports")
@limiter.limit(WRITES)
@login_required
def request_export() -> ResponseReturnValue:
    export = Export(account_id=current_account().id)
    db.session.add(export)
    db.session.commit()
    try:
        if waiting := queue():
            waiting.enqueue(write_export, export.id)
    except redis.RedisError as error:
        current_app.logger.warning("queue not reachable: %s", error)
    flash("Your entries are being collected. Reload this page in a moment.", "success")
    return redirect(url_for("accounts.show"), 303)


@blueprint.get("/account/exports/<int:number>")
@login_required
def download(number: int) -> ResponseReturnValue:
    query = select(Export).filter_by(id=number, account_id=current_account().id)
    export = db.session.scalar(query.where(Export.finished_at.is_not(None))) or abort(404)
    headers = {"Content-Disposition": f"attachment; filename=guestbook-{number}.csv"}
    return Response(export.content, mimetype="text/csv", headers=headers)


def no_formula(text: str) -> str:
    """Keep a spreadsheet from running a message that begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def write_export(number: int) -> bool:
    """Collect the entries of an account; return whether there was something to do."""
    # The lock lets a worker and the timer not do the same at the same time.
    export = db.session.scalar(select(Export).filter_by(id=number, finished_at=None).with_for_update(skip_locked=True))
    if export is None:
        db.session.rollback()
        return False
    rows = db.session.scalars(select(Entry).filter_by(account_id=export.account_id).order_by(Entry.id)).all()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["created_at", "message"])
    writer.writerows([row.created_at.isoformat(), no_formula(row.message)] for row in rows)
    export.content, export.finished_at = text.getvalue(), now()
    db.session.commit()
    current_app.logger.info("export written", extra={"fields": {"export": number, "entries": len(rows)}})
    return True


@click.command("worker")
@with_appcontext
def worker() -> None:
    """Do the jobs of the queue, one after the other, each in a process of its own."""
    from rq import Worker  # noqa: PLC0415

    waiting = queue()
    if waiting is None:
        raise click.ClickException("there is no queue: set REDIS_URL, or leave the exports to `flask tidy`")
    Worker([waiting], connection=waiting.connection).work(logging_level="WARNING")


@click.command("tidy")
@with_appcontext
def tidy() -> None:
    """Remove what is old, and write the exports that no worker has written."""
    overdue = select(Export.id).where(Export.finished_at.is_(None), Export.created_at < now() - OVERDUE)
    written = sum(write_export(number) for number in db.session.scalars(overdue).all())
    exports = db.session.execute(delete(Export).where(Export.finished_at < now() - KEPT)).rowcount
    db.session.commit()
    lockouts = lockout.remove_old()
    fields = {"written": written, "exports": exports, "lockouts": lockouts}
    current_app.logger.info("tidied up", extra={"fields": fields})
    click.echo(f"{written} exports written, {exports} removed; {lockouts} rows of failed logins removed")
