#!/usr/bin/env python3
"""Bare Debian hosts for the demo and the tests: a Docker engine, local images without a registry, the demo's host.

The hosts are containers that are as similar to a real server as possible: systemd is PID 1, Ansible logs in over SSH as
an unprivileged user with sudo, and the image contains the packages of Debian's own server images, but nothing that our
roles have to install. Uses only the standard library, because it runs before .venv exists.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import (
    CACHE,
    ROOT,
    Problem,
    apt_install,
    as_root,
    attempt,
    find_program,
    follow,
    guarded,
    installed_by_us,
    note,
    run,
    say,
    tail,
)

RELEASES = ("bookworm", "trixie")
REPOSITORY = "flaskhost-debian"
STATE = CACHE / "testbed"
KEY = STATE / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
DOCKERD_PID = STATE / "dockerd.pid"
DOCKERD_LOG = STATE / "dockerd.log"
USER = "debian"
RECIPE_LABEL = "flaskhost.recipe"
CHECKOUT_LABEL = "flaskhost.checkout"

# The packages of Debian's own cloud images (salsa.debian.org/cloud-team/debian-cloud-images, config_space/bookworm:
# SYSTEM_BOOT, CLOUD, EXTRAS, and their dependencies), without the kernel, the boot loader, cloud-init and the network
# configuration, which a container does not need, without optional editing and tracing tools, and without
# unattended-upgrades, apparmor and iptables: the image must not contain what our roles have to install.
PACKAGES = (
    "systemd", "systemd-sysv", "init", "dbus", "udev", "libpam-systemd", "libnss-myhostname", "polkitd",
    "systemd-timesyncd", "linux-base", "kmod", "procps", "psmisc", "iproute2", "iputils-ping", "netbase",
    "openssh-server", "sudo", "ca-certificates", "curl", "python3", "apt-utils", "less", "nano", "vim-tiny",
    "whiptail", "bash-completion", "uuid-runtime", "xz-utils", "zstd",
    "python3-apt",  # through apt-listchanges and unattended-upgrades
)  # fmt: skip

# Runs inside the new system. The user, sudo and the emptied files are as in Debian's cloud images.
SCRIPT = """\
set -eu
useradd --create-home --shell /bin/bash --groups adm,sudo debian
passwd --quiet --lock debian
echo 'debian ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/90-cloud-init-users
chmod 0440 /etc/sudoers.d/90-cloud-init-users
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: > /etc/machine-id
: > /etc/hostname
# No package lists, and since long: a list's age says whether to fetch it, and a new image must not look up to date.
find /var/lib/apt/lists /var/cache/apt -mindepth 1 -delete
touch --date='30 days ago' /var/lib/apt/lists
"""

# Only if this machine trusts CAs of its own (a proxy that inspects TLS): the hosts trust them too, and so do programs
# there that have their own trust store.
CA_SCRIPT = """\
update-ca-certificates
printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > /etc/pip.conf
mkdir -p /etc/uv
printf 'system-certs = true\\n' > /etc/uv/uv.toml
"""

# Environment variables with proxies and package indexes, which are passed to the hosts if they are set.
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")

# The start commands of a host container, followed by systemd. The mount tree must be shared: without that, systemd's
# credentials fail silently. Host keys are generated at the first boot, as on a new server. The SSH key is copied
# instead of mounted: sshd requires root or the user as its owner, whatever our user ID here is, and roles can add to
# the file.
BOOT = (
    "mount --make-rshared / && ssh-keygen -A && "
    "{ test -s /home/debian/.ssh/authorized_keys || { "
    "install -d -o debian -g debian -m 0700 /home/debian/.ssh && "
    "install -o debian -g debian -m 0600 /mnt/testbed.pub /home/debian/.ssh/authorized_keys; }; } && "
    "exec /lib/systemd/systemd"
)

# The demo's host, with the variable that changes each port, and the default.
DEMO = "flaskhost-demo"
DEMO_PORTS = {22: ("FLASKHOST_SSH_PORT", 2222), 80: ("FLASKHOST_HTTP_PORT", 8080), 443: ("FLASKHOST_HTTPS_PORT", 8443)}

_docker: list[str] = ["docker"]


# -- the engine ------------------------------------------------------------------------------------------------------


def docker(*arguments: str | Path, text: str | None = None) -> str:
    """Run the docker client and return its output."""
    return run(*_docker, *arguments, text=text)


def docker_ok(*arguments: str | Path) -> bool:
    """Check whether a docker command succeeds."""
    return attempt(*_docker, *arguments).returncode == 0


def engine_answer() -> subprocess.CompletedProcess[str]:
    """Query the engine's version."""
    return attempt(*_docker, "info", "--format", "{{.ServerVersion}}", timeout=30)


