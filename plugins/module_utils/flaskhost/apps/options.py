"""Every option that you can set for an app under ``flask_apps``: the only statement of its name, type and default.

Validation (:mod:`preflight`), the records (:mod:`apps.record`) and the documentation are read from it.
"""

from __future__ import annotations

from .names import DOMAIN_NAME
from .schema import HASH, PINNED, RELATIVE_PATH, URL_PATH, Option

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
                pattern=RELATIVE_PATH,
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
        pattern=RELATIVE_PATH,
    ),
    "wheelhouse": Option(
        "str",
        "A folder of the code tree with all packages, the application server too; nothing is then downloaded.",
        "vendor/wheels",
        default="",
        pattern=RELATIVE_PATH,
    ),
    "extra_packages": Option(
        "list",
        "Pinned packages to install on top of the app's own, a database driver for instance; with hashes if the lock "
        "has some.",
        ["psycopg[binary]==3.3.9"],
        default=[],
        pattern=rf"{PINNED}{HASH}*\s*",
    ),
    "persistent": Option(
        "list",
        "Folders of the code tree that live in the app's data folder and outlast releases.",
        ["instance", "uploads"],
        default=["instance", "uploads"],
        pattern=RELATIVE_PATH,
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
                pattern=URL_PATH,
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
                "str", "The URL prefix, ending in a slash.", "/static/", default="/static/", pattern=URL_PATH + "/"
            ),
            "path": Option(
                "str",
                "The folder of the files; the static folder beside the WSGI module when empty.",
                "shop/static",
                default="",
                pattern=RELATIVE_PATH,
            ),
        },
    ),
    "health": Option(
        "options",
        "The request that a release must answer before it serves.",
        {"path": "/healthz", "status": 200},
        default={},
        options={
            "path": Option("str", "The path to ask for.", "/healthz", default="/", pattern=URL_PATH),
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
