"""`make demo-down` leaves nothing of the demo behind: with a Docker engine that only keeps a list.

The real script runs, `up` and `down`, as make calls it. The programs that it calls are stand-ins.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"

#: An engine: containers, networks, images and volumes in a file. As Docker does, it refuses to remove what is in use,
#: and an image whose name another one has got stays, without a name.
DOCKER = """\
import json, os, sys
from pathlib import Path

store = Path(os.environ["ENGINE"])
state = json.loads(store.read_text())
words = sys.argv[1:]
flags, rest = {}, []
while words:
    word = words.pop(0)
    if word in ("--detach", "--force", "--all", "--volumes", "--rm"):
        flags[word] = ["yes"]
    elif word.startswith("--") and rest and rest[0] != "exec":
        flags.setdefault(word, []).append(words.pop(0))
    else:
        rest.append(word)

def fail(text):
    sys.exit(text)

def label(flags):
    text = flags.get("--label", flags.get("--filter", [""]))[-1]
    return text.removeprefix("label=")

def named(name):
    return [key for key, image in state["images"].items() if name in (image["name"], key)]

def using(key):
    return [name for name, container in state["containers"].items() if container["image"] == key]

verb = " ".join(rest[:2]) if rest[0] in ("network", "image", "container") else rest[0]
if verb == "info":
    print("29.0")
elif verb == "network inspect":
    rest[2] in state["networks"] or fail("no such network")
elif verb == "network create":
    state["networks"][rest[2]] = label(flags)
elif verb == "network rm":
    if rest[2] not in state["networks"] or any(one["network"] == rest[2] for one in state["containers"].values()):
        fail("in use")
    del state["networks"][rest[2]]
elif verb == "network ls":
    print("\\n".join(name for name, text in state["networks"].items() if text == label(flags)))
elif verb == "import":
    for image in state["images"].values():
        image["name"] = "" if image["name"] == rest[2] else image["name"]
    change = [text for text in flags["--change"] if text.startswith("LABEL")]
    key = f"sha256:{len(state['images'])}{state['made']}"
    state["made"] += 1
    state["images"][key] = {"name": rest[2], "label": change[0].split()[1]}
elif verb == "image inspect":
    found = named(rest[2]) or fail("no such image")
    print(found[0] if flags["--format"] == ["{{.Id}}"] else state["images"][found[0]]["label"].partition("=")[2])
elif verb == "image ls":
    for key, image in state["images"].items():
        if "--filter" in flags and image["label"].partition("=")[0] != label(flags):
            continue
        if "dangling=true" in flags.get("--filter", []) and image["name"]:
            continue
        if len(rest) > 2 and not image["name"].startswith(rest[2] + ":"):
            continue
        print(key if "ID" in flags["--format"][0] else image["name"] or "<none>:<none>")
elif verb == "image rm":
    found = named(rest[2]) or fail("no such image")
    using(found[0]) and fail("in use")
    del state["images"][found[0]]
elif verb == "run":
    key = named(rest[1])[0]
    volume = f"volume-of-{flags['--name'][0]}"
    state["volumes"].append(volume)
    state["containers"][flags["--name"][0]] = {
        "image": key, "network": flags["--network"][0], "label": flags["--label"][0], "volume": volume,
    }
elif verb == "container inspect":
    rest[2] in state["containers"] or fail("no such container")
    print("true")
elif verb == "ps":
    found = state["containers"].items()
    print("\\n".join(name for name, one in found if "--filter" not in flags or one["label"] == label(flags)))
elif verb == "rm":
    gone = state["containers"].pop(rest[1])
    "--volumes" in flags and state["volumes"].remove(gone["volume"])
else:
    fail(f"the stand-in for docker does not know: {sys.argv[1:]}")
