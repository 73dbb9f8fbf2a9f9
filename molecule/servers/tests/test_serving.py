"""Each server and worker class serves: as itself, in the sandbox, with events, async views and the database."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

from conftest import PROGRAMS

testinfra_hosts = ["ansible://all"]
#: The slots' score, which does not depend on the server. systemd counts 0.2 for a private /tmp that is a bind
#: mount: this one counts toward the app's quota.
LIMIT = 1.3


def test_server_of_the_option_runs(main_process, slot, app):
    assert PROGRAMS[app].format(slot=slot(app)) in main_process(app)


def test_app_sees_the_visitors_scheme(visitor, app):
    assert visitor.ask(f"https://{app}.test/whoami").json["scheme"] == "https"


def test_headers_of_a_visitor_are_no_error_of_the_release(visitor, app):
    """Else, three requests of a visitor would end the watch over each release."""
    many = {f"X-H{number}": "1" for number in range(150)}
    assert visitor.ask(f"https://{app}.test/whoami", headers=many).status < 500
    long = {f"X-A{number}": "a" * 8000 for number in range(3)}
    assert visitor.ask(f"https://{app}.test/whoami?{'q' * 7900}", headers=long).status < 500


def test_nginx_logs_the_release_and_visitors_do_not_see_it(host, visitor, app, eventually):
    path = f"/none-{time.time_ns()}"
    headers = visitor.ask(f"https://{app}.test{path}").headers
    assert headers["server"] == "nginx"

    def logged():
        lines = host.file(f"/var/log/nginx/{app}.access.log").content_string.splitlines()
        return [json.loads(line)["release"] for line in lines if path in line]

    assert eventually(logged) == [headers["x-release"]]


def test_sandbox_is_as_tight_as_gunicorns(host, slot, app):
    rated = host.run(f"systemd-analyze --no-pager security flask-{app}@{slot(app)}.service").stdout
    assert float(re.search(r"Overall exposure level\D*([\d.]+)", rated)[1]) <= LIMIT


def test_events_arrive_one_by_one_and_not_at_the_end(visitor, app):
    arrived = []
    with visitor.handshake(f"{app}.test") as connection:
        connection.sendall(f"GET /events HTTP/1.1\r\nHost: {app}.test\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            assert b" 200 " in answer.readline()
            arrived += [time.monotonic() for line in answer if line.startswith(b"data: ")]
    assert len(arrived) == 8
    # Sent within three and a half seconds.
    assert arrived[-1] - arrived[0] > 2
    assert arrived[3] - arrived[0] < arrived[-1] - arrived[0] - 1


def test_async_view_waits_for_two_things_at_once(visitor, app):
    assert 0.4 < visitor.ask(f"https://{app}.test/async").json["took"] < 0.95


def test_queries_of_gevent_wait_beside_each_other(visitor):
    """psycopg waits with gevent's functions only if they were there before it was imported."""
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(visitor.ask, "https://with-gevent.test/query?seconds=1") for _ in range(20)]
        workers = {each.result().json["pid"] for each in asked}
    # Two workers, one query after the other: ten seconds.
    assert len(workers) <= 2
    assert time.monotonic() - began < 6