def engine_up() -> bool:
    """Check whether an engine responds (docker info's status is 0 even if the server does not)."""
    result = engine_answer()
    return result.returncode == 0 and bool(result.stdout.strip())


def denied() -> bool:
    """Check whether there is an engine whose socket this user cannot use."""
    return "permission denied" in engine_answer().stderr.lower()


def ensure_engine(direct: bool = False) -> None:
    """Use the existing Docker engine, or install and start Debian's.

    With `direct`, this user must be able to use the socket without sudo, because Molecule connects to it by itself.
    """
    if engine_up():
        say(f"Docker Engine {engine_answer().stdout.strip()} answers")
        return
    if denied():
        use_sudo_for_docker(direct)
        return
    if os.environ.get("DOCKER_HOST"):
        raise Problem(
            f"No Docker Engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}.",
            "start that engine, or `unset DOCKER_HOST` to use one on this machine.",
            tail(engine_answer().stderr),
        )
    if not find_program("dockerd"):
        packages = ["docker.io"]
        # In Debian 13, the client is a package of its own.
        if attempt("apt-cache", "show", "docker-cli").returncode == 0:
            packages.append("docker-cli")
        # If the kernel has AppArmor, no container starts without its parser.
        if Path("/sys/kernel/security/apparmor").exists() and not find_program("apparmor_parser"):
            packages.append("apparmor")
        apt_install(packages, "no Docker Engine answers and none is installed")
    if not engine_up() and not denied():
        start_engine()
    if denied():
        use_sudo_for_docker(direct)
        return
    say(f"Docker Engine {engine_answer().stdout.strip()} answers")


def use_sudo_for_docker(direct: bool) -> None:
    """Continue with `sudo docker` if this user has no access to the engine's socket."""
    cure = "`sudo usermod -aG docker $USER`, then log in again (or `newgrp docker`), and repeat."
    if direct:
        raise Problem("A Docker Engine runs, but this user may not use its socket.", cure)
    if not find_program("sudo"):
        raise Problem(
            "A Docker Engine runs, but this user may not use its socket.",
            cure.replace("`sudo usermod", "as root `usermod"),
        )
    _docker[:] = as_root("docker")
    if not engine_up():
        raise Problem(
            "A Docker Engine runs, but this user may not use its socket, and neither does sudo open it.",
            cure,
            tail(engine_answer().stderr),
        )
    say("The Docker Engine's socket is root's: using `sudo docker`")


def start_engine() -> None:
    """Start the installed engine and wait until it responds."""
    if Path("/run/systemd/system").is_dir():
        say("Starting the Docker Engine with systemd")
        result = attempt(*as_root("systemctl", "start", "docker.service"))
        if result.returncode != 0:
            raise Problem("systemd could not start docker.service.", "`journalctl -u docker`", tail(result.stderr))
        wait_for_engine(None, "`journalctl -u docker` says why")
        return
    say(f"Starting dockerd by hand, as there is no systemd here (log: {DOCKERD_LOG.relative_to(ROOT)})")
    STATE.mkdir(parents=True, exist_ok=True)
    if not own_dockerd():
        DOCKERD_PID.unlink(missing_ok=True)
    dockerd = find_program("dockerd") or "dockerd"
    # The socket belongs to this user's group, as it would belong to the group docker.
    command = as_root(dockerd, "--pidfile", str(DOCKERD_PID), "--group", str(os.getgid()))
    with DOCKERD_LOG.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    wait_for_engine(process, f"read {DOCKERD_LOG}")


