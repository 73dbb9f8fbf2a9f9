"""What certbot keeps: read, compared with what is wanted, and deleted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from certificate_fakes import AUTHORITY, DAY, KINDS, NOW, URL, Host, make_host, write_lineage
from flaskhost_certificates import lineages
from flaskhost_certificates.config import Certificate, CertificateError
from flaskhost_certificates.lineages import Lineage


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = make_host(tmp_path, monkeypatch)
    host.configure(host.site("shop"))
    return host


def made(host: Host, *domains: str, days: float = 90, **params: str) -> Lineage:
    known = {"server": URL, "authenticator": "webroot", "webroot_path": f"{host.config.webroot},"}
    pair = AUTHORITY.issue(domains or ("shop.test",), NOW, days)
    write_lineage(host.config.letsencrypt, "flask-shop", pair, {**known, **params})
    return lineages.find(host.config, "flask-shop")


def why(host: Host, lineage: Lineage, item: Certificate | None = None) -> str:
    item = item or host.config.certificates[0]
    return "; ".join(lineages.differences(host.config, item, lineage, NOW + DAY))


def conf(host: Host) -> Path:
    return host.config.letsencrypt / "renewal/flask-shop.conf"


def test_a_lineage_that_is_what_is_wanted_has_no_difference(host: Host) -> None:
    assert why(host, made(host)) == ""


def test_there_may_be_none(host: Host) -> None:
    assert why(host, lineages.find(host.config, "flask-shop")) == "there is none yet"
    assert not lineages.exists(host.config, "flask-shop")


@pytest.mark.parametrize(
    ("domains", "expected"),
    [
        (("shop.test", "new.shop.test"), "it does not include new.shop.test"),
        (("*.shop.test",), "it does not include *.shop.test; it also includes shop.test"),
        (("SHOP.test",), ""),
    ],
)
def test_names_are_compared_one_by_one(host: Host, domains: tuple[str, ...], expected: str) -> None:
    assert why(host, made(host), replace(host.config.certificates[0], domains=domains)) == expected


def test_addresses_are_compared_as_addresses(host: Host) -> None:
    lineage = made(host, "shop.test", "2001:db8::1")
    item = replace(host.config.certificates[0], domains=("shop.test", "2001:0DB8:0:0::1"))
    assert why(host, lineage, item) == ""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"directory": "https://other.test/dir"}, "it is from https://ca.test/dir, not from https://other.test/dir"),
        ({"key_type": "p384"}, "its key is p256, not p384"),
        ({"key_type": "rsa2048"}, "its key is p256, not rsa2048"),
        ({"profile": "shortlived"}, "its profile is the default"),
        ({"webroot": Path("/srv/other")}, "it was issued with webroot"),
    ],
)
def test_other_settings_ask_for_another_certificate(host: Host, settings: dict, expected: str) -> None:
    lineage = made(host)
    host.config = replace(host.config, **settings)
    assert why(host, lineage) == expected


def test_another_challenge_asks_for_another_certificate(host: Host) -> None:
    item = replace(host.config.certificates[0], challenge="dns")
    host.config = replace(host.config, dns_plugin="rfc2136")
    assert why(host, made(host), item) == "it was issued with webroot"
    assert why(host, made(host, authenticator="dns-rfc2136"), item) == ""
    assert why(host, made(host, authenticator="dns-rfc2136")) == "it was issued with dns-rfc2136"


def test_an_expired_one_is_asked_for(host: Host) -> None:
    assert why(host, made(host, days=0.5)) == "it has expired"


def test_the_preferred_profile_is_compared(host: Host) -> None:
    assert why(host, made(host, preferred_profile="shortlived")) == "its profile is shortlived"
    host.config = replace(host.config, profile="shortlived")
    assert why(host, made(host, preferred_profile="shortlived")) == ""


def test_a_lineage_of_the_distributions_certbot_is_what_is_wanted(host: Host) -> None:
    """The pinned certbot takes it over, with the line that an earlier release of Flaskhost wrote into it."""
    made(host)
    text = conf(host).read_text(encoding="utf-8").replace("version = 5.8.0", "version = 2.1.0")
    conf(host).write_text(f"renew_before_expiry = 30 days\n{text}", encoding="utf-8")
    assert why(host, lineages.find(host.config, "flask-shop")) == ""


# --- Damage --------------------------------------------------------------------------------------------------------


def test_a_file_that_certbot_has_not_finished_is_said_and_put_aside(host: Host) -> None:
    made(host)
    conf(host).write_text("", encoding="utf-8")
    lineage = lineages.find(host.config, "flask-shop")
    assert lineage.broken
    assert "damaged" in why(host, lineage)
    moved = lineages.set_aside(host.config, "flask-shop")
    assert [path.name for path in moved] == ["flask-shop.broken", "flask-shop.conf.broken", "flask-shop.broken"]
    assert not lineages.exists(host.config, "flask-shop")
    made(host)
    lineages.set_aside(host.config, "flask-shop")  # a second time


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\n",
        b"version = 5.8.0\n",
        b"\x00\x01",
        b"version = \xff\n",
        b"[renewalparams\n",
        b"[renewalparams]\na=1\n",
    ],
)
def test_a_damaged_file_is_broken(host: Host, text: bytes) -> None:
    made(host)
    conf(host).write_bytes(text)
    lineage = lineages.find(host.config, "flask-shop")
    assert lineage.broken
    assert str(conf(host)) in lineage.trouble
    conf(host).write_bytes(conf(host).read_bytes()[:-1])  # cut off within its last line
    assert lineages.find(host.config, "flask-shop").broken


def test_a_file_that_cannot_be_read_is_broken(host: Host) -> None:
    made(host)
    conf(host).unlink()
    conf(host).mkdir()
    lineage = lineages.find(host.config, "flask-shop")
    assert lineage.broken
    assert lineage.trouble == f"certbot's file {conf(host)} is damaged."


def test_files_without_a_settings_file_are_broken(host: Host) -> None:
    made(host)
    conf(host).unlink()
    assert lineages.find(host.config, "flask-shop").broken


def test_links_that_certbot_was_setting_are_mended_by_certbot(host: Host) -> None:
    made(host)
    live = host.config.letsencrypt / "live/flask-shop"
    for kind in KINDS:
        (live / f"previous_{kind}.pem").symlink_to((live / f"{kind}.pem").readlink())
    (live / "privkey.pem").unlink()
    lineage = lineages.find(host.config, "flask-shop")
    assert not lineage.broken
    assert lineage.pair is None
    assert why(host, lineage)
    (live / "previous_cert.pem").unlink()
    assert lineages.find(host.config, "flask-shop").broken


def test_a_key_of_another_certificate_is_trouble(host: Host) -> None:
    made(host)
    live = host.config.letsencrypt / "live/flask-shop"
    (live / "privkey.pem").resolve().write_bytes(AUTHORITY.issue(["x.test"]).key)
    lineage = lineages.find(host.config, "flask-shop")
    assert lineage.pair is None
    assert "its key does not belong to its certificate" in lineage.trouble


@pytest.mark.parametrize("roots", ["{}", "{},", "/a, {} # two", '"{}"', "/100%(x)s, {}"])
def test_a_file_of_settings_is_read_as_certbot_does(host: Host, roots: str) -> None:
    made(host)
    webroot = host.config.webroot
    head = conf(host).read_text(encoding="utf-8").partition("[renewalparams]")[0]
    conf(host).write_text(
        f'# renew_before_expiry = 30 days\n{head}[renewalparams]  # of ours\nserver = "{URL}"  # and "another"\n'
        f"authenticator = webroot\nwebroot_path = {roots.format(webroot)}\n[[webroot_map]]\n*.a.test = /x\n'b' = /y\n"
        "[acme_renewal_info]\nserver = https://other.test\n",
        encoding="utf-8",
    )
    lineage = lineages.find(host.config, "flask-shop")
    assert why(host, lineage) == ""
    host.config = replace(host.config, webroot=webroot / "other")
    assert why(host, lineage) == "it was issued with webroot"


def test_a_file_without_its_section_was_had_elsewhere(host: Host) -> None:
    made(host)
    text = conf(host).read_text(encoding="utf-8")
    conf(host).write_text(text[: text.index("[renewalparams]")], encoding="utf-8")
    assert "it is from an unknown authority" in why(host, lineages.find(host.config, "flask-shop"))


# --- Deletion ------------------------------------------------------------------------------------------------------


def test_a_lineage_is_deleted_by_certbot(host: Host) -> None:
    made(host)
    lineages.delete(host.run, host.config, "flask-shop")
    assert not lineages.exists(host.config, "flask-shop")
    assert host.calls[0][1:5] == ["delete", "--non-interactive", "--cert-name", "flask-shop"]


@pytest.mark.parametrize("damage", ["conf", "empty", "certbot"])
def test_what_certbot_cannot_delete_goes_all_the_same(host: Host, damage: str) -> None:
    made(host)
    if damage == "conf":
        conf(host).unlink()
    elif damage == "empty":
        conf(host).write_text("", encoding="utf-8")
    else:
        host.certbot.unlink()
    lineages.delete(host.run, host.config, "flask-shop")
    assert not lineages.exists(host.config, "flask-shop")
    assert host.calls == []
    lineages.delete(host.run, host.config, "flask-shop")


def test_a_certbot_that_refuses_to_delete_is_told(host: Host) -> None:
    made(host)
    busy = "Another instance of Certbot is already running."
    with pytest.raises(CertificateError, match="certbot could not delete flask-shop: Another instance"):
        lineages.delete(lambda *_, **__: (1, "", busy), host.config, "flask-shop")
    assert lineages.find(host.config, "flask-shop").pair
