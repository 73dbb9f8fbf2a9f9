"""The second repository: a host moves from one kind of store to the other, and both hold what comes back."""

from __future__ import annotations

from pathlib import Path

import yaml
from backups import backup, name_of, play, settled

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
VARIABLES = Path(__file__).parents[1] / "host_vars" / "fh-backup-trixie.yml"
#: Of the host whose store speaks S3.
S3 = {name: value for name, value in yaml.safe_load(VARIABLES.read_text()).items() if name.startswith("store")}
#: Starts a copy, and stops its restic while it holds the lock, as a store does that no longer answers.
HANG = """systemctl start --no-block flaskhost-backup@copy
for _ in $(seq 600); do pkill --signal STOP --full '[r]estic .*backup --json' && exit; sleep 0.05; done
exit 1"""
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


def test_a_restore_ends_a_copy_that_hangs(host):
    settled(host)
    host.run_expect([0], HANG)
    host.run("rm -rf /var/tmp/look")
    output = backup(host, "restore-files --app=flaskhost --folder=/var/tmp/look")
    assert "The copy to the second repository was in the way and has been stopped." in output
    assert host.run("diff -r --exclude=backup /var/tmp/look/etc/flaskhost /etc/flaskhost").stdout == ""
    host.run_expect([0], "systemctl start flaskhost-backup@copy")
    assert "All backups are up to date." in backup(host, "check")
