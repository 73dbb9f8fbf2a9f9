"""Other authorities and other settings: six days, other keys, profiles, an account that has to be bound.

The last file, as it leaves the hosts with these settings: going back would take longer than the tests.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fleet import ACME, APPS, orders, play

pytestmark = [pytest.mark.usefixtures("corrected"), pytest.mark.nightly]


#: The profile that each host asks for, and the days of that.
PROFILES = {"fh-acme-bookworm": ("tlsserver", 45), "fh-acme-trixie": ("shortlived", 6)}


def on_each(webs, run):
    """What a run of the playbook has printed on each host, on all at the same time."""
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(run, webs))
    for status, output in ended:
        assert status == 0, output
    return [output for _status, output in ended]


@pytest.fixture(scope="module")
def short(webs):
    """Both hosts have certificates of six days, and an inventory that wants Debian's certbot; what the runs printed."""
    directory = "https://ca.test:14001/dir"
    return on_each(webs, lambda web: play(
        limit=web.name,
        acme={**ACME, "directory": directory, "key_type": "p384", "certbot": "package"},
    ))  # fmt: skip


@pytest.fixture(scope="module")
def bound(webs):
    """Both hosts have an account that is bound, and certificates of a profile each; what the runs have printed."""
    directory = "https://ca.test:14002/dir"
    return on_each(webs, lambda web: play(
        "-vvv",
        limit=web.name,
        acme={
            **ACME,
            "directory": directory,
            "external_account": {"key_id": "flaskhost", "hmac_key": "{{ test_secret }}"},
            "profile": PROFILES[web.name][0],
        },
    ))  # fmt: skip


def lifetime_days(certificate):
    return round((certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds() / 86400)


@pytest.mark.usefixtures("short")
def test_other_authority_and_other_key_type_mean_other_certificates(webs, roots):
    for web in webs:
        for app in APPS:
            certificate = web.verified(f"{app}.test", roots["short"])
            assert lifetime_days(certificate) == 6
            assert isinstance(certificate.public_key().curve, ec.SECP384R1)


def test_pinned_certbot_is_used_though_the_inventory_wants_debians(webs, short):
    for web, output in zip(webs, short, strict=True):
        assert "acme.certbot: package no longer has an effect" in output
        assert not web.host.package("certbot").is_installed
        pinned = web.run("/opt/flaskhost/certbot/bin/certbot --version").split()[1]
        for app in APPS:
            text = web.host.file(f"/etc/letsencrypt/renewal/flask-{app}.conf").content_string
            assert f"version = {pinned}\n" in text


@pytest.mark.usefixtures("short")
def test_second_run_asks_for_nothing(ca, webs):
    count = orders(ca)
    for web in webs:
        assert not web.program("apply")["changed"]
    assert orders(ca) == count


@pytest.mark.usefixtures("short")
def test_certificate_of_six_days_is_renewed_in_time_and_not_before(ca, webs):
    for web in webs:
        before, count = web.certificate("shop.test").serial_number, orders(ca)
        web.program("renew", days=1)
        web.program("check", days=1)
        assert web.certificate("shop.test").serial_number == before, web.name
        assert orders(ca) == count, web.name
        # Fifth day of six. Two thirds are over, and so the check would have given the alarm.
        web.program("check", days=5, expect=1)
        # What is proven by DNS stays behind: a DNS server takes no update that was signed on another day (TSIG).
        answer = web.program("renew", days=5, expect=None)
        assert web.certificate("shop.test").serial_number != before, answer


def test_account_is_bound_to_one_that_is_known_elsewhere(webs, roots, bound):
    """And the key is told to nobody."""
    secret = webs[0].host.ansible.get_variables()["test_secret"]
    for web, output in zip(webs, bound, strict=True):
        for app in APPS:
            web.verified(f"{app}.test", roots["bound"])
        assert secret not in output
        assert not web.has_secret_in_logs()
        assert web.run("stat -c %a /etc/flaskhost/certbot/cli.ini") == "600\n"


@pytest.mark.usefixtures("bound")
def test_profile_is_the_one_that_is_asked_for(webs, roots):
    """The authority would choose one by itself, by chance."""
    for web in webs:
        found = [lifetime_days(web.verified(f"{app}.test", roots["bound"])) for app in APPS]
        assert found == [PROFILES[web.name][1]] * len(APPS), web.name
