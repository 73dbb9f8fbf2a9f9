"""Placeholders: what is replaced, what is kept, and what is no part of a release."""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.apps.record import app_record

SHOP = {"domains": ["shop.test"], "source": {"path": "/code"}, "wsgi": "shop:app"}
PLACES = placeholders.places("/srv/shop", "shop.test", "r1")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{data_dir}/app.db", "/srv/shop/data/app.db"),
        ("{release_dir}/config.py", "/srv/shop/releases/r1/app/config.py"),
        ("https://{host}/{host}", "https://shop.test/shop.test"),
        ("{!host} {!database_url}", "{host} {database_url}"),
        ("{!{host}}", "{!shop.test}"),
    ],
)
def test_a_placeholder_is_replaced(text: str, filled: str) -> None:
    assert placeholders.fill(text, PLACES) == filled


@pytest.mark.parametrize(
    "text",
    [
        '{"host": 1, "a": {"b": {}}}',
        "{ host }",
        "{host:>8} {host!r} {host.name} {Host} {HOST}",
        "${HOST} %(host)s $host",
        r"^\d{2,3}[{]host}\{host\}$",
        "{}{0}{name}{!name}{databse_url}",
        "{host",
        "host}",
        "{{}}",
    ],
)
def test_any_other_text_in_braces_is_kept(text: str) -> None:
    assert placeholders.fill(text, PLACES) == text
    assert placeholders.used(text) == set()


def test_a_variable_has_the_value_of_another() -> None:
    given = {
        "DATABASE_URL": "sqlite:///{data_dir}/app.db",
        "STORE": '{"url": "{database_url}"}',
        "SECRET_KEY": "own {!host} {database_url}",
        "APP_KEY": "{secret_key}",
        "PLAIN": "{sqlalchemy_database_uri}",
    }
    assert placeholders.fill_variables(given, PLACES) == {
        "DATABASE_URL": "sqlite:////srv/shop/data/app.db",
        "STORE": '{"url": "sqlite:////srv/shop/data/app.db"}',
        "SECRET_KEY": "own {host} sqlite:////srv/shop/data/app.db",
        # What has been put in is not looked at again.
        "APP_KEY": "own {host} {database_url}",
        "PLAIN": "{sqlalchemy_database_uri}",
    }
    assert placeholders.key_names(given) == []


def test_a_name_of_the_generated_key_is_no_part_of_a_release() -> None:
    given = {"B_KEY": "{secret_key}", "A_KEY": "{secret_key}", "TEXT": "{!secret_key}"}
    assert placeholders.key_names(given) == ["A_KEY", "B_KEY"]
    assert placeholders.fill_variables(given, PLACES) == {"TEXT": "{secret_key}"}


def test_database_url_can_have_the_driver_too() -> None:
    """It is still Flaskhost's own URL: the tables have an owner, and each host has its database."""
    env = {"DATABASE_URL": "{sqlalchemy_database_uri}", "STORE": "{database_url}"}
    made = app_record("shop", {**SHOP, "env": env})
    uri = "postgresql+psycopg://shop@/shop?host=/var/run/postgresql"
    filled = placeholders.fill_variables(made["environment"], PLACES)
    assert [filled[name] for name in ("DATABASE_URL", "SQLALCHEMY_DATABASE_URI", "STORE")] == [uri] * 3
    assert {*made["database_owner_variables"].values()} == {uri.replace("shop@", "shop-owner:{password}@")}
    assert (made["database_per_host"], made["database_driver"]) == (True, "auto")


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"env": {"DATABASE_URL": "{sqlalchemy_database_uri}", "SQLALCHEMY_DATABASE_URI": "sqlite://"}}, True),
        ({"env": {"DATABASE_URL": "{sqlalchemy_database_uri}?a=1"}}, True),
        ({"secrets": {"DATABASE_URL": "{sqlalchemy_database_uri}"}}, False),
    ],
)
def test_any_other_url_is_the_users_own(options: dict[str, dict[str, str]], own: bool) -> None:
    made = app_record("shop", {**SHOP, **options})
    assert (made["database_per_host"], made["database_driver"]) == ((False, "") if own else (True, "auto"))


def test_the_release_command_has_the_owners_login_under_all_names() -> None:
    env = {"STORE": "{database_url}&a={host}", "URI": "{sqlalchemy_database_uri}", "A": "{data_dir}", "N": 3}
    made = app_record("shop", {**SHOP, "env": env, "secrets": {"KEPT": "{!database_url}"}})
    location = "shop-owner:{password}@/shop?host=/var/run/postgresql"
    assert made["database_owner_variables"] == {
        "DATABASE_URL": f"postgresql://{location}",
        "SQLALCHEMY_DATABASE_URI": f"postgresql+psycopg://{location}",
        "STORE": f"postgresql://{location}&a=shop.test",
        "URI": f"postgresql+psycopg://{location}",
    }
    # Replaced on the host: what is a secret must be in no option that is shown.
    assert made["environment"]["STORE"] == "{database_url}&a={host}"
