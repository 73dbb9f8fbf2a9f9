"""What the tests of the READMEs' "How to undo" share: its commands, what is on a host, and runs of a role."""

from __future__ import annotations

import fnmatch
import json
import os
import posixpath
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import command, start, wait

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
SCENARIO = Path(__file__).parents[1]
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
#: What packages make by themselves, beside the files that they bring. Accounts are compared by their names.
MADE_BY_PACKAGES = (
    *(f"/etc/{name}*" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")),
    "passwd:_chrony", "group:_chrony", "/etc/chrony/chrony.*",
    "passwd:redis", "group:redis", "passwd:memcache", "group:memcache", "/etc/memcached.conf",
    "/etc/ld.so.cache", "/etc/apt/apt.conf.d/[25]0*",
    "/etc/apparmor.d/local/*", "/etc/apparmor.d/tunables/*",
    "/var/www/html/index.nginx-debian.html",
    # Its data.
    "/var/lib/postgresql/*",
    # dpkg's, at midnight, and sudo's.
    "/var/backups/alternatives.*", "/var/backups/apt.*", "/var/backups/dpkg.*", "/root/.sudo_as_admin_successful",
)  # fmt: skip


# -- the README ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command of a README.

    Attributes:
        text: the command, as it stands there.
        condition: when it is to be run, in the words of its comment, "if ..."; empty for always.
    """

    text: str
    condition: str = ""


def section(role: str) -> str:
    """The part of a role's README that says how to undo it."""
    readme = (PROJECT / "roles" / role / "README.md").read_text(encoding="utf-8")
    return re.search(r"^## How to undo\n(.*?)(?=^## |\Z)", readme, re.DOTALL | re.MULTILINE)[1]


def blocks(role: str, names: dict[str, str]) -> list[list[Command]]:
    """The commands of each block of it, with the names of the example replaced by those of the host."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", with_names(section(role), names), re.DOTALL | re.MULTILINE):
        found.append(commands(block))
    return found


def with_names(text: str, names: dict[str, str]) -> str:
    """A text with the names of the example replaced by those of the host."""
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def commands(block: str) -> list[Command]:
    """The commands of a block; one may have several lines, as a loop has."""
    found, text = [], ""
    for line in block.splitlines():
        text += f"{line}\n"
        complete = subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0
        if not complete or text.endswith("\\\n"):
            continue
        condition = re.search(r"\s# (if .*)$", line)
        if text.strip():
            found.append(Command(text.strip(), condition[1] if condition else ""))
        text = ""
    assert not text, f"a command that does not end: {text}"
    return found


def run(host: Any, command: Command) -> str:
    """Run a command in root's shell, as somebody does who says yes to every question; return what went wrong."""
    shell = f"yes | DEBIAN_FRONTEND=noninteractive bash -ec {shlex.quote(command.text)}"
    done = host.run(shell)
    return "" if done.rc == 0 else f"{command.text}\n{done.stdout}{done.stderr}"


# -- the host --------------------------------------------------------------------------------------------------------


def listing(host: Any) -> dict[str, str]:
    """What is on the host: see listing.py."""
    return json.loads(host.check_output("python3 -c %s", (SCENARIO / "listing.py").read_text(encoding="utf-8")))


def bare(host: Any) -> dict[str, str]:
    """What was on the host before the role: prepare.yml has noted it."""
    path = INVENTORY.parent / f"{name_of(host)}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def name_of(host: Any) -> str:
    """The host's name in the inventory."""
    return host.ansible.get_variables()["inventory_hostname"]


def of_packages(path: str, there: dict[str, str]) -> bool:
    """Whether a package of Debian's has brought a path, or made it: a link to a file of its own, such as a unit's."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), there[path]))
    if target.startswith("/lib/"):
        target = f"/usr{target}"
    return there[path].endswith(" packaged") or there.get(target, "").endswith(" packaged")


def left(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """What is not as it was, without what packages have brought or, below /usr, replaced.

    A new folder counts by what is in it.

    Args:
        before: what was there.
        after: what is there.

    Returns:
        Each path, and what it was and is.
    """
    return {
        path: f"{before.get(path, 'nothing')} -> {after.get(path, 'nothing')}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
        and not (path not in before and (after[path].startswith("d") or of_packages(path, after)))
        and not (path not in after and path.startswith("/usr/") and of_packages(path, before))
        and not any(fnmatch.fnmatchcase(path, pattern) for pattern in MADE_BY_PACKAGES)
    }


def named(role: str, names: dict[str, str]) -> list[str]:
    """The paths of which the README says, outside of the commands, that they stay; patterns of the shell."""
    prose = re.sub(r"^```sh\n.*?^```$", "", with_names(section(role), names), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`(/[^` ]+)`", prose)


# -- the role --------------------------------------------------------------------------------------------------------


def apply(host: Any, **variables: Any) -> int:
    """Apply the host's role again; return how many tasks have changed something."""
    status, output = wait(start(command(SCENARIO / "converge.yml", "--limit", name_of(host), **variables)), 1200)
    assert status == 0, output
    return int(re.search(rf"^{name_of(host)}\s.*\bchanged=(\d+)", output, re.MULTILINE)[1])
