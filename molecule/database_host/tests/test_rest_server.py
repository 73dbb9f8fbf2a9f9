"""The second repository on a server of restic's own kind: HTTPS, a user and a password."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hosts import DATABASE, connect, database, play, sql

testinfra_hosts = ["ansible://fh-database-app"]
#: With what has to be quoted in an address.
PASSWORD = "Rq7-not/in any+log&9"
STORE = "/srv/store"
REPOSITORY = f"rest:https://fh-database-app:8000/{DATABASE}/"
#: What makes the other host a server: Debian's rclone speaks the protocol of restic's own one.
SERVER = f"""
set -e
if systemctl --quiet is-active rest-store; then exit; fi
apt-get install --quiet --yes --no-install-recommends rclone > /dev/null
install --directory --mode=700 {STORE}
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=fh-database-app -addext subjectAltName=DNS:fh-database-app \
    -keyout {STORE}/key.pem -out {STORE}/cert.pem 2> /dev/null
printf 'store:%s\n' "$(openssl passwd -apr1 '{PASSWORD}')" > {STORE}/htpasswd
systemd-run --unit=rest-store --collect rclone serve restic --addr :8000 --htpasswd {STORE}/htpasswd \
    --cert {STORE}/cert.pem --key {STORE}/key.pem {STORE}/data
nft insert rule inet flaskhost input tcp dport 8000 accept
"""


def second(password: str) -> dict[str, Any]:
    """The site's setting."""
    login = {"RESTIC_REST_USERNAME": "store", "RESTIC_REST_PASSWORD": password}
    return {
        "passphrase": "m5Wd2yQe8tVbN1xCzRk0aHs7LgUj4PfT",
        "second": {"repository": REPOSITORY, "environment": login, "every": 59},
    }


@pytest.fixture(scope="module")
def server() -> None:
    """The server runs, and the database's host trusts its certificate."""
    store = connect("fh-database-app")
    done = store.run(SERVER)
    assert done.rc == 0, done.stderr
    certificate = store.file(f"{STORE}/cert.pem").content_string
    place = "/usr/local/share/ca-certificates/store.crt"
    done = database().run(f"printf %%s %s > {place} && update-ca-certificates", certificate)
    assert done.rc == 0, done.stderr


@pytest.mark.usefixtures("server")
def test_the_database_comes_back_from_the_server_alone():
    """A drill restores it into a cluster of its own, and counts again."""
    sql("INSERT INTO entry (author, message, created_at) VALUES ('x', 'seen by the drill', now())")
    play("site", "--tags=backup", f"--limit={DATABASE},localhost", backup=second(PASSWORD))
    for verb in ("full", "copy", "drill --from second"):
        done = database().run(f"flaskhost-backup {verb}")
        assert done.rc == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("server")
def test_a_wrong_password_is_told_at_once_and_the_right_one_never(host):
    options = ("--tags=backup", f"--limit={DATABASE},localhost")
    refused = play("site", *options, backup=second("wrong"))
    assert "401 Unauthorized" in " ".join(refused.split())
    opened = play("site", *options, "--diff", backup=second(PASSWORD))
    assert "401 Unauthorized" not in " ".join(opened.split())
    seen = database().run("journalctl --no-pager").stdout + host.run("journalctl --no-pager --unit=rest-store").stdout
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in refused + opened
        assert secret not in seen
