"""Log lines as JSON on standard error, one for each request, and the ID that connects them with the proxy's log."""

import json
import logging
import re
import time
import uuid
from datetime import UTC, datetime

from flask import Flask, Response, current_app, g, has_request_context, request

logger = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON, with the request and the account that it belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if has_request_context():
            line["request_id"] = g.get("request_id")
            line["account"] = g.get("account_id")
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Handler(logging.StreamHandler):
    """The handler of this module: a second app in the same process replaces it, and leaves others alone."""


def init_app(app: Flask) -> None:
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s") if app.debug else JsonFormatter())
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if not isinstance(other, Handler)), handler]
    root.setLevel(app.config["LOG_LEVEL"])
    # Flask would otherwise choose its own level in debug mode, and its own handler.
    app.logger.setLevel(app.config["LOG_LEVEL"])
    app.before_request(begin)
    app.after_request(log_request)


def begin() -> None:
    g.started = time.monotonic()
    given = request.headers.get("X-Request-ID", "") if current_app.config["PROXIES"] else ""
    # Only the proxy's: a visitor who could choose the ID could hide among the lines of somebody else.
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def log_request(response: Response) -> Response:
    """Write one line. It names the rule, not the path and never the query, in which secrets end up by mistake."""
    response.headers["X-Request-ID"] = g.request_id
    # Health checks come every second, and their failures have lines of their own.
    level = logging.DEBUG if request.blueprint == "health" else logging.INFO
    fields = {
        "method": request.method,
        "route": request.url_rule.rule if request.url_rule else None,
        "status": response.status_code,
        "duration_ms": round((time.monotonic() - g.started) * 1000, 1),
    }
    logger.log(level, "request", extra={"fields": fields})
    return response
