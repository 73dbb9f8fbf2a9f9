"""HSTS: nothing until a certificate was trusted, then for longer and longer; and never without TLS."""

import pytest
from fleet import eventually

pytestmark = pytest.mark.usefixtures("corrected")

DAY = 86400
MAINTENANCE = "/srv/shop/maintenance"
#: Answers of every kind: the app's, nginx's own redirect, the app's error, and a static file.
URLS = [
    ("https://shop.test/", 200),
    ("https://www.shop.test/some/page", 301),
    ("https://shop.test/not-there", 404),
    ("https://shop.test/static/hello.txt", 200),
]


@pytest.fixture
def closed(webs):
    """The maintenance page is on."""
    for web in webs:
        web.run(f"mkdir -p {MAINTENANCE}; echo away > {MAINTENANCE}/page.html")
    yield
    for web in webs:
        web.run(f"rm -r {MAINTENANCE}")


@pytest.mark.parametrize(("age", "wanted"), [(60, 300), (2 * DAY, 86400), (8 * DAY, 2592000), (31 * DAY, 63072000)])
def test_time_grows_with_the_trust(webs, age, wanted):
    for web in webs:
        web.trust_since("shop", age)
        web.program("renew" if age > 30 * DAY else "apply")
        eventually(lambda web=web: web.hsts("https://shop.test/"), f"max-age={wanted}")
        for url, status in URLS:
            answer = web.visitor.ask(url)
            assert answer.status == status, url
            assert answer.headers.get("strict-transport-security") == f"max-age={wanted}", url
        assert web.hsts("http://shop.test/") == ""
        # The other apps have their own time.
        assert web.hsts("https://tenants.test/") == web.hsts("https://one.tenants.test/") != ""


def test_what_is_for_good_is_said_only_after_a_month_of_trust(webs):
    """How long, the names below and the list that browsers are shipped with are the app's own settings."""
    for web in webs:
        for age, wanted in ((29 * DAY, "max-age=2592000"), (31 * DAY, "max-age=31536000; includeSubDomains; preload")):
            web.trust_since("tenants", age)
            web.program("apply")
            for url in ("https://tenants.test/", "https://one.tenants.test/"):
                eventually(lambda web=web, url=url: web.hsts(url), wanted)
        # Another app's is what it was: see above.
        assert web.hsts("https://shop.test/") == "max-age=63072000"


@pytest.mark.usefixtures("closed")
def test_maintenance_page_has_it_too(webs):
    for web in webs:
        answer = web.visitor.ask("https://shop.test/")
        assert answer.status == 503
        assert answer.headers["strict-transport-security"] == "max-age=63072000"
        assert answer.headers["cache-control"] == "no-store"


def test_certificate_that_is_not_trusted_takes_it_back(trixie):
    """What the system trusts is what counts: without the authority's root no browser would have come this far."""
    folder = "/usr/local/share/ca-certificates"
    trixie.run(f"mkdir /run/roots && mv {folder}/pebble-*.crt /run/roots/ && update-ca-certificates --fresh")
    try:
        trixie.program("apply", expect=None)
        eventually(lambda: trixie.hsts("https://shop.test/"), "")
    finally:
        trixie.run(f"mv /run/roots/*.crt {folder}/ && rmdir /run/roots && update-ca-certificates --fresh")
    trixie.program("apply")
    eventually(lambda: trixie.hsts("https://shop.test/"), "max-age=300")
