"""The role certbot alone does what its README says."""

testinfra_hosts = ["ansible://role_certbot"]


def test_certbot(host):
    certificate = host.run("openssl x509 -noout -text -in /etc/own/tls/shop/cert.pem").stdout
    assert "DNS:shop.test, DNS:www.shop.test" in certificate
    key = host.file("/etc/own/tls/shop/key.pem")
    assert (key.user, key.mode) == ("root", 0o600)
    assert host.file("/var/www/acme/.well-known/acme-challenge").mode == 0o755
