"""What root and the builds install by our choice is verified: each package by the hashes of a list in this project."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.settings.acme import DNS_PLUGINS

ROOT = Path(__file__).resolve().parents[3]
CERTBOT = ROOT / "roles/certbot/files"
#: The lists that `make lock` writes for the hosts.
LISTS = [
    ROOT / "roles/python/files/requirements.txt",
    *sorted(ROOT.glob("roles/*/files/server.txt")),
    CERTBOT / "requirements.txt",
    *sorted(CERTBOT.glob("dns/*.txt")),
]
#: Programs that fetch code by themselves, where nobody has looked at what they are told.
FETCHERS = re.compile(r"\b(?:pip3?|pipx|npm|gem|cargo|easy_install)\s+install\b|\b(?:curl|wget)\s+-|\bget_url\b")


def installs() -> list[tuple[str, dict[str, Any]]]:
    """The arguments of each task that installs packages of Python, with its file."""
    found = []
    for path in sorted((ROOT / "roles").glob("*/*/*.yml")) + sorted((ROOT / "playbooks").glob("*.yml")):
        queue = yaml.safe_load(path.read_text()) or []
        queue = list(queue) if isinstance(queue, list) else []
        while queue:
            task = queue.pop(0)
            inner = ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")
            queue += [item for key in inner for item in task.get(key) or []]
            if arguments := task.get("ansible.builtin.pip"):
                found.append((f"{path.relative_to(ROOT)}: {task['name']}", arguments))
    return found


def pinned(text: str) -> dict[str, list[str]]:
    """The requirements of a list with their hashes."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return {line.split(" --hash=")[0].strip(): re.findall(r"--hash=(\S+)", line) for line in joined.splitlines()}


def versions(path: Path) -> dict[str, str]:
    return dict(requirement.split(" ;")[0].split("==") for requirement in pinned(path.read_text()))


def test_what_roles_install_is_verified() -> None:
    found = installs()
    assert len(found) == 3, "uv, certbot and its plugin"
    for where, arguments in found:
        options = arguments["extra_args"]
        assert "requirements" in arguments and "name" not in arguments, where
        assert "--require-hashes" in options, where
        # A source is built with packages that no list names.
        assert "--only-binary :all:" in options, where


def test_nothing_else_fetches_code() -> None:
    """Messages to people are told apart by their quotes."""
    for path in sorted([*(ROOT / "roles").rglob("*"), *(ROOT / "plugins").rglob("*.py")]):
        if path.is_file() and path.suffix in (".yml", ".j2", ".py", ".sh", "") and "__pycache__" not in path.parts:
            for line in path.read_text(errors="replace").splitlines():
                told = re.search(r"'[^']*(?:pip|curl)[^']*'|description:", line)
                assert told or not FETCHERS.search(line), f"{path}: {line}"


@pytest.mark.parametrize("path", LISTS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_list_has_the_version_and_the_hashes_of_each_package(path: Path) -> None:
    found = pinned(path.read_text())
    assert found
    for requirement, hashes in found.items():
        assert re.match(r"[\w.-]+==[\w.]+(?: ;|$)", requirement)
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes), requirement


def test_the_lists_have_the_versions_that_the_code_names() -> None:
    for path in sorted(ROOT.glob("roles/*/files/server.in")):
        ((requirement, _hashes),) = pinned(path.read_text()).items()
        name, version = requirement.split("==")
        assert versions(path.with_suffix(".txt"))[name] == version
    certbot = yaml.safe_load((ROOT / "roles/certbot/vars/main.yml").read_text())["__certbot_version"]
    assert versions(CERTBOT / "requirements.txt")["certbot"] == certbot
    for path in CERTBOT.glob("dns/*.txt"):
        assert versions(path)[f"certbot-dns-{path.stem}"] == certbot


def test_every_plugin_that_preflight_lets_pass_has_a_list() -> None:
    assert sorted(DNS_PLUGINS) == sorted(path.stem for path in CERTBOT.glob("dns/*.txt"))


def test_no_plugin_changes_what_certbot_itself_has() -> None:
    own = versions(CERTBOT / "requirements.txt")
    for path in CERTBOT.glob("dns/*.txt"):
        assert not own.keys() & versions(path).keys(), path.name


@pytest.mark.parametrize("number", range(3), ids=["uv", "certbot", "plugin"])
def test_a_package_that_was_exchanged_is_refused(tmp_path: Path, number: int) -> None:
    """pip itself, with the options of the role, and an index that holds other wheels of the same names and versions."""
    where, arguments = installs()[number]
    path = {"python": LISTS[0], "pinned packages": CERTBOT / "requirements.txt"}
    wanted = next((item for word, item in path.items() if word in where), CERTBOT / "dns/rfc2136.txt")
    name, version = ("uv", versions(wanted)["uv"]) if "python" in where else next(iter(versions(wanted).items()))
    entry = next(line for line in pinned(wanted.read_text()) if line.startswith(f"{name}=="))
    hashes = pinned(wanted.read_text())[entry]
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(tmp_path / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    options = arguments["extra_args"].split("{{")[0].replace("--constraint", "").split()

    def install(listed: str, *more: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "list.txt").write_text(listed)
        pip = [sys.executable, "-m", "pip", "--isolated", "install", "--disable-pip-version-check", "--quiet"]
        offline = ["--no-index", "--find-links", str(tmp_path), "--no-deps", "--target", str(tmp_path / "there")]
        command = [*pip, *offline, *more, "--requirement", str(tmp_path / "list.txt")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = install(f"{name}=={version} {' '.join(f'--hash={item}' for item in hashes)}\n", *options)
    assert refused.returncode and "DO NOT MATCH THE HASHES" in refused.stderr, refused.stderr
    assert not (tmp_path / "there" / info).exists()
    assert install(f"{name}=={version}\n").returncode == 0, "without hashes it is installed"
    assert (tmp_path / "there" / info).exists()
