"""The role nginx alone does what its README says."""

testinfra_hosts = ["ansible://role_nginx"]


def test_nginx(host):
    serve = (
        "import http.server, socketserver\n"
        "class Handler(http.server.SimpleHTTPRequestHandler):\n"
        "    def address_string(self): return 'nginx'\n"
        "socketserver.UnixStreamServer('/run/shop.sock', Handler).serve_forever()\n"
    )
    host.run_expect([0], "install --directory /srv/shop/static && echo static > /srv/shop/static/a.txt")
    ask = "curl --silent --insecure --resolve shop.test:443:127.0.0.1 --output /dev/null --write-out '%{http_code}'"
    assert host.run(f"{ask} https://shop.test/static/a.txt").stdout == "200"
    assert host.run(f"{ask} https://shop.test/").stdout == "502"
    host.run_expect([0], f"systemd-run --quiet --unit=shop --property=UMask=0 python3 -c {serve!r}")
    host.run("for _ in $(seq 50); do test -S /run/shop.sock && break; sleep 0.1; done")
    assert host.run(f"{ask} https://shop.test/").stdout == "200"
    host.run_expect([0], "systemctl stop shop.service && rm /run/shop.sock")
