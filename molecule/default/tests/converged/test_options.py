"""What the app ledger sets, and the others leave at its default. Each does what it says, its absence not."""

import json
import shlex
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest


def slot(host, app):
    """The unit of the slot that serves."""
    live = host.file(f"/srv/{app}/live.sock").linked_to.rsplit("/", 1)[1].removesuffix(".sock")
    return f"flask-{app}@{live}.service"


def environment(host, app):
    """The variables of the running app."""
    pid = host.run(f"systemctl show --value --property=MainPID {slot(host, app)}").stdout.strip()
    return dict(line.split("=", 1) for line in host.run(f"cat /proc/{pid}/environ").stdout.split("\0") if "=" in line)


def post(visitor, code):
    """Have the app run code of Python's; return the answer."""
    return visitor.ask("https://ledger.test/run", "POST", body=textwrap.dedent(code))


@pytest.fixture
def query(visitor):
    """Asks the app's database from within the app, by the URI that it is given; statements of SQL, in one session."""

    def ask(*statements, seconds=0.0):
        return post(
            visitor,
            f"""
            import json, time
            import sqlalchemy
            engine = sqlalchemy.create_engine(os.environ["SQLALCHEMY_DATABASE_URI"], poolclass=sqlalchemy.pool.NullPool)
            print(json.dumps(engine.driver))
            with engine.connect() as connection:
                for number, statement in enumerate({list(statements)!r}):
                    if number:
                        time.sleep({seconds})
                    found = connection.execute(sqlalchemy.text(statement))
                    print(json.dumps([str(row[0]) for row in found] if found.returns_rows else []))
                connection.commit()
            """,
        )

    return ask


def rows(answer):
    """The driver, and what each statement has returned."""
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


# --- Packages and the database ---------------------------------------------------------------------------------------


def test_extra_packages_are_there_and_the_driver_is_the_one_named(query):
    driver, user = rows(query("select current_user"))
    assert (driver, user) == ("psycopg2", ["ledger"])


def test_extra_group_and_project_are_installed_as_packages(visitor):
    code = """
        from importlib.metadata import version
        print(version("humanize"), version("tzdata"), version("app"))
    """
    answer = post(visitor, code)
    assert (answer.status, answer.body.split()) == (200, ["4.15.0", "2026.1", "7"]), answer.body


def test_build_command_has_completed_the_code_without_secrets_and_data(host, visitor):
    answer = visitor.ask("https://ledger.test/files/tool.txt")
    assert (answer.status, answer.body.split()[:2]) == (200, ["GNU", "Make"]), answer.body
    built = host.file("/srv/ledger/current/app/built.txt")
    assert (built.user, built.group, built.mode) == ("root", "ledger", 0o640)
    lines = built.content_string.splitlines()
    assert {"FLASK_CONFIG=exhibition", "ledger_build", "no data"} <= {*lines}
    release = host.check_output("readlink -f /srv/ledger/current/app")
    assert f"FLASKHOST_RELEASE_DIR={release}" in lines
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert not names & {"SECRET_KEY", "DATABASE_URL", "SQLALCHEMY_DATABASE_URI", "APP_KEY", "STORE"}
    assert "PATH" in names


def test_debian_packages_of_the_app_are_installed(host, visitor):
    assert host.package("make").is_installed
    code = """
        import subprocess
        print(subprocess.run(["bc"], input="6 * 7\\n", capture_output=True, text=True).stdout)
    """
    answer = post(visitor, code)
    assert (answer.status, answer.body.split()) == (200, ["42"]), answer.body


def test_driver_is_psycopg_where_none_is_named(host):
    assert environment(host, "guestbook")["SQLALCHEMY_DATABASE_URI"].startswith("postgresql+psycopg://")


def test_app_that_owns_its_database_makes_tables_while_it_serves(host, query):
    assert rows(query("create table if not exists page (title citext)", "insert into page values ('One')"))
    sql = "select tableowner from pg_tables where tablename = 'page'"
    assert host.run(f'sudo -u postgres psql -d ledger -tAc "{sql}"').stdout.strip() == "ledger"
    # The app that does not is refused: test_database.py.


def test_extension_is_there_and_works(query):
    assert rows(query("select 'Flask'::citext = 'FLASK'::citext"))[1] == ["True"]


