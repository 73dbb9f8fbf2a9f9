"""What nginx keeps: compressed copies of static files, and pages for a second."""

import gzip
import hashlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

testinfra_hosts = ["ansible://all"]
SITE = "https://cached.test"
#: Longer than pages are kept.
LATER = 2.5


@pytest.fixture
def token(visitor):
    """The function that asks for the page that has another text each time, and returns the answer."""

    def ask(_headers=None, **options):
        query = urlencode({"test": time.time_ns()} | options, doseq=True)
        return visitor.ask(f"{SITE}/token?{query}", headers=_headers)

    return ask


# -- pages -----------------------------------------------------------------------------------------------------------


def test_page_is_kept_for_a_second_and_no_longer(token):
    first, second = token(test=1), token(test=1)
    assert (first.headers["cache-status"], second.headers["cache-status"]) == ("nginx; fwd=miss", "nginx; hit")
    assert first.body == second.body
    time.sleep(LATER)
    assert token(test=1).body != first.body


def test_many_visitors_at_once_are_one_or_few_requests_for_the_app(visitor):
    url = f"{SITE}/token?seconds=0.5&test={time.time_ns()}"
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(visitor.ask, [url] * 40))
    # On a busy machine, the visitors come within more than a second.
    assert len({answer.body for answer in answers}) <= 4
    assert [answer.headers["cache-status"] for answer in answers].count("nginx; hit") >= 36


@pytest.mark.parametrize("header", [{"Cookie": "theme=dark"}, {"Authorization": "Bearer abc"}, {"X-Api-Key": "abc"}])
def test_who_may_have_pages_of_their_own_gets_them_from_the_app(token, header):
    kept = token(test=2)
    own = token(header, test=2)
    assert own.headers["cache-status"] == "nginx; fwd=bypass"
    assert own.body != kept.body
    assert own.body not in (token(test=2).body, token(header, test=2).body), "nor is it kept for others"


def test_body_of_a_request_cannot_choose_the_page_of_others(visitor, token):
    kept = token(test=6).body
    assert visitor.ask(f"{SITE}/token?test=6", body="page=evil").headers["cache-status"] == "nginx; fwd=bypass"
    assert token(test=6).body == kept
    first = visitor.ask(f"{SITE}/token?test=7", body="page=evil").body
    assert token(test=7).body != first


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "private"},
        # nginx 1.22 has only the first line in its variable.
        {"Cache-Control": ["max-age=600", "private"]},
        {"Cache-Control": "no-store"},
        {"Cache-Control": "no-cache"},
        {"Expires": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"Set-Cookie": "session=1"},
        {"Vary": "*"},
        {"X-Flaskhost-Login": "failed"},
    ],
    ids=lambda headers: " ".join(map(str, next(iter(headers.items())))),
)
def test_what_is_private_is_never_kept(token, headers):
    assert len({token(**headers, test=3).body for _ in range(3)}) == 3


@pytest.mark.parametrize("headers", [{"Cache-Control": "max-age=600"}, {"X-Accel-Expires": "600"}])
def test_app_cannot_have_a_page_kept_for_longer(token, headers):
    first = token(**headers, test=4)
    assert token(**headers, test=4).body == first.body, "control: it is kept"
    time.sleep(LATER)
    assert token(**headers, test=4).body != first.body


def test_variants_are_kept_apart(token):
    german, english = ({"Accept-Language": language} for language in ("de", "en"))
    options = {"Vary": "Accept-Language", "test": 5}
    first = token(german, **options)
    assert token(english, **options).body != first.body
    assert token(german, **options).body == first.body


def test_no_page_of_the_earlier_release_is_sent_after_a_deploy(visitor, play):
    asked = visitor.ask(f"{SITE}/whoami").json["release"]
    seen = []
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(play, "deploy", "cached", env={"VERSION": str(time.time_ns())})
        while not done.done():
            seen.append((time.monotonic(), visitor.ask(f"{SITE}/whoami").json["release"]))
            time.sleep(0.05)
        done.result()
    first_new = next(at for at, release in seen if release != asked)
    assert [at - first_new for at, release in seen if release == asked and at > first_new + 5] == []


def test_cache_goes_with_the_option(host, play):
    folder = host.file("/var/lib/nginx/cache-cached")
    assert folder.is_directory
    play("site", "cached", "--tags", "nginx", microcache=0)
    assert not folder.exists
    play("site", "cached", "--tags", "nginx")
    assert folder.is_directory


# -- static files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def download(visitor):
    """The function that downloads a static file as curl does, and returns its headers and its bytes."""

    def load(path, *options):
        done = subprocess.run(
            ["curl", "--silent", "--insecure", "--include", "--http1.1", "--resolve",
             f"cached.test:{visitor.ports[443]}:127.0.0.1", *options, f"https://cached.test:{visitor.ports[443]}{path}"],
            capture_output=True,
            timeout=30,
            check=True,
        )  # fmt: skip
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = {}
        for line in head.decode().splitlines()[1:]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        return headers, body

    return load


def test_compressed_copies_are_sent_to_those_who_accept_them(host, download):
    plain, whole = download("/static/style.css")
    assert "content-encoding" not in plain
    zipped, body = download("/static/style.css", "--header", "Accept-Encoding: gzip")
    assert zipped["content-encoding"] == "gzip"
    assert gzip.decompress(body) == whole
    brotli, small = download("/static/style.css", "--header", "Accept-Encoding: gzip, br")
    assert brotli["content-encoding"] == "br"
    copy = "/srv/cached/current/static/style.css.br"
    assert host.check_output(f"sha256sum < {copy}").split()[0] == hashlib.sha256(small).hexdigest()
    assert len({plain["etag"], zipped["etag"], brotli["etag"]}) == 3
    for headers in (plain, zipped, brotli):
        assert headers["vary"] == "Accept-Encoding"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-type"].startswith("text/css")
    unchanged, _none = download("/static/style.css", "--header", f"If-None-Match: {plain['etag']}")
    assert "content-length" not in unchanged or unchanged["content-length"] == "0"
    part, piece = download("/static/style.css", "--range", "10-19")
    assert piece == whole[10:20] and part["content-range"].startswith("bytes 10-19/")


def test_names_with_a_fingerprint_are_immutable(download):
    headers, _body = download("/static/style.3f2a9c1b.css")
    assert headers["cache-control"] == "max-age=31536000, immutable"
    headers, _body = download("/static/style.css")
    assert headers["cache-control"] == "max-age=3600"
    headers, _body = download("/static/missing.3f2a9c1b.css")
    assert "cache-control" not in headers, "the app's own response"
