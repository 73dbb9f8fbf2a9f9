"""What the tests of this scenario share: runs of the playbooks on one host, and what a host must look like after."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import runs
import yaml
from runs import FAILURE, NIGHTLY, command, finish

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]

sys.path.insert(0, str(PROJECT / "tests"))

from load_client import Load

#: Requests a second where nothing or little is switched: the load is there to see a gap, and not to keep the host busy.
LIGHT = 40


def hosts(release: str) -> list[str]:
    """The hosts of a module's tests: that with one of Debian's releases, or both with NIGHTLY."""
    return [f"ansible://fh-deploy-{name}" for name in (("bookworm", "trixie") if NIGHTLY else (release,))]


def name_of(host: Any) -> str:
    """The host's name in the inventory."""
    return host.ansible.get_variables()["inventory_hostname"]


def with_app(name: str, **changes: Any) -> dict[str, Any]:
    """The variable ``flask_apps`` with other options of one app."""
    apps = copy.deepcopy(APPS)
    apps[name].update(changes)
    return {"flask_apps": apps}


def start(playbook: str, host: Any, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
    """Begin a run of a playbook on one host, as if it were the app's only one."""
    name = name_of(host)
    given = {"app_hosts": [name], **variables}
    return runs.start(command(f"playbooks/{playbook}.yml", "--limit", name, "--diff", *arguments, **given))


def run(playbook: str, host: Any, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Run a playbook on one host; return its status and what it printed, as `finish` does."""
    return finish(start(playbook, host, *arguments, **variables), without=FAILURE)


def deploy(host: Any, version: str, **variables: Any) -> str:
    """Deploy a version of hello, which must succeed; return what was printed."""
    status, output = run("deploy", host, app="hello", version=version, **variables)
    assert status == 0, output
    return output


def load_on(visitor: Any, app: str = "hello", **options: Any) -> Load:
    """A load on an app of the visitor's host, a light one where nothing else is said; begins with ``with``."""
    return Load(f"{app}.test", visitor.ports[443], **{"rate": LIGHT, **options})


def slots(host: Any, app: str = "hello") -> tuple[str, str]:
    """The slot that serves, and the other one."""
    live = Path(host.file(f"/srv/{app}/live.sock").linked_to).stem
    return live, "green" if live == "blue" else "blue"


def serving(host: Any, app: str = "hello") -> str:
    """What decides which release serves: it must not change when a release is refused."""
    return host.run_expect(
        [0], f"cd /srv/{app} && readlink live.sock current slots/$(basename $(readlink live.sock) .sock)"
    ).stdout


def leftovers(host: Any, app: str = "hello") -> list[str]:
    """What should not be there after a run, whether it was a good one, a refused one or one after a killed one."""
    live, idle = slots(host, app)
    script = f"""
    cd /srv/{app}
    for release in releases/*; do test -e $release/release.json || echo "a release that is not whole: $release"; done
    for venv in venvs/*; do test -e $venv/.complete || echo "an environment that is not whole: $venv"; done
    find . -maxdepth 3 -path ./data -prune -o -name '*.partial' -printf 'a leftover: %p\\n'
    systemctl --quiet is-active flask-{app}@{live}.service || echo "the {live} slot serves and does not run"
    systemctl --quiet is-enabled flask-{app}@{live}.service || echo "the {live} slot serves and would not after a boot"
    for kind in service socket; do
      test "$(systemctl is-active flask-{app}@{idle}.$kind)" = inactive || echo "{idle}.$kind is not inactive"
    done
    systemctl --quiet is-enabled flask-{app}@{idle}.service && echo "the {idle} slot is enabled"
    test -e /run/flask-{app}/{idle}.sock && echo "the {idle} slot has a socket"
    test "$(readlink -f current)" = "$(readlink -f slots/{live})" || echo "current is not what serves"
    systemctl --failed --no-legend --plain
    systemctl list-units --all --no-legend --plain 'flask-{app}_task-*'
    flock --nonblock .lock true || echo "the lock is held"
    """
    return host.run(script).stdout.splitlines()
