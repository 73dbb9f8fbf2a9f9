"""Renewal by the timers' own services, weeks later: under load, in time and not before, and loudly where it fails."""

import pytest
from fleet import APPS, Load, authority_down, orders

pytestmark = pytest.mark.usefixtures("corrected")

RENEW, CHECK = "flaskhost-certificates-renew", "flaskhost-certificates-check"
#: Certificates of 90 days: due from the last third on, which a random day around the 60th begins.
EARLY, DUE = 50, 65


def serials(web):
    return {app: web.certificate(f"{app}.test").serial_number for app in APPS}


def test_nothing_is_renewed_before_its_time_and_nothing_is_wrong(ca, webs):
    count = orders(ca)
    for web in webs:
        before = serials(web)
        web.program("renew", days=EARLY)
        web.program("check", days=EARLY)
        assert serials(web) == before
    assert orders(ca) == count


def test_failed_renewal_is_loud_and_what_serves_goes_on(trixie):
    before = serials(trixie)
    with authority_down(trixie), trixie.later(DUE, RENEW, CHECK):
        ok, said = trixie.start(RENEW)
        assert not ok
        assert "ca.test" in said
        assert trixie.run(f"systemctl is-failed {RENEW}.service").strip() == "failed"
        ok, said = trixie.start(CHECK)
        assert not ok
        for app in APPS:
            assert app in said
    assert serials(trixie) == before


def test_renewed_when_it_is_due(webs, roots):
    for web in webs:
        before = serials(web)
        # What is proven by DNS stays behind: a DNS server takes no update that was signed on another day (TSIG).
        answer = web.program("renew", days=DUE, expect=None)
        after = serials(web)
        for app in ("shop", "hello"):
            assert after[app] != before[app], answer
            web.verified(f"{app}.test", roots["main"])


@pytest.mark.parametrize("number", [0, 1], ids=["bookworm", "trixie"])
def test_renewal_loses_no_request(webs, roots, number):
    """The timer's service in its sandbox, by force, while visitors come over new and over kept connections.

    A reload closes the connections that are idle at that moment; nginx can wait for what crosses with that from 1.27.4
    on. So the visitors do as browsers: what nobody has begun to answer is asked once more, over a new connection.
    """
    web = webs[number]
    before = serials(web)
    # Somebody else wants to know of new certificates, too; and writes where the sandbox lets it.
    hook, seen = "/etc/flaskhost/certificates.d/test", "/run/lock/hooked"
    script = f"#!/bin/sh\\necho $FLASKHOST_APP $FLASKHOST_CERTIFICATE >> {seen}\\n"
    web.run(f"printf '{script}' > {hook}; chmod 755 {hook}")
    try:
        with web.forced(), Load("shop.test", web.visitor.ports[443], rate=50, resend=True) as load:
            ok, said = web.start(RENEW)
        assert ok, said
        hooked = web.run(f"cat {seen}")
    finally:
        web.run(f"rm -f {hook} {seen}")
    report = load.report
    print(report.text())
    assert report.lost == 0, report.text()
    # At most what comes over kept connections in a tenth of a second.
    assert sum(report.resent.values()) <= 3, report.text()
    assert report.requests > 100
    assert report.kinds["slow"]["requests"] > 0
    after = serials(web)
    for app in APPS:
        assert after[app] != before[app]
        web.verified(f"{app}.test", roots["main"])
        assert f"{app} /etc/flaskhost/tls/{app}/fullchain.pem" in hooked


def test_check_is_content_with_what_was_renewed_and_asks_nobody(ca, webs):
    count = orders(ca)
    for web in webs:
        ok, said = web.start(CHECK)
        assert ok, said
        assert web.run("systemctl --failed --no-legend --plain") == ""
    assert orders(ca) == count


def test_check_sees_a_certificate_that_nginx_does_not_serve(trixie):
    """As after a reload that was forgotten: the file is not what counts."""
    folder = "/etc/flaskhost/tls/shop"
    current = trixie.run(f"readlink {folder}/current").strip()
    other = trixie.run(f"ls -d {folder}/versions/* | grep -v {current} | head -n 1").strip()
    assert other
    trixie.run(f"ln -sfn versions/{other.rpartition('/')[2]} {folder}/current")
    try:
        ok, said = trixie.start(CHECK)
        assert not ok
        assert "shop" in said
    finally:
        trixie.run(f"ln -sfn {current} {folder}/current; systemctl reset-failed {CHECK}.service")
