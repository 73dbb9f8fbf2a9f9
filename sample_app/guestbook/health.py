"""Two probes: does the process answer, and can it reach what it needs?"""

from flask import Blueprint, Response, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from .models import db

blueprint = Blueprint("health", __name__)


@blueprint.after_request
def forbid_caching(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """The process answers. No database, so that its outage does not restart or withdraw every process."""
    answer = {"status": "ok"}
    if current_app.config["RELEASE"]:
        answer["release"] = current_app.config["RELEASE"]
    return jsonify(answer)


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """The database answers. Why it does not is for the log, not for whoever asks."""
    try:
        # Not the session: it gives its connection back after the view, where a failure would become an error page.
        with db.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        current_app.logger.error("database not reachable: %s", getattr(error, "orig", None) or error)
        return jsonify(status="unavailable", database="not reachable"), 503
    return jsonify(status="ok", database="ok")
