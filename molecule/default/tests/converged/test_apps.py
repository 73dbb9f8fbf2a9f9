"""What an app may do, what it may not, and who owns what."""

import pytest

APPS = ("guestbook", "hello")


def property_of(host, unit, name):
    return host.run(f"systemctl show --value --property={name} {unit}").stdout.strip()


def live(host, app):
    """The slot of an app that serves."""
    return host.file(f"/srv/{app}/live.sock").linked_to.rsplit("/", 1)[1].removesuffix(".sock")


@pytest.mark.parametrize("app", APPS)
def test_app_runs_as_its_own_user_and_answers_at_boot_too(host, app):
    unit = f"flask-{app}@{live(host, app)}.service"
    assert property_of(host, unit, "ActiveState") == "active"
    assert property_of(host, unit, "UnitFileState") == "enabled"
    workers = host.process.filter(user=app)
    assert workers
    assert all("gunicorn" in worker.args for worker in workers)


@pytest.mark.parametrize("app", APPS)
def test_only_one_slot_runs(host, app):
    idle = {"blue": "green", "green": "blue"}[live(host, app)]
    assert property_of(host, f"flask-{app}@{idle}.service", "ActiveState") == "inactive"
    assert not host.file(f"/run/flask-{app}/{idle}.sock").exists


@pytest.mark.parametrize("app", APPS)
def test_users_cannot_log_in(host, app):
    user = host.user(app)
    assert user.shell == "/usr/sbin/nologin"
    assert user.password.startswith("!")
    assert user.groups == [app]


@pytest.mark.parametrize("app", APPS)
def test_current_names_the_release_of_the_live_slot(host, app):
    served = host.run(f"readlink --canonicalize /srv/{app}/slots/{live(host, app)}").stdout
    assert host.run(f"readlink --canonicalize /srv/{app}/current").stdout == served


@pytest.mark.parametrize("app", APPS)
def test_code_and_environment_belong_to_root_and_the_app_cannot_write_them(host, app):
    for place in (f"/srv/{app}/current/src", f"/srv/{app}/current/venv/"):
        strangers = host.run(f"find -L {place} -not -user root -not -path '*/instance*' -not -path '*/uploads*'").stdout
        assert strangers == ""
        written = host.run(f"sudo -u {app} find {place} -writable -not -type l").stdout
        assert written == ""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/srv/hello/data/probe", True),
        ("/srv/hello/data/uploads/probe", True),
        ("/tmp/probe", True),  # a /tmp of its own
        ("/srv/hello/current/src/probe", False),
        ("/srv/hello/current/venv/probe", False),
        ("/srv/hello/probe", False),
        ("/srv/guestbook/data/probe", False),
        ("/var/tmp/../lib/probe", False),
        ("/etc/probe", False),
        ("/dev/shm/probe", True),  # shared memory of its own
        ("/run/probe", False),
        ("/run/lock/probe", False),
        ("/home/debian/probe", False),
        ("/var/www/acme/probe", False),
    ],
)
def test_running_app_writes_only_its_data(visitor, path, allowed):
    assert visitor.ask(f"https://hello.test/write?path={path}").json["ok"] is allowed


@pytest.mark.parametrize(
    "path",
    [
        "/etc/flaskhost/hello/secret_key",
        "/etc/flaskhost/guestbook/secret_key",
        "/etc/flaskhost/tls/hello/privkey.pem",
        "/srv/hello/current/env",
        "/srv/guestbook/current/env",
        "/srv/guestbook/current/src/Procfile",
        "/srv/guestbook/data/instance",
        "/etc/shadow",
        "/home/debian/.ssh/authorized_keys",
        "/root/.profile",
        "/proc/1/environ",
    ],
)
def test_running_app_cannot_read(visitor, host, path):
    assert host.file(path).exists, "there is nothing to protect"
    answer = visitor.ask(f"https://hello.test/read?path={path}").json
    assert (answer["ok"], answer["errno"]) in {(False, "EACCES"), (False, "ENOENT"), (False, "EPERM")}


def test_app_leaves_nothing_where_others_see_it(visitor, host):
    for path in ("/tmp/probe", "/dev/shm/probe"):
        assert visitor.ask(f"https://hello.test/write?path={path}").json["ok"]
        assert not host.file(path).exists


def test_probe_can_read_at_all(visitor):
    assert visitor.ask("https://hello.test/read?path=/etc/passwd").json["ok"]


def test_app_sees_no_process_of_another_one(visitor, host):
    pid = host.process.filter(user="guestbook")[0].pid
    assert not visitor.ask(f"https://hello.test/read?path=/proc/{pid}/cmdline").json["ok"]
    own = visitor.ask("https://hello.test/whoami").json["pid"]
    assert visitor.ask(f"https://hello.test/read?path=/proc/{own}/cmdline").json["ok"]


def test_web_server_may_connect_to_a_slot_and_another_app_may_not(host):
    path = host.file("/srv/guestbook/live.sock").linked_to
    socket = host.file(path)
    assert (socket.user, socket.group, socket.mode) == ("root", "www-data", 0o660)
    ask = f"curl --silent --max-time 3 --unix-socket {path} http://guestbook.test/healthz"
    assert host.run(f"sudo -u www-data {ask}").rc == 0
    assert host.run(f"sudo -u hello {ask}").rc == 7


def test_secret_with_every_odd_character_arrives_unchanged(host):
    wanted = "a b\tc \"d\" 'e' $HOME ${f} `g` \\h \\\\ %i #j\n;k=l é"
    pid = host.process.filter(user="hello")[0].pid
    variables = host.run(f"cat /proc/{pid}/environ").stdout.split("\0")
    assert f"ODD={wanted}" in variables


def test_secret_key_is_long_and_only_roots(host):
    key = host.file("/etc/flaskhost/hello/secret_key")
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    assert len(key.content_string) > 64
    assert host.file("/etc/flaskhost/guestbook/secret_key").content_string != key.content_string


def test_configuration_is_the_production_one(host):
    pid = host.process.filter(user="guestbook")[0].pid
    variables = host.run(f"cat /proc/{pid}/environ").stdout.split("\0")
    assert {"FLASK_CONFIG=production", "FLASK_DEBUG=0"} <= set(variables)


def test_server_is_new_enough_to_lose_no_request(host):
    version = host.run("/srv/hello/current/venv/bin/gunicorn --version").stdout
    assert "27.0.1" in version


def test_as_many_workers_as_asked_for(host):
    # The master and its workers.
    assert len(host.process.filter(user="guestbook")) == 1 + 2


def test_request_in_flight_is_finished_before_a_stop(host, visitor):
    slot = live(host, "hello")
    ask = "curl --silent --insecure --resolve hello.test:443:127.0.0.1 'https://hello.test/slow?seconds=3'"
    result = host.run(
        f"{ask} --output /dev/null --write-out '%{{http_code}}' & sleep 1;"
        f" systemctl restart flask-hello@{slot}.service; wait"
    )
    assert result.stdout == "200"
    assert visitor.ask("https://hello.test/whoami").status == 200
