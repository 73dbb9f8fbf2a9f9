"""Every option of an app under ``flask_apps``: the only place that defines its name, type and default.

Validation (:mod:`preflight`), the records (:mod:`apps.record`) and the documentation are generated from it.
"""

from __future__ import annotations

from . import instances
from .names import DOMAIN_NAME
from .schema import CHOICE, DEBIAN_PACKAGE, HASH, PINNED, RELATIVE_PATH, URL_PATH, Option

#: The application servers. Each is a role with the file meta/server.yml.
SERVERS = ("gunicorn", "uwsgi", "waitress")

#: Those that run an app in one process, so that workers do not apply.
ONE_PROCESS = ("waitress",)

#: Every option of an app, by its name.
APP_OPTIONS: dict[str, Option] = {
    "domains": Option(
        "list",
        "Domain names of the app. The first one is canonical, and the others redirect to it. A wildcard cannot be "
        "first; the app itself serves its names. One app per host can also list IP addresses.",
        ["www.example.com", "example.com"],
        required=True,
        # The rules of preflight validate IP addresses.
        pattern=rf"(?:\*\.)?{DOMAIN_NAME}|[0-9a-f.:]+",
    ),
    "source": Option(
        "options",
        "Where the code comes from. Set one of `path` (a folder on the control node), `repo` (a git repository) or "
        "`archive`.",
        {"repo": "https://git.example.com/shop.git", "version": "v1.4.0"},
        required=True,
        options={
            "path": Option(
                "str",
                "Folder on the control node. A relative path starts at the project folder.",
                "sample_app",
                default="",
            ),
            "repo": Option(
                "str",
                "URL of a git repository that the host can read.",
                "https://git.example.com/shop.git",
                default="",
                pattern=r"(?:https?://|ssh://|git://|file:///|[A-Za-z0-9_.-]+@)\S+",
            ),
            "version": Option(
                "str",
                "Branch, tag or commit to deploy, with `repo` only.",
                "v1.4.0",
                default="",
                pattern=r"(?!-)(?!.*\.\.)[A-Za-z0-9_./+-]+",
            ),
            "key": Option(
                "str",
                "Private SSH key (deploy key) that can read the repository, without a passphrase. Store it in "
                "ansible-vault. If unset, the host uses your forwarded SSH agent.",
                "{{ vault_shop_deploy_key }}",
                default="",
            ),
            "known_hosts": Option(
                "str",
                "Public host keys of the git server, as printed by `ssh-keyscan`. If unset, the host trusts the "
                "server on first use.",
                "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2GyS4Lk9nQ7Fv1cOaXwZ0rTt8uPbHd3eKmY5sRxWqN",
                default="",
            ),
            "archive": Option(
                "str",
                "`.tar.gz`, `.tar.xz` or `.tar` archive: a path on the control node (relative to the project folder, "
                "or absolute) or a URL that the host can read. A single top-level folder is stripped.",
                "dist/shop-1.4.0.tar.gz",
                default="",
                pattern=r"https?://\S+|(?!.*://)[^\x00-\x1f]+\.(?:tar|tar\.gz|tgz|tar\.xz|txz)",
            ),
            "checksum": Option(
                "str",
                "SHA-256 checksum of the archive: `sha256:` and the digest that `sha256sum` prints. Required with "
                "`archive`.",
                f"sha256:{'0123456789abcdef' * 4}",
                default="",
                pattern=r"sha256:[0-9a-fA-F]{64}",
            ),
            "subdir": Option(
                "str",
                "Folder of the app inside the source, if the source contains more than the app (monorepo).",
                "services/shop",
                default="",
                pattern=RELATIVE_PATH,
            ),
        },
    ),
    "wsgi": Option(
        "str",
        "WSGI callable, written as for gunicorn: `module:object` or `module:factory()`.",
        "shop:create_app()",
        required=True,
        pattern=r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.\w+)*(?:\([\w\s=,.'\"-]*\))?",
    ),
    "python": Option(
        "str",
        "Version of Python, in quotes. If unset, the distribution's: 3.11 on Debian 12, 3.13 on Debian 13. With two "
        "numbers, the newest patch level that uv knows.",
        "3.12",
        default="",
        # The app server needs 3.10.
        pattern=r"3\.[1-9][0-9](?:\.[0-9]{1,2})?",
    ),
    "requirements": Option(
        "str",
        "File that pins the dependencies. If unset, the first that exists of `uv.lock`, `requirements.txt`, "
        "`pylock.toml`, `poetry.lock`, `pdm.lock`, `Pipfile.lock` and `pyproject.toml`.",
        "requirements/production.txt",
        default="",
        pattern=RELATIVE_PATH,
    ),
    "install": Option(
        "options",
        "Parts of the project to install in addition to its dependencies.",
        {"extras": ["database"]},
        default={},
        options={
            "extras": Option(
                "list",
                "Extras (optional dependencies) of `pyproject.toml` or of the lock file.",
                ["database"],
                default=[],
                pattern=CHOICE,
            ),
            "groups": Option(
                "list",
                "Dependency groups of `pyproject.toml` or of the lock file. `dev` is installed only if named.",
                ["prod"],
                default=[],
                pattern=CHOICE,
            ),
            "project": Option(
                "bool",
                "Whether the project itself is installed as a package, not editable. If false, the app only runs from "
                "its folder.",
                True,
                default=False,
            ),
        },
    ),
    "wheelhouse": Option(
        "str",
        "Folder in the source with all packages, including gunicorn. If set, no packages are downloaded.",
        "vendor/wheels",
        default="",
        pattern=RELATIVE_PATH,
    ),
    "extra_packages": Option(
        "list",
        "Pinned packages to install in addition to the app's own, such as a database driver. Add hashes if the lock "
        "file has hashes.",
        ["psycopg[binary]==3.3.9"],
        default=[],
        pattern=rf"{PINNED}{HASH}*\s*",
    ),
    "build_packages": Option(
        "list",
        "Debian packages that a build needs, such as a compiler, the headers of a library, or npm. Flaskhost does not "
        "remove them afterwards.",
        ["gcc", "python3-dev", "libpq-dev"],
        default=[],
        pattern=DEBIAN_PACKAGE,
    ),
    "system_packages": Option(
        "list",
        "Debian packages that the running app needs, such as libraries and programs. Flaskhost does not remove them.",
        ["libmagic1", "ffmpeg"],
        default=[],
        pattern=DEBIAN_PACKAGE,
    ),
    "build_command": Option(
        "str",
        "Command that completes the code of each new release, such as translations and assets. It runs after the "
        "packages are installed, in the sandbox for builds, without the app's secrets, database and data.",
        "npm ci && npm run build",
        default="",
    ),
    "build_timeout": Option(
        "int",
        "Time limit for the build command, and for each step that installs or builds packages, in seconds.",
        900,
        default=900,
        minimum=1,
        maximum=86400,
    ),
    "persistent": Option(
        "list",
        "Folders of the app that are stored in its data folder and kept across releases.",
        ["instance", "uploads"],
        default=["instance", "uploads"],
        pattern=RELATIVE_PATH,
    ),
    "database": Option(
        "bool", "Whether the app gets its own PostgreSQL database, reached over the local socket.", True, True
    ),
    "database_driver": Option(
        "str",
        "Driver in `SQLALCHEMY_DATABASE_URI`. `DATABASE_URL` names no driver. If unset, the driver that the app's "
        "packages contain.",
        "psycopg2",
        choices=("psycopg", "psycopg2", "pg8000", "asyncpg"),
    ),
    "database_owner": Option(
        "bool",
        "Whether the app itself owns its tables and can create and drop them while it runs. If false, only the "
        "release command can.",
        True,
        default=False,
    ),
    "database_pool": Option(
        "bool",
        "Whether the app connects to its database through PgBouncer. Many connections then share a few of "
        "PostgreSQL's, one transaction at a time.",
        True,
        default=False,
    ),
    "database_extensions": Option(
        "list",
        "PostgreSQL extensions to install in the app's database.",
        ["citext", "pg_trgm"],
        default=[],
        pattern=r"[a-z][a-z0-9_-]{0,62}",
    ),
    "database_limits": Option(
        "options",
        "Connection limit and timeouts for the app's database role. A session can override the timeouts with `SET`.",
        {"statement_timeout": 120},
        default={},
        options={
            "connections": Option(
                "int",
                "Connection limit for all processes of the app together. If unset, computed from workers, threads "
                "and processes.",
                40,
                minimum=1,
                maximum=500,
            ),
            "statement_timeout": Option(
                "int",
                "Time limit for a statement, in seconds; 0 means no limit. If unset, 60, or `timeout` plus 5 if that "
                "is more.",
                120,
                minimum=0,
                maximum=86400,
            ),
            "lock_timeout": Option(
                "int",
                "Time that a statement can wait for a lock, in seconds; 0 means no limit.",
                10,
                default=10,
                minimum=0,
                maximum=86400,
            ),
            "idle_in_transaction_timeout": Option(
                "int",
                "Time that an open transaction can be idle while it holds its locks, in seconds; 0 means no limit.",
                60,
                default=60,
                minimum=0,
                maximum=86400,
            ),
        },
    ),
    "cache": Option(
        "str",
        "Cache of the app's own, reached over a Unix socket. It loses its data when it restarts. If empty, the app has "
        "none.",
        "redis",
        default="",
        choices=instances.ENGINES["cache"],
    ),
    "cache_mb": Option(
        "int",
        "Memory for the data in the cache, in MB. When it is full, the least recently used data is dropped.",
        64,
        default=instances.DATA_MB,
        minimum=4,
        maximum=1048576,
    ),
    "queue": Option(
        "str",
        "Queue of the app's own, for jobs and sessions, reached over a Unix socket. It keeps its data on disk. If "
        "empty, the app has none.",
        "redis",
        default="",
        choices=instances.ENGINES["queue"],
    ),
    "queue_mb": Option(
        "int",
        "Memory for the data in the queue, in MB. When it is full, the queue refuses further data.",
        64,
        default=instances.DATA_MB,
        minimum=4,
        maximum=1048576,
    ),
    "setup_command": Option(
        "str",
        "Command that creates the app's data, such as `flask init-db`. It runs once, before the first release goes "
        "live, and never again as long as the app has data. It runs before the release command, with the same rights.",
        "flask init-db",
        default="",
    ),
    "release_command": Option(
        "str",
        "Command that runs before a new release goes live, such as the database migrations. With several hosts it "
        "runs on one host for all, or on each host that has its own database. If unset, the `release` line of the "
        "Procfile.",
        "flask db upgrade",
        default="",
    ),
    "release_timeout": Option(
        "int",
        "Time limit for the setup command, for the release command, and for each of their statements, in seconds.",
        900,
        default=900,
        minimum=1,
        maximum=86400,
    ),
    "release_lock_timeout": Option(
        "int",
        "Time that a statement of the release command can wait for a lock, in seconds. Meanwhile, the app's queries "
        "on that table wait too.",
        5,
        default=5,
        minimum=1,
        maximum=3600,
    ),
    "server": Option(
        "str",
        "Application server that runs the app; see docs/servers.md.",
        "uwsgi",
        default="gunicorn",
        choices=SERVERS,
    ),
    "worker_class": Option(
        "str",
        "Class of the gunicorn workers. `sync` is for code that is not thread-safe, `gevent` for many slow requests, "
        "and `asgi` for ASGI apps such as Quart's.",
        "gevent",
        default="gthread",
        choices=("gthread", "sync", "gevent", "asgi"),
    ),
    "workers": Option(
        "int",
        "Number of worker processes. If unset, computed from the host's cores and memory. Waitress has one.",
        2,
        minimum=1,
        maximum=64,
    ),
    "threads": Option(
        "int",
        "Number of threads per worker. Each thread handles one request at a time. Other classes of gunicorn workers "
        "than `gthread` have no threads.",
        8,
        default=8,
        minimum=1,
        maximum=128,
    ),
    "timeout": Option(
        "int",
        "Time after which a stuck worker is replaced, in seconds. nginx gives up on a request 5 seconds later. What "
        "counts as stuck depends on the server; see docs/servers.md.",
        30,
        default=30,
        minimum=1,
        maximum=3600,
    ),
    "drain": Option(
        "int",
        "Time that requests in flight have to finish before the app server stops, in seconds.",
        30,
        default=30,
        minimum=1,
        maximum=3600,
    ),
    "config": Option(
        "str", "Value of `FLASK_CONFIG`.", "production", default="production", pattern=r"[A-Za-z_][\w.-]*"
    ),
    "env": Option(
        "dict",
        "Environment variables that are not secret. Values can contain placeholders.",
        {"MAIL_FROM": "shop@example.com"},
        default={},
    ),
    "secrets": Option(
        "dict",
        "Secret environment variables. Store the values in ansible-vault. Values can contain placeholders.",
        {"MAIL_PASSWORD": "{{ vault_shop_mail_password }}"},
        default={},
    ),
    "files": Option(
        "dict",
        "Files to write into the app's folder of each release: paths and contents, which can be secret. Only root and "
        "the app can read them.",
        {"config/production.toml": 'MAIL_FROM = "shop@{host}"'},
        default={},
    ),
    "processes": Option(
        "dict",
        "Commands that run permanently beside the app server, such as workers, by name. They run from the live "
        "release. Processes of the Procfile are added; an empty command removes one of them.",
        {"worker": "celery -A shop worker"},
        default={},
    ),
    "timers": Option(
        "mapping",
        "Scheduled commands, by name. They run from the live release.",
        {"nightly": {"command": "flask purge", "on_calendar": "*-*-* 03:00"}},
        default={},
        options={
            "command": Option("str", "Command to run.", "flask purge", required=True),
            "on_calendar": Option(
                "str",
                "Schedule in the format of systemd.time(7), in the host's time zone.",
                "*-*-* 03:00",
                required=True,
            ),
        },
    ),
    "outbound": Option(
        "bool",
        "Whether the app can connect to other hosts and to network ports of its own host. If false, it can still "
        "reach its database.",
        False,
        default=True,
    ),
    "limits": Option(
        "options",
        "Resource limits of the app, and limits for each client address.",
        {"memory": 512, "body": 16},
        default={},
        options={
            "memory": Option(
                "int",
                "Memory limit for each slot, process and timer, in MB. If unset, computed from the host's memory.",
                512,
                minimum=64,
                maximum=1048576,
            ),
            "disk": Option(
                "str",
                "Disk limit for the app's releases, data, temporary files, queue and database together: a size, or a "
                "share of the file system. Requires a file system with project quotas; see docs/isolation.md, The "
                "disk.",
                "10G",
                default="50%",
                pattern=r"[1-9][0-9]{0,5}[MGT]|([1-9][0-9]?|100)%",
            ),
            "body": Option("int", "Maximum size of a request body, in MB.", 16, default=16, minimum=1, maximum=10240),
            "rate": Option(
                "int",
                "Requests per second that one client address can send to the app. Requests over the limit get 429. 0 "
                "means no limit.",
                20,
                default=20,
                minimum=0,
                maximum=100000,
            ),
            "burst": Option(
                "int",
                "Requests over the rate that one client address can send at once.",
                100,
                default=100,
                minimum=0,
                maximum=1000000,
            ),
            # A browser opens up to 128 HTTP/2 streams, and nginx counts each of them as a connection.
            "connections": Option(
                "int",
                "Concurrent requests per client address, including static files. Requests over the limit get 429. 0 "
                "means no limit.",
                150,
                default=150,
                minimum=0,
                maximum=100000,
            ),
            "uploads": Option(
                "int",
                "Concurrent uploads per client address, to all apps together. A request counts if its body has 1 MB "
                "or more, or no declared length. nginx keeps such bodies on disk, so one address can fill `uploads` "
                "times `body`. 0 means no limit.",
                8,
                default=8,
                minimum=0,
                maximum=100000,
            ),
        },
    ),
    "login": Option(
        "options",
        "Login pages and their rate limit, which stops password guessing.",
        {"paths": ["/login"], "rate": 10},
        default={},
        options={
            "paths": Option(
                "list",
                "Paths that receive logins by POST, with or without a trailing slash.",
                ["/login", "/auth/login"],
                default=["/login", "/auth/login", "/admin/login"],
                pattern=URL_PATH,
            ),
            "rate": Option(
                "int",
                "Logins per minute and client address, which can all come at once. Requests over the limit get 429. "
                "0 means no limit.",
                10,
                default=10,
                minimum=0,
                maximum=100000,
            ),
        },
    ),
    "basic_auth": Option(
        "dict",
        "Users who can open the site with a password, which nginx checks: user names and password hashes, as printed "
        "by `openssl passwd -6`. Store the hashes in ansible-vault. If empty, no password is needed.",
        {"ada": "{{ vault_shop_basic_auth }}"},
        default={},
    ),
    "allow": Option(
        "list",
        "Networks that can open the site. If `basic_auth` is set too, visitors also need a password. If empty, every "
        "address is allowed.",
        ["203.0.113.0/24"],
        default=[],
        pattern=r"[0-9a-fA-F.:]+(?:/[0-9]{1,3})?",
    ),
    "noindex": Option(
        "bool",
        "Whether responses tell search engines not to index the site. If unset, true if `basic_auth` or `allow` is "
        "set, otherwise false.",
        True,
    ),
    "methods": Option(
        "list",
        "HTTP methods that the app receives. Other methods get 405.",
        ["GET", "HEAD", "POST"],
        default=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        pattern=r"[A-Z][A-Z_-]{0,31}",
    ),
    # The default does not restrict the sources of scripts and images, which would break apps not written for a CSP.
    "csp": Option(
        "str",
        "`Content-Security-Policy` header for responses in which the app sends none. If empty, nginx adds no such "
        "header.",
        "default-src 'self'; base-uri 'self'; frame-ancestors 'none'",
        default="base-uri 'self'; frame-ancestors 'self'",
        pattern=r"[ !#%-\[\]-~]*",
    ),
    "headers": Option(
        "dict",
        "Additional response headers, by name, for responses in which the app does not send them. An empty value "
        "removes one of nginx's default headers.",
        {"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": ""},
        default={},
    ),
    "static": Option(
        "options",
        "Static files that nginx serves.",
        {"url": "/static/", "path": "shop/static"},
        default={},
        options={
            "url": Option(
                "str",
                "URL prefix of the static files, ending in a slash.",
                "/static/",
                default="/static/",
                pattern=URL_PATH + "/",
            ),
            "path": Option(
                "str",
                "Folder of the static files, relative to the app's folder. If unset, the folder `static` in or "
                "beside the WSGI module.",
                "shop/static",
                default="",
                pattern=RELATIVE_PATH,
            ),
        },
    ),
    "protected_files": Option(
        "options",
        "Files that nginx sends if the app allows it, with the header `X-Accel-Redirect`; see docs/uploads.md.",
        {"folder": "uploads"},
        default={},
        options={
            "folder": Option(
                "str",
                "Persistent folder with the files, or a folder in one. nginx can read it, and nothing else of the "
                "app's data. If empty, the app cannot use the header.",
                "uploads",
                default="",
                pattern=RELATIVE_PATH,
            ),
            "url": Option(
                "str",
                "URL prefix of the files in that header, ending in a slash. Visitors who request it get 404.",
                "/protected/",
                default="/protected/",
                pattern=r"/(?:[A-Za-z0-9_~-][A-Za-z0-9_.~-]*/)+",
            ),
        },
    ),
    "microcache": Option(
        "int",
        "Time for which nginx keeps a page and sends it to all visitors without a cookie, in seconds. 0 turns it off.",
        1,
        default=0,
        minimum=0,
        maximum=5,
    ),
    "health": Option(
        "options",
        "Health check that a release must pass before it goes live.",
        {"path": "/healthz", "status": 200},
        default={},
        options={
            "path": Option("str", "URL path of the health check.", "/healthz", default="/", pattern=URL_PATH),
            "status": Option(
                "int", "Expected status code. Redirects (3xx) are not allowed.", 200, 200, minimum=200, maximum=599
            ),
            "body": Option(
                "str",
                "Text that the response must contain. If empty, the body is not checked.",
                '"status": "ok"',
                default="",
            ),
            "probes": Option("int", "Number of consecutive good responses.", 3, default=3, minimum=1, maximum=100),
            "timeout": Option(
                "int",
                "Time that the app has to start, and again to pass all probes, in seconds.",
                30,
                30,
                minimum=1,
                maximum=600,
            ),
            "settle": Option(
                "int",
                "Time after the probes in which a new release must keep passing the check, in seconds.",
                2,
                default=2,
                minimum=0,
                maximum=600,
            ),
        },
    ),
    "tls": Option(
        "options",
        "Certificate of the app, and HSTS.",
        {"mode": "acme", "challenge": "http"},
        default={},
        options={
            "mode": Option(
                "str",
                "Source of the certificate: an ACME certificate authority (`acme`), the host itself (`selfsigned`) "
                "or you (`files`). If unset, `acme` if `acme_email` is set, otherwise `selfsigned`.",
                "acme",
                choices=("acme", "selfsigned", "files"),
            ),
            "challenge": Option(
                "str",
                "How the certificate authority verifies that the domains are yours: by a request to port 80 (`http`) "
                "or by a DNS record (`dns`).",
                "http",
                default="http",
                choices=("http", "dns"),
            ),
            "certificate": Option(
                "str",
                "Certificate in PEM format, followed by its chain, for the mode `files`.",
                "{{ vault_shop_certificate }}",
                default="",
            ),
            "key": Option(
                "str",
                "Private key of the certificate in PEM format, without a passphrase, for the mode `files`. Store it "
                "in ansible-vault.",
                "{{ vault_shop_tls_key }}",
                default="",
            ),
            "hsts": Option(
                "options",
                "HTTP Strict Transport Security (RFC 6797): browsers then use only HTTPS for the site. It starts at "
                "five minutes and grows after the first trusted certificate.",
                {"max_age": 63072000},
                default={},
                options={
                    # Two years, as hstspreload.org recommends.
                    "max_age": Option(
                        "int",
                        "Final `max-age` in seconds, reached 30 days after the first trusted certificate. 0 tells "
                        "browsers to forget HSTS.",
                        63072000,
                        default=63072000,
                        minimum=0,
                        maximum=315360000,
                    ),
                    "subdomains": Option("bool", "Whether HSTS includes all subdomains.", False, default=False),
                    "preload": Option(
                        "bool",
                        "Whether browsers can add the domain to the preload list that they ship with. Hard to undo.",
                        False,
                        default=False,
                    ),
                },
            ),
        },
    ),
    "watch": Option(
        "int",
        "Time to watch a new release with visitors, in seconds. If they get more errors or much slower responses, or "
        "if the health check or a process fails, the release is rolled back. 0 means no watch.",
        10,
        default=10,
        minimum=0,
        maximum=3600,
    ),
    "keep_releases": Option(
        "int", "Number of healthy releases to keep on the host.", 5, default=5, minimum=2, maximum=50
    ),
}
