"""What the tests of this scenario share: the two web hosts, the authorities, the records, and runs of the playbook."""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import importlib.util
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from runs import FAILURE, TRACES, command, finish, start

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())
APPS, ACME = SETTINGS["flask_apps"], SETTINGS["acme"]
#: The fleet, and the authorities by the name of their service, with the port of each.
WEB = ("fh-acme-bookworm", "fh-acme-trixie")
AUTHORITIES = {"main": 14000, "short": 14001, "bound": 14002}
CHALLENGES = "/.well-known/acme-challenge"
#: A program that sees another day than the rest of the host. Files keep their times. The monotonic clock is shifted
#: too: where it is not, the library of Debian 12 lets no Python sleep (EINVAL).
SHIFTED = "LD_PRELOAD={library} FAKETIME=+{days}d NO_FAKE_STAT=1"

sys.path.insert(0, str(PROJECT / "tests"))

from load_client import Load  # noqa: F401 - needs the path above; for the tests

# By its path: pytest has a conftest of this folder too, and knows both by the same name.
_spec = importlib.util.spec_from_file_location("visitors", PROJECT / "molecule" / "conftest.py")
_visitors = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_visitors)
Visitor = _visitors.Visitor


def connect(name: str) -> Any:
    """A host of the inventory, with root's rights."""
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY), sudo=True)


