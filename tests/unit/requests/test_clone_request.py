"""A clone goes one way: never to production, and only where the target's inventory allows it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.flaskhost.requests.clone import problem, source

APPS = {"shop": {}, "blog": {}}
CLONE = {"app": "shop", "source": "inventories/production", "scrub": "s.sql", "confirm": "shop"}


@pytest.mark.parametrize(
    ("given", "inventory", "allowed", "says"),
    [
        ({}, "/x/inventories/production", True, "production cannot be the target"),
        ({}, "/x/inventories/staging", False, "clone_target: staging does not allow"),
        ({"app": ""}, "/x/inventories/staging", True, "app: name one app"),
        ({"app": "shpo", "confirm": "shpo"}, "/x/inventories/staging", True, "Available: blog, shop."),
        ({"source": ""}, "/x/inventories/staging", True, "source: name the inventory"),
        ({"source": "inventories/staging/"}, "/x/inventories/staging", True, "is also the target"),
        ({"scrub": ""}, "/x/inventories/staging", True, "scrub: name the SQL"),
        ({"confirm": ""}, "/x/inventories/staging", True, "-e confirm=shop"),
        ({"_raw_params": "x"}, "/x/inventories/staging", True, "words were lost"),
        ({}, "/x/inventories/staging", "true", ""),
    ],
)
def test_a_clone_goes_one_way(given: dict[str, str], inventory: str, allowed: Any, says: str) -> None:
    found = problem(CLONE | given, APPS, inventory, allowed)
    assert says in found
    assert bool(found) is bool(says)


def test_of_the_other_inventory_only_the_way_to_its_host_is_taken() -> None:
    inventory = {
        "db": {"children": ["server"]},
        "server": {"hosts": ["production1"]},
        "_meta": {
            "hostvars": {"production1": {"ansible_host": "203.0.113.10", "ansible_user": "debian", "vault_x": "y"}}
        },
    }
    assert source(json.dumps(inventory)) == {
        "name": "clone_source_production1",
        "groups": "flaskhost_clone_source",
        "ansible_host": "203.0.113.10",
        "ansible_user": "debian",
    }
    with pytest.raises(ValueError, match="no host in the group db"):
        source("{}")
