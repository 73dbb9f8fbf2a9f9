"""Runs that are killed, here or with their host: the same command again heals it, and a second one changes nothing."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from faults import APPS, BOTH, INVENTORY, name_of, play, serves, sql, start, until, watched
from runs import kill

testinfra_hosts = BOTH

#: How often each run is killed.
MOMENTS = int(os.environ.get("FLASKHOST_MOMENTS") or 3)
SEED = int(os.environ.get("FLASKHOST_SEED") or random.randrange(1_000_000))


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> Callable[[float], list[float]]:
    """Chooses moments of a run that takes so many seconds: one out of each of as many equal parts."""

    def choose(seconds: float) -> list[float]:
        chance = random.Random(f"{SEED} {request.node.nodeid}")
        part = (seconds - 1) / MOMENTS
        chosen = [round(1 + part * (number + chance.random()), 1) for number in range(MOMENTS)]
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nFLASKHOST_SEED={SEED}, a run takes {seconds:.1f} s, kills after {chosen} s")
        return chosen

    return choose


def changed(output: str, name: str) -> int:
    """How many tasks have changed something on a host, by the recap."""
    return int(re.search(rf"{name} : ok=\d+ changed=(\d+)", output)[1])


def variables(number: int) -> dict[str, Any]:
    """The n-th form of the site: another body limit for nginx, other workers, another release."""
    app = {**APPS["guestbook"], "workers": 1 + number % 2, "env": {"ROUND": str(number)}, "limits": {
        **APPS["guestbook"]["limits"], "body": 17 + number}}  # fmt: skip
    return {"flask_apps": {"guestbook": app}, "base_packages": ["tree"] if number % 2 else []}


def test_killed_site_run(host, visitor, request, moments):
    name = name_of(host)
    began = time.monotonic()
    play("site", name, **variables(0))
    with watched(host, visitor, request) as fault:
        for number, moment in enumerate(moments(time.monotonic() - began), 1):
            process = start("site", name, **variables(number))
            time.sleep(moment)
            kill(process)
            play("site", name, **variables(number))
            assert changed(play("site", name, **variables(number)), name) == 0
    # A reload of nginx closes the connections that are idle; see tests/load_client.py.
    assert fault.report.lost == 0, fault.report.text()
    play("site", name)


def test_killed_host_in_a_converge(host, visitor, moments):
    """As when the power fails, except that the page cache stays."""
    name = name_of(host)
    began = time.monotonic()
    play("site", name, **variables(100))
    sql(host, "CREATE TABLE IF NOT EXISTS kept (a int); DELETE FROM kept; INSERT INTO kept VALUES (42)")
    for number, moment in enumerate(moments(time.monotonic() - began), 101):
        process = start("site", name, **variables(number))
        time.sleep(moment)
        restart(name)
        kill(process)
        # It serves again by itself, before anything is run.
        until(60, lambda: serves(visitor))
        play("site", name, **variables(number))
        assert changed(play("site", name, **variables(number)), name) == 0
    assert sql(host, "SELECT a FROM kept") == "42"
    play("site", name)


#: Kills an installation of packages amid it: apt refuses to install anything after that.
KILL_DPKG = """export DEBIAN_FRONTEND=noninteractive; apt-get purge --quiet --yes gcc vim-runtime > /dev/null 2>&1
apt-get install --quiet --yes --no-install-recommends gcc vim-runtime > /dev/null 2>&1 &
for _ in $(seq 6000); do
  if ls /var/lib/dpkg/updates | grep -q ^0; then pkill --signal KILL 'apt-get|dpkg'; break; fi
  sleep 0.01
done; wait; ls /var/lib/dpkg/updates | grep ^0"""


def test_killed_installation_of_packages(host, visitor):
    """As when the host dies in the first run of site.yml, most of which is this."""
    assert host.run(KILL_DPKG).stdout
    refused = host.run("apt-get install --quiet --yes cowsay")
    assert "dpkg was interrupted" in refused.stderr
    play("site", name_of(host), "--tags", "base", base_packages=["cowsay"])
    assert host.package("cowsay").is_installed
    assert host.run("dpkg --audit").stdout == ""
    assert serves(visitor)


def restart(name: str) -> None:
    """Kill a host, and start it again."""
    for verb in ("kill", "start"):
        subprocess.run(["docker", verb, name], check=True, capture_output=True, timeout=60)


def test_killed_rotation_of_the_secret_key(host, visitor, request, moments):
    name = name_of(host)
    began = time.monotonic()
    play("rotate_secret", name, app="guestbook")
    keys = "/etc/flaskhost/guestbook/secret_key"
    with watched(host, visitor, request) as fault:
        for moment in moments(time.monotonic() - began):
            signs = host.file(keys).content_string.split()[0]
            process = start("rotate_secret", name, app="guestbook")
            time.sleep(moment)
            kill(process)
            time.sleep(2)
            if not host.file(f"{keys}.new").exists:
                # It had not begun, or had ended already: then the next run is another rotation, after this one.
                signs = host.file(keys).content_string.split()[0]
            play("rotate_secret", name, app="guestbook")
            now = host.file(keys).content_string.split()
            assert now[1:] == [signs], "who was logged in stays so, and there is one new key"
            assert host.run(f"ls {keys}.new").rc != 0
    assert fault.report.lost == 0, fault.report.text()


@pytest.fixture
def inventories(tmp_path: Path) -> dict[str, Path]:
    """An inventory for each environment, with one host each."""
    whole = yaml.safe_load((INVENTORY / Path(os.environ["MOLECULE_INVENTORY_FILE"]).name).read_text())
    made = {}
    for environment, host in (("production", "fh-faults-bookworm"), ("staging", "fh-faults-trixie")):
        made[environment] = tmp_path / environment
        made[environment].mkdir()
        for folder in ("group_vars", "host_vars"):
            (made[environment] / folder).symlink_to((INVENTORY / folder).resolve())
        groups = {group: {"hosts": {host: whole["all"]["hosts"][host]}} for group in ("db", "app", "web")}
        (made[environment] / "hosts.yml").write_text(yaml.safe_dump(groups))
    return made


def test_killed_clone(host, visitor, inventories, moments):
    """Into Debian 13, from Debian 12: the data of before stays until all of the other has come."""
    if name_of(host) != "fh-faults-trixie":
        pytest.skip("one direction is enough")
    source = testinfra.get_host(f"ansible://{BOTH[0][10:]}", ansible_inventory=str(INVENTORY), sudo=True)
    insert = "DELETE FROM entry; INSERT INTO entry (author, message, created_at) VALUES ('x', '{}', now())"
    sql(source, insert.format("of production"))
    given = {"source": str(inventories["production"]), "app": "guestbook", "scrub": "none", "confirm": "guestbook"}
    clone = {**given, "clone_target": True}
    began = time.monotonic()
    play("clone", name_of(host), inventory=inventories["staging"], **clone)
    for moment in moments(time.monotonic() - began):
        sql(host, insert.format("of staging"))
        process = start("clone", name_of(host), inventory=inventories["staging"], **clone)
        time.sleep(moment)
        kill(process)
        assert sql(host, "SELECT message FROM entry") in ("of staging", "of production")
        play("clone", name_of(host), inventory=inventories["staging"], **clone)
        assert sql(host, "SELECT message FROM entry") == "of production"
        until(30, lambda: serves(visitor))
    for name in sql(host, "SELECT datname FROM pg_database WHERE datname ~ '^guestbook_before_'").split():
        sql(host, f"DROP DATABASE {name}", "postgres")
