"""Hints for the errors of apps and builds that are met most often: what is missing, and which option provides it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.deploy import drivers

#: What stands for an app's PostgreSQL driver in its errors.
_DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
#: SQLAlchemy, not the app's own code, imports a driver.
_DIALECT = "dialects/postgresql/"
_NO_DRIVER = re.compile(r"No module named '(?P<word>psycopg2?)'")
#: Patterns and hints; the first one that matches counts.
_HINTS = (
    (
        r"No such command '(?P<word>db)'",
        "'flask db' comes with Flask-Migrate. Add it to the app's packages and create Migrate(app, db), or remove the "
        "release command.",
    ),
    (
        r"No such command '(?P<word>[\w-]+)'",
        "The app has no command '{word}'. If it is in another module than wsgi names, write: flask --app MODULE {word}",
    ),
    (
        r"No module named '?(?P<word>psycopg2?)\b",
        "The app's packages have no driver for PostgreSQL. Add {driver} to its lock or requirements file, or, with an "
        "exact version, to extra_packages.",
    ),
    (
        r"Can't load plugin: sqlalchemy\.dialects:postgresql\.psycopg\b",
        "SQLAlchemy before 2.0 cannot use psycopg 3. Add psycopg2-binary to the lock or requirements file, or, with an "
        "exact version, to extra_packages.",
    ),
    (
        r"No module named '?(?P<word>MySQLdb|pymysql)\b",
        "The app's database URL is one of MySQL, but Flaskhost sets up PostgreSQL. Read DATABASE_URL in the app, or "
        "set the app's own variable in secrets and add {word} to its packages.",
    ),
    (
        r"No module named '?(?P<word>gevent)\b",
        "worker_class: gevent needs gevent. Add gunicorn[gevent] to the lock or requirements file, or, with an exact "
        "version, to extra_packages.",
    ),
    (
        r"No module named '?(?P<word>[A-Za-z_]\w*)",
        "If {word} is a package, add it to the lock or requirements file. If it is the app's own code, correct wsgi or "
        "source.subdir.",
    ),
    (
        r"Flask\.__call__\(\) takes 3 positional arguments but 4 were given",
        "worker_class: asgi is for ASGI apps, such as Quart's. A Flask app, with async views too, needs worker_class: "
        "gthread.",
    ),
    (
        r"Quart\.__call__\(\) missing 1 required positional argument: 'send'",
        "Quart apps are ASGI apps. Set server: gunicorn and worker_class: asgi.",
    ),
    (
        r"(?:Error 111 connecting to|Connection to) (?P<word>(?:localhost|127\.0\.0\.1):6379)|"
        r"redis\S{0,100}ConnectionError",
        "The app cannot reach Redis. Set cache: redis, or queue: redis for jobs, and read REDIS_URL in the code. For a "
        "Redis server on another host, set its URL in secrets.",
    ),
    (
        r"(?:^|[\s:])(?P<word>[\w.+-]+): (?:command )?not found$",
        "The host has no program {word}. Name its Debian package: in build_packages if only builds need it, otherwise "
        "in system_packages.",
    ),
)  # fmt: skip


def hint(said: str, packages: Mapping[str, str] | None = None) -> str:
    """Return a hint for an error.

    Args:
        said: the output of the app, its command or its build.
        packages: the packages of the release; see :func:`drivers.packages`.

    Returns:
        Sentences on a line of their own, after a line break; empty if the error is not known.
    """
    # Not one pattern with .* between them, which a long output makes slow.
    match = _NO_DRIVER.search(said.partition(_DIALECT)[2])
    if match and (reason := drivers.wrong_default(packages or {}, match["word"])):
        version, found = reason
        return (
            f"\nThe app gives SQLAlchemy a URL without a driver, probably DATABASE_URL, and SQLAlchemy {version} then "
            f"uses {match['word']}. The app's packages contain {found}. Let the app read SQLALCHEMY_DATABASE_URI, or "
            f'set env: {{DATABASE_URL: "{placeholders.WITH_DRIVER}"}}.'
        )
    for pattern, text in _HINTS:
        if match := re.search(pattern, said, re.MULTILINE):
            word = match.groupdict().get("word") or ""
            return "\n" + text.replace("{word}", word).replace("{driver}", _DRIVERS.get(word, word))
    return ""
