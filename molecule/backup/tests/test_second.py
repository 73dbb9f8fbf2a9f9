"""The second repository: a host moves from one kind of store to the other, and both hold what comes back."""

from __future__ import annotations

from pathlib import Path

import yaml
from backups import backup, name_of, play, settled

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
VARIABLES = Path(__file__).parents[1] / "host_vars" / "fh-backup-trixie.yml"
#: Of the host whose store speaks S3.
S3 = {name: value for name, value in yaml.safe_load(VARIABLES.read_text()).items() if name.startswith("store")}
SFTP = {"store": "sftp:store@fh-backup-store:/srv/store", "store_login": {}}
OTHER = {"fh-backup-bookworm": S3, "fh-backup-trixie": SFTP}


def test_a_host_moves_to_the_other_kind_of_store(host):
    settled(host)
    name = name_of(host)
    try:
        output = play("site", name, "--tags=backup", store_folder=f"{name}-moved", **OTHER[name])
        assert "The second repository was made" in output
        backup(host, "full")
        output = backup(host, "drill --from second")
        assert "the same number of rows" in output
        assert "All is well" in output
        host.run("rm -rf /var/tmp/look")
        backup(host, "restore-files --app=flaskhost --from=second --folder=/var/tmp/look")
        assert host.run("diff -r --exclude=backup /var/tmp/look/etc/flaskhost /etc/flaskhost").stdout == ""
    finally:
        output = play("site", name, "--tags=backup")
    assert "The second repository is there, and opens" in output
    backup(host, "full")
    assert "All is well" in backup(host, "drill --from second")


def test_a_store_that_refuses_the_log_in_is_told_and_nothing_else_stops(host):
    settled(host)
    name = name_of(host)
    moved = {"store_folder": f"{name}-login", "store": S3["store"]}
    refused = "The second repository cannot be reached (request signature we calculated does not match)"
    try:
        play("site", name, "--tags=backup", **moved, store_login=S3["store_login"])
        backup(host, "files")
        wrong = {**S3["store_login"], "AWS_SECRET_ACCESS_KEY": "another"}
        assert refused in play("site", name, "--tags=backup", **moved, store_login=wrong)
        output = backup(host, "files", good=False)
        assert refused in output
        assert "The local repository of files (/var/backups/flaskhost/files): " in output
    finally:
        play("site", name, "--tags=backup")
    backup(host, "files")
