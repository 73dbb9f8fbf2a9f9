"""The rest of the host: what listens, accounts, sudo, cron, updates, and the kernel as far as a container shows it."""

from __future__ import annotations

import base64
import re

import pytest
from fleet import OPEN_SESAME

#: Whose members may use su: hardening_su_group.
SU_GROUP = "sugroup"
#: su asks for the password on a terminal.
GUESS = """
import os, pty, sys, time
pid, terminal = pty.fork()
if not pid:
    os.execvp("su", ["su", "ada", "-c", "true"])
time.sleep(1)
os.write(terminal, sys.argv[1].encode() + b"\\n")
try:
    while os.read(terminal, 100):
        pass
except OSError:
    pass
sys.exit(os.waitpid(pid, 0)[1] != 0)
"""

#: What CIS wants of the network, by the kernel's names below /proc/sys/net.
CIS_ON = {
    "ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv4/conf/all/log_martians", "ipv4/tcp_syncookies",
    "ipv4/icmp_echo_ignore_broadcasts", "ipv4/icmp_ignore_bogus_error_responses",
}  # fmt: skip
CIS_NETWORK = CIS_ON | {
    f"{family}/conf/{which}/{name}" for family in ("ipv4", "ipv6") for which in ("all", "default")
    for name in ("accept_redirects", "accept_source_route")
} | {
    f"ipv4/conf/{which}/{name}" for which in ("all", "default") for name in ("secure_redirects", "send_redirects")
} | {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}  # fmt: skip


def test_nothing_listens_that_nobody_has_asked_for(web):
    lines = web.run("ss --no-header --listening --tcp --udp --numeric").splitlines()
    places = [line.split()[4] for line in lines]
    outside = {place.rpartition(":")[2] for place in places if not re.match(r"127\.|\[::1\]|\[::ffff:127\.", place)}
    assert outside == {"22", "80", "443"}


def test_what_the_kernel_does_is_what_is_written(web):
    """Of those settings that can be changed here; the first few as CIS Debian 13 has them, in 3.3."""
    for name in CIS_NETWORK:
        value = "1" if name in CIS_ON else "0"
        assert web.run(f"cat /proc/sys/net/{name}").strip() == value, name
    written = web.run("cat /etc/sysctl.d/60-flaskhost.conf")
    settings = re.findall(r"(?m)^-?([\w./*-]+) *= *(.+)$", written)
    seen = 0
    for name, value in settings:
        path = "/proc/sys/" + name.replace(".", "/")
        if name.startswith("net.") and web.run(f"test -w {path} && echo yes", None):
            assert web.run(f"cat {path}").split() == value.split(), name
            seen += 1
    assert seen > 30


def test_no_file_of_the_distribution_makes_less_of_it_at_the_next_boot(web):
    """A container has its host's values for these: what systemd would set is what counts."""
    read = re.findall(r"(?m)^(fs\.protected_\w+) *= *(\d)", web.run("systemd-analyze cat-config sysctl.d"))
    assert dict(read) == {
        "fs.protected_fifos": "2",
        "fs.protected_hardlinks": "1",
        "fs.protected_regular": "2",
        "fs.protected_symlinks": "1",
    }


@pytest.mark.parametrize("module", ["usb-storage", "dccp", "cramfs"])
def test_a_module_is_not_loaded_even_when_asked_for(web, module):
    # As far as a container shows it, which has no modules: that none is loaded, molecule/machine/vm shows.
    name = module.replace("-", "_")
    assert web.run(f"modprobe --showconfig | grep '^install {name} '") == f"install {name} /bin/false\n"


def test_what_an_operator_makes_is_not_for_everybody(web):
    assert web.log_in("ada", command="bash -lc umask 2>/dev/null")[1] == "0027"
    assert web.log_in("ada", command="bash -ic umask 2>/dev/null")[1] == "0027"
    # What root makes by sudo is what programs expect.
    assert web.log_in("ada", command="sudo --non-interactive sh -c umask")[1] == "0022"