@dataclass
class Web:
    """A web host.

    Attributes:
        name: its name in the inventory.
        host: itself, seen from within.
        visitor: somebody outside.
        address: its address, as the records have it.
    """

    name: str
    host: Any
    visitor: Any
    address: str

    @classmethod
    def of(cls, name: str) -> Web:
        """The host of this name."""
        host = connect(name)
        known = host.ansible.get_variables()
        ports = {int(port): int(here) for port, here in known["published_ports"].items()}
        return cls(name, host, Visitor(ports), known["private_address"])

    @property
    def release(self) -> str:
        """bookworm or trixie."""
        return self.name.rpartition("-")[2]

    def run(self, command: str, expect: int | None = 0, timeout: int = 240) -> str:
        """Run a command of the shell within a time limit; return what it has printed."""
        result = self.host.run("timeout %s sh -c %s", str(timeout), command)
        output = f"{result.stdout}\n{result.stderr}"
        assert "Traceback" not in output, output
        assert expect is None or result.rc == expect, f"{command}: {result.rc}\n{output}"
        return result.stdout

    def program(self, verb: str, expect: int | None = 0, days: int = 0, stdin: str = "") -> dict[str, Any]:
        """Run the program of the certificates, perhaps some days later; return what it answers."""
        before = f"printf %s {base64.b64encode(stdin.encode()).decode()} | base64 -d | " if stdin else ""
        shift = f"env {self.shifted(days)} " if days else ""
        answer = self.run(f"{before}{shift}/usr/local/sbin/flaskhost-certificates {verb} --json", expect)
        return json.loads(answer) if answer.strip() else {}

    @functools.cached_property
    def faketime(self) -> str:
        """The library that shifts the clock of a program with threads."""
        return self.run("dpkg --listfiles libfaketime | grep 'libfaketimeMT.so.1$'").strip()

    def shifted(self, days: int) -> str:
        """The environment of a program that runs so many days later."""
        return SHIFTED.format(library=self.faketime, days=days)

    @contextlib.contextmanager
    def forced(self) -> Iterator[None]:
        """Let certbot renew whatever it is asked about, due or not."""
        settings = "/etc/letsencrypt/cli.ini"
        self.run(f"test ! -e {settings} && echo 'force-renewal = true' > {settings}")
        try:
            yield
        finally:
            self.run(f"rm {settings}")

    @contextlib.contextmanager
    def later(self, days: int, *units: str) -> Iterator[None]:
        """Let services see another day."""
        folders = [f"/run/systemd/system/{unit}.service.d" for unit in units]
        for folder in folders:
            setting = f"[Service]\\nEnvironment={self.shifted(days)}\\n"
            self.run(f"mkdir -p {folder} && printf '{setting}' > {folder}/later.conf")
        self.run("systemctl daemon-reload")
        try:
            yield
        finally:
            self.run(f"rm -r {' '.join(folders)} && systemctl daemon-reload")
            self.run(f"systemctl reset-failed {' '.join(units)}", expect=None)

    def start(self, unit: str) -> tuple[bool, str]:
        """Run one of the timers' services; return whether it succeeded, and what it has written into the journal."""
        invocation = f"systemctl show --property=InvocationID --value {unit}.service"
        status = self.host.run(f"timeout 300 systemctl start {unit}.service").rc
        number = self.run(invocation).strip()
        said = self.run(f"journalctl --sync; journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={number}")
        assert "Traceback" not in said, said
        return status == 0, " ".join(said.split())

    def certificate(self, domain: str) -> x509.Certificate:
        """The certificate that is served under a name, whoever has issued it."""
        with self.visitor.handshake(domain) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))

    def verified(self, domain: str, roots: str, sni: bool = True) -> x509.Certificate:
        """The certificate that is served under a name or an address, whose chain ends in one of these roots.

        Raises:
            ssl.SSLError: it is not trusted, or is another's.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = sni
        context.load_verify_locations(cadata=roots)
        with context.wrap_socket(self.visitor.connect(443), server_hostname=domain if sni else None) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))

    def hsts(self, url: str) -> str:
        """The header of this name in the answer to a request; empty where there is none."""
        return self.visitor.ask(url).headers.get("strict-transport-security", "")

    def trust_since(self, app: str, seconds: int) -> None:
        """Let the host believe that an app has been trusted for so long."""
        path = f"/var/lib/flaskhost/certificates/{app}.json"
        change = f"import json; p = '{path}'; s = json.load(open(p)); s['trusted_since'] = {int(time.time()) - seconds}"
        self.run(f"python3 -c \"{change}; json.dump(s, open(p, 'w'))\"")

    def fingerprint(self) -> str:
        """What must not change where new input is refused: nginx's settings and every pair, and nginx's workers."""
        paths = "/etc/nginx /etc/flaskhost/tls"
        return self.run(f"find {paths} -printf '%p %l %s %C@\\n' | sort; pgrep -u www-data nginx")

    def has_secret_in_logs(self) -> bool:
        """Whether the secret of the DNS credentials is in a log.

        It is in no command of the test: sudo would log it.
        """
        words = "/run/test_secret"
        self.run(f"umask 077; grep -oE '[A-Za-z0-9]{{64}}' /etc/flaskhost/certbot/dns.ini | head -n 1 > {words}")
        found = self.host.run(f"test -s {words} && grep -rqF -f {words} /var/log")
        self.run(f"rm {words}")
        assert found.rc in (0, 1), found.stderr
        return found.rc == 0

    def secrets(self) -> list[str]:
        """Lines of the private keys that are on the host, and of the files that only certbot may read."""
        found = "/etc/flaskhost/tls /etc/letsencrypt"
        text = self.run(f"find {found} -name 'privkey*.pem' -type f -exec grep -hv -e ----- {{}} +", expect=None)
        return [line for line in text.split() if len(line) > 40]


def names(certificate: x509.Certificate) -> set[str]:
    """The names and addresses of a certificate."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(item.value) for item in found}


def is_selfsigned(certificate: x509.Certificate) -> bool:
    """Whether nobody else has signed it."""
    return certificate.issuer == certificate.subject


