"""Guestbook: visitors leave a name and a message. The application factory is `create_app`."""

import os
from pathlib import Path

from flask import Flask, Response
from flask_migrate import Migrate
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from . import errors, health, pages
from .config import load_config
from .models import db

migrate = Migrate()
csrf = CSRFProtect()


def create_app(config_name: str | None = None) -> Flask:
    """Make the application.

    Args:
        config_name: development, testing or production. Without it FLASK_CONFIG decides, and without that the
            strictest one, production, is taken: a forgotten variable must not start a server in development mode.

    Raises:
        ConfigError: The configuration is unknown or incomplete. The message names every problem.
    """
    app = Flask(__name__)
    app.config.from_object(load_config(config_name, os.environ))

    db.init_app(app)
    # An absolute path, so that `flask db` works from any folder.
    migrate.init_app(app, db, directory=str(Path(app.root_path).parent / "migrations"))
    csrf.init_app(app)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(health.blueprint)
    errors.init_app(app)

    if app.config["BEHIND_PROXY"]:
        # One proxy, which overwrites these three headers. No prefix: the proxy does not send one, a client could.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=0)  # type: ignore[method-assign]

    if release := app.config["RELEASE"]:

        @app.after_request
        def name_release(response: Response) -> Response:
            response.headers["X-Release"] = release
            return response

    return app
