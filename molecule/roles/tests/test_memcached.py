"""The role memcached alone does what its README says."""

testinfra_hosts = ["ansible://role_memcached"]
UNIT = "flask-shop_cache.service"
#: Sends a command to the socket and prints the answer.
SAY = """
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect("/run/flask-shop_cache/cache.sock")
server.sendall(sys.argv[1].encode() + b"\\r\\n")
print(server.recv(65536).decode())
"""


def say(host, command, user="shop"):
    return host.run("runuser -u %s -- python3 -c %s %s", user, SAY, command)


def test_memcached(host):
    assert f"limit_maxbytes {8 << 20}" in say(host, "stats").stdout
    assert host.check_output(f"systemctl show --value --property=MemoryMax {UNIT}") == str(26 << 20)
    assert "Permission denied" in say(host, "stats", user="nobody").stderr


def test_debians_own_service_does_not_listen(host):
    assert host.run("ss -lntu | grep 11211").rc == 1
    assert host.check_output("pgrep -c memcached") == "1"


def test_units_after_it_do_not_need_it(host):
    assert UNIT in host.check_output("systemctl show --value --property=After getty.target")
    assert UNIT not in host.check_output("systemctl show --value --property=Requires,Wants getty.target")


def test_sandbox(host):
    said = host.check_output(f"systemd-analyze security {UNIT} | grep Overall")
    assert float(said.split(":")[1].split()[0]) <= 0.3, said
