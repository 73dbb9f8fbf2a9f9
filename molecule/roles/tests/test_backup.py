"""The role backup alone does what its README says, on a host without PostgreSQL."""

testinfra_hosts = ["ansible://role_backup"]
UPLOAD = "/srv/shop/data/upload"


def test_backup(host):
    assert host.service("flaskhost-backup-full.timer").is_running
    assert not host.service("flaskhost-backup-copy.timer").is_running, "there is no second repository"
    host.run_expect([0], f"sh -c 'umask 027; echo kept > {UPLOAD}'")
    host.run_expect([0], "flaskhost-backup files")
    host.run_expect([0], f"rm {UPLOAD}")
    assert "--confirm shop" in host.run_expect([1], "flaskhost-backup restore-files --app=shop").stderr
    host.run_expect([0], "flaskhost-backup restore-files --app=shop --confirm=shop")
    assert (host.file(UPLOAD).content_string, host.file(UPLOAD).mode) == ("kept\n", 0o640)
    host.run_expect([0], "flaskhost-backup drill")
    assert not host.run("grep -rl kept /var/backups/flaskhost").stdout, "it is encrypted"
