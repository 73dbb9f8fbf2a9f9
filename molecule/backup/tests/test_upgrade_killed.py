"""An upgrade of PostgreSQL that is killed on the host: nothing is lost, and the cure that is printed works."""

from __future__ import annotations

import os
import re
import subprocess

from backups import backup, name_of, play, served, settled, sql
from runs import PLAIN, PROJECT, command

# After test_upgrade.py, which leaves the host with the former version.
testinfra_hosts = ["ansible://fh-backup-fresh"]
#: Kills the upgrade with all that it has started as soon as pg_upgrade copies the data, and not this shell with it.
KILL = """for _ in $(seq 6000); do
  if pgrep --full '[p]ostgresql/17/bin/[p]g_upgrade' > /dev/null; then
    pkill --signal KILL --full '[p]g_upgrade'; echo killed; exit
  fi
  sleep 0.05
done"""


def test_a_killed_upgrade_loses_nothing_and_names_its_cure(host, visitor):
    settled(host)
    # What the way back has left of the last one.
    host.run("pg_dropcluster --stop 17 main")
    sql(host, "DROP TABLE IF EXISTS moved; CREATE TABLE moved (a int); INSERT INTO moved VALUES (8)")
    given = {"postgres_version": "17", "confirm": "upgrade"}
    words = command("playbooks/upgrade_postgres.yml", "--limit", f"{name_of(host)},localhost", **given)
    run = subprocess.Popen(words, cwd=PROJECT, env={**os.environ, **PLAIN}, stdout=subprocess.PIPE, text=True)
    killed = "killed" in host.run(KILL).stdout
    output, _none = run.communicate(timeout=300)
    assert killed, output
    assert run.returncode != 0, output

    said = play("upgrade_postgres", name_of(host), good=False, postgres_version="17", confirm="upgrade")
    cure = re.search(r"(sudo pg_dropcluster --stop 17 main); (sudo systemctl start postgresql@15-main)", said)
    assert cure, said
    for words in cure.groups():
        assert host.run(words).rc == 0, words
    assert sql(host, "SELECT a FROM moved") == "8"
    served(visitor)
    play("upgrade_postgres", name_of(host), postgres_version="17", confirm="upgrade")
    assert sql(host, "SHOW server_version_num").startswith("17")
    assert sql(host, "SELECT a FROM moved") == "8"
    served(visitor)
    play("upgrade_postgres", name_of(host), postgres_version="17", confirm="back")
    play("site", name_of(host), "--tags=postgres,backup", postgres_version="15")
    assert sql(host, "SELECT a FROM moved") == "8"
    settled(host)
    backup(host, "check")
