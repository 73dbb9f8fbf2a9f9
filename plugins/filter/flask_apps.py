"""Filters that turn ``flask_apps`` into what the roles read. The logic is in plugins/module_utils/flaskhost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

PROJECT_DIR = Path(__file__).resolve().parents[2]
# Ansible ships plugins/module_utils to the hosts under this name; on the controller it has to be told of the folder.
if str(PROJECT_DIR / "plugins" / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT_DIR / "plugins" / "module_utils"))

from ansible.module_utils.flaskhost import app_model, preflight, sizing  # noqa: E402 - needs the path above


def flask_app_sizes(
    apps: dict[str, Any], memory_mb: int, cpus: int, database: bool = True, app_hosts: int = 1
) -> dict[str, Any]:
    """Compute the host's sizing budget; see :func:`sizing.size_host`."""
    return sizing.size_host(int(memory_mb), int(cpus), apps, database, app_hosts)


def flask_app_records(apps: dict[str, Any], sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """Turn ``flask_apps`` into full records; see :func:`app_model.app_records`."""
    return app_model.app_records(apps, sizes["apps"], str(PROJECT_DIR))


def flask_app_problems(
    apps: Any, settings: dict[str, Any] | None = None, facts: dict[str, Any] | None = None
) -> list[dict[str, str]]:
    """Find every problem of the apps, the settings and the host; see :func:`preflight.find_problems`."""
    return preflight.find_problems(apps, settings or {}, facts or {}, PROJECT_DIR)


def flask_app_pick(records: list[dict[str, Any]], fields: dict[str, str]) -> list[dict[str, Any]]:
    """Hand a role its part of the records; see :func:`app_model.pick`."""
    return app_model.pick(records, fields)


class FilterModule:
    """The filters by their names in a template."""

    def filters(self) -> dict[str, Any]:
        """Return the filters."""
        return {
            "flask_app_pick": flask_app_pick,
            "flask_app_problems": flask_app_problems,
            "flask_app_records": flask_app_records,
            "flask_app_sizes": flask_app_sizes,
        }
