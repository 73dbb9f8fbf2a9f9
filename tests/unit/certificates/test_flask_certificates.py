"""The program flaskhost-certificates comes to a host whole, and what it says reaches the operator."""

from __future__ import annotations

import configparser
import json
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.wanted import File
from ansible.module_utils.flaskhost.programs import certificates
from fakes import run_module
from loading import ROOT, load_plugin

SECRET = "correct-horse"
SETTINGS = {
    "directory": "https://ca.example.com/dir",
    "email": "ops@example.com",
    "root": "",
    "external_account": {},
    "dns_credentials": {},
}


class Host:
    """A host whose program is a small script that answers what a test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = load_plugin("plugins/modules/flask_certificates.py")
        self.folder, self.calls, self.given = folder, [], ""
        self.answer: dict[str, Any] = {"changed": False, "certificates": []}
        self.status, self.error = 0, ""
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(certificates, "ETC", folder / "etc")
        # The default of an argument was taken when the function was made.
        monkeypatch.setattr(
            self.module.certificates,
            "settings_files",
            lambda settings, config, made=certificates.settings_files: made(settings, config, folder / "etc"),
        )
        self.launcher = str(folder / "sbin" / "flaskhost-certificates")
        self.program = {
            self.launcher: "#!/bin/sh\n",
            str(folder / "lib/flaskhost/flaskhost_certificates/cli.py"): "x = 1\n",
        }

    def run_command(self, args: Sequence[str], **options: Any) -> tuple[int, str, str]:
        self.calls.append(list(args))
        self.given = options.get("data", "")
        if args[0] == "systemctl":
            return 0, "", ""
        # What is asked has to be there, whole, when it is asked.
        assert Path(args[0]).read_text() == "#!/bin/sh\n"
        return self.status, json.dumps(self.answer) if not self.status else "", self.error

    def run(self, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {**SETTINGS, "launcher": self.launcher, "program": self.program, **options}
        return run_module(self.monkeypatch, self.module, self.run_command, check=check, **given)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_program_and_settings_are_there_before_it_is_asked_and_a_second_run_writes_nothing(host: Host) -> None:
    result = host.run(state="prepared", config={"certificates": []})
    assert result["changed"]
    assert host.calls == [[host.launcher, "prepare", "--json"]]
    assert mode(Path(host.launcher)) == 0o755
    assert mode(host.folder / "etc/certificates.json") == 0o600
    assert mode(host.folder / "etc/certbot/cli.ini") == 0o600
    assert len(result["files"]) == 6
    again = host.run(state="prepared", config={"certificates": []})
    assert (again["changed"], again["files"], again["diff"]) == (False, [], [])


@pytest.mark.parametrize("damage", ["text", "mode", "folder", "missing"])
def test_file_that_is_not_as_it_should_be_is_written_again(host: Host, damage: str) -> None:
    host.run(state="prepared", config={})
    path = host.folder / "etc/certbot/dns.ini"
    if damage == "text":
        path.write_text("stolen = 1\n")
    elif damage == "mode":
        path.chmod(0o644)
    else:
        path.unlink()
        if damage == "folder":
            path.symlink_to(host.folder / "elsewhere")
            (host.folder / "elsewhere").write_text("")
    result = host.run(state="prepared", config={})
    assert result["files"] == [str(path)]
    assert not path.is_symlink()
    assert mode(path) == 0o600


def test_units_are_read_again_only_when_they_have_changed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = File(Path("/etc/systemd/system/flaskhost-test-only.timer"), "[Timer]\n")
    written: list[Path] = []
    monkeypatch.setattr(host.module, "missing", lambda files: [unit])
    monkeypatch.setattr(File, "write", lambda self: written.append(self.path))
    Path(host.launcher).parent.mkdir()
    Path(host.launcher).write_text("#!/bin/sh\n")
    host.run(state="prepared")
    assert written == [unit.path]
    assert host.calls[0] == ["systemctl", "daemon-reload"]


def test_check_mode_asks_the_program_that_would_be_there_and_writes_nothing(host: Host) -> None:
    result = host.run(check=True, state="prepared", config={"certificates": []})
    assert result["changed"]
    assert list(host.folder.iterdir()) == []
    (command,) = host.calls
    assert command[0].endswith(host.launcher)
    assert command[0] != host.launcher
    assert command[3:] == ["prepare", "--check", "--json"]
    assert command[2].endswith("etc/certificates.json")
    assert not Path(command[0]).exists()


def test_own_pairs_go_through_a_pipe(host: Host) -> None:
    host.run(state="prepared", own=[{"name": "shop", "own_certificate": "CERT", "own_key": SECRET}])
    assert json.loads(host.given) == {"files": {"shop": {"certificate": "CERT", "key": SECRET}}}
    assert SECRET not in str(host.calls)


def test_no_secret_is_in_a_result(host: Host) -> None:
    result = host.run(
        state="prepared",
        external_account={"key_id": "k1", "hmac_key": SECRET},
        dns_credentials={"dns_rfc2136_secret": SECRET},
    )
    assert SECRET not in json.dumps(result)
    assert SECRET in (host.folder / "etc/certbot/cli.ini").read_text()
    assert SECRET in (host.folder / "etc/certbot/dns.ini").read_text()
    assert any(item["after"] == "(not shown)\n" for item in result["diff"])


def test_settings_that_are_taken_out_leave_no_secret_behind(host: Host) -> None:
    host.run(state="prepared", dns_credentials={"dns_rfc2136_secret": SECRET}, root="-----BEGIN")
    host.run(state="prepared")
    assert SECRET not in (host.folder / "etc/certbot/dns.ini").read_text()
    assert (host.folder / "etc/certbot/root.pem").read_text() == ""


def test_certbots_settings_are_read_as_they_were_meant() -> None:
    account = {"key_id": "k1", "hmac_key": "a=#b"}
    files = certificates.settings_files({**SETTINGS, "external_account": account}, {}, Path("/nowhere"))
    text = next(file.text for file in files if file.path.name == "cli.ini")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string("[all]\n" + text)
    assert dict(parser["all"]) == {
        "server": "https://ca.example.com/dir",
        "email": "ops@example.com",
        "agree-tos": "true",
        "eab-kid": "k1",
        "eab-hmac-key": "a=#b",
    }


def test_account_without_an_address_is_asked_for_as_such() -> None:
    files = certificates.settings_files({**SETTINGS, "email": ""}, {}, Path("/nowhere"))
    text = next(file.text for file in files if file.path.name == "cli.ini")
    assert "register-unsafely-without-email = true" in text
    assert "email =" not in text.replace("without-email =", "")


def test_credentials_with_commas_and_quotes_stay_one_value() -> None:
    credentials = {"dns_x_user": "a, b # c", "dns_x_secret": 'say "hi"'}
    files = certificates.settings_files({**SETTINGS, "dns_credentials": credentials}, {}, Path("/nowhere"))
    text = next(file.text for file in files if file.path.name == "dns.ini")
    assert 'dns_x_user = "a, b # c"' in text
    assert """dns_x_secret = 'say "hi"'""" in text


def test_value_of_several_lines_is_refused_by_its_name_and_not_shown(host: Host) -> None:
    result = host.run(state="prepared", dns_credentials={"dns_x_token": f"{SECRET}\nserver = evil"})
    assert result["failed"]
    assert "acme.dns.credentials: the value of dns_x_token" in result["msg"]
    assert SECRET not in result["msg"]
    assert list(host.folder.iterdir()) == []


def test_refusal_is_what_the_program_says(host: Host) -> None:
    host.status, host.error = 1, "flask_apps.shop.tls.key does not belong to the certificate.\n"
    result = host.run(state="prepared")
    assert result["failed"]
    assert result["msg"] == "flask_apps.shop.tls.key does not belong to the certificate."


def test_certificate_that_cannot_be_had_is_a_warning_and_fails_only_where_that_is_asked_for(host: Host) -> None:
    host.run(state="prepared")
    problem = "shop.example.com has no address record yet. Add: shop.example.com. A 203.0.113.7"
    host.answer = {
        "changed": False,
        "certificates": [{"name": "shop", "problems": [problem], "notes": ["self-signed"]}],
    }
    result = host.run(state="applied", host="web1")
    assert result["warnings"] == [f"The certificate of shop on web1: {problem}", certificates.HINT]
    assert result["notes"] == ["shop: self-signed"]
    assert not result["changed"]
    strict = host.run(state="applied", strict=True)
    assert strict["failed"]
    assert problem in strict["msg"]


def test_authority_is_asked_for_nothing_in_check_mode(host: Host) -> None:
    host.run(state="prepared")
    host.calls.clear()
    host.run(check=True, state="applied")
    assert host.calls == [[host.launcher, "apply", "--check", "--json"]]


def test_bare_host_in_check_mode_would_change(host: Host) -> None:
    assert host.run(check=True, state="applied")["changed"]
    assert not host.run(check=True, state="applied", asks=False)["changed"], "there is nobody to ask"
    assert host.calls == []


def test_diff_names_the_certificates_that_change(host: Host) -> None:
    host.run(state="prepared")
    host.answer = {
        "changed": True,
        "certificates": [
            {"name": "shop", "changed": True, "source": "acme", "serial": 17},
            {"name": "hello", "changed": False, "source": "acme", "serial": 18},
        ],
        "deleted": ["old"],
    }
    result = host.run(state="applied")
    assert result["diff"] == [
        {"header": "certificates", "prepared": "certificate of shop: acme, serial 17\ncertificate of old: deleted\n"}
    ]


def test_launcher_finds_its_parts_from_where_it_is(tmp_path: Path) -> None:
    launcher = tmp_path / "sbin/flaskhost-certificates"
    launcher.parent.mkdir()
    launcher.write_text((ROOT / "roles/certbot/files/flaskhost-certificates").read_text())
    launcher.chmod(0o755)
    library = tmp_path / "lib/flaskhost/flaskhost_certificates"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "cli.py").write_text("def main(arguments):\n    print(arguments)\n    return 3\n")
    # Ruff: the program is the test's own copy.
    done = subprocess.run([launcher, "check", "--json"], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (3, "['check', '--json']\n")


def test_the_timers_run_after_their_units_are_written(host: Host) -> None:
    unit = {"name": "a.timer", "enabled": True, "reload_files": [], "restart_files": [], "test": []}
    planned = host.run(check=True, state="prepared", config={"certificates": []}, timers=[unit])
    assert planned["changed"]
    assert ["systemctl", "start", "a.timer"] not in host.calls
    host.run(state="prepared", config={"certificates": []}, timers=[unit])
    assert host.calls[-2:] == [["systemctl", "enable", "a.timer"], ["systemctl", "start", "a.timer"]]
