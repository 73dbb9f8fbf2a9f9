"""Commands in messages: without what may be a secret, and still to be known again."""

from __future__ import annotations

import time

import pytest
from ansible.module_utils.flaskhost.host.redact import redact


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("flask create-user --password hunter2", "flask create-user --password ***"),
        ("flask create-user --password=hunter2 --role x", "flask create-user --password=*** --role ***"),
        ("flask create-user ada 'hunter 2' --yes", "flask create-user *** *** --yes"),
        ("flask user create ada hunter2 && flask db upgrade", "flask user create *** *** && flask db upgrade"),
        ("flask create-user ada 12 2>&1 | tee log", "flask create-user *** *** 2>&1 | tee log"),
        ("flask set-password hunter2; echo done", "flask set-password ***; echo done"),
        ("flask seed --api-key 'a b' --url x", "flask seed --api-key *** --url x"),
        ('flask seed --token "a\\" b"', "flask seed --token ***"),
        ("TOKEN=abc flask seed", "TOKEN=*** flask seed"),
        ("export DB_PASSWORD='a b' && flask seed", "export DB_PASSWORD=*** && flask seed"),
        ("sh -c 'SECRET_KEY=abc flask seed'", "sh -c 'SECRET_KEY=*** flask seed'"),
        ("psql postgresql://shop:pw@db/shop -c x", "psql postgresql://***@db/shop -c x"),
        ("psql 'postgresql://shop:p@w/d@db/shop'", "psql 'postgresql://***@db/shop'"),
        ("curl -u ada:pw https://a.test", "curl -u *** https://a.test"),
        ("curl -H 'Authorization: Bearer abc' https://a.test", "curl -H 'Authorization: Bearer ***' https://a.test"),
        ('curl -H "X-Api-Key: abc"', 'curl -H "X-Api-Key: ***"'),
        ("python -c \"set_up(password='abc')\"", 'python -c "set_up(password=***'),
        ('app.config["SECRET_KEY"] = "abc', 'app.config["SECRET_KEY"] = ***'),
        ('{"token": "abc"', '{"token": ***'),
    ],
)
def test_a_secret_is_masked(command: str, shown: str) -> None:
    assert redact(command) == shown


@pytest.mark.parametrize(
    "command",
    [
        "",
        "flask db upgrade",
        "flask --app shop db upgrade -d migrations/main",
        "alembic -x tenant=a upgrade head",
        "flask create-user --password $ADMIN_PASSWORD",
        'flask create-user --password "${ADMIN_PASSWORD}" --yes',
        "TOKEN=$TOKEN flask seed",
        "python -m shop.tasks --workers 3 && echo 'a b' | tee out.txt",
        "curl https://a.test/b?c=d",
        "celery -A shop worker --passive",
        "flask users list",
    ],
)
def test_any_other_command_stays_as_it_is(command: str) -> None:
    assert redact(command) == command


@pytest.mark.parametrize(
    "text", ["password" * 20_000, "a" * 200_000, "'\\" * 50_000, "--key " * 30_000, "a.b-" * 50_000]
)
def test_it_takes_no_time(text: str) -> None:
    """A command can come from a Procfile of 64 KB."""
    began = time.process_time()
    redact(text[: 64 * 1024])
    assert time.process_time() - began < 2
