"""The maintenance page: who gets it, who does not, and what goes on behind it."""

import http.client
import json
import subprocess
import threading
import time

import pytest
from runs import PROJECT, command

# On one host, the one with the newer nginx: both have the same template, and molecule/default has it on the other.
testinfra_hosts = ["ansible://fh-deploy-trixie"]

HELLO = "https://hello.test/"
GATE = "/var/lib/nginx/gate/gate.sock"
FOLDER = "/srv/hello/maintenance"


@pytest.fixture
def switch(host):
    """A way to run the playbook for this host alone; afterwards the app is to be seen again."""
    name = host.ansible.get_variables()["inventory_hostname"]

    def run(*arguments, expect=0, **variables):
        result = subprocess.run(
            command(PROJECT / "playbooks/maintenance.yml", "--limit", name, *arguments, **variables),
            cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        output = result.stdout + result.stderr
        assert "MODULE FAILURE" not in output
        assert (result.returncode != 0) is bool(expect), output
        return output

    yield run
    folders = f"{FOLDER} /srv/guestbook/maintenance"
    host.run_expect([0], f"rm --force {FOLDER}/page.html /srv/guestbook/maintenance/page.html")
    if host.run(f"find {folders} -type f").stdout:
        # What nginx has read of the settings has to go, too; it does so in a moment after it was told to.
        host.run_expect([0], f"rm --recursive --force {folders}; systemctl reload nginx.service; sleep 1")
    host.run_expect([0], f"rm --recursive --force {folders}")


def state(host):
    """The files of the page, with the moment of their last change."""
    return host.run(f"find {FOLDER} -type f -exec stat --format='%n %Z %s' {{}} + | sort").stdout


def workers(host):
    """nginx's worker processes but for those that a reload has told to end."""
    found = host.process.filter(user="www-data", comm="nginx")
    return sorted(process.pid for process in found if "shutting down" not in process.args)


def local(host, what, address="[::1]"):
    """The status of a request that comes from the host itself."""
    command = f"curl --silent --insecure --max-time 10 --resolve hello.test:443:{address} --output /dev/null"
    return host.run(f"{command} --write-out '%{{http_code}}' {what}").stdout


def eventually(question, wanted):
    """nginx takes new settings in a moment after it was told to."""
    for _attempt in range(200):
        if (answer := question()) == wanted:
            return
        time.sleep(0.1)
    pytest.fail(f"{answer} and not {wanted}")


def test_every_request_gets_the_page(visitor, switch):
    switch(app="hello", maintenance="on", message="Back at 9 <b>& later</b>")
    for method, path, body in [
        ("GET", "", None),
        ("GET", "static/hello.txt", None),
        ("POST", "upload", "a" * 100),
        # More than the app may be sent: not a word about that.
        ("POST", "upload", "a" * (17 * 1024 * 1024)),
        ("DELETE", "nothing/there?token=1", None),
    ]:
        answer = visitor.ask(HELLO + path, method, body=body)
        assert answer.status == 503, (method, path)
        assert answer.headers["retry-after"] == "600"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<p>Back at 9 &lt;b&gt;&amp; later&lt;/b&gt;</p>" in answer.body


@pytest.mark.nightly
def test_on_and_off_by_the_commands_of_the_guide_and_nothing_is_reloaded(host, visitor, switch):
    before = workers(host)
    assert before
    switch("-e", "app=hello", "-e", "maintenance=on", "-e", "message=Back at 9")
    assert "<p>Back at 9</p>" in visitor.ask(HELLO).body
    unchanged = state(host)
    assert "changed=0" in switch("-e", "app=hello", "-e", "maintenance=on", "-e", "message=Back at 9").split("RECAP")[1]
    assert state(host) == unchanged
    switch("-e", "app=hello", "-e", "maintenance=off")
    assert visitor.ask(HELLO).status == 200
    assert "changed=0" in switch("-e", "app=hello", "-e", "maintenance=off").split("RECAP")[1]
    assert workers(host) == before


@pytest.mark.nightly
def test_only_the_app_is_closed(host, visitor, switch):
    """Not the other app, not the challenges that renew its certificate, not the redirects, not the gate."""
    host.run_expect([0], "mkdir --parents /var/www/acme/.well-known/acme-challenge")
    host.run_expect([0], "echo proof > /var/www/acme/.well-known/acme-challenge/token")
    host.run_expect([0], "ln --symbolic --force --no-dereference $(readlink /srv/hello/live.sock) /srv/hello/gate.sock")
    switch(app="hello", maintenance=True)
    assert visitor.ask(HELLO).status == 503
    assert visitor.ask("https://guestbook.test/").status == 200
    assert visitor.ask("http://hello.test/.well-known/acme-challenge/token").body == "proof\n"
    assert visitor.ask("http://hello.test/").status == 301
    gate = f"--unix-socket {GATE} --header 'Host: hello.test' http://hello.test/headers"
    assert local(host, gate) == "200"
    seen = json.loads(host.run(f"curl --silent {gate}").stdout)
    host.run_expect([0], "rm /srv/hello/gate.sock")
    assert (seen["scheme"], seen["host"]) == ("https", "hello.test")
    host.run_expect([0], "rm /var/www/acme/.well-known/acme-challenge/token")


@pytest.mark.nightly
def test_gate_is_the_hosts_own(host):
    """And root's: what a neighbor meets there is in molecule/tenants/tests/test_gate.py."""
    address = host.run("hostname --all-ip-addresses").stdout.split()[0]
    for name in (address, "127.0.0.1"):
        assert host.run(f"curl --silent --max-time 5 --header 'Host: hello.test' http://{name}:7999/").rc == 7
    ask = f"curl --silent --max-time 5 --unix-socket {GATE}"
    # 7: no connection. 52 and 56: a connection that ends without a word.
    assert host.run(f"{ask} --header 'Host: nobody.test' http://nobody.test/").rc in (52, 56)
    assert host.run(f"setpriv --reuid=nobody --clear-groups {ask} http://hello.test/").rc == 7


def test_testers_see_the_app_and_nobody_else_does(host, visitor, switch):
    me = visitor.ask(f"{HELLO}headers").json["headers"]["X-Forwarded-For"]
    network = f"{me.rsplit('.', 1)[0]}.0/24"
    for allow in ([me], ["2001:db8::/32", network]):
        switch(app="hello", maintenance="on", allow=allow, retry_after=900)
        eventually(lambda: visitor.ask(HELLO).status, 200)
        eventually(lambda: local(host, HELLO), "503")
    headers = host.run("curl --silent --insecure --head --resolve hello.test:443:[::1] https://hello.test/").stdout
    assert "retry-after: 900" in headers.lower()
    unchanged, same = state(host), workers(host)
    again = switch(app="hello", maintenance="on", allow=[network, "2001:DB8::1/32"], retry_after="900")
    assert "changed=0" in again.split("RECAP")[1]
    assert (state(host), workers(host)) == (unchanged, same)
    # Those of the last time are no testers any more.
    switch(app="hello", maintenance="off")
    switch(app="hello", maintenance="on", allow="::1")
    eventually(lambda: visitor.ask(HELLO).status, 503)
    eventually(lambda: local(host, HELLO), "200")


def test_requests_in_flight_finish(host, visitor, switch):
    """Those that are with the app when the page comes, and all others while nginx is reloaded for the testers."""
    switch(app="hello", maintenance="on")
    host.run_expect([0], f"mv {FOLDER}/page.html {FOLDER}/ready")
    answers, ends = [], threading.Event()

    def ask_slowly():
        while not ends.is_set():
            try:
                answer = visitor.ask(f"{HELLO}slow?seconds=4")
                answers.append((answer.status, answer.body))
            except (OSError, http.client.HTTPException) as error:
                answers.append((0, repr(error)))
            time.sleep(0.1)

    askers = [threading.Thread(target=ask_slowly) for _number in range(4)]
    for asker in askers:
        asker.start()
    try:
        time.sleep(2.5)
        host.run_expect([0], f"mv {FOLDER}/ready {FOLDER}/page.html")
        assert visitor.ask(HELLO).status == 503
        time.sleep(1.5)
        host.run_expect([0], f"rm {FOLDER}/page.html")
        switch(app="hello", maintenance="on", allow="203.0.113.7")
    finally:
        ends.set()
        for asker in askers:
            asker.join()
    assert len([status for status, _body in answers if status == 200]) >= 4
    for status, body in answers:
        assert '"slept"' in body if status == 200 else (status, body.rstrip()[-7:]) == (503, "</html>")


def test_check_mode_shows_the_page_and_changes_nothing(host, visitor, switch):
    output = switch("--check", "--diff", app="hello", maintenance="on", message="Not yet", allow="203.0.113.7")
    assert "+<p>Not yet</p>" in output
    assert "changed=1" in output.split("RECAP")[1]
    assert not host.file(FOLDER).exists
    assert visitor.ask(HELLO).status == 200


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"maintenance": "on"}, ["app is missing", "guestbook, hello", "-e app=all"]),
        (
            {"maintenance": "onn", "app": "helo", "retry_after": 0, "allow": ["hello.test"]},
            [
                "maintenance is",
                "-e maintenance=on",
                "-e app=hello",
                "-e retry_after=600",
                "allow contains",
                "203.0.113.7",
            ],
        ),
    ],
)
def test_bad_input_is_refused_with_the_variables_name_and_a_cure(host, visitor, switch, variables, names):
    output = " ".join(switch(expect=1, **variables).split())
    for name in names:
        assert name in output
    assert not host.file(FOLDER).exists
    assert visitor.ask(HELLO).status == 200


