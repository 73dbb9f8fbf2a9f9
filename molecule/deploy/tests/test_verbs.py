"""The verbs beside deploy: status, freeze, run, rotate_secret, and a rollback that the database forbids.

All of it with a release of the guestbook that has one more migration and a secret, and comes after the usual one.
"""

import base64
import getpass
import hashlib
import hmac
import json
import re
import shutil
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playbook import PROJECT, finish, leftovers, name_of, run, serving, slots, start, with_app
from test_broken import HEAD, MIGRATION, NEXT, sql

# On one host: what differs between the two is shown by the deploys themselves, and this is some minutes long.
testinfra_hosts = ["ansible://fh-deploy-bookworm"]

SITE = "https://guestbook.test/"
ME = f"{getpass.getuser()}@{socket.gethostname()}"
#: Made up for each run of the tests, so that no older log can hold it.
TOKEN = hashlib.sha256(str(time.time()).encode()).hexdigest()
FREEZE = "/etc/flaskhost/freeze.json"
#: Of a host that nobody has given a passphrase.
NO_BACKUPS = (
    "There are no backups: backup.passphrase is not set, or site.yml has not run since it was. Set it if it is "
    "not set (docs/backup.md), then run site.yml."
)
#: What is changed by nobody who was refused, or only looks: files, links, and the slots that run. The lock's file tells
#: who had it last.
STATE = f"""
find /srv/guestbook /etc/flaskhost/guestbook {FREEZE} /etc/systemd/system/flask-guestbook* \
  -path /srv/guestbook/data -prune -o ! -type d ! -name .lock -printf '%p %T@ %s %l\\n' 2>/dev/null | sort
systemctl show --property=Id,InvocationID,UnitFileState 'flask-guestbook@*'
"""


def state(host):
    return host.run(STATE).stdout


def told(host, files, since):
    """How many lines of all journals hold one of the secrets that the files name, which no command line may hold."""
    search = f"journalctl --namespace='*' --since=@{since} | grep --count --fixed-strings --file=/run/patterns"
    return int(host.run(f"umask 077; cat {files} > /run/patterns; {search}; rm /run/patterns").stdout)


def together(*processes):
    """Finish runs that do not get into each other's way, and take half the time like this."""
    return [finish(process) for process in processes]


@pytest.fixture(autouse=True)
def thawed(host):
    """What one test has frozen must not be what the next one fails of."""
    yield
    host.run(f"rm --force {FREEZE} /srv/guestbook/data/touched")


