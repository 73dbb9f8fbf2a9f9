"""The sample app on a host: a guessed password, Redis that stops, the worker, the timer, and the lines of the logs."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import testinfra

testinfra_hosts = ["ansible://fh-guestbook-bookworm", "ansible://fh-guestbook-trixie"]

INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
SITE, OTHER = "guestbook.test", "hello.test"
PASSWORD, WRONG = "Quiet-otter-41", "Wrong-otter-41"
CACHE, QUEUE = "flask-guestbook_cache.service", "flask-guestbook_queue.service"
#: Requests from the third host: the status of each. A login has the token of its page.
ATTACK = """
import http.client, json, re, socket, ssl, sys, urllib.parse

address, requests = sys.argv[1], json.loads(sys.argv[2])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE


def ask(domain, path, cookie="", body=None):
    connection = http.client.HTTPSConnection(domain, timeout=15)
    connection.sock = context.wrap_socket(socket.create_connection((address, 443), 15), server_hostname=domain)
    headers = {"Cookie": cookie, "Referer": f"https://{domain}/"}
    if body:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection.request("POST" if body else "GET", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), (answer.getheader("Set-Cookie") or "").partition(";")[0]


statuses = []
for domain, path, form in requests:
    status, page, cookie = ask(domain, path)
    if form and status == 200:
        token = re.search('name="csrf_token"[^>]*value="([^"]+)"', page)[1]
        status = ask(domain, path, cookie, urllib.parse.urlencode({**form, "csrf_token": token}))[0]
    statuses.append(status)
print(json.dumps(statuses))
"""


def until(check: Callable[[], Any], seconds: int = 60) -> Any:
    """Wait until a check returns something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found
    return found


def send(visitor: Any, path: str, page: str = "", **form: str) -> Any:
    """Send a form with the token of the page that it is on."""
    shown = visitor.ask(f"https://{SITE}{page or path}").body
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', shown)[1]
    body = urlencode({**form, "csrf_token": token})
    return visitor.ask(f"https://{SITE}{path}", "POST", {"Referer": f"https://{SITE}/"}, body)


@pytest.fixture
def attack(host: Any) -> Callable[..., list[int]]:
    """Send requests to the host from the third one, whose address is no operator's."""
    third = testinfra.get_host("ansible://fh-guestbook-attacker", ansible_inventory=str(INVENTORY), sudo=True)
    address = host.check_output("hostname -I").split()[0]

    def attack(*requests: tuple[str, str, dict[str, str] | None]) -> list[int]:
        return json.loads(third.check_output("python3 -c %s %s %s", ATTACK, address, json.dumps(requests)))

    return attack


@pytest.fixture(autouse=True)
def same_at_start(host: Any) -> None:
    """Each test begins without accounts, bans and limits."""
    host.run_expect([0], "fail2ban-client unban --all")
    clear = "TRUNCATE account, lockout CASCADE"
    host.run_expect([0], f"runuser -u postgres -- psql --dbname guestbook --command '{clear}'")
    host.run_expect([0], "systemctl start flask-guestbook_cache.service flask-guestbook_queue.service")
    until(
        lambda: (
            host.run("runuser -u guestbook -- redis-cli -s /run/flask-guestbook_cache/cache.sock -n 2 flushdb").rc == 0
        )
    )


def test_guessing_locks_the_account_and_bans_the_address_from_this_site_only(host, visitor, attack):
    assert send(visitor, "/signup", name="ada", password=PASSWORD).status == 303
    guess = (SITE, "/login", {"name": "ada", "password": WRONG})
    assert attack((SITE, "/", None), (OTHER, "/", None)) == [200, 200], "control: nobody is banned"
    assert attack(*[guess] * 5) == [422] * 5
    # The address is banned, from this site and from no other.
    until(lambda: attack((SITE, "/", None)) == [403])
    assert attack((OTHER, "/", None)) == [200]
    assert host.run("fail2ban-client status login-guestbook | grep --count 'Currently banned:.*1'").stdout == "1\n"
    # The account is locked for everybody, with the right password too, except for a device that it knows.
    known = dict(visitor.cookies)
    visitor.cookies.clear()
    locked = send(visitor, "/login", name="ada", password=PASSWORD)
    assert locked.status == 429
    assert 0 < int(locked.headers["retry-after"]) <= 600
    # For a name that nobody has, all looks the same.
    assert "x-flaskhost-login" not in locked.headers
    visitor.cookies.update({"__Host-device": known["__Host-device"]})
    assert send(visitor, "/login", name="ada", password=PASSWORD).status == 303


def test_site_serves_without_redis(host, visitor):
    assert visitor.ask(f"https://{SITE}/readyz").json == {
        "status": "ok",
        "database": "ok",
        "cache": "ok",
        "queue": "ok",
    }
    host.run_expect([0], f"systemctl stop {CACHE} {QUEUE}")
    ready = visitor.ask(f"https://{SITE}/readyz")
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    assert send(visitor, "/signup", name="ada", password=PASSWORD).status == 303
    assert send(visitor, "/", message="Written without Redis").status == 303
    assert "Written without Redis" in visitor.ask(f"https://{SITE}/").body
    assert visitor.ask(f"https://{SITE}/stats").status == 200
    assert send(visitor, "/account/exports", page="/account").status == 303
    host.run_expect([0], f"systemctl start {CACHE} {QUEUE}")
    until(lambda: visitor.ask(f"https://{SITE}/readyz").json["status"] == "ok")


def test_worker_writes_an_export_and_the_timer_is_set(host, visitor):
    assert send(visitor, "/signup", name="ada", password=PASSWORD).status == 303
    assert send(visitor, "/", message="For the export").status == 303
    assert send(visitor, "/account/exports", page="/account").status == 303
    link = until(lambda: re.search(r'href="(/account/exports/\d+)"', visitor.ask(f"https://{SITE}/account").body))[1]
    assert "For the export" in visitor.ask(f"https://{SITE}{link}").body
    assert host.service("flask-guestbook_timer@tidy.timer").is_running
    before = host.check_output("date +%s")
    host.run_expect([0], "systemctl start flask-guestbook_timer@tidy.service")
    log = (
        f"journalctl --namespace=+flask-guestbook --unit='flask-guestbook_timer@tidy.service' --since=@{before} -o cat"
    )
    until(lambda: '"message": "tidied up"' in host.run(log).stdout)


def test_request_has_one_id_in_both_logs(host, visitor):
    answer = visitor.ask(f"https://{SITE}/stats")
    number = answer.headers["x-request-id"]
    (line,) = host.check_output(f"grep --fixed-strings {number} /var/log/nginx/guestbook.access.log").splitlines()
    assert json.loads(line)["path"] == "/stats"
    log = f"journalctl --namespace=+flask-guestbook --unit='flask-guestbook@*' -o cat | grep --fixed-strings {number}"

    def of_the_request() -> list[Any]:
        """Without lines that were written in the middle of it, which have its ID too."""
        lines = [json.loads(line) for line in host.run(log).stdout.splitlines()]
        return [line for line in lines if "route" in line]

    (seen,) = until(of_the_request)
    assert (seen["level"], seen["route"], seen["status"]) == ("INFO", "/stats", 200)


def test_headers_and_cookies_are_strict(visitor):
    page = visitor.ask(f"https://{SITE}/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert visitor.ask(f"https://{SITE}/static/style.css").headers["content-security-policy"] == policy
    assert "__Host-session" in page.cookies
