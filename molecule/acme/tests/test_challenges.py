"""What an authority needs in order to see that a name is ours, and what is said before it is asked in vain.

What is said of a rate limit and of CAA records is among the unit tests: Pebble has no limit, and looks up no CAA.
"""

import pytest
from fleet import CHALLENGES, about, is_selfsigned, orders, problems, refused, update_records


@pytest.fixture(scope="module")
def right_address(ca, webs, healed):
    """The records of hello.test lead here."""
    if not healed.is_first:
        pytest.skip("hello.test has its certificate from an earlier run")
    update_records(ca, "delete hello.test. A", *(f"add hello.test. 1 A {web.address}" for web in webs))


def test_wrong_record_is_told_before_the_authority_is_asked(ca, trixie, healed):
    if not healed.is_first:
        pytest.skip("the record has been corrected by an earlier run")
    before = orders(ca)
    answer = trixie.program("apply")
    assert list(problems(answer)) == ["hello"]
    assert f"Change it to {trixie.address}" in about(answer, "hello")
    assert orders(ca) == before


@pytest.mark.usefixtures("right_address")
def test_record_that_is_missing_is_written_out(ca, webs, trixie):
    before = orders(ca)
    update_records(ca, "delete hello.test. A")
    said = about(trixie.program("apply"), "hello")
    assert f"Add: hello.test. A {trixie.address}" in said
    assert orders(ca) == before
    update_records(ca, *(f"add hello.test. 1 A {web.address}" for web in webs))


@pytest.mark.usefixtures("right_address")
def test_aaaa_record_that_leads_nowhere_is_told(ca, trixie):
    before = orders(ca)
    update_records(ca, "add hello.test. 1 AAAA 2001:db8::1")
    said = about(trixie.program("apply"), "hello")
    assert "The AAAA record of hello.test is 2001:db8::1" in said
    assert orders(ca) == before
    update_records(ca, "delete hello.test. AAAA")


@pytest.mark.usefixtures("right_address")
def test_closed_port_of_the_other_host_is_told(ca, bookworm, trixie):
    """As by a provider's firewall: the host itself sees nothing of it, and its peer does."""
    before = orders(ca)
    with refused(bookworm, "input", 'iifname != "lo" tcp dport 80'):
        said = about(trixie.program("apply"), "hello")
    assert f"{bookworm.address}" in said
    assert "port 80" in said.lower()
    assert orders(ca) == before


@pytest.mark.usefixtures("right_address")
def test_closed_port_of_the_host_itself_is_told(ca, trixie):
    before = orders(ca)
    with refused(trixie, "input", "tcp dport 80"):
        answer = trixie.program("apply")
    assert "Port 80 of this host does not respond for hello.test" in about(answer, "hello")
    assert list(problems(answer)) == ["hello"]
    assert orders(ca) == before
    assert is_selfsigned(trixie.certificate("hello.test"))


@pytest.mark.usefixtures("right_address")
def test_service_of_the_timer_heals_what_was_in_the_way(webs, roots):
    for web in webs:
        ok, said = web.start("flaskhost-certificates-renew")
        assert ok, said
        web.verified("hello.test", roots["main"])


@pytest.mark.usefixtures("corrected")
def test_challenge_that_the_other_host_holds_is_answered(bookworm, trixie):
    """The records have both addresses: the authority's question reaches whichever host it likes."""
    for here, there in ((bookworm, trixie), (trixie, bookworm)):
        token = f"token-of-{there.release}"
        there.run(f"printf proof > /var/www/acme{CHALLENGES}/{token}")
        try:
            for domain in ("shop.test", "www.shop.test", "hello.test"):
                answer = here.visitor.ask(f"http://{domain}{CHALLENGES}/{token}")
                assert (answer.status, answer.body) == (200, "proof")
        finally:
            there.run(f"rm /var/www/acme{CHALLENGES}/{token}")
        # And no host passes on what was passed on to it: nobody has it, and that is said at once.
        assert here.visitor.ask(f"http://shop.test{CHALLENGES}/{token}").status == 404
    # That is how both have come by their certificates: the authority has been at both, and asked for the other's too.
    for web in (bookworm, trixie):
        assert "LetsEncrypt-Pebble-VA" in web.run("cat /var/log/nginx/shop.access.log")


@pytest.mark.usefixtures("corrected")
def test_challenge_is_answered_when_the_other_host_is_down(bookworm, trixie):
    trixie.run(f"printf proof > /var/www/acme{CHALLENGES}/own")
    try:
        with refused(bookworm, "input", 'iifname != "lo" tcp dport 80'):
            assert trixie.visitor.ask(f"http://shop.test{CHALLENGES}/own").body == "proof"
            answer = trixie.visitor.ask(f"http://shop.test{CHALLENGES}/nobodys")
            assert answer.status in (404, 502, 504)
            trixie.run("nginx -t -q")
    finally:
        trixie.run(f"rm /var/www/acme{CHALLENGES}/own")


@pytest.mark.usefixtures("corrected")
def test_challenge_is_answered_under_maintenance_and_for_names_that_redirect(webs):
    for web in webs:
        folder = "/srv/shop/maintenance"
        web.run(f"printf proof > /var/www/acme{CHALLENGES}/token; mkdir -p {folder}; echo away > {folder}/page.html")
        try:
            assert web.visitor.ask("https://shop.test/").status == 503
            for domain in ("shop.test", "www.shop.test", "old.shop.test", "anybody.tenants.test"):
                assert web.visitor.ask(f"http://{domain}{CHALLENGES}/token").body == "proof"
                # All else on port 80 goes to HTTPS.
                assert web.visitor.ask(f"http://{domain}/").status == 301
        finally:
            web.run(f"rm -r {folder} /var/www/acme{CHALLENGES}/token")


@pytest.mark.usefixtures("corrected")
def test_nothing_but_challenges_is_in_that_folder(webs):
    for web in webs:
        for path in ("", "/", "/..%2f..%2fetc/passwd", "/.hidden", "/../../../../etc/passwd"):
            assert web.visitor.ask(f"http://shop.test{CHALLENGES}{path}").status in (301, 400, 403, 404), path
        # certbot and the tests have left none behind.
        assert web.run(f"ls -A /var/www/acme{CHALLENGES}") == ""


@pytest.mark.usefixtures("corrected")
def test_wildcard_is_proven_by_dns_and_serves_every_name_under_it(ca, webs, roots):
    for web in webs:
        for domain in ("tenants.test", "one.tenants.test", "two.tenants.test"):
            web.verified(domain, roots["main"])
        answer = web.visitor.ask("https://one.tenants.test/whoami")
        assert (answer.status, answer.json["version"]) == (200, "main")
        # The credentials are root's alone, and were in no argument: certbot logs its own.
        assert not web.has_secret_in_logs()
    # Nothing is left of the proof.
    assert ca.run("dig @127.0.0.1 +short TXT _acme-challenge.tenants.test").stdout == ""
