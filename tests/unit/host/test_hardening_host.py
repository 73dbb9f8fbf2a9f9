"""What the role hardening does on a host: its files, the kernel's settings, and what a host can do."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import files as host_files
from ansible.module_utils.flaskhost.host import kernel_settings
from ansible.module_utils.flaskhost.host.abilities import abilities, present, recorded

ME = pwd.getpwuid(os.getuid()).pw_name
MY_GROUP = grp.getgrgid(os.getgid()).gr_name


def run(command: list[str]) -> tuple[int, str, str]:
    """A checker that says no to what holds the word bad."""
    return (1, "", "line 1: bad") if "bad" in Path(command[-1]).read_text() else (0, "", "")


def file(path: Path, content: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "content": content, "owner": ME, "group": MY_GROUP, "mode": "0640", **more}


# --- Files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_written_once(tmp_path: Path) -> None:
    wanted = [file(tmp_path / "a" / "b.conf", "x\n")]
    host_files.apply(host_files.plan_files(wanted), run)
    assert (tmp_path / "a" / "b.conf").read_text() == "x\n"
    assert (tmp_path / "a" / "b.conf").stat().st_mode & 0o777 == 0o640
    assert host_files.plan_files(wanted) == []
    (tmp_path / "a" / "b.conf").chmod(0o666)
    assert [change.note for change in host_files.plan_files(wanted)] == [f"{ME}:{MY_GROUP} 0640"]


def test_a_file_is_removed_while_another_one_exists(tmp_path: Path) -> None:
    path, mark = tmp_path / "listen.conf", tmp_path / "drained"
    wanted = [file(path, "listen\n", unless=str(mark))]
    host_files.apply(host_files.plan_files(wanted), run)
    assert path.read_text() == "listen\n"
    mark.symlink_to("nowhere")
    host_files.apply(host_files.plan_files(wanted), run)
    assert not path.exists()
    assert host_files.plan_files(wanted) == []
    mark.unlink()
    host_files.apply(host_files.plan_files(wanted), run)
    assert path.read_text() == "listen\n"


def test_what_the_checker_refuses_is_not_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "b.conf"
    path.write_text("good\n")
    with pytest.raises(host_files.HostFilesError, match=r"was not changed.*\nline 1: bad"):
        host_files.apply(host_files.plan_files([file(path, "bad\n", validate=["check", "%s"])]), run)
    assert path.read_text() == "good\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs\n")
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    host_files.apply(host_files.plan_files([file(tmp_path / "ours", "ours\n")]), run)
    assert (tmp_path / "theirs").read_text() == "theirs\n"
    assert (tmp_path / "ours").read_text() == "ours\n"


@pytest.mark.parametrize(
    ("text", "line", "after", "expected"),
    [
        ("a 1\nb 2\n", "b 3", "", "a 1\nb 3\n"),
        ("a 1\nb 2\nb 4\n", "b 3", "", "a 1\nb 3\n"),
        ("a 1\n", "b 3", "", "a 1\nb 3\n"),
        ("a 1\nc 1\n", "b 3", "^a", "a 1\nb 3\nc 1\n"),
        ("a 1\nb 2\n", "", "", "a 1\n"),
        ("", "b 3", "", "b 3\n"),
    ],
)
def test_exactly_one_line_stays(text: str, line: str, after: str, expected: str) -> None:
    once = host_files.with_line(text, "^b ", line, after)
    assert once == expected
    assert host_files.with_line(once, "^b ", line, after) == expected


def test_lines_of_a_file_that_is_not_there_are_left_out(tmp_path: Path) -> None:
    assert host_files.plan_lines([{"path": str(tmp_path / "no"), "pattern": "^a", "line": "a"}]) == []


def test_permissions_are_only_taken_away(tmp_path: Path) -> None:
    for name, mode in (("open", 0o666), ("closed", 0o600)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/etc/passwd")
    wanted = [{"path": str(tmp_path / "*"), "owner": ME, "group": MY_GROUP, "mode": "0640"}]
    changes = host_files.plan_modes(wanted)
    assert [(Path(change.path).name, change.mode) for change in changes] == [("open", 0o640)]
    host_files.apply(changes, run)
    assert host_files.plan_modes(wanted) == []
    assert host_files.plan_modes([{**wanted[0], "group": "nobody-has-this"}]) == []


def test_a_mode_is_not_set_through_a_link_that_came_in_since(tmp_path: Path) -> None:
    """The file lies in somebody's home folder, who exchanges it after root has looked."""
    (tmp_path / "victim").touch(mode=0o600)
    (tmp_path / ".bashrc").touch()
    (tmp_path / ".bashrc").chmod(0o777)
    wanted = [{"path": str(tmp_path / ".bash*"), "owner": "", "group": "", "mode": "0740"}]
    changes = host_files.plan_modes(wanted)
    assert [change.path for change in changes] == [str(tmp_path / ".bashrc")]
    (tmp_path / ".bashrc").unlink()
    (tmp_path / ".bashrc").symlink_to(tmp_path / "victim")
    host_files.apply(changes, run)
    assert (tmp_path / "victim").stat().st_mode & 0o777 == 0o600


