#!/usr/bin/env python3
"""Bare Debian machines on QEMU, for tests that containers cannot run: their own kernel, AppArmor, auditd, a boot.

A machine is as similar to a new cloud server as possible: firmware, GRUB, Debian's cloud kernel, systemd as the first
process, an address from DHCP, a user with sudo and a key. Its disk is a thin layer over an image, which is built once
from Debian's packages and kept. Uses only the standard library, like scripts/testbed.py, whose key, user and package
list these machines share.

All files are below .cache/vm: for each image its disk, and a kernel to test KVM with; for each machine its disk, its
console log, QEMU's own output and its process ID.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import CACHE, Problem, apt_install, as_root, attempt, find_program, follow, guarded, note, run, say, tail
from testbed import (
    KEY,
    PACKAGES,
    RELEASES,
    USER,
    alone,
    customise,
    ensure_key,
    extra_authorities,
    passed_on,
    port_is_taken,
    published,
)

HOME = CACHE / "vm"
MEMORY, CORES = "2048", "2"
FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")

# The disk in MiB, as on a small server; unwritten space takes no room. First the firmware's partition with the boot
# loader, then the system's. The last MiB is the copy of the partition table.
MIB = 1024**2
DISK, LOADER_START, LOADER, SYSTEM_START = 12 * 1024, 1, 63, 64
SYSTEM = DISK - SYSTEM_START - 1
UUID = "5f1a5c00-0000-4000-8000-00000000000d"  # of the root file system

# Packages that a machine needs in addition to those of the containers.
MACHINE_PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "e2fsprogs", "grub-efi-amd64", "grub-efi-amd64-signed",
    "systemd-resolved", "libnss-resolve",
    "quota",  # fstab enables project quotas, and systemd needs its programs for that
)  # fmt: skip

# Runs inside the new system, after the testbed's own script. The host name and its line in /etc/hosts are as cloud-init
# writes them. The host keys are created with the image, which never leaves this machine.
SCRIPT = """\
echo 'fh-vm-{release}' > /etc/hostname
printf '127.0.1.1 fh-vm-{release}\\n127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' > /etc/hosts
echo 'UUID={uuid} / ext4 rw,discard,errors=remount-ro,prjquota 0 1' > /etc/fstab
echo 'UUID={loader} /boot/efi vfat defaults,umask=077 0 0' >> /etc/fstab
mkdir -p /boot/efi /etc/default/grub.d
printf 'GRUB_TIMEOUT=0\\nGRUB_CMDLINE_LINUX="{arguments}"\\n' > /etc/default/grub.d/15_testbed.cfg
printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' > /etc/systemd/network/10-dhcp.network
systemctl enable --quiet systemd-networkd.service systemd-resolved.service
install -d -o {user} -g {user} -m 0700 /home/{user}/.ssh
echo {key} > /home/{user}/.ssh/authorized_keys
chown {user}:{user} /home/{user}/.ssh/authorized_keys
chmod 0600 /home/{user}/.ssh/authorized_keys
ssh-keygen -A
"""

# An emulated processor's clock is this computer's own. It only looks unstable when this computer is busy, and the
# kernel would then read a slow device each time it needs the clock.
ARGUMENTS = "console=ttyS0,115200 consoleblank=0 tsc=reliable"

# The first boot menu, until update-grub generates one, which does not work in a folder that is not a disk yet.
GRUB_LIST = f"""\
search --no-floppy --fs-uuid --set=root {UUID}
linux /vmlinuz root=UUID={UUID} ro {ARGUMENTS}
initrd /initrd.img
boot
"""

# The firmware partition's configuration for the boot loader: the location of the menu, as grub-install writes it.
GRUB_START = f"""\
search.fs_uuid {UUID} root
set prefix=($root)/boot/grub
configfile $prefix/grub.cfg
"""
LOADER_ID = "F1A5-C00D"  # of the firmware's partition

PARTITIONS = f"""\
label: gpt
start={LOADER_START}MiB, size={LOADER}MiB, type=U
start={SYSTEM_START}MiB, size={SYSTEM}MiB, type=L
"""


# -- the image -------------------------------------------------------------------------------------------------------


def ensure_programs() -> None:
    """Install missing programs that build and run the machines."""
    wanted = {
        "qemu-system-x86_64": "qemu-system-x86",
        "qemu-img": "qemu-utils",
        "mmdebstrap": "mmdebstrap",
        "mkfs.ext4": "e2fsprogs",
        "sfdisk": "fdisk",
        "mformat": "mtools",
    }
    missing = [package for program, package in wanted.items() if not find_program(program)]
    missing += [] if FIRMWARE.exists() else ["ovmf"]
    if missing:
        apt_install(missing, "the machines run on QEMU and are made from Debian's own packages")


def image_script(release: str) -> str:
    """Return the complete script that finishes a release's bare system."""
    public = KEY.with_suffix(".pub").read_text().strip()
    mine = SCRIPT.format(
        release=release, user=USER, key=shlex.quote(public), uuid=UUID, loader=LOADER_ID, arguments=ARGUMENTS
    )
    return customise(extra_authorities(), passed_on()) + mine


