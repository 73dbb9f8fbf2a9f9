"""flaskhost-certificates renew, deployed and check: what is due is renewed, and the alarm comes in time."""

from __future__ import annotations

import pytest
from certificate_fakes import AUTHORITY, DAY, NOW, URL, Host, own, put_plain, write_lineage
from flaskhost_certificates import deployed, serving, state
from flaskhost_certificates.config import CertificateError

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


@pytest.mark.parametrize("verb", ["apply", "renew"])
def test_a_caa_record_is_told_with_the_name_that_the_authority_has_there(host: Host, verb: str) -> None:
    said = "CAA record for shop.test prevents issuance"
    if verb == "renew":
        host.first_run()
    host.refusals["flask-shop"] = said
    problem = (host.first_run() if verb == "apply" else host.renew()).problems[0]
    assert 'Add: shop.test. CAA 0 issue "ca.test"' in problem
    # Nobody needs the directory for a renewal: where it is down, the cure is less exact.
    if verb == "renew":
        host.directory_down = "The authority cannot be reached."
        assert "Add the CA to the CAA records of shop.test." in host.renew().problems[0]


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


def test_certificates_of_others_are_left_to_others(host: Host) -> None:
    host.first_run()
    write_lineage(host.config.letsencrypt, "mail", AUTHORITY.issue(["mail.test"]), {"server": "https://other.test"})
    host.due.update(("flask-shop", "mail"))
    assert not host.renew().problems
    assert host.due == {"mail"}


def test_what_could_not_be_had_is_no_change_that_would_be_made(host: Host) -> None:
    """A second run with --check says so too, when the record is still missing."""
    host.configure(host.site("shop"))
    assert host.apply(dry=True).changed
    host.directory_down = "The authority cannot be reached."
    host.first_run()
    dry = host.apply(dry=True)
    assert not dry.changed
    assert "would be requested from" in dry.certificates[0].notes[-1]


def test_an_operators_own_time_of_renewal_is_kept(host: Host) -> None:
    host.first_run()
    conf = host.config.letsencrypt / "renewal/flask-shop.conf"
    conf.write_text(f"renew_before_expiry = 20 days\n{conf.read_text(encoding='utf-8')}", encoding="utf-8")
    assert not host.renew().problems
    assert conf.read_text(encoding="utf-8").startswith("renew_before_expiry = 20 days\n")


@pytest.mark.parametrize("verb", ["apply", "renew"])
def test_a_certbot_that_is_not_there_is_told(host: Host, verb: str) -> None:
    if verb == "renew":
        host.first_run()
    host.refusals["flask-shop"] = f"{host.certbot}: No such file or directory"
    said = (host.first_run() if verb == "apply" else host.renew()).problems[0]
    assert "certbot does not run: No such file or directory. Run site.yml again, which installs it." in said


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
    assert "The previous certificate is back in place." in result.problems[0]
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
        ("files", "Set a new one in flask_apps.shop.tls.certificate and flask_apps.shop.tls.key, then run site.yml."),
        ("acme", "See 'sudo journalctl -u flaskhost-certificates-renew' for the reason."),
        ("somebody's", "Renew it yourself: it was installed in {folder} by hand."),
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