def test_a_file_is_not_given_away_through_a_link_in_a_services_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """postgres owns the folder of its settings, and exchanges the file that root has just written there."""
    (tmp_path / "victim").touch(mode=0o600)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        name.unlink()
        name.symlink_to(tmp_path / "victim")

    monkeypatch.setattr(os, "fsync", fsync)
    host_files.apply(host_files.plan_files([file(tmp_path / "a.conf", "x\n", mode="0644")]), run)
    assert (tmp_path / "a.conf").is_symlink()
    assert (tmp_path / "victim").stat().st_mode & 0o777 == 0o600


# --- The kernel's settings -------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for key, value in {
        "kernel/dmesg_restrict": "0",
        "net/ipv4/ip_forward": "1",
        "net/ipv4/ip_local_port_range": "32768\t60999",
        "net/ipv6/conf/all/accept_ra": "1",
    }.items():
        path = tmp_path / "proc/sys" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    (tmp_path / "proc/net").mkdir()
    (tmp_path / "sys/devices/virtual/net/lo").mkdir(parents=True)
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    return tmp_path


SETTINGS = {
    "kernel.dmesg_restrict": "1",
    "kernel.not_there": "1",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.ipv6.conf.all.accept_ra": "0",
}


def test_what_holds_now_is_what_counts(root: Path) -> None:
    found = kernel_settings.examine(SETTINGS, "60-x.conf", root)
    assert found.differing == {
        "kernel.dmesg_restrict": "0",
        "net.ipv4.ip_forward": "1",
        "net.ipv6.conf.all.accept_ra": "1",
    }
    assert found.missing == ["kernel.not_there"]
    assert kernel_settings.set_now(SETTINGS, found.differing, root) == {}
    again = kernel_settings.examine(SETTINGS, "60-x.conf", root)
    assert again.differing == {}
    text = kernel_settings.render(SETTINGS, again, "Ours.")
    assert text.startswith("# Ours.\nkernel.dmesg_restrict = 1\n-kernel.not_there = 1\n")
    assert kernel_settings.parse(text) == SETTINGS


def test_an_asterisk_means_every_interface(root: Path) -> None:
    for name, value in (("all", "0"), ("eth0.10", "1"), ("lo", "0")):
        (root / "proc/sys/net/ipv6/conf" / name).mkdir(exist_ok=True)
        (root / "proc/sys/net/ipv6/conf" / name / "accept_redirects").write_text(f"{value}\n")
    settings = {"net.ipv6.conf.*.accept_redirects": "0"}
    found = kernel_settings.examine(settings, "60-x.conf", root)
    assert found.differing == {"net/ipv6/conf/eth0.10/accept_redirects": "1"}
    assert kernel_settings.set_now(kernel_settings.expanded(settings, root), found.differing, root) == {}
    assert kernel_settings.examine(settings, "60-x.conf", root).differing == {}
    assert kernel_settings.render(settings, found, "") == "net.ipv6.conf.*.accept_redirects = 0\n"


def test_a_host_that_forwards_for_others_goes_on(root: Path) -> None:
    (root / "sys/devices/virtual/net/br0").mkdir()
    found = kernel_settings.examine(SETTINGS, "60-x.conf", root)
    assert list(found.left) == ["net.ipv4.ip_forward"]
    assert "ip_forward" not in kernel_settings.render(SETTINGS, found, "")


def test_a_virtual_interface_that_is_the_way_out_is_no_reason_to_forward(root: Path) -> None:
    """A container's eth0 is virtual: forwarding stayed on there."""
    (root / "sys/devices/virtual/net/eth0").mkdir()
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT   \n"
    link = "eth0\t000016AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0   \n"
    way_out = "eth0\t00000000\t010016AC\t0003\t0\t0\t0\t00000000\t0\t0\t0   \n"
    (root / "proc/net/route").write_text(head + link)
    assert kernel_settings.carries_others(root)
    (root / "proc/net/route").write_text(head + way_out + link)
    assert not kernel_settings.carries_others(root)
    (root / "proc/net/route").unlink()
    zero = "0" * 32
    way_out = f"{zero} 00 {zero} 00 {zero} 00000400 00000001 00000000 00000003     eth0\n"
    (root / "proc/net/ipv6_route").write_text(way_out)
    assert kernel_settings.uplinks(root) == {"eth0"}
    assert not kernel_settings.carries_others(root)
    (root / "sys/devices/virtual/net/docker0").mkdir()
    assert kernel_settings.carries_others(root)


