"""The scanners' side of the audit on a host: what it fetches and runs, and that what fails passes nothing."""

from __future__ import annotations

import os
import subprocess
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.audit import host
from ansible.module_utils.flaskhost.audit.model import Scan

Answer = tuple[int, str, str]
TARGETS = """\
https://deb.example.org|https://deb.example.org/debian-security|/keys/security.gpg|main
https://deb.example.org|https://deb.example.org/debian|/keys/debian.gpg|main
"""


class Scripted(host.Host):
    """A folder with scanners whose programs answer as they are told.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(host.make_folder(folder))
        self.calls: list[list[str]] = []
        self.answers: dict[str, Answer | Callable[[list[str], Path | None], Answer]] = {}
        self.there = {"lynis", "oscap", "testssl", "flaskhost-certificates", "flaskhost-backup"}

    def run(
        self,
        command: Sequence[str],
        seconds: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        idle: float = 0,
    ) -> Answer:
        words = list(command)
        self.calls.append(words)
        for part, answer in self.answers.items():
            if part in " ".join(words):
                return answer(words, cwd) if callable(answer) else answer
        return 0, "", ""

    def program(self, name: str) -> str:
        if name not in self.there:
            raise host.AuditError(self.why(name) or f"The program {name} is not there.")
        return f"/usr/bin/{name}"

    def packages(self, *names: str, below: Path | None = None) -> Callable[[list[str], Path | None], Answer]:
        """An apt-get that downloads these files, into its cache or below its working directory."""

        def download(_words: list[str], cwd: Path | None) -> Answer:
            for name in names:
                ((cwd if below is None else below) or self.folder).joinpath(name).touch()
            return 0, "", ""

        return download

    def called(self, part: str) -> list[list[str]]:
        """The commands with this text."""
        return [words for words in self.calls if part in " ".join(words)]


@pytest.fixture
def there(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path)


def passes_nothing(scan: Scan, reason: str) -> bool:
    """Whether a scanner has not run, and says why."""
    return not scan.ran and reason in scan.why_not and scan.findings == []


# --- Fetching --------------------------------------------------------------------------------------------------------


def test_scanners_are_unpacked_and_not_installed(there: Scripted) -> None:
    archives = there.folder / "cache/archives"
    there.answers["install lynis"] = there.packages("lynis_3_all.deb", "menu_1_all.deb", below=archives)
    there.fetch(["lynis", "listeners"])
    assert [words[3:] for words in there.called("apt-get")] == [
        ["-q", "update"],
        ["-q", "-y", "--no-install-recommends", "--download-only", "install", "lynis"],
    ]
    unpacked = [words[2:] for words in there.called("dpkg-deb")]
    assert unpacked == [[str(archives / name), str(there.root)] for name in ("lynis_3_all.deb", "menu_1_all.deb")]
    assert list(archives.iterdir()) == []
    assert there.why("lynis") == there.why("lists") == ""


def test_apt_keeps_its_own_lists_and_runs_nobodys_hooks(there: Scripted) -> None:
    there.fetch([])
    text = (there.folder / "apt.conf").read_text()
    assert f'Dir::State::lists "{there.folder}/lists";' in text
    assert f'Dir::Cache::archives "{there.folder}/cache/archives";' in text
    assert "#clear APT::Update::Post-Invoke-Success;" in text
    assert there.calls[0][:3] == ["apt-get", "-c", str(there.folder / "apt.conf")]


def test_a_package_that_cannot_be_fetched_or_unpacked_is_named(there: Scripted) -> None:
    there.answers["install lynis"] = (100, "", "E: Unable to\n locate package lynis")
    there.answers["install openscap-scanner"] = there.packages("oscap.deb", below=there.folder / "cache/archives")
    there.answers["oscap.deb"] = (2, "", "no space left")
    there.fetch(["lynis", "openscap"])
    assert there.why("lynis") == "The package lynis could not be fetched: E: Unable to locate package lynis"
    assert there.why("openscap") == "oscap.deb could not be unpacked: no space left"


def test_lists_that_cannot_be_fetched_let_no_update_pass(there: Scripted) -> None:
    """The host's old lists would show none."""
    there.answers["update"] = (100, "", "Could not resolve deb.example.org")
    there.fetch([])
    assert passes_nothing(there.updates(), "Could not resolve deb.example.org")
    assert there.called("--simulate") == []