@dataclasses.dataclass(frozen=True)
class Image:
    """The disk of a machine at its first start.

    Attributes:
        release: Debian's release.
        packages: packages that are installed on top of a bare system.
    """

    release: str
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name, and its folder's."""
        return "+".join((self.release, *self.packages))

    @property
    def folder(self) -> Path:
        """The folder with its disk and its kernel."""
        return HOME / self.name

    def digest(self, mirror: str, script: str) -> str:
        """Return a digest of the image's recipe."""
        packages = (*PACKAGES, *MACHINE_PACKAGES, *self.packages)
        recipe = json.dumps([self.release, mirror, packages, PARTITIONS, GRUB_START, GRUB_LIST, script])
        return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def ensure_image(image: Image, rebuild: bool = False) -> None:
    """Ensure that an image exists and matches the current recipe."""
    mirror = os.environ.get("FLASKHOST_DEBIAN_MIRROR", "")
    script = image_script(image.release)
    digest = image.digest(mirror, script)
    with contextlib.suppress(OSError):
        if not rebuild and (image.folder / "recipe").read_text() == digest:
            say(f"The machine image {image.name} is there")
            return
    # Includes stopped machines: a machine's disk contains only the differences from its image, so it is invalid over
    # another image.
    users = [machine.name for machine in machines() if machine.image() == image.name]
    if users:
        raise Problem(
            f"The machine image {image.name} is out of date, and the disk of {', '.join(users)} lies over it.",
            f"`python3 scripts/vm.py remove {users[0]}`, then repeat.",
        )
    build_image(image, mirror, script)
    (image.folder / "recipe").write_text(digest)


def build_image(image: Image, mirror: str, script: str) -> None:
    """Bootstrap a Debian release into a disk that QEMU can boot, without loop devices and mounts."""
    say(f"Making the machine image {image.name} from Debian's packages (one to two minutes)")
    folder, release = image.folder, image.release
    root, recipe_file = folder / "root", folder / "script.sh"
    run(*as_root("rm", "-rf", str(folder)))
    folder.mkdir(parents=True)
    recipe_file.write_text(script)
    started = time.monotonic()
    command = as_root(
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        "--skip=cleanup/apt",  # done by the testbed's script
        f"--include={','.join((*PACKAGES, *MACHINE_PACKAGES, *image.packages))}",
        f'--customize-hook=chroot "$1" sh < {shlex.quote(str(recipe_file))}',
        release,
        str(root),
        *([mirror] if mirror else []),  # mmdebstrap's default has Debian's security updates too
    )
    status, words = follow(command, lambda line: line.startswith(("I: installing", "E:")))
    if status != 0:
        raise Problem(
            f"mmdebstrap could not make Debian {release}.",
            "most often the network: repeat, or name a mirror in FLASKHOST_DEBIAN_MIRROR.",
            words,
        )
    disk = make_disk(folder, root)
    run(*as_root("rm", "-rf", str(root)))
    note(f"made in {time.monotonic() - started:.0f} s: {disk.stat().st_blocks * 512 // MIB} MB on disk")