def test_a_host_that_lives_on_advertisements_keeps_them(root: Path) -> None:
    route = "00000000000000000000000000000000 00 " + "0" * 32 + " 00 fe80" + "0" * 28
    (root / "proc/net/ipv6_route").write_text(f"{route} 00000400 00000001 00000000 00450003     eth0\n")
    assert "net.ipv6.conf.all.accept_ra" in kernel_settings.examine(SETTINGS, "60-x.conf", root).left
    (root / "proc/net/ipv6_route").write_text(f"{route} 00000400 00000001 00000000 00000003     eth0\n")
    assert kernel_settings.examine(SETTINGS, "60-x.conf", root).left == {}


def test_a_later_file_wins_and_is_named(root: Path) -> None:
    (root / "etc/sysctl.d/99-theirs.conf").write_text("kernel/dmesg_restrict=0\n# kernel.not_there = 5\n")
    (root / "etc/sysctl.d/10-theirs.conf").write_text("net.ipv6.conf.all.accept_ra = 2\n")
    found = kernel_settings.examine(SETTINGS, "60-x.conf", root)
    assert found.overruled == {"kernel.dmesg_restrict": "/etc/sysctl.d/99-theirs.conf"}
    assert "dmesg" not in kernel_settings.render(SETTINGS, found, "")


# --- What a host can do ----------------------------------------------------------------------------------------------


def machine(root: Path, namespace: str, mask: str) -> Path:
    for folder in ("proc/1/ns", "proc/self", "sys/module/apparmor/parameters"):
        (root / folder).mkdir(parents=True)
    (root / "proc/1/ns/pid").symlink_to(f"pid:[{namespace}]")
    (root / "proc/1/status").write_text(f"Name:\tsystemd\nCapBnd:\t{mask}\n")
    (root / "proc/self/loginuid").write_text("4294967295")
    (root / "proc/cmdline").write_text("root=/dev/vda quiet")
    (root / "sys/module/apparmor/parameters/enabled").write_text("Y\n")
    return root


def test_a_machine_can_do_all(tmp_path: Path) -> None:
    root = machine(tmp_path, "4026531836", "000001ffffffffff")
    assert [name for name, able in abilities(root).items() if not able] == [
        *("resolver", "boot_loader", "boot_loader_is_stale")
    ]
    # Installed and switched off is not enough: nobody wants it started then.
    (root / "etc/systemd/system/sysinit.target.wants").mkdir(parents=True)
    (root / "etc/systemd/system/sysinit.target.wants/systemd-resolved.service").touch()
    assert abilities(root)["resolver"]


def test_a_shared_kernel_is_left_alone(tmp_path: Path) -> None:
    can = abilities(machine(tmp_path, "4026532500", "00000000a82435fb"))
    assert not any(can.values())


def test_arguments_for_the_kernel_are_taken_in_once(tmp_path: Path) -> None:
    root = machine(tmp_path, "4026531836", "000001ffffffffff")
    for name in ("boot/grub/grub.cfg", "usr/sbin/update-grub", "etc/default/grub.d/60-flaskhost.cfg"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    os.utime(root / "boot/grub/grub.cfg", (1, 1))
    assert abilities(root)["boot_loader_is_stale"]
    os.utime(root / "boot/grub/grub.cfg", (2**32, 2**32))
    assert not abilities(root)["boot_loader_is_stale"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"level": 1, "packages": "cron"}', '{"level": "odd"}'])
def test_a_record_that_is_no_record_is_of_a_host_that_was_never_strict(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert recorded(tmp_path / "record.json") == {"level": "standard", "packages": []}
    assert recorded(tmp_path / "no.json") == {"level": "standard", "packages": []}


def test_a_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"level": "strict", "packages": ["cron"]}')
    assert recorded(tmp_path / "record.json") == {"level": "strict", "packages": ["cron"]}


def test_what_tasks_ask_one_by_one_is_read_at_once(tmp_path: Path) -> None:
    assert present(tmp_path) == {"dpkg_interrupted": False, "timezone": "", "groups": []}
    for name in ("etc/group", "var/lib/dpkg/updates/0001"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("root:x:0:\nsudo:x:27:ada\n")
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Stockholm")
    assert present(tmp_path) == {"dpkg_interrupted": True, "timezone": "Europe/Stockholm", "groups": ["root", "sudo"]}
    (tmp_path / "var/lib/dpkg/updates/0001").rename(tmp_path / "var/lib/dpkg/updates/tmp.i")
    assert not present(tmp_path)["dpkg_interrupted"]
