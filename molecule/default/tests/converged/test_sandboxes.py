"""What is left to a service that somebody has taken over, and that it still does its work."""

import fnmatch
import re
import shlex
import subprocess
import time

import pytest


def slot(host, app):
    """The unit of the slot that serves."""
    live = host.file(f"/srv/{app}/live.sock").linked_to.rsplit("/", 1)[1].removesuffix(".sock")
    return f"flask-{app}@{live}.service"


def main_pid(host, unit):
    return host.run(f"systemctl show --value --property=MainPID {unit}").stdout.strip()


def wait_for(check, seconds=20):
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < ends:
        time.sleep(0.5)
    return found


@pytest.fixture
def attempt(visitor):
    """Has the running app hello try something."""
    return lambda what, more="": visitor.ask(f"https://hello.test/attempt?what={what.replace(' ', '%20')}{more}")


@pytest.fixture
def query(host):
    """Asks PostgreSQL as its superuser."""
    return lambda sql: host.run(f"cd / && sudo -u postgres psql --no-psqlrc --quiet -A -t <<'SQL'\n{sql}\nSQL")


def test_exposure_is_small(host):
    # The limits of the audit; the first that fits a unit holds.
    limits = host.ansible.get_variables()["audit_exposure"]
    known = "systemctl list-units --all --full --plain --type=service; systemctl list-unit-files --full 'flaskhost-*'"
    lines = [line.split() for line in host.run(known).stdout.splitlines() if " not-found " not in line]
    units = {words[0] for words in lines if words and words[0].endswith(".service")}
    found = {}
    for limit in limits:
        for unit in set(fnmatch.filter(units, limit["unit"])) - set(found):
            line = host.run(f"systemd-analyze security --no-pager {unit}").stdout.splitlines()[-1]
            found[unit] = (float(re.search(r"exposure level for .*: ([0-9.]+)", line)[1]), limit["most"])
    assert {"nginx.service", "fail2ban.service", "flaskhost-firewall.service"} <= set(found)
    assert fnmatch.filter(found, "postgresql@*-main.service")
    assert fnmatch.filter(found, "flask-guestbook@*")
    assert {unit: values for unit, values in found.items() if values[0] > values[1]} == {}


@pytest.mark.parametrize(
    "what",
    ["mount", "namespace", "module", "ptrace", "raw socket", "netlink", "clock", "setuid", "suid file"],
)
def test_running_app_is_refused(attempt, what):
    answer = attempt(what).json
    assert (answer["ok"], answer["errno"]) in {(False, "EPERM"), (False, "EACCES"), (False, "EAFNOSUPPORT")}


def test_apps_profiles_can_be_read_by_apparmor(host):
    # These hosts share their kernel and have none loaded; that they confine is shown by the scenario vm.
    for name in ("guestbook", "hello"):
        host.run_expect([0], f"apparmor_parser --skip-kernel-load --skip-cache /etc/apparmor.d/flask-{name}")


def test_app_without_outbound_reaches_no_port(attempt, host):
    own = host.check_output("hostname -I").split()[0]
    for address, port, said in (
        (own, 443, "ENETUNREACH"),
        (own, 22, "ENETUNREACH"),
        ("127.0.0.1", 443, "ECONNREFUSED"),
    ):
        # Somebody listens there, and who is not confined gets through.
        host.check_output(f"bash -c 'exec 3<>/dev/tcp/{address}/{port}'")
        answer = attempt("connect", f"&address={address}&port={port}").json
        assert (answer["ok"], answer["errno"]) == (False, said)


def test_app_cannot_fork_without_end(attempt, visitor):
    told = attempt("fork").json
    assert told["refused"] == "EAGAIN"
    assert 100 < told["processes"] < 512
    assert visitor.ask("https://guestbook.test/readyz").status == 200
    assert visitor.ask("https://hello.test/whoami").status == 200


def test_app_that_eats_memory_harms_nobody_else(host, attempt, visitor):
    others = {unit: main_pid(host, unit) for unit in (slot(host, "guestbook"), "nginx.service")}
    server = main_pid(host, slot(host, "hello"))
    assert attempt("memory").status == 502
    assert visitor.ask("https://guestbook.test/readyz").status == 200
    assert {unit: main_pid(host, unit) for unit in others} == others
    # Another worker takes the place of the one that is gone; the server itself has gone on.
    assert wait_for(lambda: visitor.ask("https://hello.test/whoami").status == 200)
    assert main_pid(host, slot(host, "hello")) == server


def in_files_of(host, pid, command):
    """Run a command of root's in what a process sees of the file system."""
    return host.run(f"nsenter --target {pid} --mount -- sh -c {shlex.quote(command)}")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/var/log/nginx/probe", True),
        ("/var/lib/nginx/probe", True),
        ("/var/cache/nginx/probe", True),
        ("/etc/nginx/probe", False),
        ("/etc/flaskhost/probe", False),
        ("/run/systemd/system/probe", False),
        ("/srv/hello/data/probe", False),
        ("/usr/sbin/probe", False),
    ],
)
def test_web_server_writes_logs_and_nothing_else(host, path, allowed):
    pid = main_pid(host, "nginx.service")
    assert (in_files_of(host, pid, f"touch {path} && rm {path}").rc == 0) is allowed