def wait_for_engine(process: subprocess.Popen[bytes] | None, cure: str) -> None:
    """Wait until the engine responds, or report the end of its log."""
    for _ in range(120):
        if engine_up() or denied():
            return
        if process and process.poll() is not None:
            break
        time.sleep(0.5)
    log = tail(DOCKERD_LOG.read_text(errors="replace")) if process else ""
    raise Problem("The Docker Engine does not answer.", cure, log)


def own_dockerd() -> int | None:
    """Return the process ID of the dockerd that this script started, if it still runs."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(DOCKERD_PID.read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd":
            return pid
    return None


def stop_own_engine() -> None:
    """Stop the dockerd that this script started, unless other containers run on it."""
    pid = own_dockerd()
    if pid is None:
        return
    others = docker("ps", "--format", "{{.Names}}").split()
    if others:
        note(f"left running: the dockerd that the testbed started (pid {pid}), because it runs {', '.join(others)}")
        return
    run(*as_root("kill", str(pid)))
    for _ in range(60):
        if own_dockerd() is None:
            note(f"stopped the dockerd that the testbed had started (pid {pid})")
            return
        time.sleep(0.5)
    raise Problem(f"dockerd (pid {pid}) does not stop.", f"read {DOCKERD_LOG}")


# -- the images ------------------------------------------------------------------------------------------------------


def extra_authorities() -> str:
    """Return the CA certificates that this machine trusts in addition to its distribution's, in PEM format."""
    bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    if not bundle.is_file():
        return ""
    stock = {
        block
        for file in Path("/usr/share/ca-certificates").rglob("*.crt")
        for block in pem_blocks(file.read_text(errors="replace"))
    }
    return "".join(f"{block}\n" for block in sorted(set(pem_blocks(bundle.read_text(errors="replace"))) - stock))


def pem_blocks(text: str) -> list[str]:
    """Split a PEM bundle into its certificates, in a normalized form."""
    found = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.DOTALL)
    lines = ("".join(body.split()) for body in found)
    return [f"-----BEGIN CERTIFICATE-----\n{line}\n-----END CERTIFICATE-----" for line in lines]


def passed_on() -> dict[str, str]:
    """Return the proxies and package indexes in this process's environment."""
    found = {name: os.environ.get(name) or os.environ.get(name.upper()) or "" for name in PASSED_ON}
    return {name: value for name, value in found.items() if value}


def customise(authorities: str, environment: dict[str, str]) -> str:
    """Return the complete script that finishes the new system."""
    script = SCRIPT
    if authorities:
        folder = "/usr/local/share/ca-certificates"
        script += f"mkdir -p {folder}\n"
        for number, block in enumerate(pem_blocks(authorities)):
            wrapped = "\n".join(
                part for line in block.splitlines() for part in ([line] if "-" in line else wrap(line, 64))
            )
            script += f"cat > {folder}/controller-{number}.crt <<'PEM'\n{wrapped}\nPEM\n"
        script += CA_SCRIPT
    for name, value in environment.items():
        script += f"echo {shlex.quote(f'{name}={value}')} >> /etc/environment\n"
    return script


def wrap(line: str, width: int) -> list[str]:
    """Split a line into pieces of at most this width."""
    return [line[start : start + width] for start in range(0, len(line), width)]


def image_name(release: str) -> str:
    """Return the local name of a release's image."""
    return f"{REPOSITORY}:{release}"


def image_label(name: str) -> str:
    """Return the recipe from which an image was built, or an empty string."""
    result = attempt(*_docker, "image", "inspect", "--format", f'{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}', name)
    return result.stdout.strip() if result.returncode == 0 else ""


def ensure_image(release: str, rebuild: bool = False) -> None:
    """Ensure that the local image of a Debian release exists and matches the current recipe."""
    users_own = os.environ.get("FLASKHOST_IMAGE", "").replace("{release}", release)
    if users_own:
        adopt_image(users_own, release)
        return
    mirror = os.environ.get("FLASKHOST_DEBIAN_MIRROR", "")
    script = customise(extra_authorities(), passed_on())
    recipe = json.dumps([release, mirror, PACKAGES, script])
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not rebuild and image_label(image_name(release)) == digest:
        say(f"The image {image_name(release)} is there")
        return
    build_image(release, mirror, script, digest)