def make_disk(folder: Path, root: Path) -> Path:
    """Write a system's files to a bootable disk, and keep its kernel next to the disk."""
    disk, system, loader = folder / "bare.img", folder / "system.img", folder / "loader.img"
    for file, size in ((disk, DISK), (system, SYSTEM), (loader, LOADER)):
        with file.open("wb"):
            os.truncate(file, size * MIB)
    (folder / "grub.cfg").write_text(GRUB_LIST)
    (folder / "start.cfg").write_text(GRUB_START)
    run(*as_root("install", "-m", "0600", str(folder / "grub.cfg"), str(root / "boot/grub/grub.cfg")))
    mkfs = find_program("mkfs.ext4") or "mkfs.ext4"
    quotas = ("-O", "quota,project", "-E", "quotatype=prjquota")  # for limits.disk; fstab has prjquota
    run(*as_root(mkfs, "-q", "-F", "-U", UUID, *quotas, "-d", str(root), str(system)))
    run("mformat", "-i", loader, "-F", "-N", LOADER_ID.replace("-", ""), "::")
    run("mmd", "-i", loader, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    grub = root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
    run("mcopy", "-i", loader, grub, "::/EFI/BOOT/BOOTX64.EFI")
    run("mcopy", "-i", loader, folder / "start.cfg", "::/EFI/debian/grub.cfg")
    run(find_program("sfdisk") or "sfdisk", "--quiet", disk, text=PARTITIONS)
    for part, start in ((loader, LOADER_START), (system, SYSTEM_START)):
        copy = ("bs=1M", f"seek={start}", "conv=notrunc,sparse", "status=none")
        run("dd", f"if={part}", f"of={disk}", *copy)
        part.unlink()
    kernel = folder / "vmlinuz"
    run(*as_root("cp", str(next((root / "boot").glob("vmlinuz-*"))), str(kernel)))
    run(*as_root("chown", f"{os.getuid()}:{os.getgid()}", str(kernel)))
    return disk


# -- the accelerator -------------------------------------------------------------------------------------------------


def acceleration(folder: Path) -> list[str]:
    """Return QEMU's processor options: KVM if it can run this kernel, else emulation."""
    wanted = os.environ.get("FLASKHOST_VM_ACCEL", "")
    if wanted not in {"", "kvm", "tcg"}:
        raise Problem(f"FLASKHOST_VM_ACCEL={wanted} is not known.", "kvm or tcg, or nothing to have it tried.")
    if wanted == "kvm" or (not wanted and kvm_boots(folder)):
        return ["-accel", "kvm", "-cpu", "host"]
    note("emulated, as KVM does not run a kernel here: everything on the machine takes about five times as long")
    # Without two processor features: cmpxchg16b, which QEMU 7.2 sometimes emulates wrongly (the kernel crashed with a
    # double fault in kmem_cache_alloc), and five-level page tables, where each TLB miss walks one more level.
    return ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16,-la57"]


def kvm_boots(folder: Path, seconds: float = 20) -> bool:
    """Check whether KVM really runs a kernel here: an existing /dev/kvm can hang or abort at the first instructions.

    The kernel is started without a disk, with the option to exit at the panic that follows. If KVM works, it exits in
    two seconds.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = [
        *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "512", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-monitor", "none", "-kernel", str(folder / "vmlinuz")),
        *("-append", "console=ttyS0 panic=-1"),
    ]
    return "Kernel panic" in attempt(*command, timeout=seconds).stdout


# -- the machines ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine and its files.

    Attributes:
        name: its name, and its files' name.
    """

    name: str

    def file(self, kind: str) -> Path:
        """Return one of the machine's files: disk, console, log, pid, image."""
        return HOME / f"{self.name}.{kind}"

    def image(self) -> str:
        """Return the name of the image that the machine is based on."""
        return self.file("image").read_text().strip() if self.file("image").exists() else ""

    def pid(self) -> int | None:
        """Return the process ID of the machine's QEMU, if it runs and belongs to this machine."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.file("pid").read_text())
            if str(self.file("disk")).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def start(self, image: Image, ports: dict[int, int]) -> None:
        """Start the machine, with a new disk if it has none yet."""
        if self.pid():
            say(f"{self.name} runs already")
            return
        for inside, port in ports.items():
            if port_is_taken(port):
                raise Problem(f"Port {port} of 127.0.0.1, for {self.name}'s port {inside}, is taken.")
        if not self.file("disk").exists():
            self.file("image").write_text(image.name)
            run(
                *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.folder / "bare.img"),
                self.file("disk"),
            )
        say(f"Starting {self.name} ({image.name}); its console: {self.file('console')}")
        command = machine_command(self, ports, acceleration(image.folder))
        with self.file("log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.file("pid").write_text(str(process.pid))
        time.sleep(1)
        if process.poll() is not None:
            raise Problem(f"QEMU could not start {self.name}.", "", tail(self.file("log").read_text(errors="replace")))

    def stop(self) -> None:
        """Stop the machine immediately, like a power failure."""
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if not self.pid():
                    break
                time.sleep(0.1)
            else:
                raise Problem(f"{self.name}'s QEMU (pid {pid}) does not stop.", f"`kill -9 {pid}`, then repeat.")
        self.file("pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop the machine and delete its disk and its logs."""
        self.stop()
        for kind in ("disk", "console", "log", "image"):
            self.file(kind).unlink(missing_ok=True)


def machine_command(machine: Machine, ports: dict[int, int], processor: list[str]) -> list[str]:
    """Return the QEMU command of the machine."""
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{port}-:{inside}" for inside, port in sorted(ports.items()))
    return [
        *("qemu-system-x86_64", "-name", machine.name, *processor, "-m", MEMORY, "-smp", CORES),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{machine.file('console')}"),
        *("-bios", str(FIRMWARE)),
        # Data that is lost when this computer crashes can be recreated, so do not wait for its disk.
        *("-drive", f"file={machine.file('disk')},if=virtio,format=qcow2,cache=unsafe,discard=unmap"),
        *("-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net"),
        *("-device", "virtio-rng-pci"),
    ]


def machines() -> list[Machine]:
    """Return all machines, running or stopped."""
    return [Machine(file.stem) for file in sorted(HOME.glob("*.disk"))]


# -- the sub-commands ------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Bare Debian machines on QEMU, for the scenarios vm and strict.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    with_package: dict[str, Any] = {
        "dest": "packages", "action": "append", "default": [], "metavar": "PACKAGE",
        "help": "a package that the image holds on top of a bare system",
    }  # fmt: skip
    ready = commands.add_parser("ready", help="QEMU, the SSH key and the bare images")
    ready.add_argument("releases", nargs="+", choices=RELEASES, metavar="RELEASE", help=" or ".join(RELEASES))
    ready.add_argument("--rebuild", action="store_true", help="make them anew, with Debian's packages of today")
    ready.add_argument("--with", **with_package)
    start = commands.add_parser("start", help="start a machine")
    start.add_argument("name")
    start.add_argument("--release", choices=RELEASES, required=True)
    start.add_argument("--publish", action="append", type=published, default=[], metavar="PORT:INSIDE", required=True)
    start.add_argument("--with", **with_package)
    for command, words in (("stop", "pull its plug, and keep its disk"), ("remove", "stop it and delete its disk")):
        commands.add_parser(command, help=words).add_argument("name")
    commands.add_parser("list", help="the machines that are there, with their process ids")
    commands.add_parser("clean", help="remove all machines and images")
    return parser.parse_args()


def main() -> int:
    """Run one subcommand."""
    wanted = arguments()
    HOME.mkdir(parents=True, exist_ok=True)
    if wanted.command == "ready":
        with alone():
            ensure_programs()
            ensure_key()
            for release in wanted.releases:
                ensure_image(Image(release, tuple(wanted.packages)), wanted.rebuild)
    elif wanted.command == "start":
        Machine(wanted.name).start(Image(wanted.release, tuple(wanted.packages)), dict(wanted.publish))
    elif wanted.command == "stop":
        Machine(wanted.name).stop()
    elif wanted.command == "remove":
        Machine(wanted.name).remove()
    elif wanted.command == "list":
        for machine in machines():
            print(f"{machine.name}  {machine.image()}  {machine.pid() or 'stopped'}")
    else:
        for machine in machines():
            machine.remove()
        run(*as_root("rm", "-rf", *(str(recipe.parent) for recipe in HOME.glob("*/script.sh"))))
        shutil.rmtree(HOME)
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
