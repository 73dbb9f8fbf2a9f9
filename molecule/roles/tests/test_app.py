"""The role app alone does what its README says."""

testinfra_hosts = ["ansible://role_app"]


def test_app(host):
    ask = "curl --silent --unix-socket /srv/hello/live.sock http://hello.test/whoami"
    assert '"release"' in host.run(ask).stdout
