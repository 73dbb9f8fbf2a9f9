"""The entries: everybody can sign, members can change and delete their own, moderators can delete any."""

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select

from .forms import ActionForm, EntryForm, MessageForm
from .limits import WRITES, limiter
from .models import Entry, db, now
from .sessions import current_account, login_required, may_delete, may_edit, require

blueprint = Blueprint("entries", __name__)

# Far above any real page, and far below what the database accepts as an OFFSET.
MAX_PAGE = 1_000_000


def make_form() -> MessageForm:
    """A member's name is known."""
    return MessageForm() if current_account() else EntryForm()


@blueprint.get("/")
def index() -> ResponseReturnValue:
    return show(make_form())


@blueprint.post("/")
@limiter.limit(WRITES)
def sign() -> ResponseReturnValue:
    account, form = current_account(), make_form()
    if not form.validate():
        return show(form), 422
    author = account.name if account else form.author.data
    db.session.add(Entry(author=author, message=form.message.data, account=account))
    db.session.commit()
    flash("Thank you! Your entry is in the book.", "success")
    # 303: the browser fetches the page, and a reload does not post again.
    return redirect(url_for("entries.index"), 303)


@blueprint.route("/entries/<int:number>/edit", methods=["GET", "POST"])
@limiter.limit(WRITES, methods=["POST"])
@login_required
def edit(number: int) -> ResponseReturnValue:
    entry = db.get_or_404(Entry, number)
    require(may_edit(current_account(), entry))
    form = MessageForm(obj=entry)
    if not form.validate_on_submit():
        return render_template("edit.html", form=form, entry=entry), 422 if form.is_submitted() else 200
    entry.message, entry.updated_at = form.message.data, now()
    db.session.commit()
    flash("Your entry is changed.", "success")
    return redirect(url_for("entries.index"), 303)


@blueprint.post("/entries/<int:number>/delete")
@login_required
def delete(number: int) -> ResponseReturnValue:
    entry = db.get_or_404(Entry, number)
    require(may_delete(current_account(), entry))
    db.session.delete(entry)
    db.session.commit()
    flash("The entry is deleted.", "success")
    return redirect(url_for("entries.index"), 303)


def show(form: MessageForm) -> str:
    """Render the page with `form` on it."""
    page = request.args.get("page", 1, type=int)
    if not 1 <= page <= MAX_PAGE:
        abort(404)
    entries = db.paginate(
        select(Entry).order_by(Entry.id.desc()), page=page, per_page=current_app.config["ENTRIES_PER_PAGE"]
    )
    return render_template("index.html", form=form, entries=entries, action=ActionForm())
