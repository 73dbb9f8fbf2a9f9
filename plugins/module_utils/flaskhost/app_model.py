"""The app model: what a user may write under ``flask_apps``, and the full record made of it.

This file is pure: no file, no host, no Ansible. The schema is the only place that knows an option's name,
type and default; validation (:mod:`preflight`), the records and the documentation are all read from it.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The two slots of an app. One serves, the other is where the next release starts.
SLOTS = ("blue", "green")

#: The application server that every environment gets (gunicorn < 27.0.1 loses requests with ``max_requests``
#: and keep-alive connections: 30 of 1,200 on 23.0.0, none on 27.0.1).
SERVER_PACKAGE = "gunicorn==27.0.1"

#: The variables by which an app is told where its database is.
DATABASE_VARIABLES = ("DATABASE_URL", "SQLALCHEMY_DATABASE_URI")

#: The port after which PgBouncer's local socket is named.
POOL_PORT = 6432

#: Where nginx hands requests to the slot that is being gated. The folder of the socket is root's and closed: on a port
#: of the loopback any app could send requests to any other one, past its password and its limits.
GATE_ADDRESS = "unix:/var/lib/nginx/gate/gate.sock"

#: The first users of cloud images, which may become root. They may well be administrators.
CLOUD_USERS = frozenset("admin azureuser cloud-user debian ec2-user ubuntu vagrant".split())

#: Names that an app may not take, since it names a system user, a database and folders: the users and groups of
#: Debian's base-passwd and systemd, those of the packages that the roles install, some whose group is as good as root,
#: PostgreSQL's own databases and reserved role names, ``tls``, the folder of the certificates beside the apps' own in
#: /etc/flaskhost, and ``all``, by which ``-e app=all`` means every app. Preflight looks up all others on the host.
RESERVED_NAMES = CLOUD_USERS.union(
    """
    adm admin audio avahi backup bin bluetooth cdrom clock crontab daemon dialout dip disk fax floppy games gnats input
    irc kmem kvm list lp mail man messagebus netdev news nginx nobody nogroup none operator plugdev polkitd postgres
    proxy redis render root sasl sgx shadow src ssh sshd ssl-cert staff sudo sync sys syslog systemd systemd-journal
    systemd-network systemd-resolve systemd-timesync tape tcpdump template0 template1 tls tty users utmp uucp uuidd
    video voice www-data public all flaskhost-owner pgbouncer
    docker incus-admin libvirt lxd wheel
    """.split()
)


@dataclass(frozen=True)
class Option:
    """One option of an app, or of a setting of the site.

    Attributes:
        type: ``str``, ``int``, ``bool``, ``list`` (of strings), ``dict`` (free keys, scalar values),
            ``options`` (the keys of ``options``) or ``mapping`` (free keys, each with the keys of ``options``).
        default: what the record gets where the user says nothing. ``None`` means: computed, or found.
        required: whether the user must say something.
        description: one sentence for the documentation.
        example: a value that works, shown in every message about the option.
        choices: the values allowed, where they are few.
        pattern: a regular expression that a string (or each string of a list) must match whole.
        minimum: the smallest integer allowed.
        maximum: the largest integer allowed.
        options: the keys of an ``options`` or ``mapping`` type.
    """

    type: str
    description: str
    example: Any
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    maximum: int | None = None
    options: dict[str, Option] = field(default_factory=dict)


#: A pinned package as a requirements file has it, and the hashes that may follow, on lines of their own too.
_PINNED = r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9,._-]+\])?==[A-Za-z0-9.+!_-]+"
_HASH = r"(?:[\s\\]+--hash=sha256:[0-9a-f]{64})"
#: The DNS plugins of certbot's makers: the lists in roles/certbot/files/dns, which a unit test compares.
DNS_PLUGINS = (
    "cloudflare digitalocean dnsimple dnsmadeeasy gehirn google linode luadns nsone ovh rfc2136 route53 sakuracloud"
).split()
_RELATIVE_PATH = r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\s\"'\\$;{}]+"
_URL_PATH = r"/[^\s\"'\\$;{}?#]*"
#: A name of the DNS as RFC 1123, 2.1, has it, in lower case and with two labels at least; the last is no number.
DOMAIN_NAME = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"

#: Every option of an app, by its name.
APP_OPTIONS: dict[str, Option] = {
    "domains": Option(
        "list",
        "The names that the app answers to; the first is canonical, the others redirect to it, but for wildcards, "
        "which the app itself answers. IP addresses are possible too.",
        ["www.example.com", "example.com"],
        required=True,
        # What is an address, the rules of preflight say.
        pattern=rf"(?:\*\.)?{DOMAIN_NAME}|[0-9a-f.:]+",
    ),
    "source": Option(
        "options",
        "Where the code comes from: a folder on the controller (path), a git repository (repo) or an archive.",
        {"repo": "https://git.example.com/shop.git", "version": "v1.4.0"},
        required=True,
        options={
            "path": Option(
                "str",
                "A folder on the controller; relative to the project's folder, or absolute.",
                "sample_app",
                default="",
            ),
            "repo": Option(
                "str",
                "The URL of a git repository that the host can read.",
                "https://git.example.com/shop.git",
                default="",
                pattern=r"(?:https?://|ssh://|git://|file:///|[A-Za-z0-9_.-]+@)\S+",
            ),
            "version": Option(
                "str",
                "The branch, tag or commit to run; only with repo.",
                "v1.4.0",
                default="",
                pattern=r"(?!-)(?!.*\.\.)[A-Za-z0-9_./+-]+",
            ),
            "key": Option(
                "str",
                "The private SSH key (a deploy key) that may read the repository, without a passphrase; from "
                "ansible-vault. Without one, the agent that you forward is asked.",
                "{{ vault_shop_deploy_key }}",
                default="",
            ),
            "known_hosts": Option(
                "str",
                "The public SSH keys of the repository's server, as ssh-keyscan prints them; without them the server "
                "is trusted on first use.",
                "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2GyS4Lk9nQ7Fv1cOaXwZ0rTt8uPbHd3eKmY5sRxWqN",
                default="",
            ),
            "archive": Option(
                "str",
                "A .tar.gz, .tar.xz or .tar on the controller, relative to the project's folder or absolute, or a URL "
                "that the host can read; a single folder at its top is left out.",
                "dist/shop-1.4.0.tar.gz",
                default="",
                pattern=r"https?://\S+|(?!.*://)[^\x00-\x1f]+\.(?:tar|tar\.gz|tgz|tar\.xz|txz)",
            ),
            "checksum": Option(
                "str",
                "The checksum of the archive, as sha256sum prints it; required with archive.",
                f"sha256:{'0123456789abcdef' * 4}",
                default="",
                pattern=r"sha256:[0-9a-fA-F]{64}",
            ),
            "subdir": Option(
                "str",
                "The folder of the app inside the source, for a repository that holds more than the app.",
                "services/shop",
                default="",
                pattern=_RELATIVE_PATH,
            ),
        },
    ),
    "wsgi": Option(
        "str",
        "The WSGI application as gunicorn names it: module:object or module:factory().",
        "shop:create_app()",
        required=True,
        pattern=r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.\w+)*(?:\([\w\s=,.'\"-]*\))?",
    ),
    "requirements": Option(
        "str",
        "The file that pins the dependencies; found by itself when empty: uv.lock, requirements.txt, pyproject.toml.",
        "requirements/production.txt",
        default="",
        pattern=_RELATIVE_PATH,
    ),
    "wheelhouse": Option(
        "str",
        "A folder of the code tree with all packages, the application server too; nothing is then downloaded.",
        "vendor/wheels",
        default="",
        pattern=_RELATIVE_PATH,
    ),
    "extra_packages": Option(
        "list",
        "Pinned packages to install on top of the app's own, a database driver for instance; with hashes if the lock "
        "has some.",
        ["psycopg[binary]==3.3.9"],
        default=[],
        pattern=rf"{_PINNED}{_HASH}*\s*",
    ),
    "persistent": Option(
        "list",
        "Folders of the code tree that live in the app's data folder and outlast releases.",
        ["instance", "uploads"],
        default=["instance", "uploads"],
        pattern=_RELATIVE_PATH,
    ),
    "database": Option(
        "bool", "Whether the app has a PostgreSQL database of its own, reached over the local socket.", True, True
    ),
    "database_driver": Option(
        "str",
        "The driver named in SQLALCHEMY_DATABASE_URI; DATABASE_URL names none.",
        "psycopg2",
        default="psycopg",
        choices=("psycopg", "psycopg2", "pg8000", "asyncpg"),
    ),
    "database_owner": Option(
        "bool",
        "Whether the app itself owns its tables, and may make and drop them while it serves; without it only the "
        "release command may.",
        True,
        default=False,
    ),
    "database_pool": Option(
        "bool",
        "Whether the app reaches its database by way of PgBouncer, where many connections share a few, each for a "
        "transaction at a time.",
        True,
        default=False,
    ),
    "database_extensions": Option(
        "list",
        "PostgreSQL's extensions that the database has.",
        ["citext", "pg_trgm"],
        default=[],
        pattern=r"[a-z][a-z0-9_-]{0,62}",
    ),
    "database_limits": Option(
        "options",
        "What the app's connections to the database are held to; a connection may set other times for itself.",
        {"statement_timeout": 120},
        default={},
        options={
            "connections": Option(
                "int",
                "Connections that all processes of the app may have open; computed from workers, threads and processes "
                "when not set.",
                40,
                minimum=1,
                maximum=500,
            ),
            "statement_timeout": Option(
                "int",
                "Seconds that a statement may take, 0 for any; when not set 60, or timeout and 5 if that is more.",
                120,
                minimum=0,
                maximum=86400,
            ),
            "lock_timeout": Option(
                "int",
                "Seconds that a statement may wait for a lock; 0 for any.",
                10,
                default=10,
                minimum=0,
                maximum=86400,
            ),
            "idle_in_transaction_timeout": Option(
                "int",
                "Seconds that a transaction may be open and do nothing, holding its locks; 0 for any.",
                60,
                default=60,
                minimum=0,
                maximum=86400,
            ),
        },
    ),
    "release_command": Option(
        "str",
        "A command run once for every new release in the whole fleet, before it serves: the database migrations; "
        "the release line of a Procfile when empty.",
        "flask db upgrade",
        default="",
    ),
    "release_timeout": Option(
        "int",
        "Seconds that the release command may take, and each of its statements.",
        900,
        default=900,
        minimum=1,
        maximum=86400,
    ),
    "release_lock_timeout": Option(
        "int",
        "Seconds that a statement of the release command may wait for a lock; the app's queries wait behind it.",
        5,
        default=5,
        minimum=1,
        maximum=3600,
    ),
    "worker_class": Option(
        "str", "The kind of gunicorn worker.", "gthread", default="gthread", choices=("gthread", "sync")
    ),
    "workers": Option(
        "int", "Worker processes; computed from the host's cores and memory when not set.", 2, minimum=1, maximum=64
    ),
    "threads": Option("int", "Threads in each worker, each serving one request.", 8, default=8, minimum=1, maximum=128),
    "timeout": Option(
        "int",
        "Seconds after which a worker that is stuck is replaced; nginx gives up on a request 5 s later.",
        30,
        default=30,
        minimum=1,
        maximum=3600,
    ),
    "drain": Option(
        "int", "Seconds that requests in flight get to finish before a stop.", 30, default=30, minimum=1, maximum=3600
    ),
    "config": Option(
        "str", "The value of FLASK_CONFIG.", "production", default="production", pattern=r"[A-Za-z_][\w.-]*"
    ),
    "env": Option("dict", "Environment variables that are no secret.", {"MAIL_FROM": "shop@example.com"}, default={}),
    "secrets": Option(
        "dict",
        "Environment variables that are secret; from ansible-vault.",
        {"MAIL_PASSWORD": "{{ vault_shop_mail_password }}"},
        default={},
    ),
    "processes": Option(
        "dict",
        "Commands that run all the time beside the web server, by name, as units of the release that serves; "
        "a Procfile's are added, and an empty command takes one of those away.",
        {"worker": "celery -A shop worker"},
        default={},
    ),
    "timers": Option(
        "mapping",
        "Commands that run at certain times, by name, with the release that serves.",
        {"nightly": {"command": "flask purge", "on_calendar": "*-*-* 03:00"}},
        default={},
        options={
            "command": Option("str", "The command.", "flask purge", required=True),
            "on_calendar": Option(
                "str", "When it runs, as systemd.time(7) has it, in the host's time zone.", "*-*-* 03:00", required=True
            ),
        },
    ),
    "outbound": Option(
        "bool",
        "Whether the app may connect to other hosts, and to ports of this one. Without it there is the database.",
        False,
        default=True,
    ),
    "limits": Option(
        "options",
        "What the app may use.",
        {"memory": 512, "body": 16},
        default={},
        options={
            "memory": Option(
                "int", "Memory of a slot, in MB; computed when not set.", 512, minimum=64, maximum=1048576
            ),
            "disk": Option(
                "str",
                "The most that the app's releases, data, temporary files and database may hold: a size, or a share of "
                "the file system. Needs a file system with project quotas; see docs/isolation.md, The disk.",
                "10G",
                default="50%",
                pattern=r"[1-9][0-9]{0,5}[MGT]|([1-9][0-9]?|100)%",
            ),
            "body": Option("int", "The largest request body, in MB.", 16, default=16, minimum=1, maximum=10240),
            "rate": Option(
                "int",
                "Requests a second of one visitor's address that reach the app; more are answered 429. 0: no limit.",
                20,
                default=20,
                minimum=0,
                maximum=100000,
            ),
            "burst": Option(
                "int",
                "Requests of one address that may come at once, beyond the rate.",
                100,
                default=100,
                minimum=0,
                maximum=1000000,
            ),
            # A browser has up to 128 streams of HTTP/2 open, and nginx counts each of them as a connection.
            "connections": Option(
                "int",
                "Requests of one address that are being answered at the same time, static files too. 0: no limit.",
                150,
                default=150,
                minimum=0,
                maximum=100000,
            ),
            "uploads": Option(
                "int",
                "Requests of one address with a body of 1 MB and more, or of undeclared length, that are sent at the "
                "same time, to all apps together. nginx keeps such bodies on the disk, so this times body is what one "
                "address can fill. 0: no limit.",
                8,
                default=8,
                minimum=0,
                maximum=100000,
            ),
        },
    ),
    "login": Option(
        "options",
        "The pages where passwords are tried; there is a tighter limit on what is sent to them.",
        {"paths": ["/login"], "rate": 10},
        default={},
        options={
            "paths": Option(
                "list",
                "The paths that a log-in is sent to, by POST, with or without a slash at the end.",
                ["/login", "/auth/login"],
                default=["/login", "/auth/login", "/admin/login"],
                pattern=_URL_PATH,
            ),
            "rate": Option(
                "int",
                "Log-ins a minute of one address, all of which may come at once; more are answered 429. 0: no limit.",
                10,
                default=10,
                minimum=0,
                maximum=100000,
            ),
        },
    ),
    "basic_auth": Option(
        "dict",
        "Who may see the app at all, by the password that nginx asks for: names and the hashes of their passwords, "
        "as openssl passwd -6 prints them; from ansible-vault. Everybody when empty.",
        {"ada": "{{ vault_shop_basic_auth }}"},
        default={},
    ),
    "allow": Option(
        "list",
        "The networks from which the app may be seen; with basic_auth, both are asked for. Everybody when empty.",
        ["203.0.113.0/24"],
        default=[],
        pattern=r"[0-9a-fA-F.:]+(?:/[0-9]{1,3})?",
    ),
    "noindex": Option(
        "bool",
        "Whether search engines are told to leave the app out; true where basic_auth or allow is set and nothing is "
        "said here.",
        True,
    ),
    "methods": Option(
        "list",
        "The methods of HTTP that reach the app; others are answered 405.",
        ["GET", "HEAD", "POST"],
        default=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        pattern=r"[A-Z][A-Z_-]{0,31}",
    ),
    # What would break an app that nobody has written it for is not in it: where scripts and pictures come from.
    "csp": Option(
        "str",
        "The header Content-Security-Policy of all answers to which the app gives none itself; none when empty.",
        "default-src 'self'; base-uri 'self'; frame-ancestors 'none'",
        default="base-uri 'self'; frame-ancestors 'self'",
        pattern=r"[ !#%-\[\]-~]*",
    ),
    "headers": Option(
        "dict",
        "More headers of all answers in which the app does not send them itself, by name; an empty one takes away one "
        "of those that nginx has by default.",
        {"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": ""},
        default={},
    ),
    "static": Option(
        "options",
        "The files that nginx serves by itself.",
        {"url": "/static/", "path": "shop/static"},
        default={},
        options={
            "url": Option(
                "str", "The URL prefix, ending in a slash.", "/static/", default="/static/", pattern=_URL_PATH + "/"
            ),
            "path": Option(
                "str",
                "The folder of the files; the static folder beside the WSGI module when empty.",
                "shop/static",
                default="",
                pattern=_RELATIVE_PATH,
            ),
        },
    ),
    "health": Option(
        "options",
        "The request that a release must answer before it serves.",
        {"path": "/healthz", "status": 200},
        default={},
        options={
            "path": Option("str", "The path to ask for.", "/healthz", default="/", pattern=_URL_PATH),
            "status": Option("int", "The status to expect, not a redirect.", 200, 200, minimum=200, maximum=599),
            "body": Option("str", "A text that the answer must hold, if any.", '"status": "ok"', default=""),
            "probes": Option("int", "Good answers in a row.", 3, default=3, minimum=1, maximum=100),
            "timeout": Option(
                "int", "Seconds to wait for them, and before for the app to load.", 30, 30, minimum=1, maximum=600
            ),
            "settle": Option(
                "int", "Seconds that a new release then has to go on answering.", 2, default=2, minimum=0, maximum=600
            ),
        },
    ),
    "tls": Option(
        "options",
        "The certificate of the app, and what browsers are told of HTTPS.",
        {"mode": "acme", "challenge": "http"},
        default={},
        options={
            "mode": Option(
                "str",
                "Where the certificate comes from: an authority that speaks ACME, the host itself, or you. Not set: "
                "acme where acme_email is set, else selfsigned.",
                "acme",
                choices=("acme", "selfsigned", "files"),
            ),
            "challenge": Option(
                "str",
                "How the authority sees that the names are yours: a request over port 80, or a record in the DNS.",
                "http",
                default="http",
                choices=("http", "dns"),
            ),
            "certificate": Option(
                "str",
                "With files: the certificate in PEM, and below it the chain.",
                "{{ vault_shop_certificate }}",
                default="",
            ),
            "key": Option(
                "str",
                "With files: the private key of the certificate in PEM, without a passphrase; from ansible-vault.",
                "{{ vault_shop_tls_key }}",
                default="",
            ),
            "hsts": Option(
                "options",
                "What browsers are told to remember (RFC 6797): that the site is to be had over HTTPS only. It "
                "begins with minutes, and grows once a trusted certificate has been served.",
                {"max_age": 63072000},
                default={},
                options={
                    # Two years: what hstspreload.org advises.
                    "max_age": Option(
                        "int",
                        "Seconds that they remember it in the end, 30 days after the first trusted certificate.",
                        63072000,
                        default=63072000,
                        minimum=0,
                        maximum=315360000,
                    ),
                    "subdomains": Option(
                        "bool", "Whether that is true of all names below the app's own too.", False, default=False
                    ),
                    "preload": Option(
                        "bool",
                        "Whether browsers may carry the name in the list that they are shipped with; hard to undo.",
                        False,
                        default=False,
                    ),
                },
            ),
        },
    ),
    "watch": Option(
        "int",
        "Seconds to watch a new release with visitors; it is taken back where they get more errors or slower answers.",
        10,
        default=10,
        minimum=0,
        maximum=3600,
    ),
    "keep_releases": Option("int", "Releases to keep on the host.", 5, default=5, minimum=2, maximum=50),
}

#: Every option of the site's setting ``acme``, by its name.
ACME_OPTIONS: dict[str, Option] = {
    "directory": Option(
        "str",
        "The URL of the authority's ACME directory.",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        default="https://acme-v02.api.letsencrypt.org/directory",
        pattern=r"https://[^\s/@?#\"'\\]+(?:/[^\s\"'\\]*)?",
    ),
    "root": Option(
        "str",
        "The root certificate of a private authority, in PEM: the host trusts it for the directory's own HTTPS, and as "
        "the issuer of the apps' certificates.",
        "{{ lookup('file', 'root.pem') }}",
        default="",
    ),
    "external_account": Option(
        "options",
        "The account that you have with the authority, where it wants one (RFC 8555, 7.3.4).",
        {"key_id": "kid-1", "hmac_key": "{{ vault_acme_hmac_key }}"},
        default={},
        options={
            "key_id": Option(
                "str", "The identifier of the key that it gave you.", "kid-1", default="", pattern=r"[\x21-\x7e]+"
            ),
            "hmac_key": Option(
                "str", "The key itself, in base64url; from ansible-vault.", "{{ vault_acme_hmac_key }}", default=""
            ),
        },
    ),
    "key_type": Option(
        "str",
        "The kind of the certificates' private keys: ECDSA on a curve of NIST's, or RSA.",
        "p256",
        default="p256",
        choices=("p256", "p384", "rsa2048", "rsa4096"),
    ),
    "profile": Option(
        "str",
        "The profile of certificates to prefer, of those that the authority's directory names; its default when empty.",
        "shortlived",
        default="",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    ),
    "strict": Option(
        "bool",
        "Whether a run fails where the authority gave no certificate; without it the run tells what is missing, and "
        "the next one tries again.",
        False,
        default=False,
    ),
    "certbot": Option(
        "str",
        "The certbot to use: the release that Flaskhost has pinned, or the distribution's package.",
        "pinned",
        default="pinned",
        choices=("pinned", "package"),
    ),
    "dns": Option(
        "options",
        "How records are put into the DNS, for the apps whose challenge is dns.",
        {"plugin": "rfc2136", "credentials": {"dns_rfc2136_server": "203.0.113.53"}},
        default={},
        options={
            "plugin": Option(
                "str",
                "certbot's DNS plugin, by its name without certbot-dns-.",
                "rfc2136",
                default="",
                pattern=r"[a-z0-9][a-z0-9-]{0,62}",
            ),
            "credentials": Option(
                "dict",
                "What is in the plugin's INI file, as its guide has it; from ansible-vault.",
                {"dns_rfc2136_server": "203.0.113.53", "dns_rfc2136_secret": "{{ vault_dns_secret }}"},
                default={},
            ),
            "propagation": Option(
                "int",
                "Seconds that a record gets to reach the authority's resolvers.",
                30,
                default=30,
                minimum=0,
                maximum=3600,
            ),
            "package": Option(
                "str",
                "The packages of a plugin that is not one of certbot's own, pinned, each with its hashes.",
                "certbot-dns-hetzner==3.0.0 --hash=sha256:" + "0123456789abcdef" * 4,
                default="",
                pattern=rf"(?:{_PINNED}(?: ?; ?[^\\\n]*?)?{_HASH}+\s*)+",
            ),
        },
    ),
}

#: Variables that Flaskhost sets itself; an app's ``env`` and ``secrets`` may not.
OWN_VARIABLES = frozenset({"FLASK_APP", "FLASK_CONFIG", "FLASK_DEBUG", "FLASKHOST_RELEASE"})


def with_defaults(value: dict[str, Any], options: dict[str, Option]) -> dict[str, Any]:
    """Fill in the default of every option that ``value`` leaves out.

    Args:
        value: what the user wrote; not changed.
        options: the schema to fill in from.

    Returns:
        A new mapping with exactly the schema's keys, nested ones included.
    """
    filled: dict[str, Any] = {}
    for name, option in options.items():
        given = value.get(name)
        if option.type == "options":
            filled[name] = with_defaults(given or {}, option.options)
        elif option.type == "mapping":
            filled[name] = {key: with_defaults(item or {}, option.options) for key, item in (given or {}).items()}
        else:
            filled[name] = copy.deepcopy(option.default if given is None else given)
    return filled


def acme_settings(acme: dict[str, Any] | None, email: str = "") -> dict[str, Any]:
    """Turn the site's settings ``acme`` and ``acme_email`` into what the role that asks the authority reads.

    Args:
        acme: what the user wrote, already found valid by :mod:`preflight`; None or empty where nothing was.
        email: the address that the authority writes to; to set it is to agree to the authority's terms.

    Returns:
        The keys of :data:`ACME_OPTIONS` with their defaults, and ``email``. ``external_account`` and ``dns`` are empty
        where the user has none. The credentials are texts.
    """
    settings = with_defaults(acme or {}, ACME_OPTIONS)
    if not settings["external_account"]["key_id"]:
        settings["external_account"] = {}
    if not settings["dns"]["plugin"]:
        settings["dns"] = {}
    else:
        credentials = settings["dns"]["credentials"]
        settings["dns"]["credentials"] = {key: _text(value) for key, value in credentials.items()}
    return {"email": email or "", **settings}


def is_address(name: str) -> bool:
    """Whether a name is an IP address, in whatever text form Python knows; one with an interface (%eth0) is not.

    Python takes any text for the interface's name, and files of settings would read that text as more of theirs.
    """
    if "%" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_wildcard(name: str) -> bool:
    """Whether a name stands for all names one step below another one."""
    return name.startswith("*.")


def app_record(
    name: str, app: dict[str, Any], size: dict[str, int], project_dir: str = "", *, email: str = ""
) -> dict[str, Any]:
    """Turn one entry of ``flask_apps`` into the record that the roles read.

    Args:
        name: the app's name; it names the system user, folders, units and database.
        app: what the user wrote, already found valid by :mod:`preflight`.
        size: ``workers``, ``threads``, ``memory_mb``, ``connections`` and ``owner_connections``, from
            :func:`sizing.size_host`.
        project_dir: where a relative ``source.path`` or ``source.archive`` begins.
        email: the site's ``acme_email``; where it is set, a certificate comes by ACME unless the app says otherwise.

    Returns:
        The user's options with their defaults, and what follows from the name: paths, user, sockets, units, URLs.
        Of the names, ``redirected_domains`` lead to ``canonical_domain`` (which is as a URL has it: an IPv6 address is
        in brackets), the app itself answers ``wildcard_domains``, and ``addresses`` are all that are IP addresses.
    """
    record = with_defaults(app, APP_OPTIONS)
    first, *others = (str(domain) for domain in record["domains"])
    record["tls"]["mode"] = record["tls"]["mode"] or ("acme" if email else "selfsigned")
    root, unit = f"/srv/{name}", f"flask-{name}"
    for place in ("path", "archive"):
        record["source"][place] = _absolute(record["source"][place], project_dir)
    record["limits"]["memory"] = record["limits"]["memory"] or size["memory_mb"]
    limits = record["database_limits"]
    if limits["statement_timeout"] is None:
        # nginx gives up on a request 5 s after the app's own timeout: nobody waits for the answer then.
        limits["statement_timeout"] = max(60, record["timeout"] + 5)
    given = {*record["env"], *record["secrets"]}
    # An app that is told where its database is by a variable of the user's migrates by that one as well.
    apart = record["database"] and not record["database_owner"] and not given & {*DATABASE_VARIABLES}
    pooled = record["database"] and record["database_pool"] and not given & {*DATABASE_VARIABLES}
    # Where nobody has worked them out, there is no limit.
    connections, owner_connections = limits["connections"] or size.get("connections", -1), -1
    if "owner_connections" in size:
        owner_connections = size["owner_connections"]
        # Of the same role where the release command is not apart.
        connections += 0 if apart else owner_connections
    if record["noindex"] is None:
        record["noindex"] = bool(record["basic_auth"] or record["allow"])
    record.update(
        name=name,
        variable=f"flask_apps.{name}",
        user=name,
        # RFC 3986, 3.2.2: without brackets the last group of an IPv6 address would be taken for a port.
        canonical_domain=f"[{first}]" if ":" in first else first,
        redirected_domains=[domain for domain in others if not is_wildcard(domain)],
        wildcard_domains=[domain for domain in others if is_wildcard(domain)],
        addresses=[domain for domain in (first, *others) if is_address(domain)],
        workers=size["workers"],
        threads=size["threads"],
        root=root,
        data=f"{root}/data",
        static_root=f"{root}/current/static",
        live_socket=f"{root}/live.sock",
        gate_address=GATE_ADDRESS,
        gate_socket=f"{root}/gate.sock",
        access_log=f"/var/log/nginx/{name}.access.log",
        maintenance=f"{root}/maintenance",
        bans={jail: f"/var/lib/fail2ban/sites/{name}/{jail}" for jail in ("login", "missing", "probes")},
        slots=f"{root}/slots",
        socket_dir=f"/run/{unit}",
        unit=unit,
        slot_units=[f"{unit}@{slot}.service" for slot in SLOTS],
        unit_files=[
            f"/etc/systemd/system/{unit}@.service",
            f"/etc/systemd/system/{unit}@.socket",
            f"/etc/apparmor.d/{unit}",
        ],
        # All that may write its data, as patterns of systemctl's; timers too, which would start what was stopped.
        all_units=[f"{unit}@*", f"{unit}_process@*", f"{unit}_timer@*"],
        lock=f"{root}/.lock",
        server_package=SERVER_PACKAGE,
        server_config=f"/etc/gunicorn/{name}.conf.py",
        secrets_dir=f"/etc/flaskhost/{name}",
        # Over the local socket each host reaches its own: there its schema has to be changed, and not on one for all.
        database_per_host=record["database"] and not {"DATABASE_URL"} & {*record["env"], *record["secrets"]},
        database_role_owner=f"{name}-owner" if apart else name,
        database_owner_file=f"/etc/flaskhost/{name}/database_owner.env",
        database_owner_variables=_database_variables(name, record, f"{name}-owner:{{password}}") if apart else {},
        database_connections=connections,
        database_pool_size=(limits["connections"] or size.get("pool", 0)) if pooled else 0,
        database_owner_connections=owner_connections,
        release_owner_file=f"/etc/flaskhost/{name}/database_owner.env" if apart else "",
        secret_key_file=f"/etc/flaskhost/{name}/secret_key.env",
        certificate=f"/etc/flaskhost/tls/{name}/fullchain.pem",
        certificate_key=f"/etc/flaskhost/tls/{name}/privkey.pem",
        hsts_map=f"/etc/flaskhost/tls/{name}/hsts.map",
        environment=_environment(name, record),
    )
    return record


def app_records(
    apps: dict[str, dict[str, Any]], sizes: dict[str, dict[str, int]], project_dir: str = "", *, email: str = ""
) -> list[dict[str, Any]]:
    """Turn the whole of ``flask_apps`` into records, in the order of their names.

    Args:
        apps: the user's mapping.
        sizes: the ``apps`` of :func:`sizing.size_host`, by name.
        project_dir: where a relative ``source.path`` begins.
        email: the site's ``acme_email``.

    Returns:
        One record for each app, as :func:`app_record` makes it.
    """
    return [app_record(name, apps[name], sizes[name], project_dir, email=email) for name in sorted(apps)]


def pick(records: list[dict[str, Any]], fields: dict[str, str]) -> list[dict[str, Any]]:
    """Hand a role its part of the records, under the role's own names.

    Args:
        records: what :func:`app_records` returns.
        fields: for each of the role's names the place in the record, its steps joined by dots.

    Returns:
        One mapping for each record, with exactly the names of ``fields``.

    Raises:
        KeyError: a record has no such place: a fault of the wiring, not of the user.
    """

    def value(record: dict[str, Any], place: str) -> Any:
        for step in place.split("."):
            record = record[step]
        return record

    return [{name: value(record, place) for name, place in fields.items()} for record in records]


def peer_addresses(hosts: list[str], host: str, variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say under which addresses a host reaches the others of its group.

    Args:
        hosts: the names of the group's hosts.
        host: the host's own name.
        variables: each host's variables, of which ``private_address`` and ``ansible_host`` are read.

    Returns:
        For each other host its ``private_address``, else its ``ansible_host``, else its name; in the order of the
        group, each once. An address of the loopback is left out: there the host would reach itself.
    """
    found: list[str] = []
    for other in hosts:
        known = variables[other] if other != host else {}
        address = str(known.get("private_address") or known.get("ansible_host") or other)
        loopback = address == "localhost" or (is_address(address) and ipaddress.ip_address(address).is_loopback)
        if other != host and not loopback and address not in found:
            found.append(address)
    return found


