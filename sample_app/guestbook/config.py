"""One configuration class per environment, filled in from environment variables when the app is made."""

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

MIN_SECRET_LENGTH = 16
# Nothing short, which a random key could hold by chance.
_PLACEHOLDER = re.compile(
    r"^<.*>$|change.?(me|this|it)|replace.?(me|this)|placeholder|example|your.{0,12}key|secret.?key|not a secret", re.I
)


class ConfigError(RuntimeError):
    """The environment does not describe a configuration that the app can run with."""


class Config:
    """What every environment shares."""

    DEBUG = False
    TESTING = False
    BEHIND_PROXY = False
    SESSION_COOKIE_HTTPONLY = True
    SESSION_COOKIE_SAMESITE = "Lax"
    ENTRIES_PER_PAGE = 10

    SECRET_KEY: str
    SQLALCHEMY_DATABASE_URI: str

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.RELEASE = environ.get("FLASKHOST_RELEASE", "")
        self.MAX_CONTENT_LENGTH = self._read_size(environ, "MAX_CONTENT_LENGTH", 16 * 1024 * 1024)
        self.read(environ)
        if self.problems:
            raise ConfigError(f"{type(self).__name__}: {'; '.join(self.problems)}")

    def read(self, environ: Mapping[str, str]) -> None:
        """Read what this environment needs; add what is wrong to `problems`."""
        raise NotImplementedError

    def _read_size(self, environ: Mapping[str, str], name: str, default: int) -> int:
        text = environ.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            self.problems.append(f"{name} must be a number of bytes greater than 0, such as {default}")
            return default
        return int(text)


class DevelopmentConfig(Config):
    """A developer's own machine: debugger on, SQLite in the instance folder."""

    DEBUG = True

    def read(self, environ: Mapping[str, str]) -> None:
        self.SECRET_KEY = environ.get("SECRET_KEY") or "development, not a secret"
        self.SQLALCHEMY_DATABASE_URI = environ.get("SQLALCHEMY_DATABASE_URI") or "sqlite:///guestbook.db"


class TestingConfig(Config):
    """The test suite: SQLite in memory, or the database that TEST_DATABASE_URI names, whose tables it drops."""

    __test__ = False  # not a test class, whatever pytest thinks of its name
    TESTING = True

    def read(self, environ: Mapping[str, str]) -> None:
        self.SECRET_KEY = "testing, not a secret"  # noqa: S105 - it guards nothing
        self.SQLALCHEMY_DATABASE_URI = environ.get("TEST_DATABASE_URI") or "sqlite://"


class ProductionConfig(Config):
    """A server behind one reverse proxy that speaks HTTPS. Nothing that matters has a default."""

    BEHIND_PROXY = True
    PREFERRED_URL_SCHEME = "https"
    SESSION_COOKIE_SECURE = True

    def read(self, environ: Mapping[str, str]) -> None:
        self.SECRET_KEY = self._read_secret(environ)
        self.SECRET_KEY_FALLBACKS = self._read_fallbacks(environ)
        self.SQLALCHEMY_DATABASE_URI = environ.get("SQLALCHEMY_DATABASE_URI", "")
        self.SQLALCHEMY_ENGINE_OPTIONS = self._engine_options(self.SQLALCHEMY_DATABASE_URI)
        hosts = [host.strip() for host in environ.get("TRUSTED_HOSTS", "").split(",")]
        self.TRUSTED_HOSTS = [host for host in hosts if host] or None

    def _read_secret(self, environ: Mapping[str, str]) -> str:
        secret = environ.get("SECRET_KEY", "")
        cure = """make one with: python -c 'import secrets; print(secrets.token_hex())'"""
        if not secret:
            self.problems.append(f"SECRET_KEY is not set; {cure}")
        elif len(secret) < MIN_SECRET_LENGTH or _PLACEHOLDER.search(secret):
            self.problems.append(f"SECRET_KEY is a placeholder or shorter than {MIN_SECRET_LENGTH} characters; {cure}")
        return secret

    def _read_fallbacks(self, environ: Mapping[str, str]) -> list[str]:
        """Keys that signed sessions before SECRET_KEY did: whoever has such a session stays logged in."""
        try:
            keys = json.loads(environ.get("SECRET_KEY_FALLBACKS") or "[]")
        except ValueError:
            keys = None
        if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
            self.problems.append('SECRET_KEY_FALLBACKS must be a JSON list of keys, such as ["the key before"]')
            return []
        return keys

    def _engine_options(self, uri: str) -> dict[str, Any]:
        options: dict[str, Any] = {"pool_pre_ping": True}
        example = "postgresql+psycopg://user:password@host/database"
        if not uri:
            self.problems.append(f"SQLALCHEMY_DATABASE_URI is not set; for example {example}")
            return options
        try:
            backend = make_url(uri).get_backend_name()
        except (ArgumentError, ValueError):
            # The value stays out of the message: it may hold a password.
            self.problems.append(f"SQLALCHEMY_DATABASE_URI is not a database URL; for example {example}")
            return options
        if backend == "postgresql":
            # A host that swallows packets would otherwise hold a request, and /readyz, for minutes.
            options["connect_args"] = {"connect_timeout": 5}
        return options


CONFIGS: dict[str, type[Config]] = {
    "development": DevelopmentConfig,
    "testing": TestingConfig,
    "production": ProductionConfig,
}


def load_config(name: str | None, environ: Mapping[str, str]) -> Config:
    """Return the configuration that `name`, or else FLASK_CONFIG, or else production, stands for."""
    name = name or environ.get("FLASK_CONFIG") or "production"
    if name not in CONFIGS:
        raise ConfigError(f"FLASK_CONFIG is {name!r}, which is not a configuration; use one of: {', '.join(CONFIGS)}")
    return CONFIGS[name](environ)
