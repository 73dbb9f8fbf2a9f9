"""The slots' units of an app, rendered as Ansible does it."""

from __future__ import annotations

from typing import Any

from rendering import render


def slot(**changes: Any) -> dict[str, Any]:
    """An app, as the role slots takes it."""
    return {
        "name": "shop",
        "user": "shop",
        "unit": "flask-shop",
        "server": "gunicorn",
        "command": "/srv/shop/slots/%i/venv/bin/gunicorn ${FLASK_APP}",
        "root": "/srv/shop",
        "slots": "/srv/shop/slots",
        "data": "/srv/shop/data",
        "socket_dir": "/run/flask-shop",
        "drain": 30,
        "memory_mb": 512,
        **changes,
    }


def unit(template: str, **changes: Any) -> dict[str, list[str]]:
    """The settings of a systemd unit: each with all its values."""
    found: dict[str, list[str]] = {}
    for line in render("slots", template, item=slot(**changes)).splitlines():
        if line and not line.startswith(("#", "[")):
            name, _equals, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found