def test_statement_takes_no_longer_than_it_may(query):
    answer = query("select pg_sleep(3)")
    assert answer.status == 500
    assert "canceling statement due to statement timeout" in answer.body
    assert query("select pg_sleep(1)").status == 200


def test_transaction_is_open_and_idle_no_longer_than_it_may(host, query):
    assert query("begin", "select 1", seconds=1).status == 200
    answer = query("begin", "select 1", seconds=4)
    assert answer.status == 500
    assert "server closed the connection" in answer.body
    said = host.run("journalctl --sync; journalctl --since=-1min --identifier=postgres").stdout
    assert "terminating connection due to idle-in-transaction timeout" in said


def test_statement_waits_for_a_lock_no_longer_than_it_may(host, query):
    rows(query("create table if not exists waited (x int)"))
    lock = "begin; lock table waited; select pg_sleep(6); commit"
    host.run(f"systemd-run --quiet --unit=lock-of-a-test --uid=postgres --collect psql -d ledger -c '{lock}'")
    deadline = time.monotonic() + 10
    held = "select count(*) from pg_locks where relation = 'waited'::regclass and granted"
    while host.run(f'sudo -u postgres psql -d ledger -tAc "{held}"').stdout.strip() != "1":
        assert time.monotonic() < deadline, "nobody holds the lock"
        time.sleep(0.1)
    try:
        answer = query("select * from waited")
        assert answer.status == 500
        assert "canceling statement due to lock timeout" in answer.body
    finally:
        host.run("systemctl stop lock-of-a-test.service")


def test_app_has_as_many_connections_as_it_may_and_no_more(host, visitor):
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ledger'"
    host.run_expect([0], f'sudo -u postgres psql -tAc "{ended}"')
    answer = post(
        visitor,
        """
        import psycopg2
        opened = []
        try:
            while len(opened) < 50:
                opened.append(psycopg2.connect(os.environ["DATABASE_URL"]))
        except psycopg2.OperationalError as error:
            print(len(opened), error)
        for connection in opened:
            connection.close()
        """,
    )
    count, refusal = answer.body.split(" ", 1)
    assert "too many connections for role" in refusal
    # Its own, and the five of a release command, which logs in as the same role.
    assert int(count) == 6 + 5


def test_settings_of_the_sites_own_win_over_those_that_are_computed(host):
    show = "sudo -u postgres psql --tuples-only --no-align --command"
    assert host.run(f"{show} 'show checkpoint_timeout'").stdout.strip() == "7min"
    assert host.run(f"{show} 'show default_statistics_target'").stdout.strip() == "250"


# --- The app's processes ---------------------------------------------------------------------------------------------


def together(visitor, code, requests):
    """Seconds until as many requests, which all come at once, are answered, and their answers."""
    began = time.monotonic()
    with ThreadPoolExecutor(requests) as pool:
        answers = list(pool.map(lambda _number: post(visitor, code), range(requests)))
    return time.monotonic() - began, answers


def test_sync_worker_serves_one_request_at_a_time(visitor):
    """Six requests of a second each, three workers: two rounds. With threads they would all be served in one."""
    seconds, answers = together(visitor, "import time; time.sleep(1)", 6)
    assert {answer.status for answer in answers} == {200}
    assert seconds >= 2


def test_worker_serves_as_many_requests_as_it_has_threads(visitor):
    """The app hello has one worker of four threads."""
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _number: visitor.ask("https://hello.test/slow?seconds=1"), range(8)))
    assert {answer.json["pid"] for answer in answers} == {answers[0].json["pid"]}
    assert 2 <= time.monotonic() - began < 6


def test_worker_that_is_stuck_is_replaced_after_its_time(host, visitor):
    """Six seconds instead of thirty; nginx would wait for eleven."""
    began = time.monotonic()
    assert post(visitor, "import time; time.sleep(20)").status in {500, 502}
    assert 5 < time.monotonic() - began < 15
    assert "WORKER TIMEOUT" in host.run("journalctl --namespace='*' --since=-1min --no-pager").stdout
    assert visitor.ask("https://ledger.test/").status == 200


def test_request_in_flight_gets_the_time_that_it_may_have(host):
    """Gunicorn is told to wait for them, and systemd to wait a little longer."""
    stop = host.run(f"systemctl show --value --property=TimeoutStopUSec {slot(host, 'ledger')}").stdout.strip()
    other = host.run(f"systemctl show --value --property=TimeoutStopUSec {slot(host, 'hello')}").stdout.strip()
    assert 7 < int(stop.removesuffix("s")) < 30 < int(other.removesuffix("s"))


