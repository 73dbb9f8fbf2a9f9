"""Which configuration is taken, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
from flask import request
from guestbook import create_app
from guestbook.config import ConfigError


@pytest.mark.parametrize(("name", "debug", "testing"), [("development", True, False), ("testing", False, True)])
def test_environment_variable_selects_the_configuration(monkeypatch, name, debug, testing):
    monkeypatch.setenv("FLASK_CONFIG", name)
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", "sqlite://")  # no instance folder in the tree
    app = create_app()
    assert (app.debug, app.testing) == (debug, testing)


def test_argument_beats_the_environment_variable(monkeypatch):
    monkeypatch.setenv("FLASK_CONFIG", "production")
    assert create_app("testing").testing


def test_unknown_name_is_refused_with_the_names_that_exist(monkeypatch):
    monkeypatch.setenv("FLASK_CONFIG", "prodution")
    with pytest.raises(ConfigError, match=r"'prodution'.*development, testing, production"):
        create_app()


def test_without_a_name_the_strict_configuration_is_taken():
    with pytest.raises(ConfigError, match="ProductionConfig"):
        create_app()


def test_production_names_all_problems_at_once(monkeypatch):
    monkeypatch.setenv("MAX_CONTENT_LENGTH", "16m")
    for name, value in {"LOG_LEVEL": "LOUD", "PROXIES": "many", "REDIS_URL": "http://cache"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        create_app("production")
    for problem in (
        "SECRET_KEY is not set",
        "SQLALCHEMY_DATABASE_URI is not set",
        "MAX_CONTENT_LENGTH must be",
        "LOG_LEVEL must be one of",
        "PROXIES must be",
        "REDIS_URL must begin with",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "2short4",
        "changeme-changeme-changeme",
        "please-change-this-key",
        "<the secret goes here>",
        "my-super-secret-key!",
    ],
)
def test_production_refuses_a_placeholder_without_repeating_it(production, secret):
    production.setenv("SECRET_KEY", secret)
    with pytest.raises(ConfigError, match="SECRET_KEY is a placeholder") as caught:
        create_app()
    assert secret not in str(caught.value)


@pytest.mark.parametrize("name", ["development", "testing"])
def test_production_refuses_the_keys_of_the_other_configurations(production, name):
    production.delenv("SECRET_KEY")
    key = create_app(name).config["SECRET_KEY"]
    production.setenv("SECRET_KEY", key)
    with pytest.raises(ConfigError, match="SECRET_KEY is a placeholder"):
        create_app()


def test_production_refuses_what_is_not_a_database_url_without_repeating_it(production):
    production.setenv("SQLALCHEMY_DATABASE_URI", "db.internal password=hunter2")
    with pytest.raises(ConfigError, match="not a database URL") as caught:
        create_app()
    assert "hunter2" not in str(caught.value)


def test_production_is_locked_down(production):
    production.setenv("FLASK_DEBUG", "1")
    app = create_app()
    assert not app.debug
    assert app.config["PREFERRED_URL_SCHEME"] == "https"
    assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["pool_pre_ping"] is True


def test_postgresql_is_given_up_on_after_seconds(production):
    production.setenv("SQLALCHEMY_DATABASE_URI", "postgresql+psycopg://guestbook@/guestbook")
    assert create_app().config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"] == {"connect_timeout": 5}


def test_body_limit_is_16_mib_unless_the_environment_says_otherwise(production):
    assert create_app().config["MAX_CONTENT_LENGTH"] == 16 * 1024 * 1024
    production.setenv("MAX_CONTENT_LENGTH", "1048576")
    assert create_app().config["MAX_CONTENT_LENGTH"] == 1048576


@pytest.mark.parametrize("size", ["0", "-1", "16m", "²"])
def test_body_limit_must_be_a_number_of_bytes(production, size):
    production.setenv("MAX_CONTENT_LENGTH", size)
    with pytest.raises(ConfigError, match="MAX_CONTENT_LENGTH"):
        create_app()


def test_a_session_that_the_key_before_has_signed_is_still_accepted(production):
    before = create_app()
    signer = before.session_interface.get_signing_serializer(before)
    cookie = signer.dumps({"visitor": "ada"})
    production.setenv("SECRET_KEY", "b1946ac92492d234" * 4)
    after = create_app()
    assert _session(after, cookie) == {}
    production.setenv("SECRET_KEY_FALLBACKS", f'["{before.config["SECRET_KEY"]}"]')
    assert _session(create_app(), cookie) == {"visitor": "ada"}


def _session(app, cookie):
    with app.test_request_context(headers={"Cookie": f"__Host-session={cookie}"}):
        return dict(app.session_interface.open_session(app, request))


@pytest.mark.parametrize("text", ["old-key", '"old-key"', '{"old": "key"}', "[1]", '[""]'])
def test_fallbacks_that_are_no_list_of_keys_are_refused_without_repeating_them(production, text):
    production.setenv("SECRET_KEY_FALLBACKS", text)
    with pytest.raises(ConfigError, match="SECRET_KEY_FALLBACKS must be a JSON list") as caught:
        create_app()
    assert "old-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "cache", "queue", "limits"),
    [
        ({}, "", "", "memory://"),
        ({"REDIS_URL": "redis://r/0"}, "redis://r/0", "redis://r/0", "redis://r/0"),
        ({"REDIS_URL": "unix:///q?db=0"}, "unix:///q?db=0", "unix:///q?db=0", "redis+unix:///q?db=0"),
        (
            # What Flaskhost sets for `cache: redis` and `queue: redis`.
            {
                "REDIS_URL": "unix:///q?db=0",
                "RQ_REDIS_URL": "unix:///q?db=0",
                "CACHE_REDIS_URL": "unix:///c?db=0",
                "RATELIMIT_STORAGE_URI": "redis+unix:///c?db=2",
            },
            "unix:///c?db=0",
            "unix:///q?db=0",
            "redis+unix:///c?db=2",
        ),
    ],
)
def test_redis_is_used_where_the_host_gives_one(monkeypatch, variables, cache, queue, limits):
    monkeypatch.delenv("REDIS_URL")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = create_app("testing").config
    assert (config["CACHE_REDIS_URL"], config["QUEUE_REDIS_URL"]) == (cache, queue)
    assert config["RATELIMIT_STORAGE_URI"] == limits
    assert config["CACHE_TYPE"] == ("RedisCache" if cache else "SimpleCache")


def test_database_url_of_other_platforms_is_understood(production):
    production.delenv("SQLALCHEMY_DATABASE_URI")
    production.setenv("DATABASE_URL", "postgres://ada@db.internal/guestbook")
    assert create_app().config["SQLALCHEMY_DATABASE_URI"] == "postgresql+psycopg://ada@db.internal/guestbook"


def test_two_commands_of_the_readme_start_a_developers_app(tmp_path, monkeypatch):
    """`.env` and `.flaskenv` are read by `flask`, and SQLite needs nothing else."""
    monkeypatch.delenv("REDIS_URL")
    here = Path(__file__).parent.parent
    assert "/.env\n" in (here / ".gitignore").read_text()
    for name in ("guestbook", "migrations", ".flaskenv"):
        (tmp_path / name).symlink_to(here / name)
    (tmp_path / ".env").write_text((here / ".env.example").read_text())
    monkeypatch.setenv("SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path / 'guestbook.db'}")
    command = [sys.executable, "-m", "flask", "db", "upgrade"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "guestbook.db").exists()
