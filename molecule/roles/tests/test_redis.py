"""The role redis alone does what its README says."""

testinfra_hosts = ["ansible://role_redis"]
UNIT = "flask-shop_queue.service"
SHELL = "redis-cli -s /run/flask-shop_queue/queue.sock"


def test_redis(host):
    assert host.check_output(f"runuser -u shop -- {SHELL} ping") == "PONG"
    assert (
        host.check_output(f"runuser -u shop -- {SHELL} info memory | tr -d '\\r' | grep ^maxmemory:")
        == "maxmemory:8388608"
    )
    assert host.check_output(f"systemctl show --value --property=MemoryMax {UNIT}") == str(48 << 20)
    assert "Permission denied" in host.run(f"runuser -u nobody -- {SHELL} ping").stderr


#: Prints commands for more than the instance has room for.
FILL = 'for n in range(10000): print("set", n, "x" * 4096)'


def refused(said):
    """Whether Redis refused a command: by its users' rights, or because the command is switched off."""
    return "NOPERM" in said or "command not allowed" in said


def test_commands_of_an_administrator_are_refused(host):
    for command in ("config set maxmemory 1gb", "flushall", "module list", "debug sleep 0", "shutdown", "save"):
        said = host.run(f"runuser -u shop -- {SHELL} {command}")
        assert refused(said.stdout + said.stderr), command


def test_debians_own_service_does_not_listen(host):
    assert host.run("ss -ltn | grep 6379").rc == 1
    assert host.check_output("pgrep -c redis-server") == "1"


def test_data_of_a_full_instance_stays(host):
    host.check_output(f"runuser -u shop -- {SHELL} set job 1")
    fill = f"runuser -u shop -- python3 -c {FILL!r} | {SHELL} | grep --max-count 1 OOM"
    assert "OOM command not allowed" in host.check_output(fill)
    assert host.check_output(f"runuser -u shop -- {SHELL} get job") == "1"
    host.check_output(f"runuser -u shop -- {SHELL} flushdb")


def test_sandbox(host):
    said = host.check_output(f"systemd-analyze security {UNIT} | grep Overall")
    assert float(said.split(":")[1].split()[0]) <= 0.3, said
