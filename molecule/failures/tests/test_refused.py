"""What an operator sees when something is wrong, and what goes on serving meanwhile."""

import subprocess
import time

import pytest
from runs import PROJECT, command

SECRET = "never-to-be-seen-4711"
GUESTBOOK = {
    "domains": ["guestbook.test"],
    "source": {"path": "sample_app"},
    "wsgi": "guestbook:create_app()",
    "processes": {"worker": ""},
    "health": {"path": "/readyz"},
}
HELLO = {
    "domains": ["hello.test"],
    "source": {"repo": "file:///opt/hello.git", "version": "main", "subdir": "apps/hello"},
    "wsgi": "app:app",
    "database": False,
    "secrets": {"MAIL_PASSWORD": SECRET},
}


def run(*arguments, **variables):
    """Run the playbook with other variables; return its status and what it printed."""
    result = subprocess.run(
        command(PROJECT / "site.yml", "--diff", *arguments, **variables),
        cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    output = result.stdout + result.stderr
    assert SECRET not in output
    assert "MODULE FAILURE" not in output
    return result.returncode, output


def version(tag):
    """``flask_apps`` with another version of hello."""
    return {"flask_apps": {"guestbook": GUESTBOOK, "hello": {**HELLO, "source": {**HELLO["source"], "version": tag}}}}


def state(host):
    """What must not change when a run is refused."""
    files = "/etc/nginx/nginx.conf /etc/nftables-flaskhost.conf /etc/gunicorn /srv/hello/current /srv/hello/live.sock"
    # But for the unit of the slot that is tried, which has its own, and the folder that it lies in.
    units = "find /etc/systemd/system -mindepth 1 ! -name 'flask-hello@[bg]*' ! -name multi-user.target.wants"
    return host.run(f"{{ echo {files} | xargs -n 1; {units} | sort; }} | xargs stat --format='%n %Z %N'").stdout


# The others are in the scenario deploy, on both releases of Debian and with visitors.
@pytest.mark.parametrize(
    ("tag", "step", "reason"),
    [
        ("bad-object", "Start the {idle} slot", "Failed to find attribute 'app'"),
        ("no-lock", "Build the virtual environment", "no file that pins its dependencies"),
    ],
)
def test_broken_release_never_serves_and_says_why(host, visitor, tag, step, reason):
    before = visitor.ask("https://hello.test/whoami").json
    unchanged = state(host)
    idle = "green" if "/blue.sock" in unchanged else "blue"
    status, output = run("--tags", "app", **version(tag))
    assert status != 0
    assert f"hello was not released. {step.format(idle=idle)}" in output
    assert reason in output
    assert visitor.ask("https://hello.test/whoami").json["release"] == before["release"]
    assert state(host) == unchanged
    assert host.run(f"systemctl is-active flask-hello@{idle}.service").stdout.strip() == "inactive"
    assert not host.file(f"/run/flask-hello/{idle}.sock").exists


@pytest.mark.nightly
def test_login_to_the_database_goes_after_the_release_that_does_without_it_serves(host):
    def logs_in():
        return host.run("cd / && sudo -u hello psql -d hello -tAc 'SELECT 1'").stdout.strip() == "1"

    def site(tag, database):
        apps = version(tag)
        apps["flask_apps"]["hello"] = {**apps["flask_apps"]["hello"], "database": database}
        return run("--tags", "postgres,app", **apps)

    status, output = site("v2", database=True)
    assert status == 0, output
    assert logs_in()
    status, output = site("bad-object", database=False)
    assert status != 0
    assert "hello was not released" in output
    assert logs_in(), "the release that serves still uses it"
    # Not by a run that leaves the apps alone either.
    apps = version("v2")
    assert run("--tags", "postgres", **apps)[0] == 0
    assert logs_in()
    status, output = site("v2", database=False)
    assert status == 0, output
    assert not logs_in()
    assert '"hello"' not in host.run("grep -v ^# /etc/postgresql/*/main/pg_hba.conf").stdout
    assert "changed=0" in site("v2", database=False)[1]


def test_refused_release_leaves_the_limits_of_the_one_that_serves(host):
    """systemd applies a limit to what runs as soon as it reads the unit: a release could fall with the one refused."""
    live = host.file("/srv/hello/live.sock").linked_to.rpartition("/")[2].removesuffix(".sock")

    def limit():
        return host.run_expect([0], f"systemctl show --property=MemoryMax --value flask-hello@{live}").stdout.strip()

    before, apps = limit(), version("bad-object")
    apps["flask_apps"]["hello"] = {**apps["flask_apps"]["hello"], "limits": {"memory": 96}, "outbound": False}
    status, output = run("--tags", "slots,gunicorn,app", **apps)
    assert status != 0
    assert "hello was not released" in output
    assert "MemoryMax=96M" in host.file("/etc/systemd/system/flask-hello@.service").content_string
    host.run_expect([0], "systemctl daemon-reload")
    assert limit() == before
    # A crash does not bring the refused release's sandbox either.
    host.run_expect([0], f"systemctl kill --signal=KILL flask-hello@{live}")
    time.sleep(5)
    network = host.run_expect([0], f"systemctl show --property=PrivateNetwork --value flask-hello@{live}").stdout
    assert (network.strip(), limit()) == ("no", before)
    status, output = run("--tags", "slots,gunicorn,app", **version("v2"))
    assert status == 0, output


def test_good_release_after_the_bad_ones_serves(visitor):
    status, output = run("--tags", "app", **version("v2"))
    assert status == 0, output
    assert "second version" in visitor.ask("https://hello.test/static/hello.txt").body


@pytest.mark.nightly
def test_uv_lock_is_built_from_and_an_old_gunicorn_in_it_replaced_with_a_warning(host, visitor):
    status, output = run("--tags", "app", **version("uv-lock"))
    assert status == 0, output
    assert "uv.lock pins gunicorn 23.0.0; this release runs 27.0.1" in " ".join(output.split())
    assert visitor.ask("https://hello.test/").status == 200
    assert "27.0.1" in host.run("/srv/hello/current/venv/bin/gunicorn --version").stdout
    assert host.file("/srv/hello/current/src/apps/hello/uv.lock").exists
    status, output = run("--tags", "app", **version("v2"))
    assert status == 0, output


def test_bad_input_is_refused_all_at_once_before_anything_is_touched(host):
    unchanged = state(host)
    bad = {
        "guestbook": {**GUESTBOOK, "domains": ["https://guestbook.test", "hello.test"], "wrokers": 2},
        "hello": {**HELLO, "source": {"repo": "file:///opt/hello.git", "path": "sample_app"}},
    }
    status, output = run(flask_apps=bad)
    assert status != 0
    for path in (
        "flask_apps.guestbook.domains[0]",
        "flask_apps.guestbook.wrokers",
        "flask_apps.hello.domains[0]",
        "flask_apps.hello.source",
    ):
        assert path in output
    assert "workers" in output
    assert "TASK [base" not in output
    assert state(host) == unchanged


def test_folder_without_a_lock_is_refused_before_anything_is_touched(tmp_path, host):
    (tmp_path / "app.py").write_text("app = None\n")
    unchanged = state(host)
    status, output = run(flask_apps={"hello": {**HELLO, "source": {"path": str(tmp_path)}}})
    assert status != 0
    assert "flask_apps.hello" in output
    assert "requirements.txt" in output
    assert state(host) == unchanged


def test_missing_variable_is_named(host):
    unchanged = state(host)
    status, output = run(flask_apps={"hello": {**HELLO, "secrets": {"MAIL_PASSWORD": "{{ vault_missing }}"}}})
    assert status != 0
    assert "vault_missing" in output
    assert "TASK [base" not in output
    assert state(host) == unchanged


def test_host_that_cannot_be_reached_is_named_with_the_cure():
    status, output = run(ansible_port=1)
    assert status != 0
    assert "fh-failures" in output
    assert "refused" in output
    assert "TASK [base" not in output


@pytest.mark.parametrize("variables", [{}, {"ansible_become_password": "wrong"}])
def test_sudo_that_refuses_is_told_with_the_cure(variables):
    status, output = run(ansible_user="grace", **variables)
    assert status != 0
    assert "sudo" in output
    assert "-K" in output
    assert "TASK [base" not in output


def test_right_password_is_enough():
    status, output = run("--tags", "firewall", ansible_user="grace", ansible_become_password="correct")
    assert status == 0, output


def test_fault_in_an_operators_own_file_leaves_the_site_serving(host, visitor):
    host.run_expect([0], "echo 'nonsense here;' > /etc/nginx/conf.d/own.conf")
    before = host.run("cat /etc/nginx/nginx.conf").stdout
    try:
        status, output = run("--tags", "nginx", nginx_ipv6=False)
        assert status != 0
        assert "nonsense" in output
        assert host.run("cat /etc/nginx/nginx.conf").stdout == before
        assert visitor.ask("https://hello.test/").status == 200
    finally:
        host.run_expect([0], "rm /etc/nginx/conf.d/own.conf")


def test_secret_is_not_shown_even_when_asked_for_details():
    status, output = run("-vvv", "--tags", "app", **version("v2"))
    assert status == 0, output
    # Details were shown, and `run` has not found the secret in them.
    assert "flask_release" in output


def test_reload_that_was_never_made_is_made_up_for(host, visitor):
    """As after a kill between the write and the reload: the file is right, and nginx has not read it."""
    changed = {"flask_apps": {"guestbook": GUESTBOOK, "hello": {**HELLO, "limits": {"body": 1}}}}
    changed["flask_apps"]["hello"]["source"] = {**HELLO["source"], "version": "v2"}
    written = "/server_name hello.test;/,/client_max/s/client_max_body_size 16m/client_max_body_size 1m/"
    host.run_expect([0], f"sed --in-place {written!r} /etc/nginx/nginx.conf")
    big = "a" * (1024 * 1024 + 1)
    assert visitor.ask("https://hello.test/", "POST", body=big).status != 413
    status, output = run("--tags", "nginx", **changed)
    assert status == 0, output
    assert visitor.ask("https://hello.test/", "POST", body=big).status == 413