def pem(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(Encoding.PEM).decode()


def about(answer: dict[str, Any], app: str) -> str:
    """What the program says of an app: its notes and its problems."""
    found = [item for item in answer["certificates"] if item["name"] == app]
    return " ".join(line for item in found for line in (*item["problems"], *item["notes"]))


def problems(answer: dict[str, Any]) -> dict[str, list[str]]:
    """The apps that have problems, with these."""
    return {item["name"]: item["problems"] for item in answer["certificates"] if item["problems"]}


def with_domains(**domains: list[str]) -> dict[str, Any]:
    """The apps, some of them with other domains."""
    apps = copy.deepcopy(APPS)
    for app, wanted in domains.items():
        apps[app]["domains"] = wanted
    return apps


def play(
    *arguments: str, playbook: str = "certificates", limit: str = "", timeout: int = 300, **variables: Any
) -> tuple[int, str]:
    """Run a playbook; return its status and what it has printed, with single spaces between words."""
    limits = ["--limit", limit] if limit else []
    process = start(command(f"playbooks/{playbook}.yml", "--diff", *arguments, *limits, **variables))
    # With -vvv, Ansible itself shows traces.
    return finish(process, timeout, without=FAILURE if "-vvv" in arguments else TRACES)


def changed(output: str) -> list[int]:
    """How much each host's line at the end of a run says has changed."""
    return [int(number) for number in re.findall(r"changed=(\d+)", output.rpartition("PLAY RECAP")[2])]


def authority_log(ca: Any, words: str) -> int:
    """How many lines with these words all authorities have written together."""
    log = "journalctl --sync; journalctl --unit='pebble@*.service' --no-pager --output=cat"
    return int(ca.run(f"{log} | grep --count --fixed-strings '{words}'").stdout)


def orders(ca: Any) -> int:
    """How often the authorities have been asked for a certificate. (One in twenty times a client has to ask again.)"""
    return authority_log(ca, "POST /order-plz")


def issued(ca: Any) -> int:
    """How many certificates the authorities have issued."""
    return authority_log(ca, "Issued certificate serial")


def update_records(ca: Any, *lines: str) -> None:
    """Change records, as RFC 2136 has it: ``delete hello.test. A``, ``add hello.test. 1 A 192.0.2.1``."""
    text = "".join(f"{line}\\n" for line in ("server 127.0.0.1", "zone test.", *(f"update {n}" for n in lines), "send"))
    ca.run_expect([0], f"printf '{text}' | timeout 20 nsupdate -k /etc/bind/flaskhost.key")


@contextlib.contextmanager
def refused(web: Web, hook: str, rule: str) -> Iterator[None]:
    """Refuse connections for a while, as a closed port does.

    Args:
        web: the host.
        hook: ``input`` or ``output``.
        rule: which ones, in nft's words.
    """
    table = "table inet acme_test"
    chain = f"chain c {{ type filter hook {hook} priority -200; {rule} reject with tcp reset; }};"
    web.run(f"printf %s '{table} {{ {chain} }}' | nft -f -")
    try:
        yield
    finally:
        web.run(f"nft delete {table}")


@contextlib.contextmanager
def authority_down(web: Web) -> Iterator[None]:
    """Keep a host from all authorities, which go on and forget nothing: it meets a port where nobody listens.

    A reset by a rule of our own would be of no connection that the host's firewall knows, and not come in.
    """
    table, ports = "table ip acme_test", ", ".join(map(str, AUTHORITIES.values()))
    chain = f"chain c {{ type nat hook output priority -100; tcp dport {{ {ports} }} redirect to :9; }};"
    web.run(f"printf %s '{table} {{ {chain} }}' | nft -f -")
    try:
        yield
    finally:
        web.run(f"nft delete {table}")


def start_authorities(ca: Any, webs: list[Web]) -> dict[str, str]:
    """Start the authorities, if they do not run, and let the web hosts trust what they issue.

    Returns:
        The root of each authority.
    """
    roots = {}
    for name, port in AUTHORITIES.items():
        ca.run_expect([0], f"systemctl start pebble@{name}.service")
        ask = f"curl --silent --fail --max-time 5 --cacert /etc/pebble/root.pem https://localhost:{port + 1000}/roots/0"
        wait = f"timeout 20 sh -c 'until {ask} > /etc/pebble/issuer-{name}.pem; do sleep 0.2; done'"
        ca.run_expect([0], wait)
        roots[name] = ca.file(f"/etc/pebble/issuer-{name}.pem").content_string
        for web in webs:
            target = f"/usr/local/share/ca-certificates/pebble-{name}.crt"
            web.run(f"printf %s {base64.b64encode(roots[name].encode()).decode()} | base64 -d > {target}")
    for web in webs:
        web.run("update-ca-certificates")
    return roots


def eventually(question: Callable[[], Any], wanted: Any) -> None:
    """nginx takes new settings in a moment after it was told to."""
    for _attempt in range(200):
        if (answer := question()) == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(f"{answer!r} and not {wanted!r}")


def authority_runs(ca: Any) -> bool:
    """Whether the tests have started the authority already."""
    return ca.run("systemctl is-active pebble@main.service").stdout.strip() == "active"
