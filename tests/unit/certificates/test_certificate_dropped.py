"""Sites that were dropped: what goes with them, and what stays."""

from __future__ import annotations

from certificate_fakes import AUTHORITY, URL, Host, put_plain, write_lineage
from flaskhost_certificates import state


def test_a_dropped_sites_lineage_and_folder_go(host: Host) -> None:
    host.first_run()
    host.configure(host.site("blog"))
    assert host.apply(dry=True).deleted == ["shop"]
    assert (host.root / "tls/shop").exists()
    result = host.apply()
    assert result.deleted == ["shop"]
    assert not (host.root / "tls/shop").exists()
    assert not (host.config.letsencrypt / "renewal/flask-shop.conf").exists()
    assert state.names(host.config.state) == ["blog"]
    assert not host.apply().changed


def test_what_somebody_has_put_there_stays_when_its_site_is_dropped(host: Host) -> None:
    """It may be the only copy of a key. Told once."""
    host.configure(host.site("shop", mode="selfsigned"))
    pair = AUTHORITY.issue(["shop.test"])
    put_plain(host, "shop", pair)
    host.prepare()
    host.configure()
    for dry in (True, False):
        told = host.apply(dry=dry)
        assert not told.deleted
        assert "is kept, because its certificate was installed by hand" in told.certificates[0].notes[0]
    assert host.installed("shop") == pair
    assert not host.apply().certificates


def test_a_dropped_sites_folder_stays_while_nginx_names_it(host: Host) -> None:
    host.first_run()
    host.nginx_names = f"ssl_certificate {host.root}/tls/shop/fullchain.pem;"
    host.configure(host.site("blog"))
    host.apply()
    assert (host.root / "tls/shop/fullchain.pem").exists()
    host.nginx_names = ""
    assert host.apply().deleted == ["shop"]
    assert not (host.root / "tls/shop").exists()


def test_a_site_of_another_mode_loses_its_lineage_once_another_pair_serves(host: Host) -> None:
    host.first_run()
    host.configure(host.site("shop", "shop.test", "www.shop.test", mode="selfsigned"), host.site("blog"))
    assert host.apply().deleted == []  # nothing else serves yet
    host.prepare()
    host.load()
    assert host.apply().deleted == ["shop"]
    assert host.installed("shop").self_signed
    assert not host.apply().changed


def test_a_lineage_that_this_program_has_not_asked_for_is_never_deleted(host: Host) -> None:
    host.configure(host.site("shop", mode="selfsigned"))
    write_lineage(host.config.letsencrypt, "flask-shop", AUTHORITY.issue(["shop.test"]), {"server": URL})
    host.prepare()
    host.apply()
    host.configure()
    host.apply()
    assert (host.config.letsencrypt / "renewal/flask-shop.conf").exists()