def test_rules_come_from_debians_own_mirror_with_its_keys(there: Scripted) -> None:
    there.answers["indextargets"] = (0, TARGETS, "")
    there.answers["download ssg-debian"] = there.packages("ssg-debian_1_all.deb", "other.deb")
    there.fetch_content("sid")
    place = there.folder / "content"
    source = "deb [signed-by=/keys/debian.gpg] https://deb.example.org/debian sid main\n"
    assert (place / "sources.list").read_text() == source
    assert f'Dir::Etc::sourcelist "{place}/sources.list";' in (there.folder / "content.conf").read_text()
    assert [words[2] for words in there.called("apt-get")][1:] == [str(there.folder / "content.conf")] * 2
    assert [words[2] for words in there.called("dpkg-deb")] == [str(place / "ssg-debian_1_all.deb")]


@pytest.mark.parametrize(
    ("targets", "signed"),
    [
        ("https://a|https://a/debian||main\n", "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "),
        ("https://a|https://a/debian|-----BEGIN PGP|main\n", ""),
    ],
)
def test_keys_of_the_rules_are_apts_own_where_no_file_is_named(there: Scripted, targets: str, signed: str) -> None:
    there.answers["indextargets"] = (0, targets, "")
    there.fetch_content("sid")
    assert (there.folder / "content/sources.list").read_text() == f"deb {signed}https://a/debian sid main\n"


@pytest.mark.parametrize("answer", [(0, "", ""), (0, "a|b\n", ""), (1, TARGETS, ""), (0, TARGETS.splitlines()[0], "")])
def test_without_a_mirror_there_are_no_rules(there: Scripted, answer: Answer) -> None:
    there.answers["indextargets"] = answer
    there.fetch_content("sid")
    assert there.why("content").startswith("No mirror of Debian")
    assert len(there.calls) == 1


@pytest.mark.parametrize("step", ["update", "download"])
def test_rules_that_cannot_be_fetched_are_named(there: Scripted, step: str) -> None:
    there.answers["indextargets"] = (0, TARGETS, "")
    there.answers[f"content.conf -q {step}"] = (100, "", "404 Not Found")
    there.fetch_content("sid")
    assert there.why("content") == "The rules could not be fetched from sid: 404 Not Found"
    assert there.called("dpkg-deb") == []


# --- Scanning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "scan"),
    [
        ("systemd-analyze", lambda there: there.exposure([])),
        ("ss --no-header", lambda there: there.listeners([22])),
        ("--simulate", lambda there: there.updates()),
        ("flaskhost-certificates", lambda there: there.certificates(14)),
        ("flaskhost-backup", lambda there: there.backup()),
    ],
)
def test_a_program_that_fails_passes_nothing(there: Scripted, program: str, scan: Callable[[Scripted], Scan]) -> None:
    there.answers[program] = (1, "", "it says why")
    assert passes_nothing(scan(there), "it says why")


@pytest.mark.parametrize("name", ["certificates", "backup"])
def test_a_host_without_our_program_passes_nothing(there: Scripted, name: str) -> None:
    there.there.clear()
    scan = there.certificates(14) if name == "certificates" else there.backup()
    assert passes_nothing(scan, f"flaskhost-{name} is not on this host.")


def test_ports_that_nobody_has_asked_for_are_found(there: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "firewall_notes", lambda _run: types.SimpleNamespace(all=["FIREWALL NOT LOADED"]))
    line = 'tcp LISTEN 0 128 0.0.0.0:{port} 0.0.0.0:* users:(("{name}",pid=7,fd=3))\n'
    there.answers["ss --no-header"] = (0, line.format(port=22, name="sshd") + line.format(port=4711, name="x"), "")
    found = {finding.id: finding.status for finding in there.listeners([22]).findings}
    assert found["tcp/4711/x"] == "failed"
    assert found["tcp/22/sshd"] == "passed"
    assert found["firewall"] == "failed"


def test_a_lynis_without_a_report_passes_nothing(
    there: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "LYNIS_PID", tmp_path / "lynis.pid")
    there.answers["audit system"] = (1, "", "Fatal error")
    assert passes_nothing(there.lynis(), "It wrote no report: Fatal error")
    there.answers["audit system"] = (host.TOO_LONG, "", "lynis was stopped after 3600 seconds.")
    (there.work / "lynis-report.dat").write_text("finish=true\n")
    assert passes_nothing(there.lynis(), "stopped after 3600 seconds")