@pytest.mark.nightly
def test_frozen_app_is_left_as_it_is(host, visitor, switch):
    switch(app="hello", maintenance="on")
    entry = {"reason": "the audit", "until": time.time() + 600, "by": "ada@laptop", "since": time.time()}
    text = json.dumps({"hello": entry})
    host.run_expect([0], "install --directory /etc/flaskhost && echo %s > /etc/flaskhost/freeze.json", text)
    try:
        assert "the audit" in switch(app="hello", maintenance="off", expect=1)
        assert "the audit" in switch(app="all", maintenance="on", expect=1)
        assert visitor.ask(HELLO).status == 503
        assert visitor.ask("https://guestbook.test/").status == 200
    finally:
        host.run_expect([0], "rm /etc/flaskhost/freeze.json")


@pytest.mark.nightly
def test_fault_in_an_operators_own_file_leaves_the_app_to_be_seen(host, visitor, switch):
    host.run_expect([0], "echo 'nonsense here;' > /etc/nginx/conf.d/own.conf")
    try:
        assert "nonsense" in switch(app="hello", maintenance="on", allow="203.0.113.7", expect=1)
        assert state(host) == ""
        assert visitor.ask(HELLO).status == 200
    finally:
        host.run_expect([0], "rm /etc/nginx/conf.d/own.conf")


@pytest.mark.nightly
def test_log_says_what_was_asked_for_and_which_release_has_answered(host, visitor, switch):
    def logged():
        return json.loads(host.run("tail -n 1 /var/log/nginx/hello.access.log").stdout)

    answer = visitor.ask(f"{HELLO}whoami?token=secret")
    assert logged()["release"] == answer.json["release"]
    assert answer.headers["server"] == "nginx", "a visitor is not told"
    switch(app="hello", maintenance="on")
    visitor.ask(f"{HELLO}upload?token=secret", "POST", body="x")
    entry = logged()
    assert (entry["method"], entry["path"], entry["status"], entry["release"]) == ("POST", "/upload", 503, "")
