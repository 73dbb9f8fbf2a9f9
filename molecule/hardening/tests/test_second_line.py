"""What nginx keeps from the app: floods, slow and large requests, forged headers, files and methods of no concern."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleet import eventually

BEHIND_THE_DOOR = "x-answered-by"
#: Headers that every answer over TLS has, whoever makes it.
USUAL = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin-allow-popups",
    "content-security-policy": "base-uri 'self'; frame-ancestors 'self'",
}
SESAME = {"Authorization": "Basic " + base64.b64encode(b"ada:open sesame").decode()}


def connected(web, attacker) -> int:
    """How many connections the attacker has to the sites of a host."""
    which = f"sport = :443 and dst = {attacker.address}"
    return len(web.run(f"ss --no-header --numeric --tcp state established '{which}'").splitlines())


def test_who_is_slow_is_let_go_and_holds_up_nobody(webs, attacker):
    """Twenty connections that send a letter of a header a second, and twenty that stop within a body."""
    kinds = [(web, kind) for web in webs for kind in ("headers", "body")]
    with ThreadPoolExecutor(len(kinds)) as pool:
        held = [pool.submit(attacker.do, "hold", address=web.address, kind=kind) for web, kind in kinds]
        for web in webs:
            eventually(lambda web=web: connected(web, attacker) >= 20, True, 20)
            for _visit in range(5):
                assert web.visitor.ask("https://doors.test/").status == 200
        for (_web, kind), seconds in zip(kinds, held, strict=True):
            assert len(seconds.result()) == 20
            # Not at once, and before the attacker would have given up: nginx has let go of each.
            least = 1 if kind == "headers" else 10
            assert all(least < second < 120 for second in seconds.result()), (kind, seconds.result())


def test_a_body_that_is_too_large_is_refused_before_the_app_has_it(web, attacker):
    fits, large, huge_header = attacker.ask(
        web,
        {"path": "/upload", "method": "POST", "size": 1024 * 1024},
        {"path": "/upload", "method": "POST", "size": 1024 * 1024 + 1},
        {"headers": [["X-Large", "a" * 40000]]},
    )
    assert fits[0] == 200
    assert '"bytes":1048576' in fits[2].replace(" ", "")
    assert large[0] == 413
    assert huge_header[0] == 400
    for answer in (large, huge_header):
        assert "X-Answered-By" not in answer[1]


def test_a_name_that_is_not_ours_is_refused(web, attacker):
    ours, forged, plain, handshake, port = attacker.ask(
        web,
        {"path": "/headers"},
        {"host": "evil.test"},
        {"host": "evil.test", "plain": True},
        {"name": "evil.test"},
        {"host": "doors.test:8443@evil.test", "path": "/headers"},
    )
    assert ours[0] == 200, "who asks for a name of ours is answered"
    for answer in (forged, plain, handshake):
        assert answer[0] == 0, answer
    assert port[0] in (200, 400), port
    assert "evil" not in port[2], port
    # A word in the request line is stronger than Host (RFC 9112, 3.2.2), and has to be one of ours as well.
    absolute, own = attacker.ask(
        web, {"path": "https://evil.test/"}, {"path": "https://doors.test/headers", "host": "evil.test"}
    )
    assert absolute[0] == 0
    assert own[0] == 200
    assert "doors.test" in own[2], own
    assert "evil" not in own[2], own


def test_what_a_visitor_says_of_the_proxy_does_not_reach_the_app(web, attacker):
    forged = {
        "X-Forwarded-For": "192.0.2.66", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": "66", "X-Real-IP": "192.0.2.66", "X-Request-ID": "forged-66",
        "Forwarded": "for=192.0.2.66;host=evil.test", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Server": "evil.test",
        "X-Original-URL": "/evil", "X-Rewrite-URL": "/evil", "X-Script-Name": "/evil", "Client-IP": "",
        "True-Client-IP": "192.0.2.66", "CF-Connecting-IP": "192.0.2.66", "X-Client-IP": "192.0.2.66",
        "Proxy": "evil.test:66", "X_Forwarded_For": "192.0.2.66", "X-Forwarded-User": "evil", "X-Url-Scheme": "evil",
    }  # fmt: skip
    del forged["Client-IP"]
    # The second of the same name is for a proxy that adds to a list.
    headers = [[name, value] for name, value in forged.items()] + [["X-Forwarded-For", "192.0.2.67"]]
    (answer,) = attacker.ask(web, {"path": "/headers", "headers": headers})
    assert answer[0] == 200
    assert '"X-Forwarded-For":"' + attacker.address + '"' in answer[2].replace(" ", "")
    assert '"X-Forwarded-Proto":"https"' in answer[2].replace(" ", "")
    assert '"X-Forwarded-Host":"doors.test"' in answer[2].replace(" ", "")
    for word in ("evil", "192.0.2.6", '"66"', "forged"):
        assert word not in answer[2], answer[2]


@pytest.mark.parametrize(
    "path", ["/.env", "/.git/config", "/static/.htpasswd", "/a/b/.ssh/id_rsa", "/%2eenv", "/.%65nv"]
)
def test_a_hidden_file_is_not_there_and_not_asked_of_the_app(web, path):
    answer = web.visitor.ask(f"https://doors.test{path}")
    assert answer.status == 404
    assert BEHIND_THE_DOOR not in answer.headers


def test_the_folder_of_rfc_8615_is_the_apps(web):
    assert BEHIND_THE_DOOR in web.visitor.ask("https://doors.test/.well-known/security.txt").headers


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static../app.py", "/static/%2e%2e/app.py", "/static..%2fapp.py"]
)
def test_nothing_beside_the_static_files_is_served(web, path):
    answer = web.visitor.ask(f"https://doors.test{path}")
    assert answer.status in (400, 404)
    assert "flask" not in answer.body.lower()


def test_methods_that_no_page_has_are_refused(web):
    for method in ("PROPFIND", "TRACE", "CONNECTED", "MKCOL"):
        answer = web.visitor.ask("https://doors.test/", method)
        assert answer.status == 405, method
        assert BEHIND_THE_DOOR not in answer.headers
    assert web.visitor.ask("https://doors.test/", "PROPFIND").headers["allow"].startswith("GET, HEAD, POST")
    assert web.visitor.ask("https://doors.test/x", "DELETE").headers[BEHIND_THE_DOOR] == "doors"


@pytest.mark.parametrize(
    ("url", "method", "size", "status"),
    [
        ("https://doors.test/", "GET", 0, 200),
        ("https://doors.test/nothing", "GET", 0, 404),
        ("https://doors.test/.env", "GET", 0, 404),
        ("https://doors.test/boom", "GET", 0, 500),
        ("https://doors.test/static/plain.txt", "GET", 0, 200),
        ("https://doors.test/static/nothing.txt", "GET", 0, 404),
        ("https://www.doors.test/", "GET", 0, 301),
        ("https://doors.test/", "PROPFIND", 0, 405),
        ("https://doors.test/upload", "POST", 2_000_000, 413),
    ],
)
def test_every_answer_tells_browsers_what_they_may(web, url, method, size, status):
    answer = web.visitor.ask(url, method, body="a" * size if size else None)
    assert answer.status == status
    for name, value in USUAL.items():
        assert answer.headers.get(name) == value, name
    assert "camera=" in answer.headers["permissions-policy"]
    assert answer.headers["server"] == "nginx"
    assert "x-powered-by" not in answer.headers


def test_the_apps_own_headers_win(web):
    answer = web.visitor.ask("https://doors.test/own-words")
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == USUAL["referrer-policy"]


def test_an_app_that_is_down_is_told_with_the_same_headers(web):
    socket = web.run("readlink /srv/doors/live.sock").strip()
    web.run(f"mv {socket} {socket}.away")
    try:
        # What is open to a slot is used for half a second more.
        eventually(lambda: web.visitor.ask("https://doors.test/").status, 502)
        answer = web.visitor.ask("https://doors.test/")
        assert USUAL.items() <= answer.headers.items()
        assert "nginx/" not in answer.body
    finally:
        web.run(f"mv {socket}.away {socket}")
    assert web.visitor.ask("https://doors.test/").status == 200


@pytest.mark.parametrize("path", ["/", "/static/plain.txt"])
def test_a_staging_site_is_for_who_knows_the_password(web, attacker, path):
    ours = web.visitor.ask(f"https://staging.test{path}", headers=SESAME)
    assert ours.status == 200
    (theirs,) = attacker.ask(web, {"name": "staging.test", "path": path, "headers": [*SESAME.items()]})
    assert theirs[0] == 200
    unasked = web.visitor.ask(f"https://staging.test{path}")
    assert unasked.status == 401
    assert BEHIND_THE_DOOR not in unasked.headers
    for answer in (ours, unasked):
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"


@pytest.mark.parametrize("path", ["/", "/static/plain.txt"])
def test_an_office_s_site_is_for_who_comes_from_there_as_well(web, attacker, path):
    assert web.visitor.ask(f"https://office.test{path}", headers=SESAME).status == 200
    assert web.visitor.ask(f"https://office.test{path}").status == 401
    # The right password from the wrong place.
    (stranger,) = attacker.ask(web, {"name": "office.test", "path": path, "headers": [*SESAME.items()]})
    assert stranger[0] == 403
    assert "X-Answered-By" not in stranger[1]
    assert stranger[1]["X-Robots-Tag"] == "noindex, nofollow"


def test_the_app_does_not_get_the_password(web):
    answer = web.visitor.ask("https://staging.test/headers", headers=SESAME)
    assert answer.status == 200
    assert "Authorization" not in answer.json["headers"]


def test_an_app_cannot_have_its_staging_site_indexed(web):
    answer = web.visitor.ask("https://staging.test/own-words", headers=SESAME)
    assert answer.headers["x-robots-tag"] == "noindex, nofollow"


def test_connections_of_one_address_are_limited(web, attacker):
    """Sixty at once of which forty may; another address is served meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        slow = {"name": "staging.test", "path": "/slow?seconds=3", "headers": [*SESAME.items()]}
        flood = pool.submit(attacker.ask, web, *[slow] * 30, parallel=30)
        eventually(lambda: connected(web, attacker) >= 10, True, 20)
        assert not flood.done()
        assert web.visitor.ask("https://staging.test/static/plain.txt", headers=SESAME).status == 200
        answers = flood.result()
    refused = [answer for answer in answers if answer[0] == 429]
    assert 10 <= len(refused) <= 22, [answer[0] for answer in answers]
    assert {answer[1].get("Retry-After") for answer in refused} == {"1"}


def test_log_ins_of_one_address_are_limited(web, attacker):
    """Six a minute; fail2ban bans for the five that the app has refused, which the next test file sees."""
    web.run(f"fail2ban-client set login-doors addignoreip {attacker.address}")
    try:
        tries = [{"path": "/login", "method": "POST", "size": 10} for _number in range(9)]
        answers = [answer[0] for answer in attacker.ask(web, *tries)]
        (page,) = attacker.ask(web, {"path": "/"})
    finally:
        web.run(f"fail2ban-client set login-doors delignoreip {attacker.address}")
    # The first, six more at once, and then those for which there is time.
    assert answers[:6] == [403] * 6
    assert answers.count(429) in (1, 2, 3), answers
    assert page[0] == 200