def test_configuration_is_the_one_named(host):
    assert environment(host, "ledger")["FLASK_CONFIG"] == "exhibition"


def test_variables_have_the_values_of_their_placeholders(host):
    found = environment(host, "ledger")
    assert found["APP_KEY"] == found["SECRET_KEY"]
    assert found["STORE"] == found["SQLALCHEMY_DATABASE_URI"]
    assert found["MOTTO"] == '{"{host}": "ledger.test"}'
    folder = f"/srv/ledger/releases/{found['FLASKHOST_RELEASE']}/app"
    assert found["FLASKHOST_RELEASE_DIR"] == folder
    assert found["RULES"] == f"{folder}/rules/ledger.toml"
    # A rollback must not bring an old key back.
    assert "APP_KEY" not in host.file("/srv/ledger/current/env").content_string
    assert "\nAPP_KEY=" in "\n" + host.file("/etc/flaskhost/ledger/secret_key.env").content_string


def test_release_command_has_the_owners_login_under_the_apps_own_name(host):
    login = host.file("/etc/flaskhost/guestbook/database_owner.env").content_string
    assert 'STORE="postgresql://guestbook-owner:' in login
    assert environment(host, "guestbook")["STORE"].startswith("postgresql://guestbook@/")


def test_file_is_in_the_release_and_for_the_app_alone(host, visitor):
    assert post(visitor, "print(open(os.environ['RULES']).read())").body.strip() == 'home = "/srv/ledger/data"'
    assert post(visitor, "open(os.environ['RULES'], 'a')").status == 500
    path = "/srv/ledger/current/app/rules/ledger.toml"
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "ledger", 0o640)
    for user, status in (("ledger", 0), ("hello", 1), ("www-data", 1)):
        assert host.run(f"sudo -u {user} cat {path}").rc == status, user


def test_persistent_folder_begins_with_what_git_tracks_of_it(host, visitor):
    file = host.file("/srv/ledger/data/drafts/first.txt")
    assert (file.content_string, file.user) == ("A first draft\n", "ledger")
    assert post(visitor, "print(open('drafts/first.txt').read())").body.strip() == "A first draft"


def test_persistent_folder_can_be_written_and_lies_in_the_data(host, visitor):
    answer = post(visitor, "open('drafts/kept', 'w').write('a draft')")
    assert answer.status == 200, answer.body
    assert host.file("/srv/ledger/data/drafts/kept").content_string == "a draft"
    assert "Read-only file system" in post(visitor, "open('lost', 'w')").body
    assert not host.file("/srv/ledger/current/src/uploads").exists


# --- What nginx does -------------------------------------------------------------------------------------------------


def test_headers_are_the_apps_own(visitor):
    own, usual = (visitor.ask(f"https://{name}.test/").headers for name in ("ledger", "hello"))
    assert own["content-security-policy"] == "default-src 'none'"
    assert "default-src" not in usual["content-security-policy"]
    assert own["x-frame-options"] == "DENY" != usual["x-frame-options"]
    assert "cross-origin-opener-policy" in usual
    assert "cross-origin-opener-policy" not in own
    assert "noindex" in own["x-robots-tag"]
    assert "x-robots-tag" not in usual


def test_methods_that_are_not_named_never_reach_the_app(visitor):
    assert visitor.ask("https://ledger.test/", "DELETE").status == 405
    assert visitor.ask("https://ledger.test/", "DELETE").headers["server"] == "nginx"
    assert visitor.ask("https://ledger.test/", "HEAD").status == 405
    assert visitor.ask("https://ledger.test/").status == 200


def test_static_files_are_served_at_their_own_url_from_their_own_folder(host, visitor):
    answer = visitor.ask("https://ledger.test/files/notice.txt")
    assert (answer.status, answer.body) == (200, "A file beside the code.\n")
    assert visitor.ask("https://ledger.test/static/plain.txt").status == 200
    # What nginx serves itself has no status of the app's in its log.
    log = host.file("/var/log/nginx/ledger.access.log").content_string
    answered = {line["path"]: line["upstream_status"] for line in map(json.loads, log.splitlines())}
    assert answered["/files/notice.txt"] == ""
    assert answered["/static/plain.txt"] == "200"
    assert visitor.ask("https://hello.test/files/notice.txt").status == 404


