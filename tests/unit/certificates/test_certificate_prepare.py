"""flaskhost-certificates prepare: each site has a pair before nginx starts, whatever is there."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from certificate_fakes import AUTHORITY, DAY, NOW, URL, Host, own, put_plain, write_lineage
from flaskhost_certificates.config import CertificateError


def test_a_bare_host_gets_self_signed_pairs_and_a_second_run_changes_nothing(host: Host) -> None:
    result = host.prepare()
    assert result.changed
    assert host.installed("shop").self_signed
    assert host.installed("shop").names == {"shop.test", "www.shop.test"}
    assert host.state("shop").source == "selfsigned"
    assert not host.hsts("shop")
    assert stat.S_IMODE((host.config.state / "shop.json").stat().st_mode) == 0o600
    again = host.prepare()
    assert not again.changed
    assert [item.serial for item in again.certificates] == [item.serial for item in result.certificates]


def test_prepare_only_says_what_it_would_do_when_asked_so(host: Host) -> None:
    result = host.prepare(dry=True)
    assert result.changed
    assert "would create a self-signed certificate" in result.certificates[0].notes[0]
    assert not (host.root / "tls").exists()
    assert not host.config.state.exists()


def test_a_self_signed_pair_is_signed_anew_when_the_names_change(host: Host) -> None:
    host.prepare()
    host.configure(host.site("shop", "shop.test", "new.shop.test"))
    assert host.prepare().changed
    assert host.installed("shop").names == {"shop.test", "new.shop.test"}


def test_an_authoritys_pair_stays_though_it_lacks_a_new_name(host: Host) -> None:
    host.first_run()
    before = host.installed("shop")
    host.configure(host.site("shop", "shop.test", "new.shop.test"))
    assert not host.prepare().changed
    assert host.installed("shop") == before


def test_a_usable_lineage_is_installed_instead_of_a_self_signed_pair(host: Host) -> None:
    pair = AUTHORITY.issue(["shop.test", "www.shop.test"])
    write_lineage(host.config.letsencrypt, "flask-shop", pair, {"server": URL})
    host.prepare()
    assert host.installed("shop") == pair
    assert host.state("shop").source == "acme"


def test_a_damaged_pair_is_replaced_and_kept(host: Host) -> None:
    put_plain(host, "shop", AUTHORITY.issue(["shop.test"]))
    (host.root / "tls/shop/fullchain.pem").write_text("garbage", encoding="utf-8")
    result = host.prepare()
    assert host.installed("shop").self_signed
    assert "kept" in result.certificates[0].notes[0]
    assert any(path.read_bytes() == b"garbage" for path in (host.root / "tls/shop/versions").glob("*/fullchain.pem"))


@pytest.mark.parametrize("days", [90, 1])
def test_a_foreign_pair_is_left_alone_while_it_is_good(host: Host, days: int) -> None:
    host.configure(host.site("shop", mode="selfsigned"))
    pair = AUTHORITY.issue(["shop.test"], NOW - 2 * DAY, days)
    put_plain(host, "shop", pair)
    for _ in range(2):
        result = host.prepare()
    assert (host.installed("shop") == pair) == (days == 90)
    assert result.certificates[0].source == ("foreign" if days == 90 else "selfsigned")


@pytest.mark.parametrize("before", ["acme", "files"])
def test_mode_selfsigned_takes_the_place_of_a_pair_of_ours(host: Host, before: str) -> None:
    host.configure(host.site("shop", mode=before))
    host.prepare({"shop": own(AUTHORITY.issue(["shop.test"]))})
    host.load()
    host.apply()
    assert not host.installed("shop").self_signed
    host.configure(host.site("shop", mode="selfsigned"))
    host.prepare()
    assert host.installed("shop").self_signed


def test_folders_that_others_look_into_are_there_for_them(host: Host) -> None:
    host.configure(host.site("shop"))
    challenges = host.root / "webroot/.well-known/acme-challenge"
    assert str(challenges) in host.prepare(dry=True).made
    assert not challenges.exists()
    first = host.prepare()
    assert first.as_json()["made"] == [
        *(str(path) for path in (host.root / "webroot", challenges.parent, challenges, host.root / "letsencrypt")),
    ]
    for path in first.made:
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o755
    assert host.prepare().made == []


def test_own_files_are_installed_and_a_second_run_changes_nothing(host: Host) -> None:
    host.configure(host.site("shop", mode="files"))
    pair = AUTHORITY.issue(["shop.test"])
    assert host.prepare({"shop": own(pair)}).changed
    assert host.installed("shop") == pair
    again = host.prepare({"shop": own(pair)})
    assert not again.changed
    assert again.certificates[0].source == "files"
    assert not host.prepare().problems  # by hand, without the PEMs


@pytest.mark.parametrize("fault", ["key", "name", "garbage", "expired"])
def test_one_bad_file_changes_nothing_at_all(host: Host, fault: str) -> None:
    host.configure(host.site("shop", mode="files"), host.site("blog", mode="files"), host.site("wiki"))
    good, other = AUTHORITY.issue(["shop.test"]), AUTHORITY.issue(["other.test"])
    bad = {
        "key": {**own(good), "key": own(other)["key"]},
        "name": own(other),
        "garbage": {**own(good), "key": "garbage"},
        "expired": own(AUTHORITY.issue(["shop.test"], NOW - 100 * DAY)),
    }[fault]
    with pytest.raises(CertificateError, match=r"flask_apps\.shop\.tls\.key") as caught:
        host.prepare({"shop": bad, "blog": own(AUTHORITY.issue(["blog.test"]))})
    assert "PRIVATE KEY-----" not in str(caught.value)
    assert not (host.root / "tls").exists()
    assert not host.config.state.exists()


def test_own_files_that_were_not_handed_over_are_a_problem_and_the_site_still_has_a_pair(host: Host) -> None:
    host.configure(host.site("shop", mode="files"))
    assert "flask_apps.shop.tls.certificate" in host.prepare().problems[0]
    assert host.installed("shop").self_signed


def test_one_sites_failure_keeps_no_other_back(host: Host) -> None:
    (host.root / "tls").mkdir()
    (host.root / "tls/shop").write_text("in the way", encoding="utf-8")
    result = host.prepare()
    assert [item.name for item in result.certificates if item.problems] == ["shop"]
    assert host.installed("blog").self_signed
