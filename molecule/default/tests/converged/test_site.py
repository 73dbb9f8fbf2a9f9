"""The sites, as a visitor sees them from outside."""

import re
import ssl

import pytest


def test_page_is_served_over_https(visitor):
    answer = visitor.ask("https://guestbook.test/")
    assert answer.status == 200
    assert "<form" in answer.body


def test_entry_posted_is_stored_in_the_database_and_shown(visitor, host):
    page = visitor.ask("https://guestbook.test/")
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.body).group(1)
    answer = visitor.ask(
        "https://guestbook.test/",
        "POST",
        {"Referer": "https://guestbook.test/"},
        f"csrf_token={token}&author=Ada&message=Written+by+a+test",
    )
    assert answer.status == 303
    assert "Written by a test" in visitor.ask("https://guestbook.test/").body
    rows = host.run("sudo -u postgres psql --dbname guestbook --tuples-only --command 'select message from entry'")
    assert "Written by a test" in rows.stdout


@pytest.mark.parametrize("name", ["guestbook.test", "www.guestbook.test"])
def test_http_redirects_to_https_at_the_canonical_name(visitor, name):
    answer = visitor.ask(f"http://{name}/a/b?c=d")
    assert (answer.status, answer.headers["location"]) == (301, "https://guestbook.test/a/b?c=d")


def test_other_name_redirects_to_the_canonical_one(visitor):
    answer = visitor.ask("https://www.guestbook.test/a?b=c")
    assert (answer.status, answer.headers["location"]) == (301, "https://guestbook.test/a?b=c")


def test_port_in_the_host_header_is_kept(visitor):
    answer = visitor.ask("https://hello.test/headers", headers={"Host": "hello.test:8443"})
    assert answer.json["url"] == "https://hello.test:8443/headers"


def test_unknown_host_is_refused_without_an_answer(visitor):
    with visitor.connect(80) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
        assert connection.recv(100) == b""


def test_unknown_host_gets_no_certificate(visitor):
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        visitor.handshake("nobody.test")


def test_another_host_behind_a_known_handshake_is_refused(visitor):
    with visitor.handshake("guestbook.test") as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
        assert connection.recv(100) == b""


def test_name_in_the_request_line_wins_over_a_lie_in_the_host_header(visitor):
    with visitor.handshake("hello.test") as connection:
        connection.sendall(b"GET https://hello.test/headers HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"https://hello.test/headers" in answer
    assert b"evil" not in answer


def test_forwarded_headers_of_the_visitor_never_reach_the_app(visitor):
    lies = {
        "X-Forwarded-For": "203.0.113.66",
        "X-Forwarded-Host": "evil.test",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": "666",
        "X-Forwarded-Prefix": "//evil",
        "X-Forwarded-Ssl": "off",
        "X-Real-IP": "203.0.113.66",
        "X-Original-URL": "/evil",
        "X-Script-Name": "/evil",
        "Forwarded": "for=203.0.113.66;host=evil.test",
        "Proxy": "http://evil.test",
    }
    seen = visitor.ask("https://hello.test/headers", headers=lies).json
    assert "evil" not in str(seen)
    assert "203.0.113.66" not in str(seen)
    assert seen["scheme"] == "https"
    assert seen["headers"]["X-Forwarded-Host"] == "hello.test"
    assert seen["headers"]["X-Forwarded-Port"] == "443"


def test_http2_is_spoken(visitor):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with visitor.handshake("guestbook.test", context) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_page_is_answered_over_http2(host):
    command = "curl --silent --insecure --http2 --resolve guestbook.test:443:127.0.0.1 --output /dev/null"
    answer = host.run(command + " --write-out '%{http_version} %{http_code}' https://guestbook.test/")
    assert answer.stdout == "2 200"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(visitor, version):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        visitor.handshake("guestbook.test", context)


def test_certificate_names_every_domain_of_the_app(visitor):
    der = visitor.handshake("guestbook.test").getpeercert(binary_form=True)
    for name in (b"guestbook.test", b"www.guestbook.test", b"old.guestbook.test"):
        assert name in der


def test_static_file_is_served_by_nginx_and_not_by_the_app(visitor):
    answer = visitor.ask("https://guestbook.test/static/style.css")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/css")
    # The sample app puts its release on every answer of its own.
    assert "x-release" not in answer.headers
    assert "x-release" in visitor.ask("https://guestbook.test/").headers


def test_missing_static_file_is_left_to_the_app(visitor):
    answer = visitor.ask("https://guestbook.test/static/nothing.css")
    assert (answer.status, "x-release" in answer.headers) == (404, True)


@pytest.mark.parametrize("path", ["/static/../env", "/static../app/Procfile", "/static/%2e%2e/env", "/static/..%2fenv"])
def test_nothing_beside_the_static_files_is_served(visitor, path):
    with visitor.handshake("guestbook.test") as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: guestbook.test\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ")), answer
    assert b"SECRET_KEY" not in answer


def test_text_is_compressed(visitor):
    answer = visitor.ask("https://guestbook.test/static/style.css", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"


def test_version_of_nginx_is_not_told(visitor):
    assert visitor.ask("https://guestbook.test/").headers["server"] == "nginx"


def test_body_beyond_the_limit_is_refused(visitor):
    assert visitor.ask("https://guestbook.test/", "POST", body="a" * (1024 * 1024 + 1)).status == 413


def test_acme_challenge_is_answered_on_port_80(visitor, host):
    host.run_expect([0], "echo proof > /var/www/acme/.well-known/acme-challenge/token")
    answer = visitor.ask("http://guestbook.test/.well-known/acme-challenge/token")
    host.run_expect([0], "rm /var/www/acme/.well-known/acme-challenge/token")
    assert (answer.status, answer.body) == (200, "proof\n")


def test_access_log_is_json_and_holds_no_query(visitor, host):
    visitor.ask("https://hello.test/whoami?token=do-not-log-this")
    log = host.file("/var/log/nginx/hello.access.log").content_string
    assert '"path":"/whoami"' in log
    assert "do-not-log-this" not in log
    assert host.run("tail -n 1 /var/log/nginx/hello.access.log | python3 -m json.tool").rc == 0
