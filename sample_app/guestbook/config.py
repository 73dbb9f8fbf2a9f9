"""One configuration class per environment, filled in from environment variables when the app is created."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

MIN_SECRET_LENGTH = 16
# Nothing short, which a random key could contain by chance.
_PLACEHOLDER = re.compile(
    r"^<.*>$|change.?(me|this|it)|replace.?(me|this)|placeholder|example|your.{0,12}key|secret.?key|not a secret", re.I
)
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class ConfigError(RuntimeError):
    """The environment variables do not describe a configuration that the app can run with."""


class Config:
    """What all environments share."""

    DEBUG = False
    TESTING = False
    PROXIES = 0
    ENTRIES_PER_PAGE = 10
    SESSION_COOKIE_HTTPONLY = True
    SESSION_COOKIE_SAMESITE = "Lax"
    DEVICE_COOKIE_NAME = "device"
    PERMANENT_SESSION_LIFETIME = timedelta(days=14)
    # The memory of one password hash, in KiB, and its passes: the minimum that OWASP recommends for Argon2id.
    ARGON2_MEMORY, ARGON2_PASSES = 19 * 1024, 2
    # Neither a message nor a traceback contains the values of a query.
    SQLALCHEMY_ENGINE_OPTIONS: dict[str, Any] = {"hide_parameters": True}  # noqa: RUF012 - Flask-SQLAlchemy's name

    SECRET_KEY: str
    SQLALCHEMY_DATABASE_URI: str

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []
        self.RELEASE = environ.get("FLASKHOST_RELEASE", "")
        self.MAX_CONTENT_LENGTH = self._number("MAX_CONTENT_LENGTH", 16 * 1024 * 1024, "number of bytes")
        self.LOG_LEVEL = environ.get("LOG_LEVEL") or "INFO"
        if self.LOG_LEVEL not in _LOG_LEVELS:
            self.problems.append(f"LOG_LEVEL must be one of {', '.join(_LOG_LEVELS)}")
        self.read(environ)
        self._use_redis(environ)
        if self.problems:
            raise ConfigError(f"{type(self).__name__}: {'; '.join(self.problems)}")

    def read(self, environ: Mapping[str, str]) -> None:
        """Read what this environment needs, and add each fault to `problems`."""
        raise NotImplementedError

    def _number(self, name: str, default: int, what: str, most: int = 2**40) -> int:
        text = self.environ.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= most):
            self.problems.append(f"{name} must be a {what} greater than 0, such as {default}")
            return default
        return int(text)

    def _use_redis(self, environ: Mapping[str, str]) -> None:
        """Use Redis for the cache, the queue and the rate limits, each with its own variable or with REDIS_URL."""
        self.CACHE_REDIS_URL = self._redis("CACHE_REDIS_URL")
        self.QUEUE_REDIS_URL = self._redis("RQ_REDIS_URL")
        self.CACHE_TYPE = "RedisCache" if self.CACHE_REDIS_URL else "SimpleCache"
        self.CACHE_OPTIONS = {"socket_timeout": 1, "socket_connect_timeout": 1} if self.CACHE_REDIS_URL else {}
        # Flask-Limiter calls a Unix socket redis+unix://.
        url = re.sub("^unix://", "redis+unix://", self._redis("REDIS_URL"))
        self.RATELIMIT_STORAGE_URI = environ.get("RATELIMIT_STORAGE_URI") or url or "memory://"
        if self.RATELIMIT_STORAGE_URI.startswith("redis"):
            self.RATELIMIT_STORAGE_OPTIONS = {"socket_timeout": 1, "socket_connect_timeout": 1}

    def _redis(self, name: str) -> str:
        found = name if self.environ.get(name) else "REDIS_URL"
        url = self.environ.get(found, "")
        if url and not url.startswith(_REDIS_SCHEMES):
            problem = f"{found} must begin with one of {', '.join(_REDIS_SCHEMES)}"
            if problem not in self.problems:
                self.problems.append(problem)
            return ""
        return url


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
    ARGON2_MEMORY, ARGON2_PASSES = 64, 1

    def read(self, environ: Mapping[str, str]) -> None:
        self.SECRET_KEY = "testing, not a secret"  # noqa: S105 - it guards nothing
        self.SQLALCHEMY_DATABASE_URI = environ.get("TEST_DATABASE_URI") or "sqlite://"


class ProductionConfig(Config):
    """A server behind a reverse proxy that speaks HTTPS. Nothing that matters has a default."""

    PREFERRED_URL_SCHEME = "https"
    SESSION_COOKIE_SECURE = True
    # Browsers accept __Host- only with Secure, Path=/ and no Domain, so no neighbor domain can set these cookies.
    SESSION_COOKIE_NAME = "__Host-session"
    DEVICE_COOKIE_NAME = "__Host-device"

    def read(self, environ: Mapping[str, str]) -> None:
        self.SECRET_KEY = self._read_secret(environ)
        self.SECRET_KEY_FALLBACKS = self._read_fallbacks(environ)
        self.SQLALCHEMY_DATABASE_URI = self._database(environ)
        self.PROXIES = self._number("PROXIES", 1, "number of proxies", most=9)
        hosts = [host.strip() for host in environ.get("TRUSTED_HOSTS", "").split(",")]
        self.TRUSTED_HOSTS = [host for host in hosts if host] or None

    def _read_secret(self, environ: Mapping[str, str]) -> str:
        secret = environ.get("SECRET_KEY", "")
        cure = """generate one with: python -c 'import secrets; print(secrets.token_hex())'"""
        if not secret:
            self.problems.append(f"SECRET_KEY is not set; {cure}")
        elif len(secret) < MIN_SECRET_LENGTH or _PLACEHOLDER.search(secret):
            self.problems.append(f"SECRET_KEY is a placeholder or shorter than {MIN_SECRET_LENGTH} characters; {cure}")
        return secret

    def _read_fallbacks(self, environ: Mapping[str, str]) -> list[str]:
        """Read the previous keys: sessions that they signed stay valid."""
        try:
            keys = json.loads(environ.get("SECRET_KEY_FALLBACKS") or "[]")
        except ValueError:
            keys = None
        if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
            self.problems.append('SECRET_KEY_FALLBACKS must be a JSON list of keys, such as ["the previous key"]')
            return []
        return keys

    def _database(self, environ: Mapping[str, str]) -> str:
        # Platforms such as Heroku set DATABASE_URL, without the name of a driver.
        fallback = re.sub("^postgres(ql)?://", "postgresql+psycopg://", environ.get("DATABASE_URL", ""))
        uri = environ.get("SQLALCHEMY_DATABASE_URI") or fallback
        self.SQLALCHEMY_ENGINE_OPTIONS = {**self.SQLALCHEMY_ENGINE_OPTIONS, "pool_pre_ping": True}
        example = "postgresql+psycopg://user:password@host/database"
        if not uri:
            self.problems.append(f"SQLALCHEMY_DATABASE_URI is not set; for example {example}")
            return uri
        try:
            backend = make_url(uri).get_backend_name()
        except (ArgumentError, ValueError):
            # The message does not repeat the value: it may contain a password.
            self.problems.append(f"SQLALCHEMY_DATABASE_URI is not a database URL; for example {example}")
            return uri
        if backend == "postgresql":
            # A host that drops packets would otherwise hold a request, and /readyz, for minutes.
            self.SQLALCHEMY_ENGINE_OPTIONS["connect_args"] = {"connect_timeout": 5}
        return uri


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
