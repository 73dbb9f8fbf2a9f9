"""The page: the form, and the entries with the newest first."""

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from .forms import EntryForm
from .models import Entry, db

blueprint = Blueprint("pages", __name__)

# Far above any real page, and far below what the database takes as an OFFSET.
MAX_PAGE = 1_000_000


@blueprint.get("/")
def index() -> ResponseReturnValue:
    return show(EntryForm())


@blueprint.post("/")
def sign() -> ResponseReturnValue:
    form = EntryForm()
    if not form.validate():
        return show(form), 422
    db.session.add(Entry(author=form.author.data, message=form.message.data))
    db.session.commit()
    flash("Thank you! Your entry is in the book.", "success")
    # 303: the browser fetches the page, and a reload does not post again.
    return redirect(url_for("pages.index"), 303)


def show(form: EntryForm) -> str:
    """Render the page with `form` on it."""
    page = request.args.get("page", 1, type=int)
    if not 1 <= page <= MAX_PAGE:
        abort(404)
    entries = db.paginate(
        select(Entry).order_by(Entry.id.desc()), page=page, per_page=current_app.config["ENTRIES_PER_PAGE"]
    )
    return render_template("index.html", form=form, entries=entries)
