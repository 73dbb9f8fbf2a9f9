"""The role python alone does what its README says."""

testinfra_hosts = ["ansible://role_python"]


def test_python(host):
    assert host.run("/opt/flaskhost/uv/bin/uv --version").stdout.startswith("uv 0.13.8")
    assert host.run("/opt/flaskhost/uv/bin/uv venv --quiet --clear /tmp/venv && /tmp/venv/bin/python --version").rc == 0
