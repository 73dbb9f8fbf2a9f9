"""Placeholders such as ``{data_dir}`` in the values of ``env`` and ``secrets`` and in the content of ``files``.

The functions are pure. Modules that run on the hosts import this file, so it does not import the schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Absolute, because Mitogen does not find relative imports.
from ansible.module_utils.flaskhost.apps.names import DATABASE_VARIABLES

#: The placeholder of the key that signs sessions. It is the whole value of a variable, so that a rotation changes it.
KEY = "secret_key"
#: The placeholders of the app's database, in the order of the variables with the same names.
DATABASE = tuple(name.lower() for name in DATABASE_VARIABLES)
#: The placeholder of the Redis of the app.
REDIS = "redis_url"
#: All names. Any other text in braces stays as it is.
NAMES = ("release_dir", "data_dir", "host", *DATABASE, KEY, REDIS)

#: This value of ``DATABASE_URL`` gives it Flaskhost's own URL with the driver, and is no URL of the user's.
WITH_DRIVER = "{sqlalchemy_database_uri}"

_PLACEHOLDER = re.compile(rf"\{{(!?)({'|'.join(NAMES)})\}}")


def used(text: str) -> set[str]:
    """Return the names of the placeholders in a text, without those that are kept literally (``{!host}``)."""
    return {name for kept, name in _PLACEHOLDER.findall(text) if not kept}


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders for which there are values. ``{!host}`` becomes the text ``{host}``."""

    def replace(match: re.Match[str]) -> str:
        kept, name = match.groups()
        return f"{{{name}}}" if kept else values.get(name, match[0])

    return _PLACEHOLDER.sub(replace, text)


def places(root: str, host: str, release: str = "") -> dict[str, str]:
    """Return the values of the placeholders that are no secrets.

    Args:
        root: the app's folder under /srv.
        host: the app's canonical domain.
        release: the name of the release; if empty, ``{release_dir}`` is not replaced.
    """
    values = {"data_dir": f"{root}/data", "host": host}
    return {**values, "release_dir": f"{root}/releases/{release}/app"} if release else values


def own_database(variables: Mapping[str, object]) -> set[str]:
    """Return the variables of the database whose URL is the user's own, not Flaskhost's."""
    given = {*DATABASE_VARIABLES} & variables.keys()
    return given - {"DATABASE_URL"} if given == {"DATABASE_URL"} and has_driver(variables) else given


def has_driver(variables: Mapping[str, object]) -> bool:
    """Check whether ``DATABASE_URL`` has the value of ``SQLALCHEMY_DATABASE_URI``."""
    return variables.get("DATABASE_URL") == WITH_DRIVER


def fill_variables(variables: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Replace the placeholders in an app's variables.

    Args:
        variables: the variables.
        values: the result of :func:`places`.

    Returns:
        The variables without those that are further names of the generated key; see :func:`key_names`.
    """
    names = (*DATABASE_VARIABLES, KEY.upper(), REDIS.upper())
    # These can contain placeholders themselves, such as sqlite:///{data_dir}/app.db.
    own = {name.lower(): fill(variables[name], values) for name in names if name in variables}
    if has_driver(variables) and (uri := own.get("sqlalchemy_database_uri")):
        own["database_url"] = uri
    further = key_names(variables)
    return {name: fill(value, {**values, **own}) for name, value in variables.items() if name not in further}


def key_names(variables: Mapping[str, str]) -> list[str]:
    """Return the variables that get the generated key; none if the user sets ``SECRET_KEY``.

    Their values are not part of a release: a rollback must not bring a key back that was replaced.
    """
    further = sorted(name for name, value in variables.items() if value == f"{{{KEY}}}")
    return [] if KEY.upper() in variables else further
