"""Domains that come and go, an app that goes, and a run that insists."""

import ssl

import pytest
from fleet import ACME, APPS, authority_down, is_selfsigned, issued, names, orders, play, with_domains

pytestmark = [pytest.mark.usefixtures("corrected"), pytest.mark.nightly]


def serials(web):
    return {app: web.certificate(f"{app}.test").serial_number for app in APPS}


def test_domain_and_address_that_are_added_are_in_a_new_certificate(ca, webs, roots):
    """The address is each host's own, and is asked for without a name: there is no SNI for addresses."""
    before, count = [serials(web) for web in webs], issued(ca)
    apps = with_domains(shop=[*APPS["shop"]["domains"], "new.shop.test"], hello=["hello.test", "{{ private_address }}"])
    status, output = play(flask_apps=apps)
    assert status == 0, output
    # For the two apps on the two hosts, and for nothing else.
    assert issued(ca) == count + 4
    for web, earlier in zip(webs, before, strict=True):
        assert names(web.verified("new.shop.test", roots["main"])) == {*APPS["shop"]["domains"], "new.shop.test"}
        assert names(web.verified(web.address, roots["main"], sni=False)) == {"hello.test", web.address}
        web.verified("hello.test", roots["main"])
        assert web.certificate("tenants.test").serial_number == earlier["tenants"]
        answer = web.visitor.ask(f"https://{web.address}/some/page")
        assert (answer.status, answer.headers["location"]) == (301, "https://hello.test/some/page")
        assert web.visitor.ask("https://new.shop.test/").headers["location"] == "https://shop.test/"
    asked = orders(ca)
    for web in webs:
        assert not web.program("apply")["changed"]
    assert orders(ca) == asked


def test_domain_and_app_that_are_removed_are_gone(ca, webs, roots):
    before, count = [serials(web) for web in webs], issued(ca)
    status, output = play(flask_apps={name: app for name, app in APPS.items() if name != "hello"})
    assert status == 0, output
    assert issued(ca) == count + 2
    for web, earlier in zip(webs, before, strict=True):
        assert names(web.verified("shop.test", roots["main"])) == set(APPS["shop"]["domains"])
        assert web.certificate("tenants.test").serial_number == earlier["tenants"]
        for path in ("tls/hello", "../letsencrypt/live/flask-hello", "../letsencrypt/renewal/flask-hello.conf"):
            assert not web.host.file(f"/etc/flaskhost/{path}").exists, path
        assert not web.host.file("/var/lib/flaskhost/certificates/hello.json").exists
        for domain in ("hello.test", "new.shop.test"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                web.certificate(domain)


def test_run_that_insists_fails_and_the_site_is_up_all_the_same(ca, trixie):
    with authority_down(trixie):
        status, output = play(limit=trixie.name, acme={**ACME, "strict": True})
    assert status != 0
    assert "The CA ca.test" in output
    assert is_selfsigned(trixie.certificate("hello.test"))
    # The app itself is none of this playbook's business, and has been there all the time.
    assert trixie.visitor.ask("https://hello.test/").status == 200


def test_app_that_comes_back_gets_a_certificate_again(webs, roots):
    status, output = play()
    assert status == 0, output
    for web in webs:
        web.verified("hello.test", roots["main"])
        assert web.visitor.ask("https://hello.test/").status == 200


def test_pair_that_is_being_changed_is_never_half_there(webs):
    """What nginx reads are links into a folder that is replaced at once."""
    for web in webs:
        for app in APPS:
            folder = f"/etc/flaskhost/tls/{app}"
            assert web.host.file(f"{folder}/fullchain.pem").linked_to.startswith(f"{folder}/versions/")
            assert web.run(f"readlink {folder}/fullchain.pem {folder}/privkey.pem").split() == [
                "current/fullchain.pem",
                "current/privkey.pem",
            ]
            assert len(web.run(f"ls {folder}/versions").split()) <= 3
