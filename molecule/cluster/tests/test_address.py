"""The address that moves between the web hosts: who has it, what makes it move, and who can speak of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from cluster import DATABASE, FIRST, WEB, WEB2, address, connect, run

testinfra_hosts = [f"ansible://{WEB}"]


def shared() -> str:
    return str(connect(WEB).ansible.get_variables()["web_address"])


def has_it(name: str) -> bool:
    return bool(connect(name).check_output(f"ip -oneline -4 address show to {shared()}/32"))


def answers(place: str) -> bool:
    """Whether hello answers at an address of the containers' network."""
    command = ["curl", "--silent", "--insecure", "--max-time", "1", "--output", "/dev/null", "--write-out",
               "%{http_code}", "--resolve", f"hello.test:443:{place}", "https://hello.test/whoami"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "200"


def wait_for(name: str, seconds: float = 30) -> None:
    """Wait until a host has the address and visitors get answers there."""
    end = time.monotonic() + seconds
    while not (has_it(name) and answers(shared())):
        assert time.monotonic() < end, connect(name).run("journalctl --unit=keepalived --lines=30").stdout


def silence(place: str, seconds: float = 30) -> float:
    """How long nobody answers, from now on: until three answers in a row."""
    start, last, good = time.monotonic(), time.monotonic(), 0
    while good < 3:
        good = good + 1 if answers(place) else 0
        last = last if good else time.monotonic()
        assert time.monotonic() < start + seconds, "nobody answers"
    return last - start


@pytest.fixture(autouse=True)
def first_has_it() -> Iterator[None]:
    """Before and after each test, both hosts are well, and the first one has the address."""
    yield
    connect(WEB).run("systemctl start nginx keepalived")
    connect(WEB2).run("systemctl start nginx; systemctl restart keepalived")
    wait_for(WEB)


def test_one_host_has_it_and_the_status_says_so() -> None:
    assert [has_it(name) for name in (WEB, WEB2)] == [True, False]
    assert answers(shared())
    status, output = run("status")
    assert status == 0, output
    assert output.count(f"has {shared()}") >= 1
    assert connect(WEB).check_output("ps -o user= -C keepalived").split() == ["root", "root"]
    assert connect(WEB).check_output("stat --format %U:%a /usr/local/lib/flaskhost/keepalived-probe") == "root:755"


def test_the_address_moves_if_nginx_or_the_host_fails(capsys: pytest.CaptureFixture[str]) -> None:
    place = shared()
    connect(WEB).check_output("systemctl stop nginx")
    by_nginx = silence(place)
    assert has_it(WEB2)
    assert not has_it(WEB)
    connect(WEB).check_output("systemctl start nginx")
    time.sleep(6)
    assert has_it(WEB2), "a host that comes back leaves it where it is"
    subprocess.run(["docker", "kill", WEB2], check=True, stdout=subprocess.DEVNULL)
    try:
        by_host = silence(place)
        assert has_it(WEB)
    finally:
        subprocess.run(["docker", "start", WEB2], check=True, stdout=subprocess.DEVNULL)
    with capsys.disabled():
        print(f"\nno answer: nginx stopped {by_nginx:.1f} s, host killed {by_host:.1f} s")
    assert max(by_nginx, by_host) <= 5
    end = time.monotonic() + 60
    while connect(WEB2).run("systemctl is-active keepalived nginx").rc:
        assert time.monotonic() < end, "it starts by itself"


def test_no_host_has_it_if_nginx_answers_on_none() -> None:
    for name in (WEB, WEB2):
        connect(name).check_output("systemctl stop nginx")
    time.sleep(6)
    assert [has_it(name) for name in (WEB, WEB2)] == [False, False]
    status, output = run("status")
    assert status != 0
    assert f"{shared()}: no web host has it" in output


def test_only_the_web_hosts_are_heard() -> None:
    """The database host claims the address with the highest priority, which it would get if it were heard."""
    port = (
        "import socket, struct; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112); "
        f"s.sendto(struct.pack('!BBBBHH', 0x31, 51, 255, 1, 100, 0) + socket.inet_aton('{shared()}'), ('{{}}', 0))"
    )
    for name in (WEB, WEB2):
        host = connect(name)
        refused = "nft list chain inet flaskhost input | grep -o 'packets [0-9]*' | tail -n 1"
        before = int(host.check_output(refused).split()[1])
        for sender in (DATABASE, FIRST):
            connect(sender).check_output(f'python3 -c "{port.format(address(name))}"')
        time.sleep(1)
        assert int(host.check_output(refused).split()[1]) >= before + 2
        listed = host.check_output("nft list chain inet flaskhost input")
        other = address(WEB2 if name == WEB else WEB)
        assert [line.strip() for line in listed.splitlines() if "112" in line or "vrrp" in line] in (
            [f"ip saddr {other} meta l4proto 112 accept"],
            [f"ip saddr {other} meta l4proto vrrp accept"],
        )
    assert [has_it(name) for name in (WEB, WEB2)] == [True, False]