store.write_text(json.dumps(state))
"""
PROGRAMS = {
    "docker": f"#!{sys.executable}\n{DOCKER}",
    "sudo": '#!/bin/sh\nexec "$@"\n',
    "mmdebstrap": '#!/bin/sh\nfor word; do case $word in *.tar) echo root >"$word" ;; esac; done\n',
    "ssh-keygen": '#!/bin/sh\nfor file; do :; done\necho key >"$file"; echo key >"$file.pub"\n',
    "ssh-keyscan": "#!/bin/sh\necho '[127.0.0.1]:22 ssh-ed25519 AAAA'\n",
    "ssh": "#!/bin/sh\n",
    "dockerd": "#!/bin/sh\n",
    "apt-get": "#!/bin/sh\n",
    # All is installed whose program is there, and Debian's own keys.
    "dpkg-query": (
        "#!/bin/sh\nfor name; do :; done\n"
        'case $name in debian-archive-keyring) ;; *) test -e "${0%/*}/$name" || exit 1 ;; esac\necho installed\n'
    ),
}


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Machine:
    """A machine with a checkout and an engine.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.checkout, self.engine, programs = folder / "flaskhost", folder / "engine.json", folder / "bin"
        (self.checkout / "scripts").mkdir(parents=True)
        for name in ("testbed.py", "common.py"):
            shutil.copy(SCRIPTS / name, self.checkout / "scripts" / name)
        programs.mkdir()
        for name, text in PROGRAMS.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        # Something of others: a container of another checkout with its network, and a database.
        other = f"flaskhost.checkout={folder}/other"
        self.others: dict[str, Any] = {
            "containers": {
                "fh-other": {
                    "image": "sha256:a",
                    "network": "fh-other",
                    "label": other,
                    "volume": "volume-of-fh-other",
                },
                "db": {"image": "sha256:b", "network": "bridge", "label": "", "volume": "rows"},
            },
            "networks": {"fh-other": other, "bridge": ""},
            "images": {
                "sha256:a": {"name": "flaskhost-debian:bookworm", "label": "flaskhost.recipe=1"},
                "sha256:b": {"name": "postgres:18", "label": ""},
            },
            "volumes": ["volume-of-fh-other", "rows"],
            "made": 0,
        }
        self.engine.write_text(json.dumps(self.others))
        ports = {f"FLASKHOST_{name}_PORT": str(free_port()) for name in ("SSH", "HTTP", "HTTPS")}
        given = {name: value for name, value in os.environ.items() if not name.startswith(("FLASKHOST", "DOCKER"))}
        self.environment = {**given, **ports, "ENGINE": str(self.engine), "PATH": f"{programs}:{os.environ['PATH']}"}

    def testbed(self, *words: str) -> str:
        """Run the script."""
        done = subprocess.run(
            [sys.executable, "scripts/testbed.py", *words],
            cwd=self.checkout, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def state(self) -> dict[str, Any]:
        """What the engine has."""
        found: dict[str, Any] = json.loads(self.engine.read_text())
        return {**found, "made": 0}

    def files(self) -> set[str]:
        """The files and folders of the checkout."""
        return {str(path.relative_to(self.checkout)) for path in self.checkout.rglob("*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_of_the_demo_is_left(machine: Machine) -> None:
    before = machine.files()
    machine.testbed("up")
    machine.testbed("host", "fh-one", "--release", "trixie", "--publish", f"{free_port()}:22")
    # The positive control: this is what there is to remove.
    found = machine.state()
    for kind, names in {
        "containers": {"flaskhost-demo", "fh-one"},
        "networks": {"flaskhost-demo", "fh-one"},
        "volumes": {"volume-of-flaskhost-demo", "volume-of-fh-one"},
    }.items():
        assert {*found[kind]} - {*machine.others[kind]} == names
    assert "flaskhost-debian:trixie" in {image["name"] for image in found["images"].values()}
    assert ".cache/testbed/id_ed25519" in machine.files()

    output = machine.testbed("down")
    assert machine.state() == machine.others
    assert machine.files() == before
    assert "left, as a container uses it: the image flaskhost-debian:bookworm" in output


def test_image_that_a_newer_one_has_replaced_goes_too(machine: Machine) -> None:
    """It stays as long as the demo runs on it, and has no name any more."""
    machine.testbed("up")
    machine.testbed("ready", "trixie", "--rebuild")
    assert [image["name"] for image in machine.state()["images"].values()].count("") == 1
    machine.testbed("down")
    assert machine.state() == machine.others


def test_what_make_has_put_into_the_cache_stays(machine: Machine) -> None:
    machine.testbed("up")
    (machine.checkout / ".cache/venvs").mkdir()
    output = machine.testbed("down")
    assert [path.name for path in (machine.checkout / ".cache").iterdir()] == ["venvs"]
    assert "`make clean` removes them" in output


def test_it_can_be_repeated(machine: Machine) -> None:
    machine.testbed("up")
    machine.testbed("down")
    machine.testbed("down")
    assert machine.state() == machine.others


def test_it_names_the_packages_that_stay_and_only_those_that_it_has_installed(machine: Machine) -> None:
    programs = machine.engine.parent / "bin"
    assert "apt-get purge" not in machine.testbed("down")
    (programs / "apt-get").write_text(f"#!/bin/sh\ncase $* in *install*) touch {programs}/docker.io ;; esac\n")
    install = "from common import apt_install; apt_install(['docker.io', 'debian-archive-keyring'], 'it is missing')"
    subprocess.run(
        [sys.executable, "-c", install], cwd=machine.checkout / "scripts", env=machine.environment, check=True
    )
    for _time in range(2):
        output = machine.testbed("down")
        assert "apt-get purge docker.io` removes them" in output
        assert "remove /var/lib/docker" in output
    (programs / "docker.io").unlink()
    assert "apt-get purge" not in machine.testbed("down")
    assert not (machine.checkout / ".cache").exists()