def test_an_oscap_that_fails_passes_nothing(there: Scripted, tmp_path: Path) -> None:
    rules = tmp_path / "rules.xml"
    rules.touch()
    there.answers["xccdf eval"] = (1, "x" * 600, "")
    (scan,) = there.openscap(["cis"], rules)
    assert passes_nothing(scan, "oscap ended with 1: " + "x" * 100)
    assert len(there.called("xccdf")) == 1, "only one that hung is tried again"


def test_without_rules_no_profile_passes(there: Scripted, tmp_path: Path) -> None:
    scans = there.openscap(["cis", "bp28"], tmp_path / "missing.xml")
    assert [passes_nothing(scan, "set audit_scap_content") for scan in scans] == [True, True]
    (there.folder / "missing-content").write_text("The rules could not be fetched")
    assert passes_nothing(there.openscap(["cis"], tmp_path / "missing.xml")[0], "could not be fetched")


def test_a_testssl_without_a_report_passes_nothing(there: Scripted) -> None:
    there.answers["--jsonfile"] = (1, "", "Fatal error: no bash")
    (scan,) = there.testssl(["shop.example.com"])
    assert passes_nothing(scan, "It wrote no report: Fatal error: no bash")
    (words,) = there.called("--jsonfile")
    assert words[-1] == "shop.example.com:443"
    assert words[words.index("--ip") + 1] == "127.0.0.1"
    there.there.clear()
    assert passes_nothing(there.testssl(["shop.example.com"])[0], "The program testssl is not there.")


def test_nginx_configuration_is_the_one_that_it_loads(there: Scripted) -> None:
    there.answers["nginx -T"] = (0, "http {}", "")
    assert there.nginx() == ("http {}", "")
    there.answers["nginx -T"] = (1, "half of it", "unknown directive")
    assert there.nginx() == ("", "nginx -T: unknown directive")
    there.answers["nginx -T"] = (127, "", "")
    assert there.nginx() == ("", "There is no nginx on this host.")


# --- The host itself -------------------------------------------------------------------------------------------------


def test_a_value_of_the_system_is_read(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text('MY_VERSION_ID=1\nVERSION_ID="13"\nID=debian\n')
    assert (host.os_release("VERSION_ID", path), host.os_release("ID", path)) == ("13", "debian")
    assert host.os_release("NAME", path) == host.os_release("ID", tmp_path / "missing") == ""


@pytest.mark.parametrize(
    ("output", "ports"), [("port 22\nport 2222\nx11port 7\n", [22, 2222]), ("", [22]), (OSError(), [22])]
)
def test_how_to_reach_the_host_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: Any, ports: list[int]
) -> None:
    def run(_words: list[str], **_options: Any) -> Any:
        if isinstance(output, OSError):
            raise output
        return subprocess.CompletedProcess([], 0, output.encode())

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(host, "SSH_KEYS", tmp_path)
    (tmp_path / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAkey root@host\n")
    (tmp_path / "ssh_host_rsa_key.pub").write_text("\n")
    found = host.whereabouts()
    assert (found["ssh_ports"], found["ssh_keys"]) == (ports, ["AAAAkey"])


@pytest.mark.parametrize(("text", "runs"), [("", True), ("99999999", False), ("x", False), (None, False)])
def test_a_process_of_a_pid_file_is_looked_for(tmp_path: Path, text: str | None, runs: bool) -> None:
    if runs:  # Not among the parameters, because each of pytest's processes has another.
        text = str(os.getpid())
    if text is not None:
        (tmp_path / "pid").write_text(text)
    assert host._runs(tmp_path / "pid") is runs


def test_a_folder_elsewhere_is_not_removed(tmp_path: Path) -> None:
    """Root removes what it is told to, and only ever a folder of its own."""
    for name in ("data", f"{host.PREFIX}below/{host.PREFIX}x"):
        (tmp_path / name).mkdir(parents=True)
        host.remove_folder(tmp_path / name, tmp_path)
        assert (tmp_path / name).exists()
    (tmp_path / f"{host.PREFIX}link").symlink_to(tmp_path / "data")
    host.remove_folder(tmp_path / f"{host.PREFIX}link", tmp_path)
    assert (tmp_path / "data").exists()
    host.remove_folder(tmp_path / f"{host.PREFIX}below", tmp_path)
    assert not (tmp_path / f"{host.PREFIX}below").exists()


def test_a_folders_rights(tmp_path: Path) -> None:
    """apt downloads as a user of its own, and the results are for root alone."""
    folder = host.make_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o711
    assert (folder / "work").stat().st_mode & 0o777 == 0o700
