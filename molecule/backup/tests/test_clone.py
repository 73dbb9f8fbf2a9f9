"""Production's data in staging: scrubbed, and never the other way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from backups import INVENTORY, run, served, sql

testinfra_hosts = ["ansible://fh-backup-trixie"]
SOURCE, TARGET = "fh-backup-bookworm", "fh-backup-trixie"


@pytest.fixture
def inventories(tmp_path: Path) -> dict[str, Path]:
    """An inventory for each environment, with one host each."""
    whole = yaml.safe_load((INVENTORY / "ansible_inventory.yml").read_text())
    made = {}
    for name, host in (("production", SOURCE), ("staging", TARGET)):
        made[name] = tmp_path / name
        made[name].mkdir()
        for folder in ("group_vars", "host_vars"):
            (made[name] / folder).symlink_to((INVENTORY / folder).resolve())
        groups: dict[str, Any] = {
            group: {"hosts": {host: whole["all"]["hosts"][host]}} for group in ("db", "app", "web")
        }
        (made[name] / "hosts.yml").write_text(yaml.safe_dump(groups))
    return made


def test_data_comes_over_scrubbed_and_what_was_there_stays(host, visitor, inventories, tmp_path):
    source = testinfra.get_host(f"ansible://{SOURCE}", ansible_inventory=str(INVENTORY), sudo=True)
    rows = "SELECT 'real@example.org', 'of production', now()"
    sql(source, f"DELETE FROM entry; INSERT INTO entry (author, message, created_at) {rows}")
    scrub = tmp_path / "guestbook.sql"
    scrub.write_text("UPDATE entry SET author = 'somebody';\n")
    command = {"source": str(inventories["production"]), "app": "guestbook", "scrub": str(scrub)}

    output = run("clone", inventories["staging"], good=False, **command, confirm="guestbook")
    assert "clone_target: true" in output
    output = run("clone", inventories["staging"], **command, confirm="guestbook", clone_target=True)
    assert sql(host, "SELECT author || ' ' || message FROM entry") == "somebody of production"
    assert "When you no longer need it" in output
    served(visitor)
    assert host.run("ls -d /tmp/flaskhost-clone-* /var/tmp/flaskhost-clone-*").rc != 0

    scrub.write_text("UPDATE entry SET author = 'nobody'; SELECT 1 / 0;\n")
    run("clone", inventories["staging"], good=False, **command, confirm="guestbook", clone_target=True)
    assert sql(host, "SELECT author FROM entry") == "somebody", "where the scrub fails nothing is taken over"
    served(visitor)


def test_production_is_never_overwritten(inventories):
    command = {"source": str(inventories["staging"]), "app": "guestbook", "scrub": "none", "confirm": "guestbook"}
    output = run("clone", inventories["production"], good=False, **command, clone_target=True)
    assert "production cannot be the target of a clone" in output
