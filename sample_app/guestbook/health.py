"""Two probes: does the process respond, and can it reach what it needs?"""

import redis
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
    """The process responds. No database, so that its outage does not restart or withdraw every process."""
    answer = {"status": "ok"}
    if current_app.config["RELEASE"]:
        answer["release"] = current_app.config["RELEASE"]
    return jsonify(answer)


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """The database responds, without which no page works. Without Redis the app is slower, but serves."""
    parts = {"database": "ok" if database_responds() else "not reachable"}
    for name, url in (
        ("cache", current_app.config["CACHE_REDIS_URL"]),
        ("queue", current_app.config["QUEUE_REDIS_URL"]),
    ):
        if url:
            parts[name] = "ok" if redis_responds(name, url) else "not reachable"
    if parts["database"] != "ok":
        return jsonify(status="unavailable", **parts), 503
    return jsonify(status="degraded" if "not reachable" in parts.values() else "ok", **parts)


def database_responds() -> bool:
    try:
        # Not the session: it returns its connection after the view, where a failure would become an error page.
        with db.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        # The reason is for the log, not for visitors.
        current_app.logger.error("database not reachable: %s", getattr(error, "orig", None) or error)
        return False
    return True


def redis_responds(name: str, url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as connection:
            connection.ping()
    except redis.RedisError as error:
        current_app.logger.warning("%s not reachable: %s", name, error)
        return False
    return True
