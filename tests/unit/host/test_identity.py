"""A host's own certificate: made once, verified by those that were given it, and able to sign no other."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.identity import Identity, IdentityError
from fakes import run_module
from loading import load_plugin

NAME = "app.flaskhost.internal"
module = load_plugin("plugins/modules/host_identity.py")


def run(args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def host(folder: Path) -> Identity:
    identity = Identity(folder, run)
    identity.create(folder.name, NAME)
    return identity


def verify(trusted: Path, certificate: Path, *purpose: str) -> bool:
    command = ["openssl", "verify", "-CAfile", str(trusted), "-no-CApath", "-no-CAstore", *purpose, str(certificate)]
    return run(command)[0] == 0


@pytest.fixture
def hosts(tmp_path: Path) -> dict[str, Identity]:
    return {name: host(tmp_path / name) for name in ("web1", "app1", "app2")}


def test_a_host_is_who_it_says_to_those_that_were_given_its_certificate(hosts: dict[str, Identity]) -> None:
    web, given = hosts["web1"], {name: hosts[name].certificate() for name in ("app1", "app2")}
    web.trust(*web.trusts(given))
    bundle = web.folder / "trusted.pem"
    for name in ("app1", "app2"):
        own = hosts[name].folder / "own.crt"
        assert verify(bundle, own, "-purpose", "sslserver", "-verify_hostname", NAME)
        assert verify(bundle, own, "-purpose", "sslclient")
        assert not verify(bundle, own, "-verify_hostname", "other.flaskhost.internal")
    assert not verify(bundle, web.folder / "own.crt"), "its own is not among them"


def test_a_certificate_signs_no_other(hosts: dict[str, Identity], tmp_path: Path) -> None:
    web, app = hosts["web1"], hosts["app1"]
    web.trust(*web.trusts({"app1": app.certificate()}))
    forged = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    forged += ["-subj", "/CN=evil", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(tmp_path / "evil.key")]
    forged += ["-CA", str(app.folder / "own.crt"), "-CAkey", str(app.folder / "own.key")]
    status, _out, err = run([*forged, "-out", str(tmp_path / "evil.crt")])
    assert status == 0, err
    assert not verify(web.folder / "trusted.pem", tmp_path / "evil.crt")


def test_only_root_reads_the_key(hosts: dict[str, Identity]) -> None:
    folder = hosts["app1"].folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "own.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["own.crt", "own.key"], "nothing is left behind"


def test_a_key_without_its_certificate_is_none(hosts: dict[str, Identity]) -> None:
    first, second = hosts["app1"], hosts["app2"]
    assert first.certificate()
    shutil.copy(second.folder / "own.key", first.folder / "own.key")
    assert first.certificate() == ""
    (second.folder / "own.crt").unlink()
    assert second.certificate() == ""


class Play:
    """Runs the module on a folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, folder: Path, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"folder": str(folder), "name": "web1", "dns_name": NAME, **options}
        return run_module(self.monkeypatch, module, run, check=check, **given)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    return Play(monkeypatch)


def test_a_second_run_changes_nothing(tmp_path: Path, hosts: dict[str, Identity], play: Play) -> None:
    folder, peers = tmp_path / "new", {"app1": hosts["app1"].certificate()}
    first = play(folder, peers=peers)
    assert first["paths"] == [str(folder / "own.crt"), str(folder / "trusted.pem")]
    again = play(folder, peers=peers)
    assert (again["changed"], again["certificate"]) == (False, first["certificate"])
    assert play(folder)["certificate"] == first["certificate"]


def test_check_mode_writes_nothing(tmp_path: Path, play: Play) -> None:
    done = play(tmp_path / "new", check=True, peers={"app1": ""})
    assert (done["changed"], done["certificate"]) == (True, "")
    assert not (tmp_path / "new").exists()


def test_a_run_without_a_host_keeps_its_certificate(hosts: dict[str, Identity], play: Play) -> None:
    folder, pem = hosts["web1"].folder, {name: hosts[name].certificate() for name in ("app1", "app2")}
    play(folder, peers=pem)
    assert play(folder, peers={"app1": "", "app2": ""})["changed"] is False
    assert (folder / "trusted.pem").read_text() == pem["app1"] + pem["app2"]
    # A host that the inventory has no more is not trusted any more.
    assert play(folder, peers={"app2": ""})["changed"] is True
    assert (folder / "trusted.pem").read_text() == pem["app2"]


def test_an_unknown_certificate_is_an_error_with_its_cure(hosts: dict[str, Identity], play: Play) -> None:
    failed = play(hosts["web1"].folder, peers={"app3": "", "app1": hosts["app1"].certificate()})
    assert "The certificate of app3 is not known yet. Run site.yml without --limit" in failed["msg"]
    assert not (hosts["web1"].folder / "trusted.pem").exists()


def test_only_a_certificate_is_trusted(hosts: dict[str, Identity]) -> None:
    key = (hosts["app1"].folder / "own.key").read_text()
    for text in ("x", key, hosts["app1"].certificate() * 2, f"{hosts['app1'].certificate()}ssl_verify off;"):
        with pytest.raises(IdentityError, match="is not a certificate"):
            hosts["web1"].trusts({"app1": text})
