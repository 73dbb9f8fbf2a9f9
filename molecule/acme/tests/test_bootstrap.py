"""The first run, when no authority answers, and what heals it: the timer on one host, the playbook on the other."""

import pytest
from fleet import APPS, authority_runs, changed, is_selfsigned, issued, names, orders, play


@pytest.fixture
def down(ca):
    """The authority has never run."""
    if authority_runs(ca):
        pytest.skip("an earlier run of these tests has started the authority, which is not stopped again")


@pytest.mark.usefixtures("down")
def test_sites_are_up_with_selfsigned_certificates(webs):
    for web in webs:
        for name, app in APPS.items():
            domain = app["domains"][0]
            assert web.visitor.ask(f"https://{domain}/").status == 200
            assert web.hsts(f"https://{domain}/") == ""
            certificate = web.certificate(domain)
            assert is_selfsigned(certificate)
            assert names(certificate) == set(app["domains"])
            folder = web.host.file(f"/etc/flaskhost/tls/{name}")
            assert (folder.user, folder.mode) == ("root", 0o700)
            assert web.run(f"stat -L -c '%U %a' {folder.path}/privkey.pem") == "root 600\n"


@pytest.mark.usefixtures("down")
def test_playbook_names_the_authority_that_does_not_answer_and_changes_nothing():
    status, output = play()
    assert status == 0, output
    assert "The CA ca.test" in output
    assert "cannot be reached" in output
    assert set(changed(output)) == {0}


@pytest.mark.usefixtures("down")
@pytest.mark.parametrize("verb", ["renew", "check"])
def test_services_of_the_timers_fail_as_long_as_something_is_missing(trixie, verb):
    """And say what: nothing is about to end, but browsers warn."""
    ok, said = trixie.start(f"flaskhost-certificates-{verb}")
    assert not ok
    assert "The CA ca.test" in said
    trixie.run(f"systemctl reset-failed flaskhost-certificates-{verb}.service")


def test_both_heal_by_themselves(ca, webs, healed, roots):
    """By the timer's service without Ansible, and by the playbook: one wrong record keeps back no other app."""
    assert healed.status == 0, healed.output
    for web in webs:
        for app in ("shop", "tenants"):
            for domain in APPS[app]["domains"]:
                certificate = web.verified(domain.replace("*", "anybody"), roots["main"])
                assert names(certificate) == set(APPS[app]["domains"])
    # Each host has a pair of its own: no key has travelled.
    for domain in ("shop.test", "tenants.test"):
        assert len({web.certificate(domain).serial_number for web in webs}) == len(webs)
    if healed.is_first:
        assert healed.orders == 0
        assert not healed.timer_ok
        assert issued(ca) == 4


def test_wrong_record_is_named_where_it_was_seen(ca, webs, healed):
    if not healed.is_first:
        pytest.skip("the record has been corrected by an earlier run")
    wrong = ca.ansible.get_variables()["private_address"]
    for said, web in zip((healed.timer, healed.output), webs, strict=True):
        assert f"The A record of hello.test is {wrong}, which is not this host ({web.address}" in said
        assert is_selfsigned(web.certificate("hello.test"))


def test_no_key_is_in_what_was_printed(webs, healed):
    variables = webs[0].host.ansible.get_variables()
    for secret in (variables["test_secret"], *(line for web in webs for line in web.secrets())):
        assert secret not in healed.output
        assert secret not in healed.timer
    assert "PRIVATE KEY-----" not in healed.output


def test_keys_are_roots_alone(webs, healed):
    for web in webs:
        loose = (
            "find /etc/flaskhost/tls /etc/letsencrypt -name 'privkey*' -type f ! -perm 0600 -o -name 'privkey*' -type f"
        )
        assert web.run(f"{loose} ! -user root") == ""
        # The folders above are closed, too: nobody else gets as far as the file.
        for path in ("tls/shop/privkey.pem", "../letsencrypt/live/flask-shop/privkey.pem", "certbot/dns.ini"):
            web.run(f"test -s /etc/flaskhost/{path}")
            for user in ("www-data", "nobody"):
                assert web.host.run(f"runuser -u {user} -- cat /etc/flaskhost/{path}").rc != 0, (user, path)
        modes = web.run("stat -c %a /etc/flaskhost/certificates.json /etc/flaskhost/certbot/*.ini")
        assert set(modes.split()) == {"600"}


@pytest.mark.usefixtures("healed")
def test_second_run_asks_for_nothing_and_changes_nothing(ca, webs):
    before = orders(ca)
    for web in webs:
        assert not web.program("apply --check")["changed"]
    status, output = play()
    assert status == 0, output
    assert set(changed(output)) == {0}, output
    assert orders(ca) == before


@pytest.mark.usefixtures("healed")
def test_timers_run_and_the_distributions_own_does_not(webs):
    for web in webs:
        for unit in ("renew", "check"):
            timer = web.host.service(f"flaskhost-certificates-{unit}.timer")
            assert timer.is_enabled
            assert timer.is_running
        assert web.run("systemctl is-enabled certbot.timer", expect=None).strip() != "enabled"
        delay = web.run("systemctl show --property=RandomizedDelayUSec --value flaskhost-certificates-renew.timer")
        assert delay.strip() not in ("", "0")


@pytest.mark.usefixtures("healed")
def test_service_is_confined(webs):
    for web in webs:
        for unit in ("renew", "check"):
            report = web.run(f"systemd-analyze security --no-pager flaskhost-certificates-{unit}.service", expect=None)
            exposure = float(report.strip().splitlines()[-1].partition(":")[2].split()[0])
            assert exposure <= 4.0, report
