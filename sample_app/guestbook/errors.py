"""Error pages. Those for 404, 413 and 500 use neither the database nor the session: either may be what failed."""

from flask import Flask, flash, render_template
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError

from .forms import EntryForm
from .pages import show


def init_app(app: Flask) -> None:
    # 400 keeps Werkzeug's plain page: a request refused by TRUSTED_HOSTS has no host to build links from.
    for status in (404, 413, 500):
        app.register_error_handler(status, _render)
    app.register_error_handler(CSRFError, _offer_form_again)


def _render(error: Exception) -> ResponseReturnValue:
    status: int = getattr(error, "code", 500)
    return render_template(f"errors/{status}.html"), status


def _offer_form_again(error: CSRFError) -> ResponseReturnValue:
    """Most often the page was left open for too long: keep what the visitor wrote, with a fresh token."""
    flash("This form had expired, so nothing was saved. Please send it again.", "error")
    return show(EntryForm()), 400
