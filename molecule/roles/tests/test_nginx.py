"""The role nginx alone does what its README says."""

import shlex

testinfra_hosts = ["ansible://role_nginx"]


def test_nginx(host):
    serve = (
        "import http.server as h, socketserver as s;"
        "handler = type('Handler', (h.SimpleHTTPRequestHandler,), {'address_string': lambda self: 'nginx'});"
        "s.UnixStreamServer('/run/shop.sock', handler).serve_forever()"
    )
    host.run_expect([0], "install --directory /srv/shop/static && echo static > /srv/shop/static/a.txt")
    ask = "curl --silent --insecure --resolve shop.test:443:127.0.0.1 --output /dev/null --write-out '%{http_code}'"
    assert host.run(f"{ask} https://shop.test/static/a.txt").stdout == "200"
    assert host.run(f"{ask} https://shop.test/").stdout == "502"
    for path in ("", "static/missing.png"):
        shown = host.run(f"{ask} --output /dev/stdout --dump-header /dev/stdout https://shop.test/{path}").stdout
        assert "This site is not available right now." in shown
        assert "x-content-type-options: nosniff" in shown
        assert "content-type: text/html" in shown
    host.run_expect(
        [0], f"systemd-run --quiet --collect --unit=shop --property=UMask=0 python3 -c {shlex.quote(serve)}"
    )
    host.run("for _ in $(seq 50); do test -S /run/shop.sock && break; sleep 0.1; done")
    assert host.run(f"{ask} https://shop.test/").stdout == "200"
    host.run_expect([0], "systemctl stop shop.service && rm /run/shop.sock")
