"""The errors that are met most often each get a hint, and where they are told it stands."""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.deploy.hints import hint
from release_site import Site


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Error: No such command 'db'.", "comes with Flask-Migrate"),
        ("Error: No such command 'init-db'.", "no command 'init-db'. If it is in another module"),
        ("ModuleNotFoundError: No module named 'psycopg'", "Add psycopg[binary] to its lock"),
        ("ModuleNotFoundError: No module named 'psycopg2'", "Add psycopg2-binary to its lock"),
        ("ModuleNotFoundError: No module named 'MySQLdb'", "Flaskhost sets up PostgreSQL"),
        ("ModuleNotFoundError: No module named 'flask_babel'", "If flask_babel is a package"),
        ("ModuleNotFoundError: No module named 'shop.views'", "If shop is a package"),
        (
            "redis.exceptions.ConnectionError: Error 111 connecting to localhost:6379. Connection refused.",
            "cache: redis",
        ),
        ("/bin/sh: 1: npm: not found", "The host has no program npm. Name its Debian package: in build_packages"),
        ("bash: line 1: ffmpeg: command not found", "The host has no program ffmpeg"),
        ("ModuleNotFoundError: No module named 'gevent'", "Add gunicorn[gevent] to the lock"),
        ("TypeError: Flask.__call__() takes 3 positional arguments but 4 were given", "needs worker_class: gthread"),
        (
            "TypeError: Quart.__call__() missing 1 required positional argument: 'send'",
            "Set server: gunicorn and worker",
        ),
    ],
)
def test_a_usual_error_has_a_hint(said: str, words: str) -> None:
    found = hint(f"Traceback (most recent call last):\n  File x\n{said}\n")
    assert found.startswith("\n")
    assert words in found
    assert "{" not in found


@pytest.mark.parametrize("said", ["", "ValueError: no", "KeyError: 'PATH'", "the command 'flask' ended", "a cc of it"])
def test_any_other_has_none(said: str) -> None:
    assert hint(said) == ""


def test_the_hint_of_a_release_command_stands_in_its_message(site: Site) -> None:
    refused = site.refused(release_command="echo \"Error: No such command 'db'.\"; exit 2")
    assert refused.cure.endswith("or remove the release command.")
