"""Error pages, and the same errors as problem details (RFC 9457) below /api/.

They use neither the database nor the session nor url_for: each of them may be what failed.
"""

from flask import Flask, Response, current_app, flash, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from . import entries, limits

# Title and explanation. All other errors have those of the last line of their hundred.
TEXTS = {
    400: ("That request was not understood", "Go back, reload the page and try again."),
    403: ("That is not yours to change", "You are logged in, but not as somebody who can do this."),
    404: ("There is no such page", "It may have moved, or the address has a slip in it."),
    405: ("That does not work here", "This page exists, but does not accept that kind of request."),
    413: ("That is more than we can take", "Please send something shorter or smaller."),
    422: ("Something in it is not right", "Go back, correct what you sent, and send it again."),
    429: ("That was too much at once", "Please wait a little, then try again."),
    500: ("Something went wrong on our side", "It is not your fault. Please try again in a moment."),
    503: ("We will be right back", "A part of the site is away. Please try again in a moment."),
}


def init_app(app: Flask) -> None:
    app.register_error_handler(HTTPException, show_error)
    app.register_error_handler(CSRFError, offer_form_again)
    app.register_error_handler(OperationalError, database_is_away)


def show_error(error: HTTPException) -> ResponseReturnValue:
    status = error.code or 500
    if request.path.startswith("/api/"):
        response = problem(status, error.name, error.description)
    else:
        title, text = TEXTS.get(status) or TEXTS[400 if status < 500 else 500]
        page = render_template(
            "error.html", status=status, title=title, text=text, request_id=g.get("request_id"), v=_version()
        )
        response = Response(page, status, mimetype="text/html")
    for name, value in error.get_headers():
        # Such as Allow, Retry-After, WWW-Authenticate.
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    if status == 429:
        response.headers["Retry-After"] = str(limits.retry_after())
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def problem(status: int, title: str, detail: str | None = None, **more: object) -> Response:
    """Make a response with problem details. The request ID in it finds the line in the log."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": g.request_id}
    response = jsonify({name: value for name, value in {**body, **more}.items() if value is not None})
    response.status_code, response.mimetype = status, "application/problem+json"
    return response


def database_is_away(error: OperationalError) -> ResponseReturnValue:
    current_app.logger.error("database failed: %s", error.orig)
    return show_error(ServiceUnavailable(retry_after=5))


def offer_form_again(error: CSRFError) -> ResponseReturnValue:
    """Most often the page was left open for too long: keep what the visitor wrote, with a fresh token."""
    if request.endpoint != "entries.sign":
        return show_error(error)
    flash("This form had expired, so nothing was saved. Please send it again.", "error")
    return entries.show(entries.make_form()), 400


def _version() -> str:
    release = current_app.config["RELEASE"]
    return f"?v={release}" if release else ""