def peer_networks(hosts: list[str], host: str, variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say from which networks the other hosts of a group come: of each, its own address alone.

    Args:
        hosts: the names of the group's hosts.
        host: the host's own name.
        variables: each host's variables, as :func:`peer_addresses` reads them.

    Returns:
        ``10.0.0.5/32`` and so on. A host that is known by a name alone is left out: which address it comes from is not
        to be told from that, and ``private_address`` says it.
    """
    found = [ipaddress.ip_address(name) for name in peer_addresses(hosts, host, variables) if is_address(name)]
    return [f"{address}/{address.max_prefixlen}" for address in found]


def _absolute(path: str, project_dir: str) -> str:
    if not path or path.startswith(("/", "http://", "https://")):
        return path
    return f"{project_dir.rstrip('/')}/{path}"


def _environment(name: str, record: dict[str, Any]) -> dict[str, str]:
    """The variables of the app that are no secret; what the user wrote wins over what is derived."""
    derived = {
        "FLASK_APP": record["wsgi"],
        "FLASK_CONFIG": record["config"],
        "FLASK_DEBUG": "0",
        "PYTHONUNBUFFERED": "1",
        # The interpreter's own, since a unit starts with an empty locale and a home that it may not write.
        "LANG": "C.UTF-8",
        "MAX_CONTENT_LENGTH": str(record["limits"]["body"] * 1024 * 1024),
    }
    if record["database"]:
        # Peer authentication over the local socket: the system user's name is the role's, and no password exists.
        derived |= _database_variables(name, record, name, POOL_PORT if record["database_pool"] else 0)
    given = {key: _text(value) for key, value in record["env"].items()}
    return {**derived, **given}


def _database_variables(name: str, record: dict[str, Any], who: str, port: int = 0) -> dict[str, str]:
    """The variables that name the app's database on the local socket.

    Args:
        name: the app.
        record: its options.
        who: the role, and a colon and its password if it needs one.
        port: the port that the socket is named after; PostgreSQL's own when 0.
    """
    location = f"{who}@/{name}?host=/var/run/postgresql" + (f"&port={port}" if port else "")
    schemes = ("postgresql", f"postgresql+{record['database_driver']}")
    return {key: f"{scheme}://{location}" for key, scheme in zip(DATABASE_VARIABLES, schemes, strict=True)}


def _text(value: Any) -> str:
    """A scalar as an environment variable has it: YAML's true and false in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)