def test_more_requests_at_once_than_the_burst_are_put_off(host):
    """From an address of their own, so that other tests are not held to it."""
    ask = "curl --silent --insecure --parallel --parallel-max 60 --interface 127.0.0.9 --output /dev/null"
    counts = {}
    for name in ("ledger", "hello"):
        target = f"--connect-to {name}.test:443:127.0.0.1:443 'https://{name}.test/nothing?n=[1-90]'"
        began = time.monotonic()
        said = host.run(f"{ask} --write-out '%{{http_code}}\\n' {target}").stdout.split()
        counts[name] = (said.count("429"), len(said), time.monotonic() - began)
    refused, asked, seconds = counts["ledger"]
    assert asked == counts["hello"][1] == 90
    assert counts["hello"][0] == 0, counts
    # One, the burst, and 20 for each second that it took.
    assert 90 - 31 - 20 * (seconds + 1) <= refused <= 90 - 31, counts
    assert refused > 0, counts


def test_more_uploads_at_the_same_time_than_allowed_are_put_off(visitor):
    """Each declares 2 MB and sends a part; the third of an address is refused before it sends more."""

    def begin(name):
        connection = visitor.handshake(f"{name}.test")
        connection.sendall(f"POST /run HTTP/1.1\r\nHost: {name}.test\r\nContent-Length: 2000000\r\n\r\nx".encode())
        connection.settimeout(2)
        return connection

    for name, refused in (("hello", False), ("ledger", True)):
        connections = [begin(name) for _number in range(2)]
        for connection in connections:
            with pytest.raises(TimeoutError):
                connection.recv(100)
        connections.append(begin(name))
        if refused:
            assert connections[2].recv(100).startswith(b"HTTP/1.1 429 ")
        else:
            with pytest.raises(TimeoutError):
                connections[2].recv(100)
        for connection in connections:
            connection.close()


def test_login_has_the_path_and_the_rate_named(host):
    """From an address of its own; the app has no such pages, and says 404."""
    ask = "curl --silent --insecure --interface 127.0.0.10 --output /dev/null --write-out '%{http_code}\\n' --data x"
    target = "--connect-to ledger.test:443:127.0.0.1:443 'https://ledger.test/{path}?n=[1-5]'"
    usual, own = (host.run(f"{ask} {target.replace('{path}', path)}").stdout.split() for path in ("login", "enter"))
    assert usual == ["404"] * 5
    assert own == ["404"] * 3 + ["429"] * 2


# --- The host --------------------------------------------------------------------------------------------------------


def test_time_comes_from_the_servers_named(host):
    """The host shares its clock, so that chronyd does not run by itself: it runs without touching the clock here."""
    host.run_expect([0], "systemd-run --quiet --collect --unit=time-of-a-test chronyd -x -d -f /etc/chrony/chrony.conf")
    try:
        deadline = time.monotonic() + 10
        while "192.0.2.123" not in (said := host.run("chronyc -n sources").stdout):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
    finally:
        host.run("systemctl stop time-of-a-test.service")


REBOOT = """
import runpy
program = runpy.run_path("/usr/bin/unattended-upgrade", run_name="program")
program["apt_pkg"].init()
program["reboot_if_requested_and_needed"]()
"""


def test_reboot_that_an_update_needs_is_at_its_time(host):
    """The program itself decides; what it calls is a stand-in, in a view of the files of its own.

    Both hosts have the same `reboot_time`, so the second of the inventory is 20 minutes later.
    """
    wanted = "04:05" if host.system_info.release.startswith("13") else "03:45"
    script = f"""
    set -e
    mount -t tmpfs none /run
    touch /run/reboot-required
    printf '#!/bin/sh\\necho called with "$@"\\n' > /run/shutdown
    chmod 755 /run/shutdown
    mount --bind /run/shutdown /sbin/shutdown
    python3 -c {shlex.quote(REBOOT)}
    """
    said = host.run(f"unshare --mount sh -c {shlex.quote(script)}")
    assert f"called with -r {wanted}" in said.stdout + said.stderr, said


def test_unwanted_packages_are_gone_but_for_those_that_are_wanted(host):
    assert not host.package("vim-tiny").is_installed
    assert host.package("nano").is_installed
