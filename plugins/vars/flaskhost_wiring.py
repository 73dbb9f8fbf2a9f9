"""The wiring for every inventory: group_vars/all of the project, wherever the inventory is.

Ansible loads this file before it forks a process for each task. It loads the filters in each of these processes, which
took a quarter of a second for each task. Therefore, the filters' modules are imported here.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.inventory.group import InventoryObjectType
from ansible.plugins.vars import BaseVarsPlugin

DOCUMENTATION = """
name: flaskhost_wiring
short_description: The wiring, for every inventory
description:
  - Gives every host the variables of the project's C(group_vars/all), which hand each role its part of C(flask_apps).
  - What the inventory sets in its own C(group_vars) and C(host_vars) wins.
  - Without it, each inventory would need a link to that folder, and could not be copied or moved.
extends_documentation_fragment: [vars_plugin_staging]
"""

#: The filters, which import everything that the control node needs of the project's code.
FILTERS = Path(__file__).resolve().parents[1] / "filter" / "flask_apps.py"
#: The wiring.
FOLDER = Path(__file__).resolve().parents[2] / "group_vars" / "all"


def import_filters() -> None:
    """Import the modules of the filters, so that the processes of all tasks have them."""
    spec = importlib.util.spec_from_file_location("flaskhost_filters", FILTERS)
    if spec and spec.loader:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


import_filters()


@cache
def first_inventory(sources: tuple[str, ...]) -> str:
    """Return the folder of the first inventory, as Ansible names it to plugins; empty if there is none.

    Ansible calls a plugin for the folder of each inventory, then for the playbook's. The variables of a later folder
    win, so the wiring belongs to the first.

    Args:
        sources: the inventories of this run. Lists of hosts have no folder.
    """
    for source in sources:
        if os.path.exists(source):  # noqa: PTH110 - Ansible's own rule, on its own texts
            return source if Path(source).is_dir() else str(Path(source).parent)
    return ""


class VarsModule(BaseVarsPlugin):
    """Loads the wiring for the group all."""

    # Ansible keeps the instance.
    is_stateless = True

    def get_vars(self, loader: Any, path: str, entities: Any, cache: bool = True) -> dict[str, Any]:
        """Return the wiring for the group all of the first inventory, and nothing for all others.

        Args:
            loader: Ansible's loader of files, which caches them.
            path: the folder of an inventory or of the playbook.
            entities: hosts and groups.
            cache: unused.
        """
        super().get_vars(loader, path, entities)
        given: Iterable[Any] = entities if isinstance(entities, list) else [entities]
        if not any(item.base_type is InventoryObjectType.GROUP and item.name == "all" for item in given):
            return {}
        sources = tuple(context.CLIARGS.get("inventory") or constants.DEFAULT_HOST_LIST)
        if str(path) != first_inventory(sources):
            return {}
        found: dict[str, Any] = {}
        for file in sorted(FOLDER.glob("*.yml")):
            found |= loader.load_from_file(str(file), cache="all", unsafe=True, trusted_as_template=True)
        return found
