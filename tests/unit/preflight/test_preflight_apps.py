"""Preflight of the apps: each kind of problem from one minimal fault."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from preflight_cases import (
    ARCHIVE,
    CHAIN,
    ELSEWHERE,
    EMPTY,
    GONE,
    GOOD_FACTS,
    GOOD_HASH,
    GOOD_SETTINGS,
    KEY,
    KEY_PART,
    LEAF,
    OTHER_APP,
    PACKAGE,
    PAIR,
    ROLE_NAME,
    SECRET,
    SSH_REPO,
    A,
    case_name,
    found,
    good_apps,
    own_pair,
    private_key,
)
from rendering import load_filters

#: An app of one file, and one whose project has extras and groups.
LONE = {"wsgi": "app:app", "static": GONE}
CHOICES = LONE | {"source": {"path": "choices"}}

#: The kind, where it is told, and what is changed in the good app.
APP_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("unknown_key", A + "worker", {"worker": 2}),
    ("unknown_key", A + "memory", {"memory": 512}),
    ("wrong_type", A + "files", {"files": ["a.toml"]}),
    ("unsafe_path", A + 'files["/etc/shop.toml"]', {"files": {"/etc/shop.toml": "x"}}),
    ("unsafe_path", A + 'files["~/shop.toml"]', {"files": {"~/shop.toml": "x"}}),
    ("unsafe_path", A + 'files["../shop.toml"]', {"files": {"../shop.toml": "x"}}),
    ("unsafe_path", A + 'files["a/../shop.toml"]', {"files": {"a/../shop.toml": "x"}}),
    ("bad_file_path", A + "files[1]", {"files": {1: "x"}}),
    ("bad_file_path", A + 'files[""]', {"files": {"": "x"}}),
    ("bad_file_path", A + 'files["."]', {"files": {".": "x"}}),
    ("bad_file_path", A + 'files["./a"]', {"files": {"./a": "x"}}),
    ("bad_file_path", A + 'files["a//b"]', {"files": {"a//b": "x"}}),
    ("bad_file_path", A + 'files["a/"]', {"files": {"a/": "x"}}),
    ("bad_file_path", A + 'files["a\\nb"]', {"files": {"a\nb": "x"}}),
    ("bad_file_path", A + 'files["a\\u0000b"]', {"files": {"a\0b": "x"}}),
    ("bad_file_path", A + 'files["?"]', {"files": {"\ud800": "x"}}),
    ("bad_file_path", A + f'files["{"x" * 75}...]', {"files": {"x" * 201: "x"}}),
    ("bad_file_path", A + f'files["{"é" * 75}...]', {"files": {"é" * 120 + "/" + "x" * 150: "x"}}),
    ("bad_file_path", A + f'files["{"x/" * 37}x...]', {"files": {"x/" * 600 + "x": "x"}}),
    ("file_in_persistent", A + 'files["instance/config.py"]', {"files": {"instance/config.py": "x"}}),
    ("file_in_persistent", A + "files.uploads", {"files": {"uploads": "x"}}),
    ("file_in_persistent", A + "files.data", {"persistent": ["data/kept"], "files": {"data": "x"}}),
    ("file_in_persistent", A + 'files["uploads/a"]', {"persistent": GONE, "files": {"uploads/a": "x"}}),
    ("file_in_static", A + 'files["shop/static/a.js"]', {"files": {"shop/static/a.js": "x"}}),
    ("file_in_static", A + 'files["static/a.js"]', {"static": GONE, "files": {"static/a.js": "x"}}),
    ("file_in_file", A + 'files["a/b"]', {"files": {"a": "x", "a/b": "x"}}),
    ("bad_file_content", A + 'files["a.toml"]', {"files": {"a.toml": {"key": SECRET}}}),
    ("bad_file_content", A + 'files["a.toml"]', {"files": {"a.toml": None}}),
    ("bad_file_content", A + 'files["a.toml"]', {"files": {"a.toml": 1}}),
    ("bad_file_content", A + 'files["a.toml"]', {"files": {"a.toml": f"{SECRET}\ud800"}}),
    ("bad_file_content", A + 'files["a.toml"]', {"files": {"a.toml": SECRET * 40_000}}),
    ("missing", A + "protected_files.folder", {"protected_files": {"url": "/private/"}}),
    ("unsafe_path", A + "protected_files.folder", {"protected_files": {"folder": "/srv/shop/data/uploads"}}),
    ("unsafe_path", A + "protected_files.folder", {"protected_files": {"folder": "uploads/../instance"}}),
    ("malformed", A + "protected_files.folder", {"protected_files": {"folder": "uploads/$uri"}}),
    ("protected_is_everything", A + "protected_files.folder", {"protected_files": {"folder": "."}}),
    ("protected_outside_data", A + "protected_files.folder", {"protected_files": {"folder": "media"}}),
    ("protected_outside_data", A + "protected_files.folder", {"protected_files": {"folder": "uploads2"}}),
    (
        "protected_outside_data",
        A + "protected_files.folder",
        {"persistent": ["media"], "protected_files": {"folder": "uploads"}},
    ),
    ("protected_is_everything", A + "protected_files.url", {"protected_files": {"folder": "uploads", "url": "/"}}),
    *(
        ("malformed", A + "protected_files.url", {"protected_files": {"folder": "uploads", "url": url}})
        for url in ("private", "/private", "/a//b/", "/a/../b/", "/.well-known/", "/a%2f/", "/a b/")
    ),
    *(
        ("protected_url_taken", A + "protected_files.url", {"protected_files": {"folder": "uploads", "url": url}})
        for url in ("/static/", "/static/private/", "/healthz/", "/konto/")
    ),
    (
        "protected_url_taken",
        A + "protected_files.url",
        {"static": {"url": "/protected/static/"}, "protected_files": {"folder": "uploads"}},
    ),
    ("placeholder_in_file", A + 'files["a.toml"]', {"files": {"a.toml": SECRET + "{secret_key}"}}),
    ("placeholder_in_file", A + 'files["a.toml"]', {"files": {"a.toml": SECRET + "{database_url}"}}),
    ("placeholder_in_file", A + 'files["a.toml"]', {"files": {"a.toml": "{redis_url}"}}),
    ("placeholder_without_value", A + "env.STORE", {"database": False, "env": {"STORE": "{database_url}"}}),
    ("placeholder_without_value", A + "secrets.STORE", {"secrets": {"STORE": SECRET + "{redis_url}"}}),
    ("mixed_placeholder", A + "secrets.STORE", {"secrets": {"STORE": SECRET + "{secret_key}"}}),
    ("mixed_placeholder", A + "env.STORE", {"env": {"STORE": "{database_url} {release_dir}"}}),
    ("circular_placeholder", A + "secrets.SECRET_KEY", {"secrets": {"SECRET_KEY": SECRET + "{secret_key}"}}),
    ("circular_placeholder", A + "env.SQLALCHEMY_DATABASE_URI", {"env": {"SQLALCHEMY_DATABASE_URI": "{database_url}"}}),
    ("circular_placeholder", A + "env.DATABASE_URL", {"env": {"DATABASE_URL": "{sqlalchemy_database_uri}&a=1"}}),
    ("own_variable", A + "env.FLASKHOST_RELEASE_DIR", {"env": {"FLASKHOST_RELEASE_DIR": "/srv"}}),
    (
        "own_variable",
        A + "env.REDIS_URL",
        {"cache": "redis", "cache_mb": 9, "env": {"REDIS_URL": "redis://cache.test/0"}},
    ),
    ("own_variable", A + "secrets.REDIS_URL", {"queue": "redis", "queue_mb": 9, "secrets": {"REDIS_URL": SECRET}}),
    (
        "own_variable",
        A + "env.CELERY_BROKER_URL",
        {"queue": "redis", "queue_mb": 9, "env": {"CELERY_BROKER_URL": "amqp://mq.test"}},
    ),
    (
        "own_variable",
        A + "env.MEMCACHED_SERVERS",
        {"cache": "memcached", "cache_mb": 9, "env": {"MEMCACHED_SERVERS": "c.test:11211"}},
    ),
    ("circular_placeholder", A + "env.REDIS_URL", {"env": {"REDIS_URL": "{redis_url}"}}),
    (
        "placeholder_without_value",
        A + "env.STORE",
        {"cache": "memcached", "cache_mb": 9, "env": {"STORE": "{redis_url}"}},
    ),
    ("wrong_choice", A + "cache", {"cache": "valkey"}),
    ("wrong_choice", A + "queue", {"queue": "memcached"}),
    ("wrong_type", A + "cache", {"cache": True}),
    ("out_of_range", A + "cache_mb", {"cache_mb": 1}),
    ("caches_too_large", A + "queue_mb", {"queue": "redis", "queue_mb": 512}),
    ("caches_too_large", A + "cache_mb", {"cache": "memcached", "cache_mb": 4096}),
    ("unknown_key", A + "health.pth", {"health": {"pth": "/x"}}),
    ("unknown_key", A[:-1] + "[true]", {True: 1}),
    ("missing", A + "domains", {"domains": GONE}),
    ("missing", A + "domains", {"domains": []}),
    ("missing", A + "wsgi", {"wsgi": ""}),
    ("missing", A + "source", {"source": None}),
    ("wrong_type", A + "domains", {"domains": "shop.localhost"}),
    ("wrong_type", A + "domains[0]", {"domains": [80]}),
    ("wrong_type", A + "workers", {"workers": "4"}),
    ("wrong_type", A + "workers", {"workers": True}),
    ("wrong_type", A + "database", {"database": "yes"}),
    ("wrong_type", A + "env", {"env": ["A=1"]}),
    ("wrong_type", A + "health", {"health": "/healthz"}),
    ("wrong_type", A + "source.version", {"source": {"path": "", "repo": "git@h.test:a/b.git", "version": 1.0}}),
    ("wrong_choice", A + "worker_class", {"worker_class": "eventlet"}),
    ("wrong_choice", A + "database_driver", {"database_driver": "psycopg3"}),
    ("out_of_range", A + "timeout", {"timeout": 0}),
    ("out_of_range", A + "workers", {"workers": 10**6}),
    ("out_of_range", A + "limits.body", {"limits": {"body": 10**9}}),
    ("malformed", A + "extra_packages[0]", {"extra_packages": ["psycopg"]}),
    ("malformed", A + "extra_packages[0]", {"extra_packages": ["psycopg==3.3.9 --hash=sha256:0123"]}),
    ("malformed", A + "extra_packages[0]", {"extra_packages": ["psycopg==3.3.9\n--index-url=https://index.test"]}),
    ("out_of_range", A + "limits.rate", {"limits": {"rate": -1}}),
    ("malformed", A + "login.paths[0]", {"login": {"paths": ["login"]}}),
    ("malformed", A + "login.paths[1]", {"login": {"paths": ["/login", "https://shop.localhost/sign-in"]}}),
    ("malformed", A + "login.paths[0]", {"login": {"paths": ["/login?next=/"]}}),
    ("bad_network", A + "allow[0]", {"allow": ["office"]}),
    ("bad_network", A + "allow[1]", {"allow": ["2001:db8::/32", "203.0.113.7/24"]}),
    ("malformed", A + "methods[1]", {"methods": ["GET", "post"]}),
    ("malformed", A + "methods[1]", {"methods": ["GET", "A|B"]}),
    ("wrong_choice", A + "methods[1]", {"methods": ["GET", "TRACE"]}),
    ("methods_without_get", A + "methods", {"methods": ["POST"]}),
    ("malformed", A + "csp", {"csp": "Content-Security-Policy: default-src 'self'"}),
    ("malformed", A + "csp", {"csp": "default-src self"}),
    ("malformed", A + "csp", {"csp": "default-src 'self', img-src *; 'none'"}),
    ("malformed", A + "csp", {"csp": 'default-src "self"'}),
    ("malformed", A + "csp", {"csp": "img-src https://$host"}),
    ("control_character", A + "csp", {"csp": "default-src 'self';\nimg-src *"}),
    ("bad_header", A + 'headers["X Frame"]', {"headers": {"X Frame": "DENY"}}),
    ("bad_header", A + "headers.X-Count", {"headers": {"X-Count": 1}}),
    ("bad_header", A + "headers.X-Two", {"headers": {"X-Two": "a\r\nSet-Cookie: a=b"}}),
    ("bad_header", A + "headers.X-Host", {"headers": {"X-Host": "$host"}}),
    ("bad_header", A + "headers.content-security-policy", {"headers": {"content-security-policy": "default-src *"}}),
    ("bad_header", A + "headers.Set-Cookie", {"headers": {"Set-Cookie": "a=b"}}),
    ("bad_header", A + "headers.x-a", {"headers": {"X-A": "1", "x-a": "2"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": SECRET}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": f"{{PLAIN}}{SECRET}"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": "$apr1$abcdefgh$0123456789abcdefghijkl"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": f"ada:{GOOD_HASH}"}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": "$2y$14$" + "a" * 53}}),
    ("bad_basic_auth", A + 'basic_auth["a:b"]', {"basic_auth": {"a:b": GOOD_HASH}}),
    ("bad_basic_auth", A + "basic_auth.ada", {"basic_auth": {"ada": 12345}}),
    ("malformed", A + "wsgi", {"wsgi": "shop.py"}),
    ("malformed", A + "health.path", {"health": {"path": "healthz"}}),
    ("malformed", A + "static.url", {"static": {"url": "static"}}),
    ("malformed", A + "source.repo", {"source": {"path": "", "repo": f"ftp://{SECRET}/shop", "version": "v1"}}),
    ("malformed", A + "source.version", {"source": {"path": "", "repo": "git@h.test:a/b.git", "version": "-x"}}),
    ("control_character", A + "release_command", {"release_command": "flask db upgrade\nrm -rf /"}),
    ("control_character", A + "wsgi", {"wsgi": "shop:app\0"}),
    ("control_character", A + "source.path", {"source": {"path": "nowhere\n"}}),
    ("control_character", A + "domains[0]", {"domains": ["shop.localhost\n"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["https://shop.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "shop.test:8443"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["Shop.localhost"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["my_shop.localhost"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop.localhost/eu"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop.localhost."]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop.test, www.shop.test"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["10.0.0.7:443"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["10.0.0"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["10.0.0.0/8"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["0.0.0.0"]}),  # noqa: S104 - a name here
    ("bad_domain", A + "domains[0]", {"domains": ["fe80::1%eth0"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["[fd00::7]"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["FD00:0:0::7"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["fd00::7::8"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["192.0.2.7"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["2001:db8::7"]}),
    ("placeholder_domain", A + "domains[1]", {"domains": ["shop.localhost", "*.example.com"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["bücher.test"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["shop"]}),
    ("bad_domain", A + "domains[0]", {"domains": ["-shop.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "*.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "a.*.localhost"]}),
    ("bad_domain", A + "domains[1]", {"domains": ["shop.localhost", "*shop.localhost"]}),
    ("wildcard_first", A + "domains[0]", {"domains": ["*.shop.localhost"]}),
    (
        "wildcard_first",
        A + "domains[0]",
        {"domains": ["*.shop.localhost"], "tls": own_pair("*.shop.localhost")},
    ),
    ("duplicate_domain", A + "domains[2]", {"domains": ["shop.localhost", "*.a.test", "*.a.test"]}),
    ("acme_without_email", A + "tls.mode", {"tls": {"mode": "acme"}}),
    ("wrong_choice", A + "tls.mode", {"tls": PAIR | {"mode": "file"}}),
    ("wrong_choice", A + "tls.challenge", {"tls": {"challenge": "tls-alpn"}}),
    ("unknown_key", A + "tls.cert", {"tls": {"cert": PAIR["certificate"]}}),
    ("wrong_type", A + "tls", {"tls": "acme"}),
    ("wrong_type", A + "tls.key", {"tls": PAIR | {"key": [KEY_PART]}}),
    ("files_without_pair", A + "tls.certificate", {"tls": {"mode": "files", "key": PAIR["key"]}}),
    ("files_without_pair", A + "tls.key", {"tls": {"mode": "files", "certificate": PAIR["certificate"], "key": " "}}),
    ("pair_without_files", A + "tls.certificate", {"tls": {"certificate": PAIR["certificate"]}}),
    ("pair_without_files", A + "tls.key", {"tls": {"mode": "selfsigned", "key": PAIR["key"]}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": "certificates/shop.pem"}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": "/etc/ssl/shop.pem"}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": PAIR["key"]}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": PAIR["key"] + LEAF}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF.replace("\n", " ")}}),
    ("bad_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF + CHAIN[:-10]}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": LEAF}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": KEY_PART}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": PAIR["key"].replace("\n", " ")}}),
    ("bad_tls_key", A + "tls.key", {"tls": PAIR | {"key": private_key()}}),
    ("bad_tls_key", A + "tls.key", {"tls": own_pair("shop.localhost", password=b"sesame")}),
    ("unreadable_certificate", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF[:40] + "A" + LEAF[40:]}}),
    ("unreadable_tls_key", A + "tls.key", {"tls": PAIR | {"key": PAIR["key"].replace(KEY_PART, KEY_PART[8:])}}),
    ("key_of_another", A + "tls.key", {"tls": PAIR | {"key": own_pair("shop.localhost")["key"]}}),
    ("key_of_another", A + "tls.key", {"tls": PAIR | {"certificate": CHAIN + LEAF}}),
    ("chain_out_of_order", A + "tls.certificate", {"tls": PAIR | {"certificate": LEAF + LEAF}}),
    (
        "certificate_without_name",
        A + "tls.certificate",
        {"tls": own_pair("*.localhost"), "domains": ["a.localhost", "b.a.localhost"]},
    ),
    ("certificate_without_name", A + "tls.certificate", {"tls": own_pair("*.shop.localhost")}),
    ("certificate_without_name", A + "tls.certificate", {"tls": own_pair()}),
    ("certificate_without_name", A + "tls.certificate", {"tls": PAIR, "domains": ["10.0.0.8"]}),
    (
        "certificate_out_of_date",
        A + "tls.certificate",
        {"tls": own_pair("*.localhost", days=(-90, -1)), "domains": ["a.localhost"]},
    ),
    (
        "certificate_out_of_date",
        A + "tls.certificate",
        {"tls": own_pair("*.localhost", days=(2, 90)), "domains": ["a.localhost"]},
    ),
    ("out_of_range", A + "tls.hsts.max_age", {"tls": {"hsts": {"max_age": -1}}}),
    ("wrong_type", A + "tls.hsts.preload", {"tls": {"hsts": {"preload": "yes"}}}),
    ("hsts_preload", A + "tls.hsts.preload", {"tls": {"hsts": {"preload": True}}}),
    (
        "hsts_preload",
        A + "tls.hsts.preload",
        {"tls": {"hsts": {"preload": True, "subdomains": True, "max_age": 86400}}},
    ),
    ("placeholder_domain", A + "domains[0]", {"domains": ["CHANGE-ME.org"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["<domain>"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["www.example.com"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["https://example.org/"]}),
    ("placeholder_domain", A + "domains[0]", {"domains": ["www.your-domain.org"]}),
    ("duplicate_domain", A + "domains[1]", {"domains": ["shop.localhost", "shop.localhost"]}),
    ("duplicate_item", A + "persistent[1]", {"persistent": ["uploads", "uploads"]}),
    ("shared_domain", "flask_apps.todo.domains[0]", {"domains": ["todo.localhost"]}),
    ("no_source", A + "source", {"source": {"path": ""}}),
    ("two_sources", A + "source", {"source": {"repo": "git@h.test:a/b.git", "version": "v1"}}),
    ("version_without_repo", A + "source.version", {"source": {"version": "v1"}}),
    ("repo_without_version", A + "source.version", {"source": {"path": GONE, "repo": "git@h.test:a/b.git"}}),
    ("placeholder_repo", A + "source.repo", {"source": {"path": GONE, "repo": "https://git.example.com/s.git"}}),
    ("placeholder_repo", A + "source.repo", {"source": {"path": GONE, "repo": "git@github.com:your-org/shop.git"}}),
    ("secret_in_repo", A + "source.repo", {"source": {"path": GONE, "repo": f"https://ada:{SECRET}@git.test/s"}}),
    ("forgeable_version", A + "source.version", {"source": SSH_REPO | {"repo": "http://h.test/a"}}),
    ("forgeable_version", A + "source.version", {"source": SSH_REPO | {"repo": "git://h.test/a", "version": "v1"}}),
    (
        "forgeable_version",
        A + "source.version",
        {"source": SSH_REPO | {"repo": "http://h.test/a", "version": "1" * 39}},
    ),
    ("two_sources", A + "source", {"source": {"archive": "dist/shop-1.0.tar.gz", "checksum": EMPTY}}),
    ("version_without_repo", A + "source.version", {"source": ARCHIVE | {"version": "v1"}}),
    ("archive_without_checksum", A + "source.checksum", {"source": ARCHIVE | {"checksum": GONE}}),
    ("archive_without_checksum", A + "source.checksum", {"source": {"path": "", "archive": "https://h.test/a.tgz"}}),
    ("checksum_without_archive", A + "source.checksum", {"source": {"checksum": EMPTY}}),
    ("wrong_checksum", A + "source.checksum", {"source": ARCHIVE | {"checksum": "sha256:" + "0" * 64}}),
    ("malformed", A + "source.checksum", {"source": ARCHIVE | {"checksum": EMPTY[7:]}}),
    ("malformed", A + "source.checksum", {"source": ARCHIVE | {"checksum": "md5:" + "0" * 32}}),
    ("archive_not_found", A + "source.archive", {"source": ARCHIVE | {"archive": "dist/shop-2.0.tar.gz"}}),
    ("archive_not_found", A + "source.archive", {"source": ARCHIVE | {"archive": "~/shop-1.0.tar.gz"}}),
    ("archive_is_a_folder", A + "source.archive", {"source": ARCHIVE | {"archive": "archive.tar"}}),
    ("malformed", A + "source.archive", {"source": ARCHIVE | {"archive": "dist/shop-1.0.zip"}}),
    ("malformed", A + "source.archive", {"source": ARCHIVE | {"archive": "ftp://h.test/shop.tar.gz"}}),
    ("placeholder_archive", A + "source.archive", {"source": ARCHIVE | {"archive": "https://example.com/a.tar.gz"}}),
    (
        "secret_in_archive",
        A + "source.archive",
        {"source": ARCHIVE | {"archive": f"https://ada:{SECRET}@h.test/a.tgz"}},
    ),
    ("key_without_repo", A + "source.key", {"source": {"key": private_key()}}),
    ("key_without_repo", A + "source.known_hosts", {"source": {"known_hosts": f"h.test {KEY}"}}),
    ("key_without_ssh", A + "source.key", {"source": SSH_REPO | {"repo": "https://h.test/a", "key": private_key()}}),
    ("key_without_ssh", A + "source.key", {"source": SSH_REPO | {"repo": "https://a@h.test/a", "key": private_key()}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": SECRET}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": f"{SECRET}\n{private_key()}"}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": private_key()[:-4]}}),
    ("bad_deploy_key", A + "source.key", {"source": SSH_REPO | {"key": private_key(b"aes256-ctr")}}),
    ("bad_known_hosts", A + "source.known_hosts", {"source": SSH_REPO | {"known_hosts": "h.test"}}),
    ("bad_known_hosts", A + "source.known_hosts", {"source": SSH_REPO | {"known_hosts": f"h.test {KEY[:40]}"}}),
    ("wheelhouse_not_found", A + "wheelhouse", {"wheelhouse": "vendor/whl"}),
    ("wheelhouse_not_found", A + "wheelhouse", {"wheelhouse": "vendor/empty"}),
    ("unsafe_path", A + "wheelhouse", {"wheelhouse": "/opt/wheels"}),
    ("source_not_found", A + "source.path", {"source": {"path": "nowhere"}}),
    ("source_not_found", A + "source.path", {"source": {"path": "~/shop"}}),
    ("source_not_found", A + "source.path", {"source": {"path": "x" * 5000}}),
    ("source_not_a_folder", A + "source.path", {"source": {"path": "sample_app/requirements.txt"}}),
    ("subdir_not_found", A + "source.subdir", {"source": {"subdir": "services/web"}}),
    ("unsafe_path", A + "source.subdir", {"source": {"subdir": "../other"}}),
    ("unsafe_path", A + "requirements", {"requirements": "/etc/requirements.txt"}),
    ("unsafe_path", A + "persistent[0]", {"persistent": ["a/../../b"]}),
    ("unsafe_path", A + "static.path", {"static": {"path": "~/static"}}),
    ("no_requirements", A + "requirements", {"source": {"path": "bare"}, "wsgi": "app:app", "static": GONE}),
    ("no_requirements", A + "requirements", {"source": {"path": "settings_only"}, "wsgi": "app:app", "static": GONE}),
    ("requirements_not_found", A + "requirements", {"requirements": "requirements/prod.txt"}),
    ("no_requirements", A + "requirements", {"source": {"path": "poetry_without_lock"}} | LONE),
    ("unusable_lock", A + "requirements", {"source": {"path": "old_poetry"}} | LONE),
    (
        "unusable_lock",
        A + "requirements",
        {"source": {"path": "poetry_without_lock"}, "requirements": "pyproject.toml"} | LONE,
    ),
    ("unusable_lock", A + "requirements", {"source": {"path": "damaged_lock"}} | LONE),
    ("install_not_found", A + "install.extras", CHOICES | {"install": {"extras": ["databse"]}}),
    ("install_not_found", A + "install.groups", CHOICES | {"install": {"groups": ["production"]}}),
    ("install_not_found", A + "install.extras", {"install": {"extras": ["database"]}}),
    ("install_not_found", A + "install.project", {"install": {"project": True}}),
    ("wrong_type", A + "install.extras", {"install": {"extras": "database"}}),
    ("wrong_type", A + "install.project", {"install": {"project": "yes please"}}),
    ("malformed", A + "install.groups[0]", {"install": {"groups": ["--all-groups"]}}),
    ("unknown_key", A + "install.extra", {"install": {"extra": ["database"]}}),
    ("wsgi_not_found", A + "wsgi", {"wsgi": "shopp:create_app()"}),
    ("wsgi_not_found", A + "wsgi", {"wsgi": "shop.wsgi:app"}),
    ("bad_debian_package", A + "build_packages[0]", {"build_packages": ["--allow-downgrades"]}),
    ("bad_debian_package", A + "build_packages[1]", {"build_packages": ["gcc", "-oDir::Etc=/tmp"]}),
    ("bad_debian_package", A + "build_packages[0]", {"build_packages": ["libpq-dev=15.1"]}),
    ("bad_debian_package", A + "build_packages[0]", {"build_packages": ["gcc/bookworm-backports"]}),
    ("bad_debian_package", A + "build_packages[0]", {"build_packages": ["gcc python3-dev"]}),
    ("bad_debian_package", A + "build_packages[0]", {"build_packages": ["psycopg2==2.9"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["libc6:i386"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["lib*"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["nginx-"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["ffmpeg+"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["FFmpeg"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["./evil.deb"]}),
    ("bad_debian_package", A + "system_packages[0]", {"system_packages": ["é"]}),
    ("out_of_range", A + "build_timeout", {"build_timeout": 0}),
    ("control_character", A + "build_command", {"build_command": "make\nmake install"}),
    ("secret_in_command", A + "build_command", {"build_command": f"echo {SECRET}", "secrets": {"KEY": SECRET}}),
    ("static_not_found", A + "static.path", {"static": {"path": "shop/assets"}}),
    ("static_is_everything", A + "static.url", {"static": {"url": "/"}}),
    ("static_is_everything", A + "static.url", {"static": {"url": "//"}}),
    ("health_redirect", A + "health.status", {"health": {"status": 302}}),
    ("bad_process_name", A + "processes.web", {"processes": {"web": "gunicorn shop"}}),
    ("bad_process_name", A + "processes.release", {"processes": {"release": "flask db upgrade"}}),
    ("bad_process_name", A + "processes.Worker", {"processes": {"Worker": "celery"}}),
    ("bad_process_name", A + 'processes["a b"]', {"processes": {"a b": "celery"}}),
    ("bad_process_name", A + "processes.timer-a", {"processes": {"timer-a": "celery"}}),
    ("bad_process_name", A + "processes[true]", {"processes": {True: "celery"}}),
    ("bad_process_name", A + "timers.9-to-5", {"timers": {"9-to-5": {"command": "x", "on_calendar": "daily"}}}),
    (
        "secret_in_command",
        A + "release_command",
        {"secrets": {"T": SECRET}, "release_command": f"flask user -p '{SECRET}'"},
    ),
    (
        "secret_in_command",
        A + "processes.mail",
        {"secrets": {"T": SECRET}, "processes": {"mail": f"worker --key={SECRET}"}},
    ),
    (
        "secret_in_command",
        A + "timers.nightly.command",
        {
            "secrets": {"T": SECRET},
            "timers": {"nightly": {"command": f"curl -H {SECRET} x", "on_calendar": "daily"}},
        },
    ),
    ("bad_process_command", A + "processes.worker", {"processes": {"worker": {"command": "celery"}}}),
    ("bad_process_command", A + "processes.worker", {"processes": {"worker": "celery\nworker"}}),
    ("wrong_type", A + "processes", {"processes": ["celery"]}),
    ("wrong_type", A + "timers.nightly", {"timers": {"nightly": "flask purge"}}),
    ("missing", A + "timers.nightly.command", {"timers": {"nightly": {"on_calendar": "daily"}}}),
    ("missing", A + "timers.nightly.on_calendar", {"timers": {"nightly": {"command": "x", "on_calendar": ""}}}),
    (
        "unknown_key",
        A + "timers.nightly.at",
        {"timers": {"nightly": {"command": "x", "on_calendar": "daily", "at": 3}}},
    ),
    ("control_character", A + "timers.n.on_calendar", {"timers": {"n": {"command": "x", "on_calendar": "da\nily"}}}),
    ("cron_time", A + "timers.n.on_calendar", {"timers": {"n": {"command": "x", "on_calendar": "0 3 * * *"}}}),
    ("cron_time", A + "timers.n.on_calendar", {"timers": {"n": {"command": "x", "on_calendar": "@daily"}}}),
    ("bad_variable_name", A + "env.MAIL-FROM", {"env": {"MAIL-FROM": "x"}}),
    ("bad_variable_name", A + "env[1]", {"env": {1: "x"}}),
    ("bad_variable_name", A + "secrets.2FA", {"secrets": {"2FA": SECRET}}),
    ("bad_variable_value", A + "env.HOSTS", {"env": {"HOSTS": ["a", "b"]}}),
    ("bad_variable_value", A + "env.MOTTO", {"env": {"MOTTO": None}}),
    ("bad_variable_value", A + "env.MOTTO", {"env": {"MOTTO": "a\0b"}}),
    ("bad_variable_value", A + "secrets.KEYS", {"secrets": {"KEYS": {"a": SECRET}}}),
    ("variable_twice", A + "secrets.MAIL_FROM", {"secrets": {"MAIL_FROM": SECRET}}),
    ("own_variable", A + "env.FLASK_DEBUG", {"env": {"FLASK_DEBUG": "1"}}),
    ("own_variable", A + "secrets.FLASK_CONFIG", {"secrets": {"FLASK_CONFIG": "development"}}),
    ("secret_in_env", A + "env.MAIL_PASSWORD", {"env": {"MAIL_PASSWORD": SECRET}}),
    ("secret_in_env", A + "env.STRIPE_API_KEY", {"env": {"STRIPE_API_KEY": SECRET}}),
    ("secret_in_env", A + "env.MAIL_URL", {"env": {"MAIL_URL": f"smtp://ada:{SECRET}@mail.test"}}),
    ("placeholder_secret", A + "secrets.SECRET_KEY", {"secrets": {"SECRET_KEY": "changeme"}}),
    ("placeholder_secret", A + "secrets.PASSWORD", {"secrets": {"PASSWORD": "password"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "<token>"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "xxxxxxxx"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "TODO"}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": ""}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": None}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": 12345}}),
    ("placeholder_secret", A + "secrets.TOKEN", {"secrets": {"TOKEN": "please-change-me-now"}}),
    ("short_secret_key", A + "secrets.SECRET_KEY", {"secrets": {"SECRET_KEY": SECRET[:20]}}),
    ("persistent_is_everything", A + "persistent[0]", {"persistent": ["."]}),
    ("persistent_over_static", A + "persistent[0]", {"persistent": ["shop/static"]}),
    ("persistent_over_static", A + "persistent[0]", {"persistent": ["shop"]}),
    ("persistent_over_code", A + "persistent[0]", {"persistent": ["shop"], "static": GONE}),
    ("persistent_over_code", A + "persistent[0]", {"persistent": ["src/shop"], "static": GONE}),
    ("persistent_overlap", A + "persistent[1]", {"persistent": ["data", "data/uploads"]}),
    ("persistent_overlap", A + "persistent[1]", {"persistent": ["data/uploads", "data"]}),
    ("threads_without_gthread", A + "threads", {"worker_class": "sync", "threads": 8}),
    ("threads_without_gthread", A + "threads", {"worker_class": "gevent", "threads": 8}),
    ("worker_class_without_gunicorn", A + "worker_class", {"server": "uwsgi", "worker_class": "gthread"}),
    ("worker_class_without_gunicorn", A + "worker_class", {"server": "waitress", "worker_class": "sync"}),
    ("workers_without_processes", A + "workers", {"server": "waitress", "workers": 2}),
    ("memory_limit", A + "limits.memory", {"limits": {"memory": 4096}}),
    ("too_many_workers", A + "workers", {"workers": 12}),
    ("too_many_connections", "flask_apps", {"workers": 4, "threads": 100, "limits": {"memory": 400}}),
]
#: The kind, where it is told, and the whole mapping.
MAPPING_FAULTS: list[tuple[str, str, Any]] = [
    ("no_apps", "flask_apps", None),
    ("no_apps", "flask_apps", {}),
    ("no_apps", "flask_apps", ""),
    ("not_a_mapping", "flask_apps", ["shop"]),
    ("not_a_mapping", "flask_apps", 7),
    ("not_a_mapping", "flask_apps.shop", {"shop": None}),
    ("not_a_mapping", "flask_apps.shop", {"shop": ["domains"]}),
    ("bad_app_name", "flask_apps.Shop", {"Shop": OTHER_APP}),
    ("bad_app_name", "flask_apps.my_shop", {"my_shop": OTHER_APP}),
    ("bad_app_name", "flask_apps.shop-", {"shop-": OTHER_APP}),
    ("bad_app_name", "flask_apps.1shop", {"1shop": OTHER_APP}),
    ("bad_app_name", "flask_apps." + "s" * 32, {"s" * 32: OTHER_APP}),
    ("bad_app_name", "flask_apps[true]", {True: OTHER_APP}),
    ("bad_app_name", 'flask_apps["a b"]', {"a b": OTHER_APP}),
    ("reserved_app_name", "flask_apps.postgres", {"postgres": OTHER_APP}),
    *(
        ("reserved_app_name", f"flask_apps.{name}", {name: OTHER_APP})
        for name in ("docker", "lxd", "vagrant", "ec2-user", "ubuntu")
    ),
    ("app_name_is_admin", "flask_apps.ada", {"ada": OTHER_APP}),
    (
        "addresses_of_two_apps",
        "flask_apps.b.domains[0]",
        {name: OTHER_APP | {"domains": [f"10.0.0.{n}"]} for n, name in enumerate("ab", 1)},
    ),
    ("too_many_apps", "flask_apps", {f"app{n}": OTHER_APP | {"domains": [f"a{n}.localhost"]} for n in range(11)}),
    ("too_many_apps", "flask_apps", {"a": OTHER_APP | {"processes": {f"p{n}": "x" for n in range(10)}}}),
    ("undefined", "flask_apps", preflight.Unreadable("'apps' is undefined")),
    ("undefined", "flask_apps.shop", {"shop": preflight.Unreadable("'app' is undefined")}),
    ("undefined", A + "secrets.TOKEN", good_apps({"secrets": {"TOKEN": preflight.Unreadable("'v' is undefined")}})),
    ("undefined", A + "domains[0]", good_apps({"domains": [preflight.Unreadable("'v' is undefined"), "b.test"]})),
    ("vault_locked", A + "wsgi", good_apps({"wsgi": preflight.Unreadable("A vault exception marker was tripped.")})),
    ("too_deep", "flask_apps.shop" + ".a" * 12, {"shop": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}),
]
MAPPING_FAULTS[-1][2]["shop"]["a"]["a"]["a"]["a"]["a"]["a"]["a"]["a"] = MAPPING_FAULTS[-1][2]["shop"]


@pytest.mark.parametrize(("kind", "path", "changes"), APP_FAULTS, ids=case_name)
def test_one_fault_of_an_app(project: Path, kind: str, path: str, changes: dict[str, Any]) -> None:
    problems = preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project)
    assert (kind, path) in found(problems)
    assert len(problems) == 1 or kind in EXPECTED_COMPANIONS, problems
    assert SECRET not in preflight.render(problems, "web1")


#: Faults that are two by their nature: a repo that is a placeholder has no version either, and one process more needs
#: memory, say.
EXPECTED_COMPANIONS = {"placeholder_repo", "secret_in_repo", "too_many_connections", "secret_in_command"}


@pytest.mark.parametrize(("kind", "path", "apps"), MAPPING_FAULTS, ids=case_name)
def test_one_fault_of_the_mapping(project: Path, kind: str, path: str, apps: Any) -> None:
    problems = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project)
    assert (kind, path) in found(problems)
    assert len(problems) == 1 or kind == "too_deep", problems


def test_roles_that_log_in_from_afar_are_fine(project: Path) -> None:
    logins = {"shop": {"owner": "correct-horse-battery", "a": "staple-correct-horse", "b": ""}}
    assert preflight.find_problems(good_apps(), {**GOOD_SETTINGS, "postgres_logins": logins}, GOOD_FACTS, project) == []


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({}, False),
        ({"secrets": {"MAIL_PASSWORD": SECRET}}, False),
        ({"secrets": {"DATABASE_URL": f"postgresql://shop-a:{SECRET}@10.0.0.5/shop"}}, True),
        ({"env": {"SQLALCHEMY_DATABASE_URI": "postgresql://shop@10.0.0.5/shop"}}, True),
        ({"database": False}, True),
    ],
)
def test_an_app_is_told_where_its_database_is(changes: dict[str, Any], fine: bool, project: Path) -> None:
    problems = preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project, database=False)
    assert found(problems) == (set() if fine else {(ELSEWHERE, "flask_apps.shop.secrets")})
    assert preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project) == []


@pytest.mark.parametrize(("name", "logins"), [("shop-owner", {}), ("shop-a", {"shop": {"a": ""}})])
def test_no_app_has_the_name_of_anothers_role(name: str, logins: dict[str, Any], project: Path) -> None:
    apps = {**good_apps(), name: {**copy.deepcopy(OTHER_APP), "domains": ["other.localhost"]}}
    facts = GOOD_FACTS | {"memtotal_mb": 4000}
    problems = preflight.find_problems(apps, {**GOOD_SETTINGS, "postgres_logins": logins}, facts, project)
    assert found(problems) == {(ROLE_NAME, f"flask_apps.{name}")}


def many_apps(count: int, **options: Any) -> dict[str, Any]:
    """Apps that differ in their names."""
    return {f"app{n}": OTHER_APP | {"domains": [f"a{n}.localhost"]} | options for n in range(count)}


@pytest.mark.parametrize(("memory", "most"), [(960, 10), (1970, 27)])
def test_apps_fit_a_host_if_they_are_idle(memory: int, most: int, project: Path) -> None:
    facts = GOOD_FACTS | {"memtotal_mb": memory}
    assert preflight.find_problems(many_apps(most), GOOD_SETTINGS, facts, project) == []
    assert found(preflight.find_problems(many_apps(most + 1), GOOD_SETTINGS, facts, project)) == {
        ("too_many_apps", "flask_apps")
    }


@pytest.mark.parametrize(
    ("apps", "warned"),
    [
        (many_apps(2), False),
        (many_apps(3), True),
        (many_apps(2, processes={"worker": "w", "off": ""}), True),
        (many_apps(1, processes={"worker": "w", "clock": "c"}), False),
        (many_apps(1, cache="redis", cache_mb=250), True),
        ({1: {}}, False),
        (preflight.Unreadable("'apps' is undefined"), False),
        ({"shop": {"processes": preflight.Unreadable("'p' is undefined")}}, False),
        (None, False),
        ([], False),
    ],
)
def test_apps_that_fit_only_while_they_are_idle_are_worth_a_warning(apps: Any, warned: bool) -> None:
    warnings = preflight.memory_warnings(apps, {"memtotal_mb": 960}, "web1")
    assert [text.partition(":")[0] for text in warnings] == ["web1"] * warned
    assert preflight.memory_warnings(apps, {"memtotal_mb": 16000}, "web1") == []
    assert preflight.memory_warnings(apps, {}, "web1") == []


def test_a_run_prints_the_warning_about_memory() -> None:
    asked = [many_apps(3)], ["flask_apps"], GOOD_FACTS, "web1"
    said = [text for text in load_filters()["flask_release_warnings"](*asked) if text.startswith("web1:")]
    assert len(said) == 1
    assert "464 MB are left for 3 apps." in said[0]
    assert "they need 576 MB" in said[0]


def test_a_build_command_can_create_the_static_folder(project: Path) -> None:
    changes = {"static": {"path": "shop/assets"}, "build_command": "make"}
    assert preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project) == []


def test_usual_names_of_debian_packages_are_fine(project: Path) -> None:
    names = ["gcc", "g++", "g++-12", "libsigc++-2.0-dev", "libpq-dev", "python3.11-dev", "libstdc++6", "7zip", "r-base"]
    changes = {"build_packages": names, "system_packages": names}
    assert preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project) == []


def test_a_debian_package_that_the_host_does_not_know(project: Path) -> None:
    changes = {"build_packages": ["gcc", "lippq-dev"], "system_packages": ["lippq-dev", "No"]}
    answers = {"unknown_packages": ["lippq-dev", "No"]}
    problems = preflight.find_problems(good_apps(changes), GOOD_SETTINGS, GOOD_FACTS, project, answers=answers)
    assert found(problems) == {
        (PACKAGE, A + "build_packages[1]"),
        (PACKAGE, A + "system_packages[0]"),
        ("bad_debian_package", A + "system_packages[1]"),
    }
    assert preflight.host_questions(good_apps(changes), {})["packages"] == ["gcc", "lippq-dev"]
    assert preflight.host_questions(good_apps(changes), {}, runs_apps=False)["packages"] == []