@pytest.fixture(scope="module")
def first(host):
    """The usual release, which serves before and after."""
    before = serving(host, "guestbook").split()[1]
    yield Path(before).name
    if sql(host, "select version_num from alembic_version") == NEXT:
        sql(host, f"alter table entry drop column mood; update alembic_version set version_num = '{HEAD}'")
    if serving(host, "guestbook").split()[1] != before:
        status, output = run("deploy", host, app="guestbook")
        assert status == 0, output


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """The app with one more migration, and with a secret."""
    code = tmp_path_factory.mktemp("migrated") / "guestbook"
    shutil.copytree(PROJECT / "sample_app", code, ignore=shutil.ignore_patterns("__pycache__", "instance"))
    (code / f"migrations/versions/{NEXT}_add_a_mood.py").write_text(MIGRATION)
    return with_app("guestbook", source={"path": str(code)}, secrets={"API_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def second(host, first, options):
    """The release with the migration serves; its name."""
    since = int(time.time())
    status, output = run("deploy", host, "-vvv", app="guestbook", **options)
    assert status == 0, output
    # As loud as can be, and not a word of any secret.
    assert TOKEN not in output
    for key in host.file("/etc/flaskhost/guestbook/secret_key").content_string.split():
        assert key not in output
    host.run_expect([0], """sed -n 's/^API_TOKEN="\\(.*\\)"/\\1/p' /srv/guestbook/current/env > /run/token""")
    assert host.file("/run/token").content_string.strip() == TOKEN
    assert told(host, "/run/token /etc/flaskhost/guestbook/secret_key", since) == 0
    host.run("rm /run/token")
    return Path(host.file("/srv/guestbook/current").linked_to).name


# --- status ----------------------------------------------------------------------------------------------------------


def rows(output):
    """The rows of the table, as mappings."""
    lines = [line.strip() for line in output.splitlines()]
    header = next(number for number, line in enumerate(lines) if re.match("host +app +live release", line))
    names = re.split(" {2,}", lines[header])
    found = []
    for line in lines[header + 1 :]:
        if not line:
            break
        found.append(dict(zip(names, re.split(" {2,}", line), strict=True)))
    return found


def status_table(host, *arguments, **variables):
    output, _none = start("status", host, *arguments, **variables).communicate(timeout=60)
    return rows(output)


@pytest.mark.nightly
def test_status_tells_what_serves_although_a_host_is_down(host, first, second, tmp_path):
    more = tmp_path / "more.yml"
    more.write_text("app: {hosts: {down: {ansible_host: 127.0.0.1, ansible_port: 1}}}\n")
    before, name = state(host), name_of(host)
    host.run_expect([0], "mkdir /srv/guestbook/maintenance; touch /srv/guestbook/maintenance/page.html")
    try:
        found = status_table(host, "--inventory", str(more), "--limit", f"{name},down")
    finally:
        host.run_expect([0], "rm --recursive /srv/guestbook/maintenance")
    assert [(row["host"], row["app"]) for row in found] == [(name, "guestbook"), (name, "hello"), ("down", "-")]
    row, _hello, down = found
    assert down["notes"].startswith("unreachable: is the host up, and is ansible_port")
    record = json.loads(host.file(f"/srv/guestbook/releases/{second}/release.json").content_string)
    served = json.loads(host.file("/srv/guestbook/history.json").content_string)[-1]
    certificate = host.run(
        "openssl s_client -connect 127.0.0.1:443 -servername guestbook.test </dev/null 2>/dev/null"
        " | openssl x509 -noout -enddate"
    ).stdout
    ends = datetime.strptime(certificate.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert row == {
        "host": name,
        "app": "guestbook",
        "live release": second,
        "commit": record["revision"][:7],
        "version": "guestbook",
        "since (UTC)": f"{datetime.fromtimestamp(served['at'], UTC):%Y-%m-%d %H:%M}",
        "by": ME,
        "slot": slots(host, "guestbook")[0],
        "health": "200 ok",
        "previous healthy release": first,
        "cache": "-",
        "queue": "-",
        "cert days": str((ends - datetime.now(UTC)).days),
        "backup": "none",
        "drill": "-",
        "notes": f"maintenance; {NO_BACKUPS}",
    }
    assert state(host) == before


# --- freeze ----------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_frozen_app_is_left_alone_until_the_freeze_is_lifted(host, second, options):
    until = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%dT%H:%M}"
    frozen = {"app": "guestbook", "reason": "the big sale", "until": until}
    status, output = run("freeze", host, **frozen)
    assert status == 0, output
    assert "changed=1" in output
    before, app = state(host), {"app": "guestbook"}
    # The inventory without the migration: a deploy of it would be one.
    refused = together(
        start("site", host),
        start("maintenance", host, maintenance="on", **app),
        start("run", host, command="touch $HOME/touched", **app),
        start("rotate_secret", host, **app),
    )
    # One after the other: they ask for the lock first.
    refused += [run("deploy", host, **app), run("rollback", host, force=True, **app)]
    why = rf"guestbook is frozen since 20\S+ \S+ UTC by {ME}: the big sale\. It ends at {until.replace('T', ' ')} UTC\."
    for status, output in refused:
        assert status != 0, output
        assert re.search(why, output), output
        assert "-e freeze=off" in output
    assert "TASK [base" not in refused[0][1]
    assert not host.file("/srv/guestbook/data/touched").exists
    # What is in order needs no change, and may be asked for; the freeze itself is no other one when it is repeated.
    (status, output), (again_status, again), (forced_status, forced) = together(
        start("deploy", host, **app, **options),
        start("freeze", host, **frozen),
        start("run", host, command="echo run all the same", force=True, **app),
    )
    assert status == 0, output
    assert "changed=0" in output
    assert again_status == 0, again
    assert "changed=0" in again
    assert forced_status == 0, forced
    assert "run all the same" in forced
    frozen_until = f"frozen until {until.replace('T', ' ')} UTC: the big sale"
    assert status_table(host, **app)[0]["notes"] == f"{frozen_until}; {NO_BACKUPS}"
    assert state(host) == before
    status, output = run("freeze", host, freeze="off", **app)
    assert status == 0, output
    assert "changed=1" in output
    assert not host.file(FREEZE).exists


@pytest.mark.nightly
def test_freeze_is_refused_where_it_is_not_clear(host):
    found = together(
        start("freeze", host, app="guestbook", hours=1),
        start("freeze", host, app="guestbok", reason="audit", hours=1),
        start("freeze", host, "-e", "reason=big sale", app="guestbook", hours=1),
    )
    wanted = [
        "reason: missing",
        "there is no app 'guestbok' in flask_apps. Available: guestbook, hello.",
        "Quote the value twice",
    ]
    for (status, output), text in zip(found, wanted, strict=True):
        assert status != 0, output
        assert text in output, output
    assert not host.file(FREEZE).exists


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_gives_the_command_the_live_release_and_tells_how_it_ended(host, second):
    command = (
        "echo release $FLASKHOST_RELEASE; printf %s $API_TOKEN | wc -c; test -n $SECRET_KEY && flask db current;"
        " id -un; pwd; touch written; echo an error >&2; exit 7"
    )
    # A freeze that has ended counts for nothing.
    ended = {"guestbook": {"reason": "old", "since": 1, "until": time.time() - 60, "by": "ada@laptop"}}
    host.run_expect([0], f"echo %s > {FREEZE}", json.dumps(ended))
    (status, output), (good_status, good) = together(
        start("run", host, "-vvv", app="guestbook", command=command),
        start("run", host, app="guestbook", command="flask db current"),
    )
    assert status != 0
    assert "failed with exit code 7: " in output
    for text in (f"release {second}", f" {len(TOKEN)} ", f"{NEXT} (head)", " guestbook ", "Read-only file system"):
        assert text in output.partition("failed with exit code 7: ")[2], output
    assert f"/srv/guestbook/releases/{second}/" in output
    assert "an error" in output
    assert TOKEN not in output
    for key in host.file("/etc/flaskhost/guestbook/secret_key").content_string.split():
        assert key not in output
    assert good_status == 0, good
    assert f"{NEXT} (head)" in good


@pytest.mark.nightly
def test_run_says_what_is_missing(host):
    more = with_app("guestbook")
    more["flask_apps"]["newcomer"] = {**more["flask_apps"]["guestbook"], "domains": ["newcomer.test"]}
    found = together(
        start("run", host, app="newcomer", command="true", **more),
        start("run", host, app="guestbok", command="true"),
        start("run", host, "-e", "command=flask db current", app="guestbook"),
    )
    wanted = [
        "no release of newcomer is live on this host. Deploy it first",
        "there is no app 'guestbok' in flask_apps. Available: guestbook, hello.",
        "command: words were lost",
    ]
    for (status, output), text in zip(found, wanted, strict=True):
        assert status != 0, output
        assert text in output, output


# --- setup -----------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_setup_runs_again_only_where_the_apps_name_is_given_again(host):
    more = with_app("hello", setup_command="echo again >> $HOME/setups; echo made anew")
    written = "/srv/hello/data/setups"
    assert not host.file(written).exists
    found = together(
        start("setup", host, app="hello", **more),
        start("setup", host, app="guestbook", confirm="guestbook", **more),
    )
    wanted = ["confirm: this runs 'echo again >> $HOME/setups; echo made anew' again", "guestbook has no setup_command"]
    for (status, output), text in zip(found, wanted, strict=True):
        assert status != 0, output
        assert text in output, output
    assert not host.file(written).exists
    status, output = run("setup", host, app="hello", confirm="hello", **more)
    assert status == 0, output
    assert "made anew" in output
    assert host.file(written).content_string == "again\n"
    # A deploy does not.
    status, output = run("deploy", host, app="hello", **more)
    assert status == 0, output
    assert host.file(written).content_string == "again\n"
    # The note is there only if there was something to deploy.
    host.run_expect([0], f"rm {written}; rm --force /srv/hello/data/.flaskhost-setup.json")


# --- check mode ------------------------------------------------------------------------------------------------------


def test_check_mode_changes_nothing(host, first, second):
    before, app = state(host), {"app": "guestbook"}
    found = together(
        start("deploy", host, "--check", **app),
        start("rollback", host, "--check", force=True, **app),
        start("rotate_secret", host, "--check", **app),
        start("freeze", host, "--check", reason="audit", hours=1, **app),
        start("maintenance", host, "--check", maintenance="on", **app),
    )
    wanted = [
        "with changes in: code, variables",
        f"-{second} +{first} +roll back to {first}",
        "switch traffic to it",
        '+ "reason": "audit"',
        "+<!doctype html>",
    ]
    for (status, output), text in zip(found, wanted, strict=True):
        assert status == 0, output
        assert text in output, output
        assert "changed=0" not in output, output
    assert state(host) == before
    assert not host.file("/srv/guestbook/maintenance").exists


# --- rotate_secret ---------------------------------------------------------------------------------------------------


def session(cookie):
    """What is in a session, which is signed and no secret."""
    payload = cookie.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def is_signed(cookie, key):
    """Whether a session is signed with a key, as Flask does it."""
    value, _dot, signature = cookie.rpartition(".")
    derived = hmac.digest(key.encode(), b"cookie-session", "sha1")
    wanted = base64.urlsafe_b64encode(hmac.digest(derived, value.encode(), "sha1")).rstrip(b"=")
    return hmac.compare_digest(wanted.decode(), signature)


@pytest.fixture
def keys(host, second):
    """The file of the keys; afterwards the app has those of before, since its other hosts still have them."""
    files = "/etc/flaskhost/guestbook/secret_key /etc/flaskhost/guestbook/secret_key.env"
    files += f" /srv/guestbook/releases/{second}/release.json"
    host.run_expect([0], f"tar --create --absolute-names --file=/root/before.tar {files}")
    yield "/etc/flaskhost/guestbook/secret_key"
    host.run_expect([0], "tar --extract --absolute-names --file=/root/before.tar && rm /root/before.tar")
    host.run_expect([0], f"systemctl restart flask-guestbook@{slots(host, 'guestbook')[0]}.service")


def test_rotation_logs_nobody_out_and_tells_no_key(host, visitor, keys, second):
    since, (old,) = int(time.time()), host.file(keys).content_string.split()
    cookie = visitor.ask(SITE).cookies["__Host-session"]
    assert is_signed(cookie, old)
    status, output = run("rotate_secret", host, "-vvv", app="guestbook")
    assert status == 0, output
    new, still = host.file(keys).content_string.split()
    assert still == old != new
    assert old not in output
    assert new not in output
    assert told(host, keys, since) == 0
    # Who comes with the old session still has it; who comes without one gets it signed with the new key.
    answer = visitor.ask(SITE, headers={"Cookie": f"__Host-session={cookie}"})
    assert answer.status == 200
    assert session(answer.cookies.get("__Host-session", cookie)) == session(cookie)
    stranger = visitor.ask(SITE, headers={"Cookie": ""}).cookies["__Host-session"]
    assert is_signed(stranger, new)
    # That is no matter of course: a session which none of the keys has signed is another one.
    forged = visitor.ask(SITE, headers={"Cookie": f"__Host-session={cookie[:-4]}AAAA"}).cookies["__Host-session"]
    assert session(forged) != session(cookie)
    assert Path(host.file("/srv/guestbook/current").linked_to).name == second
    assert leftovers(host, "guestbook") == []


# --- rollback --------------------------------------------------------------------------------------------------------


def test_rollback_is_refused_where_the_release_does_not_know_the_schema(host, visitor, first, second):
    before = state(host)
    status, output = run("rollback", host, app="guestbook")
    assert status != 0, output
    assert f"{first}: the database's schema is at revision {NEXT}, which this release does not know" in output
    assert "-e force=true" in output
    assert state(host) == before
    status, output = run("rollback", host, app="guestbook", force=True)
    assert status == 0, output
    assert "Rolled back to it anyway (force)" in output
    assert Path(host.file("/srv/guestbook/current").linked_to).name == first
    assert visitor.ask(f"{SITE}readyz").status == 200
    assert sql(host, "select version_num from alembic_version") == NEXT, "the database is left as it is"
    assert leftovers(host, "guestbook") == []
