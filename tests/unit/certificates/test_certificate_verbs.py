"""The verbs of flaskhost-certificates: what they leave on a host, whatever they find there."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from certificate_fakes import AUTHORITY, DAY, NOW, URL, Host, make_host, write_lineage
from fakes import Killer
from flaskhost_certificates import deployed, pairs, records, serving, state
from flaskhost_certificates.config import CertificateError, Hsts
from flaskhost_certificates.store import Store


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = make_host(tmp_path, monkeypatch)
    host.configure(host.site("shop", "shop.test", "www.shop.test"), host.site("blog"))
    return host


def own(pair: pairs.Pair) -> dict[str, str]:
    return {"certificate": pair.chain.decode(), "key": pair.key.decode()}


def put_plain(host: Host, name: str, pair: pairs.Pair) -> None:
    """Put plain files where the pair belongs, as an operator or an earlier release of the role did."""
    folder = host.root / "tls" / name
    folder.mkdir(parents=True)
    (folder / "fullchain.pem").write_bytes(pair.chain)
    (folder / "privkey.pem").write_bytes(pair.key)


# --- prepare -------------------------------------------------------------------------------------------------------


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
    assert "would sign" in result.certificates[0].notes[0]
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
    assert "it lacks www.shop.test" in host.first_run().problems[0]
    host.apply()
    assert host.orders.count(("shop.test", "www.shop.test")) == 1


def test_a_broken_lineage_is_put_aside_so_that_certbot_calls_the_next_one_the_same(host: Host) -> None:
    host.first_run()
    conf = host.config.letsencrypt / "renewal/flask-shop.conf"
    conf.write_text("", encoding="utf-8")
    result = host.apply()
    assert not result.problems
    assert "put aside" in result.certificates[0].notes[0]
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
    assert "10-bad, which wants to know of a new certificate, failed: no room" in result.problems[0]
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


# --- What was dropped ----------------------------------------------------------------------------------------------


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
        assert "is kept, as somebody else has put it there" in told.certificates[0].notes[0]
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


# --- renew and deployed --------------------------------------------------------------------------------------------


def test_what_is_due_is_renewed_loaded_and_proven(host: Host) -> None:
    host.first_run()
    before = host.installed("shop")
    host.due.add("flask-shop")
    host.now += 61 * DAY
    result = host.renew()
    assert not result.problems
    assert [item.changed for item in result.certificates] != [False, False]
    assert host.installed("shop") != before
    assert host.loaded["shop.test"] == serving.der(host.installed("shop"))


def test_a_renewal_that_fails_is_told_and_remembered_and_the_old_pair_serves_on(host: Host) -> None:
    host.first_run()
    before = host.installed("shop")
    host.refusals["flask-shop"] = "Timeout during connect (likely firewall problem)"
    result = host.renew()
    assert "could not be renewed" in result.problems[0]
    assert host.state("shop").error in result.problems[0]
    assert host.installed("shop") == before
    assert host.ran("certonly")[2:] == []
    host.refusals.clear()
    assert not host.renew().problems
    assert host.state("shop").error == ""


def test_what_has_other_names_is_asked_for_and_not_renewed_before(host: Host) -> None:
    host.first_run()
    host.due.add("flask-shop")
    host.orders.clear()
    host.configure(host.site("shop", "shop.test"), host.site("blog"))
    assert not host.renew().problems
    assert host.orders == [("shop.test",)]


def test_renewing_with_nothing_of_certbots_starts_no_certbot(host: Host) -> None:
    host.configure(host.site("shop", mode="selfsigned"))
    host.prepare()
    host.load()
    assert not host.renew().problems
    assert not [call for call in host.calls if call[0] == str(host.certbot)]


@pytest.mark.parametrize("others", [True, False])
def test_certificates_of_others_are_renewed_where_their_timer_was_taken_away(host: Host, others: bool) -> None:
    host.configure(host.site("shop", mode="selfsigned"), others=others)
    host.first_run()
    write_lineage(host.config.letsencrypt, "mail", AUTHORITY.issue(["mail.test"]), {"server": "https://other.test"})
    assert not host.renew().problems
    assert bool(host.ran("mail")) is others
    if not others:
        return
    host.refusals["mail"] = "Timeout during connect"
    assert "mail, which is of no site here" in host.renew().problems[0]


def test_what_could_not_be_had_is_no_change_that_would_be_made(host: Host) -> None:
    """A second run with --check says so too, when the record is still missing."""
    host.configure(host.site("shop"))
    assert host.apply(dry=True).changed
    host.directory_down = "The authority cannot be reached."
    host.first_run()
    dry = host.apply(dry=True)
    assert not dry.changed
    assert "would be asked" in dry.certificates[0].notes[-1]


def test_an_older_certbot_is_told_when_to_renew(host: Host) -> None:
    host.version, host.days = "2.1.0", 6
    host.first_run()
    conf = host.config.letsencrypt / "renewal/flask-shop.conf"
    assert conf.read_text(encoding="utf-8").startswith("renew_before_expiry = 72 hours\n")


def test_the_hook_installs_the_lineage_it_is_called_for(host: Host) -> None:
    host.first_run()
    pair = AUTHORITY.issue(["shop.test", "www.shop.test"])
    live = write_lineage(host.config.letsencrypt, "flask-shop", pair, {"server": URL})
    result = deployed.deployed(host.config, host.run, str(live), NOW)
    assert result.reloaded
    assert host.installed("shop") == pair
    assert [item.name for item in result.certificates] == ["shop"]


@pytest.mark.parametrize("live", ["live/mail", "elsewhere/flask-shop", "live/flask-wiki"])
def test_the_hook_leaves_what_is_not_ours(host: Host, live: str) -> None:
    host.first_run()
    host.calls.clear()
    result = deployed.deployed(host.config, host.run, str(host.config.letsencrypt / live), NOW)
    assert result.certificates == []
    assert not host.ran("reload")


def test_the_hook_puts_the_old_pair_back_when_nginx_refuses(host: Host) -> None:
    host.first_run()
    before = host.installed("shop")
    live = write_lineage(
        host.config.letsencrypt, "flask-shop", AUTHORITY.issue(["shop.test", "www.shop.test"]), {"server": URL}
    )
    host.nginx_refuses = "nginx: [emerg] no"
    result = deployed.deployed(host.config, host.run, str(live), NOW)
    assert "The certificate from before is back in place." in result.problems[0]
    assert host.installed("shop") == before


def test_the_hook_without_a_lineage_says_so(host: Host) -> None:
    with pytest.raises(CertificateError, match="RENEWED_LINEAGE"):
        deployed.deployed(host.config, host.run, "", NOW)


def test_certbot_is_told_that_the_lock_is_held(host: Host) -> None:
    host.first_run()
    told = [env for call, env in zip(host.calls, host.environments, strict=True) if "certonly" in call]
    assert all(env.get(state.LOCKED) for env in told)


# --- check ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "left", "alarm"),
    [
        (90, 31, False),
        (90, 29.5, False),  # the timer's next round renews it
        (90, 29, True),
        (45, 14, True),
        (6, 2.5, False),
        (6, 1.9, True),
        (90, -1, True),
    ],
)
def test_the_alarm_comes_when_a_renewal_should_have_been(host: Host, days: float, left: float, alarm: bool) -> None:
    host.days = days
    host.first_run()
    assert not host.check().problems
    host.now = NOW + (days - left) * DAY
    assert bool(host.check().problems) == alarm


def test_the_alarm_tells_the_reason_of_the_last_failure(host: Host) -> None:
    host.first_run()
    host.refusals["flask-shop"] = "Another instance of Certbot is already running."
    host.now = NOW + 70 * DAY
    host.renew()
    assert "Another certbot is running" in host.check().problems[0]


def test_a_self_signed_pair_raises_no_alarm_before_its_end(host: Host) -> None:
    host.configure(host.site("shop", mode="selfsigned"))
    host.first_run()
    host.now = NOW + 3600 * DAY
    assert not host.check().problems
    host.now = NOW + 3700 * DAY
    assert "expired" in host.check().problems[0]


@pytest.mark.parametrize(
    ("mode", "cure"),
    [
        ("selfsigned", "Run site.yml, which signs a new one."),
        ("files", "Put a new one into flask_apps.shop.tls.certificate and flask_apps.shop.tls.key, then run site.yml."),
        ("acme", "See 'sudo journalctl -u flaskhost-certificates-renew' for the reason."),
        ("somebody's", "Whoever put it into {folder} has to renew it."),
    ],
)
def test_the_alarm_names_who_renews_it(host: Host, mode: str, cure: str) -> None:
    pair = AUTHORITY.issue(["shop.test"])
    if mode == "somebody's":
        put_plain(host, "shop", pair)
    host.configure(host.site("shop", "shop.test", mode="files" if mode == "somebody's" else mode))
    host.prepare({"shop": own(pair)} if mode == "files" else None)
    host.apply()
    host.now = NOW + 3700 * DAY
    (said,) = (problem for problem in host.check().problems if "expired" in problem)
    assert said.endswith(cure.format(folder=host.root / "tls/shop"))


def test_a_pair_that_is_missing_damaged_or_not_served_raises_the_alarm(host: Host) -> None:
    host.first_run()
    host.loaded["blog.test"] = b"another"
    (host.root / "tls/shop/current").unlink()
    problems = host.check().problems
    assert "There is no certificate" in problems[0]
    assert "nginx serves another certificate for blog.test" in problems[1]
    del host.loaded["blog.test"]
    assert "nginx serves no certificate" in host.check().problems[1]
    host.running = False
    assert len(host.check().problems) == 1


# --- Killed at any moment ------------------------------------------------------------------------------------------


def whole(host: Host) -> None:
    """What is installed is a pair, for each site that has any."""
    for item in host.config.certificates:
        try:
            pair = Store(item.certificate, item.key).installed()
        except CertificateError:
            pytest.fail("half a pair")
        assert pair is None or pair.fits


@pytest.mark.parametrize("verb", ["prepare", "apply", "drop"])
def test_killed_before_any_change_to_the_disk_a_repeat_ends_well(tmp_path: Path, monkeypatch, verb: str) -> None:
    def begin(folder: Path) -> Host:
        host = make_host(folder, monkeypatch)
        host.configure(host.site("shop"))
        if verb != "prepare":
            host.prepare()
            host.load()
        if verb == "drop":
            host.apply()
            host.configure()
        return host

    def work(host: Host) -> None:
        host.prepare() if verb == "prepare" else host.apply()

    (tmp_path / "0").mkdir()
    # The store has a test of its own of this kind.
    with Killer(but="store.py") as counted:
        host = begin(tmp_path / "0")
        counted.count = 0
        work(host)
        total = counted.count
    assert total > 2
    for number in range(1, total + 1):
        (tmp_path / str(number)).mkdir()
        host = begin(tmp_path / str(number))
        with Killer(number, "store.py"), pytest.raises(KeyboardInterrupt):
            work(host)
        whole(host)
        assert not host.first_run().problems, number
        assert not host.apply().changed, number
        if verb == "drop":
            assert not (host.root / "tls/shop").exists()
            assert not (host.config.letsencrypt / "live/flask-shop").exists()
            assert state.names(host.config.state) == []
        else:
            assert host.is_trusted("shop.test")
            assert host.state("shop").announced == host.installed("shop").fingerprint


@pytest.mark.parametrize("moment", ["certonly", "reload", "after the order"])
def test_killed_at_a_command_a_repeat_ends_well_and_orders_nothing_twice(host: Host, moment: str) -> None:
    host.prepare()
    host.load()
    host.kill_at = moment
    with pytest.raises(KeyboardInterrupt):
        host.apply()
    host.kill_at = ""
    assert not host.apply().problems
    assert host.is_trusted("shop.test")
    assert len(host.orders) == 2
    assert not host.apply().changed


def test_all_certificates_of_a_run_come_into_service_with_one_reload(host: Host) -> None:
    """And one more where browsers are told something else of HTTPS than before."""
    host.configure(host.site("shop"), host.site("blog"), host.site("wiki"))
    host.first_run()
    assert len(host.ran("reload")) == 2
    host.due = {"flask-shop", "flask-blog", "flask-wiki"}
    host.calls.clear()
    assert host.renew().reloaded
    assert len(host.ran("reload")) == 1