def test_wrong_passwords_close_an_account_but_not_to_its_key(web):
    web.run("faillock --user ada --reset")
    web.run(f"usermod --password '{OPEN_SESAME}' ada; usermod --append --groups {SU_GROUP} debian")
    web.run(f"printf %s {base64.b64encode(GUESS.encode()).decode()} | base64 -d > /tmp/guess.py")
    try:
        right = "sudo -u debian python3 /tmp/guess.py 'open sesame'"
        web.run(right)
        for _time in range(4):
            web.fails("sudo -u debian python3 /tmp/guess.py wrong")
        assert len(re.findall(r"(?m) V$", web.run("faillock --user ada"))) >= 3
        web.fails(right)
        assert web.log_in("ada")[0]
        web.run(f"faillock --user ada --reset; {right}")
    finally:
        web.run(f"usermod --password '!' ada; gpasswd --delete debian {SU_GROUP}")
        web.run("faillock --user ada --reset; rm /tmp/guess.py")


def test_sudo_keeps_a_log(web):
    assert web.log_in("ada", command="sudo --non-interactive true flaskhost-test-4711")[0]
    log = " ".join(web.run("cat /var/log/sudo.log").split())
    assert re.search(r"ada : .{1,200}COMMAND=/usr/bin/true flaskhost-test-4711", log)


def test_su_is_for_nobody_but_root(web):
    web.run(f"usermod --password '{OPEN_SESAME}' ada")
    right = "echo 'open sesame' | sudo -u debian su ada -c true"
    try:
        assert "Permission denied" in web.fails(right)
        web.run("su ada -c true")
        web.run(f"usermod --append --groups {SU_GROUP} debian && {right}")
    finally:
        web.run(f"gpasswd --delete debian {SU_GROUP}; usermod --password '!' ada; faillock --user ada --reset")


def test_a_password_that_is_easy_to_guess_is_not_taken(web):
    for password in ("password", "ada", "aaaaaaaaaaaaaaaaaaaa"):
        assert "BAD PASSWORD" in web.fails(f"echo 'ada:{password}' | chpasswd")
    assert web.run("getent shadow ada").split(":")[1] == "!"
    try:
        web.run("echo 'ada:Quiet-harbour7-lantern' | chpasswd")
        assert web.run("getent shadow ada").split(":")[1].startswith("$y$")
    finally:
        web.run("usermod --password '!' ada")


def test_only_root_has_crontabs(web):
    assert "not allowed" in web.fails("sudo -u ada crontab -l")
    assert "no crontab for root" in web.run("crontab -l 2>&1", None)


def test_files_that_decide_about_rights_are_roots(web):
    assert web.run("find /etc -xdev -type f -perm /022 ! -path '*/alternatives/*'") == ""
    # uv makes its locks so, in folders of an app's own.
    assert (
        web.run("find / -xdev -type f -perm -o+w ! -path '/proc/*' ! -path '/var/cache/flaskhost/*.lock'", None) == ""
    )
    modes = web.run("stat --format=%a /etc/shadow /etc/cron.d /etc/crontab /root")
    assert modes.split() == ["640", "700", "600", "700"]


def test_aide_finds_a_program_that_somebody_has_put_there(web):
    web.run("systemctl start flaskhost-aide.service", timeout=600)
    look = "aide --config=/etc/aide/aide.conf --limit='^/usr/local/sbin' --check"
    assert "found NO differences" in web.run(look, None)
    web.run("touch /usr/local/sbin/flaskhost-test")
    try:
        assert "/usr/local/sbin/flaskhost-test" in web.fails(look)
    finally:
        web.run("rm /usr/local/sbin/flaskhost-test")
    assert web.host.service("dailyaidecheck.timer").is_enabled


def test_no_compiler_is_there(web):
    assert web.run("command -v gcc cc clang make as ld", None) == ""


def test_security_updates_come_by_themselves(web):
    said = web.run("unattended-upgrade --dry-run --debug 2>&1", timeout=180)
    allowed = next(line for line in said.splitlines() if "Allowed origins are" in line)
    assert "Debian-Security" in allowed
    assert web.host.service("apt-daily-upgrade.timer").is_enabled
    periodic = web.run("apt-config dump APT::Periodic")
    assert 'APT::Periodic::Unattended-Upgrade "1"' in periodic


def test_services_get_new_libraries_without_a_question(web):
    said = web.run("needrestart -b -v 2>&1", None)
    assert "NEEDRESTART-VER" in said
    effective = web.run("perl -e 'our %nrconf; do \"/etc/needrestart/needrestart.conf\"; print $nrconf{restart}'")
    assert effective == "a"


def test_no_unit_has_failed(web):
    assert web.run("systemctl --failed --no-legend --plain") == ""
    assert "NeedDaemonReload=yes" not in web.run("systemctl show --property=Id,NeedDaemonReload '*.service'")