def build_image(release: str, mirror: str, script: str, digest: str) -> None:
    """Bootstrap a Debian release into a local image, without pulling anything from a registry."""
    if not find_program("mmdebstrap"):
        # The keyring: Ubuntu's mmdebstrap has only Ubuntu's keys.
        packages = ["mmdebstrap", "debian-archive-keyring"]
        apt_install(packages, "it makes the hosts' images from Debian's own packages", recommended=True)
    say(f"Making the image {image_name(release)} from Debian's packages (about half a minute)")
    STATE.mkdir(parents=True, exist_ok=True)
    recipe_file, archive = STATE / f"{release}.sh", STATE / f"{release}.tar"
    recipe_file.write_text(script)
    try:
        command = as_root(
            "mmdebstrap",
            "--variant=minbase",
            "--skip=cleanup/apt",  # done by our script
            f"--include={','.join(PACKAGES)}",
            f'--customize-hook=chroot "$1" sh < {shlex.quote(str(recipe_file))}',
            release,
            str(archive),
            *([mirror] if mirror else []),  # mmdebstrap's default has Debian's security updates too
        )
        status, words = follow(command, lambda line: line.startswith(("I: installing", "E:")))
        if status != 0:
            raise Problem(
                f"mmdebstrap could not make Debian {release}.",
                "most often the network: repeat, name a mirror in FLASKHOST_DEBIAN_MIRROR, or name an image of your "
                "own in FLASKHOST_IMAGE.",
                words,
            )
        previous = attempt(*_docker, "image", "inspect", "--format", "{{.Id}}", image_name(release)).stdout.strip()
        # This variable tells systemd that it runs in a container.
        labels = ("--change", f"LABEL {RECIPE_LABEL}={digest}", "--change", "ENV container=docker")
        docker("import", *labels, archive, image_name(release))
        if previous:
            attempt(*_docker, "image", "rm", previous)  # fails, as it should, while a container uses it
    finally:
        for file in (archive, recipe_file):
            file.unlink(missing_ok=True)


def adopt_image(name: str, release: str) -> None:
    """Give a user's own image the local name, after checking that it has what a host needs."""
    say(f"Using the image {name} (FLASKHOST_IMAGE) as Debian {release}")
    if not docker_ok("image", "inspect", name):
        note(f"pulling {name}")
        result = attempt(*_docker, "pull", name)
        if result.returncode != 0:
            raise Problem(
                f"The image {name}, named in FLASKHOST_IMAGE, is neither here nor can it be pulled.",
                "correct FLASKHOST_IMAGE, or unset it to have an image made from Debian's packages.",
                tail(result.stderr),
            )
    needs = {
        "systemd": "test -x /lib/systemd/systemd",
        "python3": "command -v python3",
        "sudo": "command -v sudo",
        "openssh-server": "test -x /usr/sbin/sshd",
        f"a user {USER} who may use sudo without a password": f"su {USER} -s /bin/sh -c 'sudo -n true'",
        f"Debian {release}": f". /etc/os-release && test $VERSION_CODENAME = {release}",
    }
    script = "\n".join(
        f"( {test} ) >/dev/null 2>&1 || echo {shlex.quote(what)}" for what, test in needs.items()
    )  # fmt: skip
    missing = docker("run", "--rm", "--entrypoint", "/bin/sh", name, "-c", script).strip().splitlines()
    if missing:
        raise Problem(
            f"The image {name}, named in FLASKHOST_IMAGE, lacks: {', '.join(missing)}.",
            "add it, or unset FLASKHOST_IMAGE. `{release}` in its value stands for bookworm or trixie.",
        )
    docker("tag", name, image_name(release))


# -- the hosts -------------------------------------------------------------------------------------------------------


