"""A full disk under the repositories: it is said, PostgreSQL goes on, and with room again the same command heals it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from backups import backup, served, settled, sql, version_of

testinfra_hosts = ["ansible://fh-backup-bookworm", "ansible://fh-backup-trixie"]
FOLDER, ASIDE = "/var/backups/flaskhost", "/var/backups/aside"
TIMERS = "flaskhost-backup-copy.timer flaskhost-backup-check.timer"
WAITING = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"


def run(host: Any, *commands: str) -> None:
    """Run commands that have to succeed."""
    done = host.run(" && ".join(commands))
    assert done.rc == 0, done.stdout + done.stderr


@pytest.fixture
def small_disk(host: Any) -> Iterator[None]:
    """Have the repositories on a disk of their own, with some room; what comes to them there is kept."""
    settled(host)
    unit = f"postgresql@{version_of(host)}-main"
    size = int(host.run(f"du -sm {FOLDER}").stdout.split()[0]) + 150
    run(host, f"systemctl stop {TIMERS}", f"rm -rf {ASIDE}", f"cp -a {FOLDER} {ASIDE}",
        f"mount -t tmpfs -o size={size}m,mode=755 tmpfs {FOLDER}", f"cp -a {ASIDE}/. {FOLDER}/",
        f"systemctl restart {unit}")  # fmt: skip
    try:
        yield
    finally:
        run(host, f"rm -f {FOLDER}/filler", f"systemctl stop {unit}", f"rm -rf {ASIDE}", f"cp -a {FOLDER} {ASIDE}",
            f"umount {FOLDER}", f"rm -rf {FOLDER}/*", f"cp -a {ASIDE}/. {FOLDER}/", f"rm -rf {ASIDE}",
            f"systemctl start {unit} {TIMERS}")  # fmt: skip


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_said_and_heals_by_the_same_command(host, visitor):
    backup(host, "full")
    host.run(f"dd if=/dev/zero of={FOLDER}/filler bs=1M")
    output = backup(host, "full", good=False)
    assert f"The disk of the local repository ({FOLDER}/postgres) is full." in output
    assert "The second repository: the database's repository" in output, "the rest is done all the same"
    sql(host, "DROP TABLE IF EXISTS much; CREATE TABLE much AS SELECT generate_series(1, 1000) AS n")
    sql(host, "SELECT pg_switch_wal()")
    served(visitor)
    host.run("for i in $(seq 30); do flaskhost-backup check && sleep 1 || break; done")
    assert "is full." in backup(host, "check", good=False)
    host.run(f"rm {FOLDER}/filler")
    host.run(f"cd /; for i in $(seq 90); do runuser -u postgres -- psql -Atc \"{WAITING}\" | grep -qx 0 && exit; "
             "sleep 1; done")  # fmt: skip
    assert sql(host, WAITING) == "0", "PostgreSQL hands over what has waited"
    backup(host, "full")
    assert "All is well" in backup(host, "drill")
    assert "All backups are up to date." in backup(host, "check")