def test_web_server_sees_no_home_and_no_device(host):
    pid = main_pid(host, "nginx.service")
    assert in_files_of(host, pid, "ls -A /home /root").stdout.split() == ["/home:", "/root:"]
    assert in_files_of(host, pid, "ls /dev/sda /dev/vda /dev/mem /dev/kmsg").stdout == ""


@pytest.mark.parametrize("unit", ["nginx.service", "fail2ban.service", "slot"])
def test_no_new_rights_and_few_calls_of_the_kernel(host, unit):
    status = host.run(f"cat /proc/{main_pid(host, slot(host, 'hello') if unit == 'slot' else unit)}/status").stdout
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    rights = int(re.search(r"^CapBnd:\s+(\w+)$", status, re.MULTILINE)[1], 16)
    # By linux/capability.h: chown 0, dac_override 1, setgid 6, setuid 7, net_bind_service 10, net_admin 12.
    assert rights == {"nginx.service": 0b10011000011, "fail2ban.service": 1 << 12, "slot": 0}[unit]


def test_web_server_reloads_and_rotates_its_logs_in_it(host, visitor):
    log = "/var/log/nginx/hello.access.log"
    before = main_pid(host, "nginx.service")
    host.check_output("systemctl reload nginx")
    assert main_pid(host, "nginx.service") == before
    host.check_output(f"mv {log} {log}.probe && install -o www-data -g adm -m 0640 /dev/null {log}")
    # As Debian's logrotate does it.
    host.check_output("invoke-rc.d nginx rotate")
    assert wait_for(lambda: visitor.ask("https://hello.test/whoami").status == 200 and host.file(log).size > 0)
    host.run(f"rm {log}.probe")


def test_running_web_server_is_upgraded_in_it(host, visitor):
    before = main_pid(host, "nginx.service")
    # As Debian's package does it after an update.
    host.check_output("invoke-rc.d nginx upgrade")
    assert wait_for(lambda: main_pid(host, "nginx.service") not in {before, "0"})
    assert visitor.ask("https://hello.test/whoami").status == 200
    host.check_output("systemctl reload nginx")
    assert host.service("nginx").is_running


# Both would let it by their permissions: the one is its own, the other everybody's.
@pytest.mark.parametrize("path", ["/etc/postgresql/probe", "/run/lock/probe"])
def test_database_writes_its_data_and_nothing_else(query, path):
    assert query("copy (select 1) to '/var/lib/postgresql/probe'").stderr == ""
    assert re.search(
        r"ERROR:  could not open file .*: Read-only file system", query(f"copy (select 1) to '{path}'").stderr
    )


def test_commands_of_the_database_are_in_its_sandbox(query, host):
    told = query("copy (select 1) to program 'cat /proc/self/status > /var/lib/postgresql/probe'")
    assert told.stderr == ""
    status = host.file("/var/lib/postgresql/probe").content_string
    assert {"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"} <= set(status.splitlines())
    # Who archives elsewhere has to get there.
    assert query("copy (select 1) to program 'bash -c \"exec 3<>/dev/tcp/127.0.0.1/443\"'").stderr == ""


def test_database_computes_in_several_processes_and_by_its_compiler(query):
    told = query(
        "set parallel_setup_cost=0; set parallel_tuple_cost=0; set min_parallel_table_scan_size=0;"
        " set jit_above_cost=0; explain (analyze) select sum(length(proname)) from pg_proc where oid > 1;"
    ).stdout
    assert re.search(r"Workers Launched: [1-9]", told)
    assert "JIT:" in told


@pytest.fixture
def as_ada(host):
    """Runs a command over a log-in of the administrator's own."""
    variables = host.ansible.get_variables()
    login = [
        "ssh", "-p", str(variables["ansible_port"]), "-i", variables["ansible_ssh_private_key_file"],
        "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ControlPath=none", "-o", "LogLevel=ERROR", "ada@127.0.0.1",
    ]  # fmt: skip
    return lambda command: subprocess.run([*login, command], capture_output=True, text=True, timeout=30, check=False)


def test_administrator_is_in_no_sandbox(as_ada, host):
    rights = re.search(r"^CapBnd:\s+(\w+)$", host.file("/proc/1/status").content_string, re.MULTILINE)[1]
    status = as_ada("sudo --non-interactive cat /proc/self/status").stdout.splitlines()
    assert {"NoNewPrivs:\t0", "Seccomp:\t0", f"CapBnd:\t{rights}"} <= set(status)
    assert as_ada("sudo --non-interactive sh -c 'touch /usr/local/probe && rm /usr/local/probe'").returncode == 0


def test_way_in_comes_back_by_itself(as_ada, host):
    host.check_output("systemctl kill --signal=KILL --kill-whom=main ssh.service")
    assert wait_for(lambda: as_ada("whoami").stdout == "ada\n", 30)
    # Debian's own unit gives up where sshd ends by itself.
    assert host.run("systemctl show --value --property=RestartPreventExitStatus ssh.service").stdout.strip() == ""
