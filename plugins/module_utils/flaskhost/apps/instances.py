"""Names and paths of an app's instances: its cache and its queue, each a server of its own behind a Unix socket.

The functions are pure. Modules that run on the hosts import this file, so it does not import the schema.
"""

from __future__ import annotations

import hashlib

#: The instances that an app can have. The options of an app have the same names.
KINDS = ("cache", "queue")

#: systemd accepts no longer user name.
LONGEST_USER = 31


def instance(app: str, kind: str, engine: str) -> dict[str, str]:
    """Return the names and paths of one instance of an app.

    Args:
        app: the app's name.
        kind: one of :data:`KINDS`.
        engine: the server that runs: ``redis`` or ``memcached``.

    Returns:
        ``engine``, ``kind``, ``unit`` (with its suffix), ``user`` (of its own), ``group`` (the app's, which can open
        the socket), ``folder`` and ``socket``, ``state`` (the folder of its data) and ``config`` (its settings).
    """
    name = f"flask-{app}_{kind}"
    return {
        "engine": engine,
        "kind": kind,
        "unit": f"{name}.service",
        "user": user(app, kind),
        "group": app,
        "folder": f"/run/{name}",
        "socket": f"/run/{name}/{kind}.sock",
        "state": f"/var/lib/{name}",
        "config": f"/etc/flaskhost/{name}.conf",
    }


def user(app: str, kind: str) -> str:
    """Return the system user of an instance. No app can have this name, because app names have no underscore.

    If the app's name is too long, the user's name has only its beginning and a checksum of it, and two underscores.
    """
    name = f"{app}_{kind}"
    if len(name) <= LONGEST_USER:
        return name
    checksum = hashlib.sha256(app.encode()).hexdigest()[:8]
    return f"{app[: LONGEST_USER - len(kind) - len(checksum) - 2]}_{checksum}_{kind}"
