"""Guestbook: visitors leave a name and a message. The application factory is `create_app`."""

import os
from pathlib import Path

from flask import Flask
from flask_migrate import Migrate
from flask_wtf import CSRFProtect
from werkzeug.middleware.proxy_fix import ProxyFix

from . import accounts, api, avatars, entries, errors, headers, health, logs, passwords, sessions, stats, tasks, tokens
from .config import load_config
from .limits import limiter
from .models import db

migrate = Migrate()
csrf = CSRFProtect()


def create_app(config_name: str | None = None) -> Flask:
    """Create the application.

    Args:
        config_name: development, testing or production. Without it FLASK_CONFIG decides, and without that the
            strictest one, production: a forgotten variable must not start a server in development mode.

    Raises:
        ConfigError: The configuration is unknown or incomplete. The message names every problem.
    """
    app = Flask(__name__)
    app.config.from_object(load_config(config_name, os.environ))

    # First, so that its request ID is there for all others, and its line counts their time.
    logs.init_app(app)
    headers.init_app(app)
    db.init_app(app)
    # An absolute path, so that `flask db` works from any folder.
    migrate.init_app(app, db, directory=str(Path(app.root_path).parent / "migrations"))
    csrf.init_app(app)
    limiter.init_app(app)
    stats.cache.init_app(app)
    for module in (entries, accounts, avatars, tokens, tasks, stats, api, health):
        app.register_blueprint(module.blueprint)
    # The API knows no session, so there is nothing to forge.
    csrf.exempt(api.blueprint)
    errors.init_app(app)
    for command in (accounts.promote, tasks.worker, tasks.tidy):
        app.cli.add_command(command)
    app.jinja_env.globals.update(
        current_account=sessions.current_account,
        may_edit=sessions.may_edit,
        may_delete=sessions.may_delete,
        password_rules=passwords.RULES,
    )

    if hops := app.config["PROXIES"]:
        # The proxies overwrite these three headers. No prefix: no proxy sends one, a client could.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_prefix=0)
    return app
