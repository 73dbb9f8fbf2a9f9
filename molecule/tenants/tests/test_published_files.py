"""Root makes releases of hostile code: what it publishes and removes is of that release, and of nobody else."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tenants import PROJECT, attack, hosts, playbook, root_python, with_app

testinfra_hosts = hosts("trixie")

#: What no deploy of Mallory's may touch or show: the keys of another app, and a folder that root alone may read.
KEYS, PRIVATE = "/etc/flaskhost/alice", "/root/private"


class Mallory:
    """The hostile app with code of its own choice."""

    def __init__(self, host: Any, folder: Path) -> None:
        self.host, self.folder = host, folder
        shutil.copytree(PROJECT / "tests/apps/hostile", folder)
        shutil.rmtree(folder / "static")
        # So that it is no release that an earlier run of these tests has left.
        (folder / "run").write_text(secrets.token_hex())

    def deploy(self, **options: Any) -> tuple[int, str]:
        wanted = {"source": {"path": str(self.folder)}, "persistent": ["instance"], **options}
        return playbook("deploy", self.host, app="mallory", **with_app("mallory", **wanted))


@pytest.fixture
def mallory(host: Any, tmp_path: Path) -> Iterator[Mallory]:
    yield Mallory(host, tmp_path / "code")
    host.run("rm -rf /srv/mallory/data/instance %s", PRIVATE)
    assert playbook("deploy", host, app="mallory", **with_app("mallory"))[0] == 0


def state(host: Any, folder: str) -> str:
    """Owners, modes, numbers of names and targets of everything below a folder."""
    found = host.run("find %s -printf '%%p %%u %%g %%m %%n %%l\n'", folder)
    assert found.rc == 0, found.stderr
    return str(found.stdout)


def test_links_through_the_apps_data_publish_nothing_of_others(host: Any, visitor: Any, mallory: Mallory) -> None:
    """The code has the link static -> instance/x. The app points x into each new release until that is checked."""
    keys = state(host, KEYS)
    assert "secret_key" in keys
    (mallory.folder / "static").symlink_to("instance/x")
    (mallory.folder / "decoy").mkdir()
    (mallory.folder / "decoy/site.css").write_text("decoy")
    watching = attack(
        visitor,
        """
        import pathlib, threading, time
        releases, link = pathlib.Path("/srv/mallory/releases"), pathlib.Path("/srv/mallory/data/instance/x")
        link.parent.mkdir(exist_ok=True)
        known = set(os.listdir(releases))
        def aim(target):
            link.with_name("next").unlink(missing_ok=True)
            link.with_name("next").symlink_to(target)
            link.with_name("next").rename(link)
        def watch():
            for _ in range(12000):
                for name in set(os.listdir(releases)) - known:
                    known.add(name)
                    aim(releases / name / "src/decoy")
                time.sleep(0.005)
        threading.Thread(target=watch, daemon=True).start()
        print("watching")
        """,
    )
    assert watching == "watching\n"
    status, output = mallory.deploy()
    assert status == 0, output
    release = host.run("readlink -f /srv/mallory/current").stdout.strip()
    # The attack has hit: while the release was made, its static files were where it says.
    aimed = host.run("readlink /srv/mallory/data/instance/x").stdout.strip()
    assert aimed == f"{release}/src/decoy"
    # What an earlier version of Flaskhost wrote down then.
    root_python(
        host,
        f"""
        import json, pathlib
        file = pathlib.Path({release!r}, "release.json")
        file.write_text(json.dumps({{**json.loads(file.read_text()), "static": "src/static"}}))
        """,
    )
    attack(visitor, f"os.unlink('/srv/mallory/data/instance/x'); os.symlink({KEYS!r}, '/srv/mallory/data/instance/x')")
    assert host.file(f"{release}/src/static/secret_key").exists
    (mallory.folder / "static").unlink()
    (mallory.folder / "static").mkdir()
    (mallory.folder / "static/own.css").write_text("own")
    status, output = mallory.deploy()
    assert status == 0, output
    assert visitor.ask("https://mallory.test/static/own.css").body == "own"
    assert visitor.ask("https://mallory.test/static/secret_key").status == 404
    assert not host.run("find /srv/mallory/releases -name 'secret_key*'").stdout
    assert state(host, KEYS) == keys


def test_a_persistent_folder_behind_a_link_removes_nothing_of_others(host: Any, visitor: Any, mallory: Mallory) -> None:
    """The code has the link media -> instance, and the app has pointed instance to a folder of somebody else's."""
    host.run_expect([0], f"mkdir -p -m 700 {PRIVATE}/uploads && touch {PRIVATE}/uploads/file")
    before = state(host, PRIVATE)
    (mallory.folder / "media").symlink_to("instance")
    aimed = attack(
        visitor,
        f"""
        import shutil
        shutil.rmtree("/srv/mallory/data/instance", ignore_errors=True)
        os.symlink({PRIVATE!r}, "/srv/mallory/data/instance")
        os.makedirs("/srv/mallory/data/media/uploads", exist_ok=True)
        print("aimed")
        """,
    )
    assert aimed == "aimed\n"
    assert host.run("readlink /srv/mallory/data/instance").stdout.strip() == PRIVATE
    status, output = mallory.deploy(persistent=["instance", "media/uploads"])
    assert state(host, PRIVATE) == before
    assert status != 0
    assert "persistent names media/uploads, but media is a link to instance in the source" in output
    assert visitor.ask("https://mallory.test/").status == 200
