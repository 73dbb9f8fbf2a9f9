"""The part of the audit on the host: scanners are unpacked into a folder, run from there, and removed with it.

Nothing is installed. apt reads fresh lists into the folder and downloads missing packages into it, dpkg-deb unpacks
them, and environment variables point the programs to their libraries. dpkg's database, apt's own lists and /etc stay
unchanged.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.audit import (
    backup,
    certificates,
    exposure,
    instances,
    listeners,
    lynis,
    openscap,
    testssl,
    updates,
)
from ansible.module_utils.flaskhost.audit.model import Scan, not_run
from ansible.module_utils.flaskhost.host.abilities import abilities
from ansible.module_utils.flaskhost.operate.status import firewall_notes

#: Not /tmp or /run, because both can be mounted noexec.
STATE = Path("/var/lib")
PREFIX = "flaskhost-audit-"
#: The exit status of a program that exceeded its time limit, as in timeout(1).
TOO_LONG = 124
#: The exit status of a program that stopped working: it used no processor time for a while.
HUNG = 125
#: Seconds between two looks at the processor time of a program.
STEP = 5.0
#: Seconds without processor time after which oscap hangs: in 1.3.7 (Debian 12), its threads can block each other
#: forever; later versions have fixes (OpenSCAP/openscap#2033).
OSCAP_IDLE = 120
#: Age in seconds of leftover folders from killed runs that the next run removes: longer than any run takes.
STALE = 86400
#: Seconds for a scanner that exceeded its time limit to clean up after itself.
GRACE = 5
PATHS = ("usr/sbin", "usr/bin", "sbin", "bin")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The package of each scanner.
PACKAGES = {"lynis": "lynis", "openscap": "openscap-scanner", "testssl": "testssl.sh"}
#: About a tenth of the site's share if both need the processor. Not less: with ionice's idle class and nice 19, a scan
#: could wait for as long as the site is busy.
BEHIND = ("nice", "-n", "10", "ionice", "-c", "2", "-n", "7")
SSH_KEYS = Path("/etc/ssh")
LYNIS_PID = Path("/run/lynis.pid")
CONTENT = "usr/share/xml/scap/ssg/content"
#: Without other packages' hooks, which apt runs after an update and which could leave files behind.
APT_CONF = """#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/cache/archives";
Acquire::Languages "none";
Debug::NoLocking "true";
"""


class AuditError(Exception):
    """A scanner lacks something that it needs; the message names it."""


def _wait(process: subprocess.Popen[bytes], seconds: float, idle: float) -> tuple[int, bytes, bytes]:
    """Wait for a program, and read its output.

    Returns:
        0, the output and the error output when it has ended; TOO_LONG after its time limit, HUNG if it is idle for too
        long.
    """
    started = since = time.monotonic()
    used = -1.0
    while True:
        left = started + seconds - time.monotonic()
        try:
            # Reads its output, too: a full pipe would stop it. What was read is kept for the next call.
            out, errors = process.communicate(timeout=max(0.0, min(STEP, left) if idle else left))
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            spent = processor_time(process.pid)
            if spent != used:
                used, since = spent, now
            if now - started >= seconds:
                return TOO_LONG, b"", b""
            if idle and now - since >= idle:
                return HUNG, b"", b""
        else:
            return 0, out, errors


def processor_time(pid: int) -> float:
    """Return the processor time of a process and all its threads, in clock ticks; 0 if it does not run."""
    try:
        # proc_pid_stat(5): fields 14 and 15. The name in parentheses can contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return float(fields[11]) + float(fields[12])
    except (OSError, IndexError, ValueError):
        return 0.0


class Host:
    """A folder with scanners.

    Args:
        folder: the folder, created by :func:`make_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        # Only root can read the scanners' results.
        self.work = folder / "work"

    def run(
        self,
        command: Sequence[str],
        seconds: float,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        idle: float = 0,
    ) -> tuple[int, str, str]:
        """Run a program with a small share of processor and disk, behind the live site.

        Args:
            command: the program and its arguments.
            seconds: its time limit.
            cwd: its working directory.
            env: additional environment variables.
            idle: seconds without processor time after which the program is stopped; 0 for never.

        Returns:
            Its status, output and error output; 124 if it exceeded the time limit, 125 if it was idle for too long, 127
            if it does not exist.
        """
        inside = [str(self.root / path) for path in PATHS]
        environment = {
            "PATH": ":".join([*inside, SYSTEM_PATH]), "LC_ALL": "C.UTF-8", "HOME": str(self.work), "TERM": "dumb",
            "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": str(self.work), **(env or {}),
        }  # fmt: skip
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            if name in os.environ:
                environment[name] = os.environ[name]
        try:
            with subprocess.Popen(
                [*BEHIND, *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=environment,
                start_new_session=True,
            ) as process:  # fmt: skip
                given_up, out, errors = _wait(process, seconds, idle)
                if given_up:
                    # Some scanners are shell scripts. Their children end with them, and they remove their files in
                    # /tmp if they get SIGTERM first.
                    os.killpg(process.pid, signal.SIGTERM)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(GRACE)
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    if given_up == HUNG:
                        return HUNG, "", f"{command[0]} was stopped after {idle:g} seconds without any work."
                    return TOO_LONG, "", f"{command[0]} was stopped after {seconds:g} seconds."
        except OSError as error:
            return 127, "", f"{error.filename or command[0]}: {error.strerror}."
        return process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")

    def libraries(self) -> str:
        """Return the unpacked folders with shared libraries, for LD_LIBRARY_PATH."""
        return ":".join(sorted({str(path.parent) for path in self.root.rglob("*.so*") if path.is_file()}))

    def program(self, name: str) -> str:
        """Find a program, the unpacked one first.

        Raises:
            AuditError: neither exists. The message says why it could not be downloaded, if that is known.
        """
        places = [str(self.root / path) for path in PATHS]
        found = shutil.which(name, path=":".join([*places, SYSTEM_PATH]))
        if not found:
            raise AuditError(self.why(name) or f"The program {name} is not there.")
        return found

    def why(self, name: str) -> str:
        """Return why a scanner could not be downloaded; empty if it could."""
        path = self.folder / f"missing-{name}"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    # --- Fetching ------------------------------------------------------------------------------------------------

    def apt(self, *words: str, conf: str = "apt.conf", cwd: Path | None = None) -> tuple[int, str, str]:
        """Run apt-get with our own lists and cache."""
        return self.run(["apt-get", "-c", str(self.folder / conf), *words], 600, cwd)

    def fetch(self, scanners: Sequence[str]) -> None:
        """Download and unpack scanners. Failures are recorded, and reported when the scanner is used."""
        self._configure("apt.conf", self.folder)
        status, _out, errors = self.apt("-q", "update")
        if status:
            (self.folder / "missing-lists").write_text(f"apt-get update failed: {errors}", encoding="utf-8")
        for scanner in scanners:
            if scanner not in PACKAGES:
                continue
            status, _out, errors = self.apt(
                "-q", "-y", "--no-install-recommends", "--download-only", "install", PACKAGES[scanner]
            )
            if status:
                self._note(scanner, f"The package {PACKAGES[scanner]} could not be fetched: {errors}")
                continue
            self._unpack((self.folder / "cache" / "archives").glob("*.deb"), scanner)

    def fetch_content(self, suite: str) -> None:
        """Download OpenSCAP's rules from a newer Debian release, with the mirror and keys that the host trusts.

        The rules are data and are not executed. apt verifies their signature like that of any package.
        """
        status, out, _errors = self.apt(
            "indextargets", "--format", "$(SITE)|$(REPO_URI)|$(SIGNED_BY)|$(COMPONENT)", "Created-By: Packages",
            "Origin: Debian", "Component: main",
        )  # fmt: skip
        rows = [line.split("|") for line in out.splitlines() if line.count("|") == 3]
        row = next((row for row in rows if "security" not in row[1]), None)
        if status or row is None:
            self._note("content", "No mirror of Debian is among the host's sources to fetch the rules from.")
            return
        place = self.folder / "content"
        place.mkdir()
        # The keys that the host trusts for Debian; if it names none, apt's own keys.
        keys = row[2] or "/usr/share/keyrings/debian-archive-keyring.gpg"
        signed = f"[signed-by={keys}] " if keys.startswith("/") else ""
        (place / "sources.list").write_text(f"deb {signed}{row[1]} {suite} main\n", encoding="utf-8")
        self._configure(
            "content.conf",
            place,
            f'Dir::Etc::sourcelist "{place}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
            # A mirror that lags behind (a company's own, a frozen one) has older rules, which are still signed.
            'Acquire::Check-Valid-Until "false";\n',
        )
        for words in (["update"], ["download", "ssg-debian"]):
            status, _out, errors = self.apt("-q", *words, conf="content.conf", cwd=place)
            if status:
                self._note("content", f"The rules could not be fetched from {suite}: {errors}")
                return
        self._unpack(place.glob("ssg-debian_*.deb"), "content")

    def _configure(self, name: str, folder: Path, more: str = "") -> None:
        for path in ("lists", "cache/archives"):
            (folder / path).mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(APT_CONF.format(folder=folder) + more, encoding="utf-8")

    def _unpack(self, packages: Any, name: str) -> None:
        for path in sorted(packages):
            status, _out, errors = self.run(["dpkg-deb", "--extract", str(path), str(self.root)], 120)
            if status:
                self._note(name, f"{path.name} could not be unpacked: {errors}")
            path.unlink()

    def _note(self, name: str, text: str) -> None:
        (self.folder / f"missing-{name}").write_text(" ".join(text.split()), encoding="utf-8")

    # --- Scanning ------------------------------------------------------------------------------------------------

    def lynis(self) -> Scan:
        """Run Lynis, from its unpacked folder if it is not installed."""
        program = Path(self.program("lynis"))
        report, log = self.work / "lynis-report.dat", self.work / "lynis.log"
        share = self.root / "usr/share/lynis"
        words = [str(program), "audit", "system", "--quick", "--quiet", "--no-colors", "--cronjob",
                 "--logfile", str(log), "--report-file", str(report)]  # fmt: skip
        if program.is_relative_to(self.root):
            # In this mode, Lynis reads its tests and profile from the working directory. The host's profile is unused.
            shutil.copy(self.root / "etc/lynis/default.prf", share / "default.prf")
            with (share / "default.prf").open("a", encoding="utf-8") as profile:
                profile.write("\nrefresh-repositories=no\n")
            words += ["--usecwd", "--plugindir", str(self.root / "etc/lynis/plugins")]
        if _runs(LYNIS_PID):
            return not_run("lynis", lynis.TITLE, "Another Lynis is at work on this host.")
        # A killed Lynis leaves its PID file, and Lynis would not start. PATH is the host's own, because Lynis rates a
        # host by the programs that it finds.
        LYNIS_PID.unlink(missing_ok=True)
        # Lynis runs apt, which would write to the host's own lists and cache.
        env = {"PATH": SYSTEM_PATH, "APT_CONFIG": str(self.folder / "apt.conf")}
        # It takes a minute or two; the hour is for an emulated processor.
        status, out, errors = self.run(words, 3600, cwd=share if share.is_dir() else self.work, env=env)
        LYNIS_PID.unlink(missing_ok=True)
        if status == TOO_LONG:
            return not_run("lynis", lynis.TITLE, errors)
        if not report.exists():
            return not_run("lynis", lynis.TITLE, f"It wrote no report: {errors or out}")
        return lynis.parse(*(path.read_text(encoding="utf-8", errors="replace") for path in (report, log)))

    def openscap(self, profiles: Sequence[str], content: Path) -> list[Scan]:
        """Evaluate OpenSCAP's profiles one by one, because they set different values for the same rules.

        Args:
            profiles: their short names.
            content: the datastream; if the file does not exist, the downloaded one is used.
        """
        try:
            program = self.program("oscap")
            if not content.is_file():
                content = self._content()
        except AuditError as error:
            reason = self.why("openscap") or str(error)
            return [not_run(openscap.scanner_name(name), openscap.scanner_title(name), reason) for name in profiles]
        # One rule checks root's PATH, and the unpacked folders are not part of it.
        env = {"LD_LIBRARY_PATH": self.libraries(), "PATH": SYSTEM_PATH}
        share = self.root / "usr/share/openscap"
        if share.is_dir():
            places = {"SCHEMA": "schemas", "XSLT": "xsl", "CPE": "cpe"}
            env |= {f"OSCAP_{name}_PATH": str(share / path) for name, path in places.items()}
        scans = []
        for profile in profiles:
            results = self.work / "results.xml"
            results.unlink(missing_ok=True)
            started = time.monotonic()
            words = [program, "xccdf", "eval", "--profile", f"{openscap.PREFIX}profile_{profile}",
                     "--results", str(results), str(content)]  # fmt: skip
            for _attempt in range(2):
                status, out, errors = self.run(words, 3600, cwd=self.work, env=env, idle=OSCAP_IDLE)
                if status != HUNG:
                    break
            # 2: all rules were evaluated, and some failed.
            if status in (0, 2):
                scans.append(openscap.parse(results, profile))
            else:
                said = errors or out[-500:]
                title = openscap.scanner_title(profile)
                scans.append(not_run(openscap.scanner_name(profile), title, f"oscap ended with {status}: {said}"))
            scans[-1].seconds = round(time.monotonic() - started)
        return scans

    def _content(self) -> Path:
        name = f"ssg-debian{os_release('VERSION_ID')}-ds.xml"
        path = self.root / CONTENT / name
        if not path.is_file():
            raise AuditError(self.why("content") or f"There are no rules ({name}): set audit_scap_content.")
        return path

    def testssl(self, names: Sequence[str], authority: str = "") -> list[Scan]:
        """Check the TLS of domains on the host itself, for control nodes without testssl.sh.

        Args:
            names: the domains.
            authority: the certificate of a private CA in PEM format; testssl.sh does not use the host's trust store.
        """
        scans = []
        root = self.work / "authority.pem"
        if authority:
            root.write_text(authority, encoding="utf-8")
        for name in names:
            try:
                program = self.program("testssl")
            except AuditError as error:
                scans.append(not_run(testssl.scanner_name(name), f"testssl.sh {name}", str(error)))
                continue
            report = self.work / "testssl.json"
            report.unlink(missing_ok=True)
            env = {"LD_LIBRARY_PATH": self.libraries()}
            share = self.root / "etc/testssl"
            if share.is_dir():
                env["TESTSSL_INSTALL_DIR"] = str(share)
            words = testssl_words(program, name, "127.0.0.1", report, authority=str(root) if authority else "")
            _status, out, errors = self.run(words, 900, cwd=self.work, env=env)
            scan = read_testssl(report, name, errors or out[-500:])
            scan.notes.append("It ran on the host itself: the control node has no testssl.sh.")
            scans.append(scan)
        return scans

    def exposure(self, limits: Sequence[dict[str, Any]]) -> Scan:
        """Get the exposure of the running services from systemd."""
        status, out, errors = self.run(["systemd-analyze", "security", "--no-pager", "--json=short"], 120)
        return exposure.parse(out, limits) if not status else not_run("exposure", exposure.TITLE, errors)

    def listeners(self, expected: Sequence[int]) -> Scan:
        """List the listening sockets with ss, and check the firewall."""
        words = ["ss", "--no-header", "--tcp", "--udp", "--listening", "--numeric", "--processes"]
        status, out, errors = self.run(words, 60)
        if status:
            return not_run("listeners", listeners.TITLE, errors)
        found = listeners.parse(out, expected)
        found.findings += listeners.firewall(firewall_notes(lambda words, **_options: self.run(words, 60)).all)
        return found

    def updates(self) -> Scan:
        """List the pending updates with apt, from the fresh lists."""
        if self.why("lists"):
            return not_run("updates", updates.TITLE, self.why("lists"))
        status, out, errors = self.apt("--simulate", "dist-upgrade")
        if status:
            return not_run("updates", updates.TITLE, errors)
        return updates.parse(out, _reboot())

    def certificates(self, least_days: int) -> Scan:
        """Get the status of the certificates from the host's own program."""
        try:
            program = self.program("flaskhost-certificates")
        except AuditError:
            return not_run("certificates", certificates.TITLE, "flaskhost-certificates is not on this host.")
        _status, out, errors = self.run([program, "check", "--json"], 300)
        if not out.strip():
            return not_run("certificates", certificates.TITLE, errors)
        return certificates.parse(out, time.time(), least_days)

    def backup(self) -> Scan:
        """Get the status of the backups from the host's own program."""
        try:
            program = self.program("flaskhost-backup")
        except AuditError:
            return not_run("backup", backup.TITLE, "flaskhost-backup is not on this host.")
        _status, out, errors = self.run([program, "status", "--json"], 60)
        if not out.strip():
            return not_run("backup", backup.TITLE, errors)
        return backup.parse(out, time.time())

    def instances(self) -> Scan:
        """Check the apps' caches and queues."""
        return instances.scan(lambda words: self.run(words, 120))

    def nginx(self) -> tuple[str, str]:
        """Read nginx's configuration as nginx would load it.

        Returns:
            The configuration, and the reason if there is none.
        """
        status, out, errors = self.run(["nginx", "-T"], 60)
        if status == 127:
            return "", "There is no nginx on this host."
        return (out, "") if not status else ("", f"nginx -T: {errors}")


def testssl_words(
    program: str, name: str, address: str, report: Path, *, port: int = 443, authority: str = ""
) -> list[str]:
    """Build testssl.sh's command line.

    Args:
        program: its path.
        name: the domain.
        address: the address to connect to.
        report: the file to write.
        port: the port.
        authority: a file with the certificate of a private CA.
    """
    more = ["--add-ca", authority] if authority else []
    return [program, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", address, *more,
            "--jsonfile", str(report), f"{name}:{port}"]  # fmt: skip


def read_testssl(report: Path, name: str, said: str) -> Scan:
    """Parse the report of testssl.sh, if it wrote one."""
    if not report.exists():
        return not_run(testssl.scanner_name(name), f"testssl.sh {name}", f"It wrote no report: {said}")
    return testssl.parse(report.read_text(encoding="utf-8", errors="replace"), name)


def make_folder(state: Path = STATE) -> Path:
    """Create a folder for the scanners, and remove old ones from killed runs."""
    for path in state.glob(f"{PREFIX}*"):
        if path.is_dir() and not path.is_symlink() and path.stat().st_mtime < time.time() - STALE:
            shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=state))
    # apt downloads as its own user, which needs access.
    folder.chmod(0o711)
    (folder / "root").mkdir()
    (folder / "work").mkdir(mode=0o700)
    return folder


def remove_folder(folder: Path, state: Path = STATE) -> None:
    """Remove such a folder, and nothing else."""
    if folder.parent == state and folder.name.startswith(PREFIX) and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def os_release(name: str, path: Path = Path("/etc/os-release")) -> str:
    """Read a value from os-release; empty if it does not exist."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(rf'^{name}="?([^"\n]+)', text, re.MULTILINE)
    return found[1] if found else ""


def system() -> str:
    """Describe the operating system in a few words."""
    said = f"{os_release('PRETTY_NAME') or 'An unknown system'}, kernel {os.uname().release}"
    if lacks(abilities()):
        said += ", shared with other systems: this host cannot change kernel settings or mount options"
    return said


def whereabouts() -> dict[str, Any]:
    """Return how to reach the host directly: its address, sshd's ports, and its host keys for identification."""
    address = ""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing: the kernel only selects the source address for this destination (TEST-NET-1, RFC 5737).
        probe.connect(("192.0.2.1", 9))
        address = str(probe.getsockname()[0])
    keys = [path.read_text(encoding="utf-8", errors="replace").split() for path in SSH_KEYS.glob("ssh_host_*_key.pub")]
    return {"address": address, "ssh_ports": _ssh_ports(), "ssh_keys": [words[1] for words in keys if len(words) > 1]}


def _ssh_ports() -> list[int]:
    try:
        done = subprocess.run(["/usr/sbin/sshd", "-T"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return [22]
    ports = re.findall(r"^port (\d+)$", done.stdout.decode(errors="replace"), re.MULTILINE)
    return [int(port) for port in ports] or [22]


def lacks(can: Mapping[str, bool], sys_net: Path = Path("/proc/sys/net/ipv4/conf/all/rp_filter")) -> list[str]:
    """Return what a host with a shared kernel cannot set: ``kernel``, ``network``, ``clock``; else nothing.

    Args:
        can: the result of :func:`abilities.abilities`.
        sys_net: the file of a network setting.
    """
    if can["own_kernel"]:
        return []
    found = ["kernel"]
    if not os.access(sys_net, os.W_OK):
        found.append("network")
    if not can["time"]:
        found.append("clock")
    return found


def is_ours(units: Path = Path("/etc/systemd/system")) -> bool:
    """Check whether Flaskhost has set up this host: its own waivers describe its choices, and apply only there."""
    return any(units.glob("flaskhost-*.service"))


def _runs(path: Path) -> bool:
    """Check whether the process of a PID file exists."""
    try:
        return Path(f"/proc/{int(path.read_text(encoding='utf-8'))}").exists()
    except (OSError, ValueError):
        return False


def _reboot() -> str:
    """Return why the host needs a reboot: updates require it, or the running kernel is no longer installed."""
    packages = Path("/run/reboot-required.pkgs")
    if Path("/run/reboot-required").exists():
        names = sorted(set(packages.read_text(encoding="utf-8").split())) if packages.exists() else []
        return f"Updated: {', '.join(names) or 'something that needs it'}."
    running = os.uname().release
    if Path("/boot").is_dir() and not Path(f"/lib/modules/{running}").exists() and any(Path("/boot").glob("vmlinuz-*")):
        return f"The running kernel, {running}, is no longer installed."
    return ""
