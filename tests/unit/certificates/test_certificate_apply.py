"""flaskhost-certificates apply: which certificates are asked for, installed and loaded, and who is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from certificate_fakes import AUTHORITY, DAY, NOW, URL, Host
from flaskhost_certificates import pairs, records, serving
from flaskhost_certificates.config import CertificateError, Hsts

# --- apply ---------------------------------------------------------------------------------------------------------


def test_the_first_run_has_certificates_and_serves_them(host: Host) -> None:
    result = host.first_run()
    assert not result.problems
    assert result.changed
    assert host.orders == [("shop.test", "www.shop.test"), ("blog.test",)]
    assert host.is_trusted("www.shop.test")
    assert [item.source for item in result.certificates] == ["acme", "acme"]
    assert host.hsts("shop") == "max-age=300"
    assert json.loads(json.dumps(result.as_json()))["certificates"][0]["not_after"] == int(NOW + 90 * DAY)


def test_the_second_run_asks_nobody(host: Host) -> None:
    host.first_run()
    host.calls.clear()
    host.asked_dns.clear()
    host.directory_down = "No directory is to be fetched."
    result = host.apply()
    assert not result.changed
    assert not result.problems
    assert host.asked_dns == []
    assert not host.ran("reload")
    assert not [call for call in host.calls if call[0] == str(host.certbot)]


def test_without_the_hook_apply_installs_by_itself(host: Host) -> None:
    host.hook_works = False
    assert not host.first_run().problems
    assert host.is_trusted("shop.test")
    assert host.state("shop").source == "acme"


@pytest.mark.parametrize("domains", [("shop.test", "www.shop.test", "new.shop.test"), ("shop.test",)])
def test_other_names_are_asked_for_and_only_for_their_own_site(host: Host, domains: tuple[str, ...]) -> None:
    host.first_run()
    host.orders.clear()
    host.configure(host.site("shop", *domains), host.site("blog"))
    host.prepare()
    host.loaded.update(dict.fromkeys(domains, host.loaded["shop.test"]))
    assert not host.apply().problems
    assert host.orders == [domains]
    assert host.installed("shop").names == set(domains)


def test_another_key_type_is_forced_as_certbot_would_keep_the_old_one(host: Host) -> None:
    host.first_run()
    host.configure(*host.config.certificates, key_type="p384")
    host.apply()
    assert all("--force-renewal" in call for call in host.ran("certonly")[2:])
    assert len(host.orders) == 4
    assert not host.apply().changed


def test_dns_that_is_not_ready_keeps_no_other_site_back(host: Host) -> None:
    host.missing_records["www.shop.test"] = "www.shop.test has no address record yet."
    result = host.first_run()
    assert result.problems == ["shop: www.shop.test has no address record yet."]
    assert host.orders == [("blog.test",)]
    assert host.installed("shop").self_signed
    assert not host.hsts("shop")
    assert host.state("shop").error == "www.shop.test has no address record yet."
    assert host.state("shop").error_at == NOW
    host.missing_records.clear()
    assert not host.renew().problems
    assert host.is_trusted("shop.test")
    assert host.state("shop").error == ""


def test_an_authority_that_is_down_is_asked_once_for_all_sites(host: Host) -> None:
    host.directory_down = "The authority ca.test cannot be reached: connection refused."
    result = host.first_run()
    assert len(result.problems) == 2
    assert host.orders == []
    assert host.installed("shop").self_signed
    host.directory_down = ""
    assert not host.apply().problems


def test_the_dns_challenge_needs_no_web_server_to_answer(host: Host, monkeypatch) -> None:
    def probing(_webroot: Path) -> None:
        raise CertificateError("The folder of challenges cannot be written.")

    monkeypatch.setattr(records, "probing", probing)
    wild = host.site("shop", "shop.test", "*.shop.test", challenge="dns")
    host.configure(wild, host.site("blog"), dns_plugin="rfc2136")
    assert host.first_run().problems == ["blog: The folder of challenges cannot be written."]
    assert host.orders == [("shop.test", "*.shop.test")]
    assert not host.ran("--webroot")


def test_after_a_rate_limit_it_waits_as_long_as_the_names_are_the_same(host: Host) -> None:
    limit = "too many certificates already issued: retry after 2027-01-16 10:00:00 UTC"
    host.refusals["flask-shop"] = f"urn:ietf:params:acme:error:rateLimited :: {limit}"
    host.first_run()
    assert host.state("shop").not_before > NOW
    host.refusals.clear()
    result = host.apply()
    assert "2027-01-16 10:00 UTC" in result.problems[0]
    assert host.orders == [("blog.test",)]
    host.configure(host.site("shop", "shop.test"), host.site("blog"))
    host.prepare()
    host.load()
    assert not host.apply().problems
    assert host.orders[-1] == ("shop.test",)


def test_after_a_rate_limit_it_asks_again_when_the_time_has_come(host: Host) -> None:
    host.refusals["flask-shop"] = "rateLimited :: too many: retry after 2027-01-16 10:00:00 UTC"
    host.first_run()
    host.refusals.clear()
    host.now = host.state("shop").not_before + 1
    assert not host.apply().problems
    assert host.is_trusted("shop.test")


def test_an_authority_that_gives_something_else_is_not_asked_at_each_run(host: Host, monkeypatch) -> None:
    real = AUTHORITY.issue
    monkeypatch.setattr(AUTHORITY, "issue", lambda domains, *rest: real(domains[:1], *rest))
    assert "it does not include www.shop.test" in host.first_run().problems[0]
    host.apply()
    assert host.orders.count(("shop.test", "www.shop.test")) == 1


def test_a_broken_lineage_is_put_aside_so_that_certbot_calls_the_next_one_the_same(host: Host) -> None:
    host.first_run()
    conf = host.config.letsencrypt / "renewal/flask-shop.conf"
    conf.write_text("", encoding="utf-8")
    result = host.apply()
    assert not result.problems
    assert "Its files were renamed: " in result.certificates[0].notes[0]
    assert (host.config.letsencrypt / "archive/flask-shop.broken").is_dir()
    assert not host.apply().changed


def test_nothing_is_asked_when_only_a_look_is_wanted(host: Host) -> None:
    host.prepare()
    host.load()
    result = host.apply(dry=True)
    assert result.changed
    assert URL in result.certificates[0].notes[0]
    assert host.orders == []
    assert host.asked_dns == []
    assert not host.ran("reload")


def test_the_dns_challenge_needs_no_address_and_no_port(host: Host) -> None:
    host.configure(host.site("shop", "shop.test", "*.shop.test", challenge="dns"), dns_plugin="rfc2136")
    assert not host.first_run().problems
    assert host.orders == [("shop.test", "*.shop.test")]
    assert host.asked_dns == []
    assert not host.ran("ip")


def test_nginx_that_does_not_run_is_not_asked(host: Host) -> None:
    host.running = False
    host.prepare()
    result = host.apply()
    assert not result.problems
    assert not result.reloaded
    assert host.state("shop").trusted_since == 0


def test_when_nginx_refuses_the_pair_from_before_is_back(host: Host) -> None:
    host.prepare()
    host.load()
    before = host.installed("shop")
    host.nginx_refuses = "nginx: [emerg] something is wrong"
    result = host.apply()
    assert "something is wrong" in result.problems[0]
    assert host.installed("shop") == before
    assert host.state("shop").source == "selfsigned"
    host.nginx_refuses = ""
    orders = list(host.orders)
    assert not host.apply().problems
    assert host.orders == orders  # certbot has it already
    assert host.is_trusted("shop.test")


def test_a_pair_that_nginx_was_never_told_of_is_loaded_by_the_next_run(host: Host) -> None:
    host.first_run()
    host.loaded["shop.test"] = serving.der(pairs.sign(["shop.test"], NOW))
    result = host.apply()
    assert result.reloaded
    assert host.is_trusted("shop.test")
    assert not host.apply().reloaded


# --- What wants to know, and browsers ------------------------------------------------------------------------------


def hook(host: Host, name: str, text: str) -> None:
    path = host.root / "hooks" / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_hooks_are_told_once_of_each_new_pair(host: Host) -> None:
    told = host.root / "told"
    hook(host, "10-mail", f'echo "$FLASKHOST_APP $FLASKHOST_CERTIFICATE $FLASKHOST_KEY" >> {told}')
    (host.root / "hooks/README").write_text("not executable", encoding="utf-8")
    host.first_run()
    host.apply()
    folder = host.root / "tls/shop"
    lines = told.read_text(encoding="utf-8").splitlines()
    assert sorted(lines)[-1] == f"shop {folder}/fullchain.pem {folder}/privkey.pem"
    assert len(lines) == 2


def test_a_failing_hook_is_a_problem_and_is_called_again(host: Host) -> None:
    hook(host, "10-bad", "echo no room >&2; exit 1")
    hook(host, "20-good", f"echo x >> {host.root}/good")
    result = host.first_run()
    assert "10-bad failed for the new certificate: no room" in result.problems[0]
    assert (host.root / "good").exists()
    assert host.is_trusted("shop.test")
    hook(host, "10-bad", "exit 0")
    assert not host.apply().problems
    assert host.state("shop").announced == host.installed("shop").fingerprint


def test_browsers_are_told_more_with_time_and_nothing_of_an_untrusted_certificate(host: Host) -> None:
    host.first_run()
    assert host.state("shop").trusted_since == NOW
    host.now += 31 * DAY
    assert host.renew().reloaded
    assert host.hsts("shop") == "max-age=63072000"
    host.configure(host.site("shop", "shop.test", "www.shop.test", mode="selfsigned"))
    host.prepare()
    host.load()
    host.apply()
    assert host.hsts("shop") == ""
    assert host.state("shop").trusted_since == 0


def test_a_moment_without_an_answer_does_not_begin_the_ramp_anew(host: Host) -> None:
    host.first_run()
    host.loaded.clear()
    host.apply()
    assert host.state("shop").trusted_since == NOW
    assert host.hsts("shop") == "max-age=300"


def test_what_is_set_for_hsts_counts(host: Host) -> None:
    host.configure(replace(host.site("shop"), hsts=Hsts(60)))
    host.first_run()
    assert host.hsts("shop") == "max-age=60"


def test_all_certificates_of_a_run_come_into_service_with_one_reload(host: Host) -> None:
    """And one more where browsers are told something else of HTTPS than before."""
    host.configure(host.site("shop"), host.site("blog"), host.site("wiki"))
    host.first_run()
    assert len(host.ran("reload")) == 2
    host.due = {"flask-shop", "flask-blog", "flask-wiki"}
    host.calls.clear()
    assert host.renew().reloaded
    assert len(host.ran("reload")) == 1