def ensure_key() -> None:
    """Generate the testbed's SSH key once. Only the testbed's own hosts accept it."""
    if not find_program("ssh-keygen"):
        apt_install(["openssh-client"], "Ansible reaches its hosts by SSH")
    if KEY.exists() and KEY.with_suffix(".pub").exists():
        return
    KEY.unlink(missing_ok=True)
    STATE.mkdir(parents=True, exist_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flaskhost-testbed", "-f", KEY)
    say(f"Made an SSH key for the test hosts: {KEY.relative_to(ROOT)}")


@dataclass(frozen=True)
class Host:
    """One bare host: a container with systemd, reached over SSH on a port of 127.0.0.1."""

    name: str
    release: str
    ports: dict[int, int]  # the host's own port: the port of 127.0.0.1 that is forwarded to it
    network: str = ""  # hosts in one network resolve each other's names; if empty, the host has its own network
    aliases: tuple[str, ...] = ()  # additional names of the host in the network

    @property
    def ssh_port(self) -> int:
        """Return the port of 127.0.0.1 that is forwarded to the host's sshd."""
        return self.ports[22]

    @property
    def own_network(self) -> str:
        """Return the name of the host's Docker network."""
        return self.network or self.name

    def inspect(self, template: str) -> str:
        """Return a property of the container, or an empty string if it does not exist."""
        result = attempt(*_docker, "container", "inspect", "--format", template, self.name)
        return result.stdout.strip() if result.returncode == 0 else ""

    def start(self) -> None:
        """Start the host's container."""
        for inside, port in self.ports.items():
            if port_is_taken(port):
                variable = DEMO_PORTS[inside][0] if self.name == DEMO else ""
                raise Problem(
                    f"Port {port} of 127.0.0.1 is in use by another program (`ss -ltnp 'sport = :{port}'` shows it).",
                    f"stop it, or choose another port: `export {variable}={port + 1000}`, then repeat."
                    if variable
                    else "stop it, then repeat.",
                )
        if not docker_ok("network", "inspect", self.own_network):
            docker("network", "create", "--label", f"{CHECKOUT_LABEL}={ROOT}", self.own_network)
        docker("run", "--detach", *self.options(), image_name(self.release), "/bin/sh", "-c", BOOT)

    def options(self) -> list[str]:
        """Return the options for docker run."""
        options = [
            *("--name", self.name, "--hostname", self.name, "--network", self.own_network),
            *(part for alias in self.aliases for part in ("--network-alias", alias)),
            *("--label", f"{CHECKOUT_LABEL}={ROOT}", "--stop-signal", "SIGRTMIN+3"),
            # systemd manages its own part of the machine's control groups: the same with cgroup v1 and v2.
            *("--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
            # Not --privileged, which would give it the machine. SYS_PTRACE is for services with PrivateUsers and
            # ProtectProc, DAC_READ_SEARCH for programs such as AIDE that read all files without being root. Docker's
            # seccomp and AppArmor profiles do not allow the mounts that systemd's sandboxes need.
            *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN"),
            *("--cap-add", "SYS_PTRACE", "--cap-add", "DAC_READ_SEARCH"),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
            *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"),  # noqa: S108
            # Docker lets any user listen on ports below 1024; a real server does not.
            *("--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"),
            # Docker disables IPv6 if its network has none; a server has it.
            *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0"),
            *("--sysctl", "net.ipv6.conf.default.disable_ipv6=0"),
            *("--volume", f"{KEY.with_suffix('.pub')}:/mnt/testbed.pub:ro"),
        ]
        for inside, port in self.ports.items():
            options += ["--publish", f"127.0.0.1:{port}:{inside}"]
        return options

    def ssh_command(self, known_hosts: Path) -> list[str]:
        """Return the login command."""
        return [
            *("ssh", "-p", str(self.ssh_port), "-i", str(KEY), "-o", f"UserKnownHostsFile={known_hosts}"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"),
            f"{USER}@127.0.0.1",
        ]

    def wait(self, known_hosts: Path, seconds: float = 90) -> None:
        """Wait until the host accepts a login (not only until its port is open), and record its host key."""
        deadline = time.monotonic() + seconds
        answer = "nothing yet"
        while time.monotonic() < deadline:
            if self.inspect("{{.State.Running}}") != "true":
                log = attempt(*_docker, "logs", "--tail", "15", self.name)
                raise Problem(f"The host {self.name} has stopped.", "", tail(log.stdout + log.stderr))
            scan = attempt("ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", str(self.ssh_port), "127.0.0.1")
            if scan.stdout.strip():
                known_hosts.write_text(scan.stdout)
                result = attempt(*self.ssh_command(known_hosts), "sudo", "-n", "true", timeout=15)
                if result.returncode == 0:
                    return
                answer = result.stderr
            time.sleep(0.3)
        raise Problem(
            f"The host {self.name} does not let us in by SSH within {seconds:.0f} s.",
            f"`docker logs {self.name}` and `docker exec {self.name} journalctl -b` say more.",
            tail(answer),
        )

    def remove(self) -> None:
        """Remove the container, and its network together with the last host in it."""
        if self.inspect("{{.Id}}"):
            docker("rm", "--force", "--volumes", self.name)
        attempt(*_docker, "network", "rm", self.own_network)  # fails, as it should, while another host is in it


def port_is_taken(port: int) -> bool:
    """Check whether something listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def port_from(variable: str, default: int) -> int:
    """Return a port number from an environment variable."""
    value = os.environ.get(variable) or str(default)
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
        raise Problem(f"{variable}={value} is not a port.", f"a number from 1 to 65535, as in {variable}={default}")
    return int(value)


def demo_host(release: str) -> Host:
    """Return the demo's host with the ports from the environment."""
    return Host(DEMO, release, {inside: port_from(*setting) for inside, setting in DEMO_PORTS.items()})


# -- the sub-commands ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the testbed's lock: two runs at once must not create the same image or key."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "testbed.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another run of the testbed in this checkout")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def get_ready(releases: list[str], direct: bool = False, rebuild: bool = False) -> None:
    """Provide everything that a host needs: engine, images, key."""
    with alone():
        ensure_engine(direct)
        ensure_key()
        for release in releases:
            ensure_image(release, rebuild)


def up(release: str) -> None:
    """Start the demo's host, or keep the one that runs."""
    get_ready([release])
    host = demo_host(release)
    with alone():
        if host.inspect("{{.State.Running}}"):
            keep(host)
        else:
            say(f"Starting a bare Debian host ({release}): {host.name}")
            host.start()
        host.wait(KNOWN_HOSTS)
    say(f"{host.name} answers: {shlex.join(demo_login(host))}")


def keep(host: Host) -> None:
    """Keep an existing demo host if it matches the requested one."""
    cure = "`make demo-down`, then repeat."
    checkout = host.inspect(f'{{{{index .Config.Labels "{CHECKOUT_LABEL}"}}}}')
    if checkout != str(ROOT):
        cure = f"`make -C {checkout} demo-down`, then repeat." if checkout else f"`docker rm -f {host.name}`, repeat."
        raise Problem(f"There is a container {host.name} of another checkout ({checkout or 'unknown'}).", cure)
    image = host.inspect("{{.Config.Image}}")
    if image != image_name(host.release):
        raise Problem(f"{host.name} is there already, made from {image}, not {image_name(host.release)}.", cure)
    for inside, port in host.ports.items():
        published = host.inspect(f'{{{{(index (index .HostConfig.PortBindings "{inside}/tcp") 0).HostPort}}}}')
        if published != str(port):
            raise Problem(f"{host.name} is there already, with its port {inside} on {published}, not {port}.", cure)
    if host.inspect("{{.State.Running}}") != "true":
        say(f"Starting {host.name} again")
        docker("start", host.name)
    else:
        say(f"{host.name} is there: keeping it")


def demo_login(host: Host) -> list[str]:
    """Return the login command in a form to copy from a terminal, with paths relative to the checkout."""
    key, known_hosts = KEY.relative_to(ROOT), KNOWN_HOSTS.relative_to(ROOT)
    return [
        *("ssh", "-p", str(host.ssh_port), "-i", str(key)),
        *("-o", f"UserKnownHostsFile={known_hosts}", f"{USER}@127.0.0.1"),
    ]


def down() -> None:
    """Remove the demo and all test hosts of this checkout: containers, networks, images, key, the engine it started.

    Packages stay, because other programs may use them by now.
    """
    if not engine_up() and denied():
        use_sudo_for_docker(direct=False)
    if engine_up():
        say("Removing this checkout's test hosts and the images")
        mine = f"label={CHECKOUT_LABEL}={ROOT}"
        names = docker("ps", "--all", "--filter", mine, "--format", "{{.Names}}").split()
        networks = docker("network", "ls", "--filter", mine, "--format", "{{.Name}}").split()
        for name in names:
            docker("rm", "--force", "--volumes", name)
            note(f"removed the container {name}")
        for network in networks:
            removed = docker_ok("network", "rm", network)
            note(f"removed the network {network}" if removed else f"left, as it is in use: the network {network}")
        for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).split():
            removed = docker_ok("image", "rm", image)
            note(f"removed the image {image}" if removed else f"left, as a container uses it: the image {image}")
        # Images that lost their name to a newer one while a host ran on them.
        nameless = ("--filter", "dangling=true", "--filter", f"label={RECIPE_LABEL}")
        for image in docker("image", "ls", *nameless, "--format", "{{.ID}}").split():
            docker_ok("image", "rm", image)
        stop_own_engine()
    else:
        say("No Docker Engine answers: there is no host to remove")
    if own_dockerd() is None:
        shutil.rmtree(STATE, ignore_errors=True)
    else:
        for file in (KEY, KEY.with_suffix(".pub"), KNOWN_HOSTS):
            file.unlink(missing_ok=True)
    (CACHE / "testbed.lock").unlink(missing_ok=True)
    tell_what_stays()


def tell_what_stays() -> None:
    """Say that the demo is gone, and what of it is not."""
    packages = installed_by_us()
    with contextlib.suppress(OSError):
        CACHE.rmdir()
    say("The demo is gone" + (". What stays:" if packages or CACHE.exists() else ""))
    if packages:
        purge = f"`{'sudo ' if os.geteuid() else ''}apt-get purge {' '.join(packages)}`"
        note(f"the packages that were installed for it: {purge} removes them")
    if "docker.io" in packages:
        note("Docker's data: remove /var/lib/docker after the package")
    if CACHE.exists():
        note(".venv and .cache in this checkout: `make clean` removes them")


class LocalHTTPS(http.client.HTTPSConnection):
    """An HTTPS connection to 127.0.0.1 that requests a site by name and accepts any certificate."""

    def __init__(self, name: str, port: int) -> None:
        """Prepare a connection that accepts the demo's self-signed certificate."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(name, port, timeout=10, context=context)
        self._demo_context = context

    def connect(self) -> None:
        """Connect to this machine; the name is used only for SNI and the Host header."""
        raw = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._demo_context.wrap_socket(raw, server_hostname=self.host)


def ask_site(name: str, port: int) -> str:
    """Request a site's home page and return its title. Any status but 200 raises a Problem."""
    url = f"https://{name}:{port}/"
    connection = LocalHTTPS(name, port)
    try:
        connection.request("GET", "/", headers={"Host": f"{name}:{port}"})
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Problem(
            f"{url} does not answer: {error}",
            "`make demo` repeats the set-up; it is safe to repeat.",
        ) from None
    finally:
        connection.close()
    if response.status != 200:
        raise Problem(f"{url} answers {response.status} {response.reason}, not 200.", "", tail(body, 5))
    title = re.search(r"<title>(.*?)</title>", body, re.DOTALL | re.IGNORECASE)
    return " ".join(title.group(1).split()) if title else ""


def summary() -> None:
    """Request a page from each of the demo's sites, and print what runs where and what to do next."""
    host = demo_host("trixie")
    https = host.ports[443]
    titles = {name: ask_site(f"{name}.localhost", https) for name in ("guestbook", "hello")}
    login = shlex.join(demo_login(host))
    units = "nginx.service 'postgresql@*.service' 'flask-*.service' 'flask-*.socket'"
    listing = attempt(
        *host.ssh_command(KNOWN_HOSTS),
        f"systemctl list-units --no-legend --plain --state=active {units}; ls -d /srv/*/current",
        timeout=20,
    ).stdout.splitlines()
    running = [line.split()[0] for line in listing if line.strip() and not line.startswith("/")]
    current = [line for line in listing if line.startswith("/")]
    print("\nThe demo is up: a bare Debian host, set up by site.yml over SSH as a real server would be.\n")
    for name, title in titles.items():
        print(f"  https://{name}.localhost:{https}/   200, {title or 'no title'}")
    print("  (self-signed certificates: the browser asks once; with curl, add -k)\n")
    print(f"  Runs on it   {', '.join(running) or 'systemd does not say: log in and look'}")
    print(f"  Code         {', '.join(current) or '/srv/<app>/current'} (releases, venvs and data beside it)")
    print(f"  Log in       {login}")
    print(f"  App log      {login} sudo journalctl --namespace=+flask-guestbook -u \"'flask-guestbook@*'\" -f")
    print(f"  Access log   {login} sudo tail -f /var/log/nginx/guestbook.access.log\n")
    print("  Next         make demo                                 again: nothing changes")
    print("               . .venv/bin/activate")
    print("               ansible-playbook site.yml                 after an edit in inventories/demo/group_vars")
    print("               ansible-playbook -i inventories/production site.yml   the same on a real server")
    print("               make demo-down                            removes the demo, and says which packages stay")


def published(text: str) -> tuple[int, int]:
    """Parse a published port in Docker's notation, with or without the address: 127.0.0.1:8012:80."""
    outside, inside = text.removeprefix("127.0.0.1:").split(":")
    return int(inside), int(outside)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Bare Debian hosts for the demo and the tests, made with Docker.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    engine = commands.add_parser("engine", help="use the Docker engine that is there, or install and start Debian's")
    image = commands.add_parser("image", help="make the local images of Debian releases")
    ready = commands.add_parser("ready", help="engine, images and SSH key: all that Molecule needs")
    for command in (engine, ready):
        command.add_argument("--direct", action="store_true", help="insist on a socket that this user may use")
    for command in (image, ready):
        command.add_argument("releases", nargs="+", choices=RELEASES, metavar="RELEASE", help=" or ".join(RELEASES))
        command.add_argument("--rebuild", action="store_true", help="make it anew, with Debian's packages of today")
    start = commands.add_parser("up", help="start the demo's bare host")
    start.add_argument("--release", choices=RELEASES, default="trixie")
    one = commands.add_parser("host", help="start one more bare host (Molecule's scenarios, benchmarks)")
    one.add_argument("name")
    one.add_argument("--release", choices=RELEASES, required=True)
    one.add_argument("--publish", action="append", type=published, default=[], metavar="PORT:INSIDE", required=True)
    one.add_argument("--network", default="", help="hosts of one network know each other by name")
    one.add_argument("--alias", action="append", default=[], help="a further name in that network")
    gone = commands.add_parser("remove", help="remove such a host, and its network with the last of them")
    gone.add_argument("name")
    gone.add_argument("--network", default="")
    commands.add_parser(
        "down", help="remove this checkout's hosts, the images, the key and the engine that was started"
    )
    commands.add_parser("summary", help="ask the demo's sites and say what runs where")
    return parser.parse_args()


def main() -> int:
    """Run one subcommand."""
    wanted = arguments()
    if wanted.command == "engine":
        ensure_engine(wanted.direct)
    elif wanted.command == "image":
        ensure_engine()
        with alone():
            for release in wanted.releases:
                ensure_image(release, wanted.rebuild)
    elif wanted.command == "ready":
        get_ready(wanted.releases, wanted.direct, wanted.rebuild)
    elif wanted.command == "up":
        up(wanted.release)
    elif wanted.command == "host":
        ensure_engine()
        host = Host(wanted.name, wanted.release, dict(wanted.publish), wanted.network, tuple(wanted.alias))
        if not host.inspect("{{.Id}}"):
            host.start()
    elif wanted.command == "remove":
        ensure_engine()
        Host(wanted.name, "", {}, wanted.network).remove()
    elif wanted.command == "down":
        down()
    else:
        summary()
    return 0


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
