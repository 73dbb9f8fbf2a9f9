"""Preflight's hints: they name what was meant, and show nothing of a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.preflight import calendars
from ansible.module_utils.flaskhost.preflight.report import show
from preflight_cases import (
    ARCHIVE,
    EMPTY,
    GONE,
    GOOD_FACTS,
    KEY,
    KEY_PART,
    LEAF,
    PAIR,
    SECRET,
    SSH_REPO,
    good_apps,
    own_pair,
    private_key,
)


def test_hints(project: Path) -> None:
    def told(changes: dict[str, Any], kind: str) -> str:
        (problem,) = preflight.find_problems(good_apps(changes), {}, {}, project)
        assert problem["kind"] == kind
        return f"{problem['problem']} {problem['example']}"

    assert "It is empty. Domain names" in told({"domains": []}, "missing")
    assert "It is missing. Domain names" in told({"domains": GONE}, "missing")
    assert "is a list" in told({"release_command": ["a", "b"]}, "wrong_type")
    assert "is empty" in told({"domains": ["a.test", None]}, "wrong_type")
    assert "in square brackets" in told({"persistent": "instance"}, "wrong_type")
    assert 'wsgi: "shop.main:app"' in told({"wsgi": "shop/main.py"}, "malformed")
    assert "static: {url: /assets/}" in told({"static": {"url": "assets"}}, "malformed")
    assert "Did you mean psycopg2?" in told({"database_driver": "psycopg22"}, "wrong_choice")
    assert "Did you mean workers? workers: 2" in told({"wrkers": 2}, "unknown_key")
    assert "limits: {memory: 512}" in told({"memory": 512}, "unknown_key")
    assert "domains: [shop.test]" in told({"domains": ["https://Shop.test:443/x"]}, "bad_domain")
    assert "without the scheme (https://)" in told({"domains": ["https://shop.test"]}, "bad_domain")
    assert "domains: [xn--bcher-kva.test]" in told({"domains": ["Bücher.test"]}, "bad_domain")
    assert 'wsgi: "shop:create_app()"' in told({"wsgi": "shopp:create_app()"}, "wsgi_not_found")
    assert "Write it without quotes" in told({"workers": "4"}, "wrong_type")
    assert "Write it in quotes" in told({"wsgi": 7}, "wrong_type")
    assert show("flask create-user --password sesame") == '"flask create-user --password ***"'
    assert "Modules there: shop." in told({"wsgi": "main:app"}, "wsgi_not_found")
    assert 'wsgi: "shop:app"' in told({"wsgi": "main:app"}, "wsgi_not_found")
    bare = {"source": {"path": "bare"}, "static": GONE}
    assert "Folders there: requirements." in told(
        bare | {"source": {"path": "bare", "subdir": "x"}}, "subdir_not_found"
    )
    assert "Modules there: app." in told(
        bare | {"requirements": "requirements/base.txt", "wsgi": "x:a"}, "wsgi_not_found"
    )
    assert "Possible files there: requirements.txt." in told({"requirements": "r.txt"}, "requirements_not_found")
    assert "~ is not expanded" in told({"source": {"path": "~/shop"}}, "source_not_found")
    assert "~ is not expanded" in told({"source": ARCHIVE | {"archive": "~/a.tar"}}, "archive_not_found")
    assert "path and archive" in told({"source": ARCHIVE | {"path": "sample_app"}}, "two_sources")
    assert f"sha256:{EMPTY[7:]}" in told({"source": ARCHIVE | {"checksum": EMPTY[7:]}}, "malformed")
    wrong = told({"source": ARCHIVE | {"checksum": "sha256:" + "0" * 64}}, "wrong_checksum")
    assert EMPTY in wrong
    assert "is sha256:000" in wrong
    assert "has no package" in told({"wheelhouse": "vendor/empty"}, "wheelhouse_not_found")
    assert "pip download" in told({"wheelhouse": "vendor/empty"}, "wheelhouse_not_found")
    alone = {"wsgi": "app:app", "static": GONE}
    assert "poetry lock" in told({"source": {"path": "poetry_without_lock"}} | alone, "no_requirements")
    assert "pdm lock" in told({"source": {"path": "pdm_without_lock"}} | alone, "no_requirements")
    assert "poetry export" in told({"source": {"path": "old_poetry"}} | alone, "unusable_lock")
    extra = {"source": {"path": "choices"}, "install": {"extras": ["x"]}} | alone
    assert "pyproject.toml has no extra x. Available: database." in told(extra, "install_not_found")
    assert "not expanded" not in told({"source": {"path": "nowhere"}}, "source_not_found")
    assert "config: production" in told({"env": {"FLASK_CONFIG": "x"}}, "own_variable")
    assert "generates a strong one" in told({"secrets": {"SECRET_KEY": "dev"}}, "placeholder_secret")


@pytest.mark.parametrize(("zone", "near"), [("stockholm", "Europe/Stockholm"), ("Europe/Stokholm", "Europe/Stockholm")])
def test_the_time_zone_that_was_meant(project: Path, zone: str, near: str) -> None:
    (problem,) = preflight.find_problems(good_apps(), {"timezone": zone}, {}, project)
    assert f"Did you mean {near}?" in problem["problem"]
    assert problem["example"] == f"timezone: {near}"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("~/.ssh/id_ed25519.pub", "name of a file"),
        (f"{KEY}\n{KEY}", "more than one line"),
        (KEY[:40], "damaged, cut off"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... ada@laptop", "only an example"),
        ("AAAAC3Nza", "starts with ssh-ed25519"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", "create a new pair"),
    ],
)
def test_hints_about_keys(project: Path, key: str, hint: str) -> None:
    (problem,) = preflight.find_problems(good_apps(), {"admin_users": [{"name": "ada", "keys": [key]}]}, {}, project)
    assert hint in problem["problem"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (KEY, "public half"),
        ("~/.ssh/id_ed25519", "name of a file"),
        ("a secret", "Not a private SSH key"),
        (private_key(line=" "), "joined into one"),
        (private_key(b"aes256-ctr"), "has a passphrase"),
        (f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{SECRET}\n-----END ENCRYPTED PRIVATE KEY-----", "has a passphrase"),
        (
            f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{SECRET}\n-----END RSA PRIVATE KEY-----",
            "has a passphrase",
        ),
    ],
    ids=range(7),
)
def test_hints_about_deploy_keys(project: Path, key: str, hint: str) -> None:
    (problem,) = preflight.find_problems(good_apps({"source": SSH_REPO | {"key": key}}), {}, {}, project)
    assert hint in problem["problem"]
    assert not set(key.split()) & set(f"{problem['problem']} {problem['example']}".split()) - {"a"}


@pytest.mark.parametrize(
    ("tls", "hint"),
    [
        ({"certificate": "/etc/ssl/shop.pem"}, "name of a file"),
        ({"certificate": LEAF.replace("\n", " ")}, "joined into one"),
        ({"certificate": PAIR["key"]}, "Remove the key"),
        ({"key": own_pair("a.test", password=b"sesame")["key"]}, "has a passphrase"),
        ({"key": private_key()}, "an SSH key"),
        ({"key": LEAF}, "This is a certificate"),
        ({"certificate": own_pair("a.test", "*.b.test")["certificate"]}, "is not that of the first certificate"),
        (own_pair("a.test", "*.b.test"), "is for *.b.test, a.test."),
    ],
    ids=range(8),
)
def test_hints_about_certificates_show_nothing_of_a_key(project: Path, tls: dict[str, str], hint: str) -> None:
    (problem,) = preflight.find_problems(good_apps({"tls": PAIR | tls}), {}, {}, project)
    assert hint in problem["problem"]
    shown = f"{problem['problem']} {problem['example']}"
    assert [line for line in (PAIR | tls)["key"].splitlines()[1:-1] if line in shown] == []
    assert KEY_PART not in shown


@pytest.mark.parametrize(
    ("kind", "wrong", "better", "words"),
    [
        (
            "memory_limit",
            {"limits": {"memory": 4096}},
            {"limits": {"memory": 232}},
            "can use 4096 MB, but after the system and PostgreSQL, 464 MB are left.",
        ),
        (
            "too_many_workers",
            {"workers": 9, "database": False},
            {"workers": 5},
            "9 workers need about 440 MB, but a slot of the app can use 300 MB.",
        ),
    ],
)
def test_what_is_too_much_for_the_host_is_told_with_a_number_that_fits(
    project: Path, kind: str, wrong: dict[str, Any], better: dict[str, Any], words: str
) -> None:
    (problem,) = preflight.find_problems(good_apps(wrong), {}, GOOD_FACTS, project)
    assert problem["kind"] == kind
    assert words in problem["problem"]
    assert yaml.safe_load(problem["example"]) == better
    assert preflight.find_problems(good_apps(wrong | better), {}, GOOD_FACTS, project) == []


def test_without_a_database_of_time_zones_any_zone_is_fine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> set[str]:
        raise PermissionError("/usr/share/zoneinfo")

    calendars.time_zones.cache_clear()
    monkeypatch.setattr(calendars.zoneinfo, "available_timezones", broken)
    try:
        assert preflight.find_problems(good_apps(), {"timezone": "Mars/Olympus"}, {}, project) == []
    finally:
        calendars.time_zones.cache_clear()
