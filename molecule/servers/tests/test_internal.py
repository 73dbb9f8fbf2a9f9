"""Files that nginx sends if the app allows it: to whom, with which headers, and what a hostile app makes of it."""

import hashlib
import json
import re
import shlex
import subprocess
import time
import uuid
from urllib.parse import quote, urlencode

import pytest
from conftest import APPS

testinfra_hosts = ["ansible://all"]
TEXT = "".join(f"line {number:05}\n" for number in range(2000))
#: An address that no test comes from.
NOBODY = "192.0.2.77"
ERRORS = "/var/log/nginx/error.log"


@pytest.fixture
def put(host):
    """The function that writes a file into the uploads of an app, as the app's user, and returns its name."""

    def write(app, name="", text=TEXT):
        name = name or f"{uuid.uuid4().hex}.txt"
        as_app(host, app, f"cat > {shlex.quote(f'{folder_of(app)}/{name}')}", text)
        return name

    return write


def folder_of(app):
    return f"/srv/{app}/data/{APPS[app]['protected_files']['folder']}"


def as_app(host, app, script, text=""):
    """Run a script as the app's user, with the umask of its slots."""
    script = f"umask 077; {script}"
    return host.check_output(f"printf %s {shlex.quote(text)} | runuser -u {app} -- sh -c {shlex.quote(script)}")


def reads(host, path):
    """Whether nginx's user can read a path."""
    return host.run(f"runuser -u www-data -- head -c 1 {shlex.quote(path)}").rc == 0


@pytest.fixture
def get(visitor):
    """The function that asks an app for a file that it lets nginx send."""

    def ask(app, name, headers=None, method="GET", **options):
        query = urlencode({"word": "open"} | options, doseq=True)
        return visitor.ask(f"https://{app}.test/files/{quote(name)}?{query}", method, headers=headers)

    return ask


# -- what visitors get -----------------------------------------------------------------------------------------------


def test_only_the_app_sends_a_file(visitor, put, get, app):
    name = put(app)
    answer = get(app, name)
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert name in answer.headers["content-disposition"]
    assert visitor.ask(f"https://{app}.test/files/{name}").status == 403
    assert get(app, "missing.txt").status == 404
    url = APPS[app]["protected_files"].get("url", "/protected/")
    for path in (url, f"/{url}", f"/%{ord(url[1]):x}{url[2:]}", f"/static/..{url}", f"{url}./"):
        for method in ("GET", "HEAD", "POST"):
            assert visitor.ask(f"https://{app}.test{path}{name}", method).status == 404
    assert visitor.ask(f"https://{app}.test{url}{name}", headers={"X-Accel-Redirect": f"{url}{name}"}).status == 404


def test_parts_and_conditional_requests(put, get, app):
    name = put(app)
    whole = get(app, name)
    part = get(app, name, {"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, TEXT[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(TEXT)}"
    assert get(app, name, {"Range": f"bytes={len(TEXT)}-"}).status == 416
    assert get(app, name, {"Range": "bytes=10-19", "If-Range": whole.headers["etag"]}).status == 206
    assert get(app, name, {"Range": "bytes=10-19", "If-Range": '"other"'}).status == 200
    assert get(app, name, {"If-None-Match": whole.headers["etag"]}).status == 304
    assert get(app, name, {"If-Modified-Since": whole.headers["last-modified"]}).status == 304
    assert get(app, name, {"If-None-Match": '"other"'}).status == 200
    head = get(app, name, method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, "", str(len(TEXT)))


def test_headers_are_those_of_all_responses(visitor, put, get, app):
    page, answer = visitor.ask(f"https://{app}.test/whoami"), get(app, put(app))
    for name in ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy", "server"):
        assert answer.headers[name] == page.headers[name]
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "x-accel-redirect" not in answer.headers


def test_log_has_the_release(host, put, get, app, eventually):
    name = put(app)
    get(app, name)

    def logged():
        lines = host.file(f"/var/log/nginx/{app}.access.log").content_string.splitlines()
        return [json.loads(line) for line in lines if f"/files/{name}" in line]

    (line,) = eventually(logged)
    release = host.check_output(f"basename $(readlink /srv/{app}/current)")
    assert (line["release"], line["status"], line["upstream_status"]) == (release, 200, "200")


def test_headers_of_the_app_count(put, get):
    name = put("with-uwsgi")
    given = {"Cache-Control": "private, max-age=60", "Content-Security-Policy": "sandbox", "Vary": "Cookie"}
    answer = get("with-uwsgi", name, **given, **{"Set-Cookie": "seen=1"})
    for header, value in given.items():
        assert answer.headers[header.lower()] == value
    assert answer.cookies == {"seen": "1"}


def test_large_files_do_not_pass_through_the_app(host, visitor, slot):
    name, size = f"{uuid.uuid4().hex}.bin", 200_000_000
    path = f"/srv/with-waitress/data/uploads/{name}"
    as_app(host, "with-waitress", f"head -c {size} /dev/urandom > {path}")
    process = host.check_output(
        f"systemctl show --value --property=MainPID flask-with-waitress@{slot('with-waitress')}.service"
    )

    def passed():
        counts = dict(line.split(": ") for line in host.check_output(f"cat /proc/{process}/io").splitlines())
        return int(counts["rchar"]) + int(counts["wchar"])

    before = passed()
    done = subprocess.run(
        ["curl", "--silent", "--insecure", "--fail", "--resolve",
         f"with-waitress.test:{visitor.ports[443]}:127.0.0.1",
         f"https://with-waitress.test:{visitor.ports[443]}/files/{name}?word=open"],
        capture_output=True,
        timeout=120,
        check=True,
    )  # fmt: skip
    assert hashlib.sha256(done.stdout).hexdigest() == host.check_output(f"sha256sum < {path}").split()[0]
    assert passed() - before < 1_000_000
    host.check_output(f"rm {path}")


def test_names_of_all_kinds(put, get):
    for name in ("a b.txt", "ä ö.txt", "100%.txt", "a?b.txt", "a#b.txt", "%2e%2e.txt", "a;b&c.txt"):
        put("with-uwsgi", name)
        assert get("with-uwsgi", name).body == TEXT, name


def test_file_is_not_kept_for_others(host, put, get):
    name = put("cached", text="first")
    assert get("cached", name).body == "first"
    put("cached", name, text="second")
    second = get("cached", name)
    assert second.body == "second"
    assert "hit" not in second.headers["cache-status"]
    as_app(host, "cached", f"rm /srv/cached/data/uploads/{name}")
    # nginx keeps a file open for a second.
    last = time.monotonic() + 10
    while get("cached", name).status != 404:
        assert time.monotonic() < last
        time.sleep(0.2)
    part = get("cached", put("cached"), {"Range": "bytes=0-3"})
    assert (part.status, part.body) == (206, TEXT[:4])


# -- rights ----------------------------------------------------------------------------------------------------------


def upload(visitor, app, name, query=""):
    body = f'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n{TEXT}\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return visitor.ask(f"https://{app}.test/files/{name}?{query}", "POST", headers=headers, body=body)


def test_uploads_are_readable_unless_the_app_closes_them(host, visitor, get):
    names = [f"{uuid.uuid4().hex}.txt" for _ in range(3)]
    for name, query in zip(names, ("", "closed=1", "closed=1&mode=640"), strict=True):
        assert upload(visitor, "cached", name, query).status == 200
    assert [get("cached", name).status for name in names] == [200, 404, 200]
    # Nor can anybody else read them.
    assert host.check_output(f"stat -c %a /srv/cached/data/uploads/{names[0]}") == "640"
    assert host.run(f"runuser -u mover -- cat /srv/cached/data/uploads/{names[0]}").rc != 0


def test_nginx_reads_that_folder_and_nothing_else_of_the_data(host, put):
    data = "/srv/cached/data"
    name = put("cached")
    assert reads(host, f"{data}/uploads/{name}")
    paths = ("instance/open.txt", "own/open.txt", "open.txt")
    as_app(host, "cached", f"cd {data}; mkdir -p own; chmod 755 own instance")
    as_app(host, "cached", f"cd {data}; for path in {' '.join(paths)}; do echo x > $path; chmod 644 $path; done")
    for path in paths:
        assert not reads(host, f"{data}/{path}")
    assert host.run(f"runuser -u www-data -- ls {data}").rc != 0
    assert not reads(host, f"/srv/mover/data/uploads/{name}")
    assert host.run("runuser -u www-data -- ls /srv/mover/data/uploads").rc != 0
    assert host.run(f"runuser -u www-data -- touch {data}/uploads/{name}").rc != 0


def test_copies_that_an_app_makes_keep_working(host):
    """Within a slot, the number of nginx's user means nothing, so that its rights cannot be copied."""
    folder = f"/srv/cached/data/uploads/{uuid.uuid4().hex}"
    script = (
        f"import os, shutil; p='{folder}/'; os.mkdir(p); open(p + '1', 'w').write('x'); shutil.copy2(p + '1', p + '2');"
        f" shutil.move(p + '2', p + '3'); shutil.copytree(p, '{folder}-all'); os.rename(p + '3', p + '4')"
    )
    properties = ("PrivateUsers=yes", "UMask=0077", "User=cached", "Group=cached")
    options = " ".join(f"--property={item}" for item in properties)
    host.check_output(f"systemd-run --quiet --pipe --wait --collect {options} python3 -c {shlex.quote(script)}")
    for path in ("/1", "/4", "-all/1", "-all/3"):
        assert reads(host, folder + path)


def test_option_takes_all_with_it(host, visitor, play, put, get):
    name = put("cached")
    play("site", "cached", "--tags", "nginx,app", protected_files={})
    try:
        assert not reads(host, f"/srv/cached/data/uploads/{name}")
        # As in the data of an app that never had the option.
        modes = [host.check_output(f"cd /srv/{app}/data && stat -c %a . uploads") for app in ("cached", "mover")]
        assert modes[0] == modes[1]
        assert get("cached", name).body == "", "the app's own response"
        assert visitor.ask(f"https://cached.test/protected/{name}").headers["x-release"], "a page of the app again"
        assert host.file("/etc/nginx/nginx.conf").content_string.count("location ^~ /protected/") == 3, "the others'"
    finally:
        play("site", "cached", "--tags", "nginx,app")
    assert get("cached", name).body == TEXT
    recap = play("site", "cached", "--tags", "nginx,app").rpartition("PLAY RECAP")[2]
    assert re.search(rf"{host.backend.get_hostname()} *: ok=\d+ +changed=0 ", recap), recap


# -- a hostile app ---------------------------------------------------------------------------------------------------


def test_no_link_leads_anywhere(host, visitor, put, get):
    own, other = put("cached"), put("with-uwsgi", text="of another app")
    assert reads(host, f"/srv/with-uwsgi/data/uploads/{other}"), "so only nginx itself can refuse"
    folder = "/srv/cached/data/uploads"
    as_app(host, "cached", f"mkdir -p {folder}/real; rm -f {folder}/l-*; cp {folder}/{own} {folder}/real/x.txt")
    targets = ["/etc/passwd", f"/srv/with-uwsgi/data/uploads/{other}", f"{folder}/{own}", "../instance"]
    targets += ["/srv/with-uwsgi/data/uploads", "/proc/self/environ", "/etc/nginx/nginx.conf", "real"]
    for number, target in enumerate(targets):
        as_app(host, "cached", f"ln -s {target} {folder}/l-{number}")
    names = ["l-0", "l-1", "l-2", "l-3/x", f"l-4/{other}", "l-5", "l-6", "l-7/x.txt"]
    assert [get("cached", name).status for name in names] == [404] * len(names)
    assert get("cached", "real/x.txt").body == TEXT, "control"
    # The folder itself, and the one above it, as links.
    for place, goal in (("uploads", "/srv/with-uwsgi/data/uploads"), ("uploads", f"{folder}.old")):
        as_app(host, "cached", f"mv {folder} {folder}.old; ln -s {goal} /srv/cached/data/{place}")
        try:
            assert [get("cached", name).status for name in (other, own)] == [404, 404]
        finally:
            as_app(host, "cached", f"rm {folder}; mv {folder}.old {folder}")
    assert get("cached", own).body == TEXT
    # Hard links to files of others: the kernel.
    hard = f"ln /srv/with-uwsgi/data/uploads/{other} {folder}/h-1; ln /etc/passwd {folder}/h-2"
    assert host.run(f"runuser -u cached -- sh -c '{hard}'").rc != 0
    assert [get("cached", name).status for name in ("h-1", "h-2")] == [404, 404]


def test_neither_pipes_nor_sockets_nor_folders_are_sent(host, visitor, put, get):
    folder = "/srv/cached/data/uploads"
    as_app(host, "cached", f"cd {folder}; rm -f pipe sock; mkfifo pipe; mkdir -p sub; echo x > sub/index.html")
    as_app(host, "cached", f"python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"{folder}/sock\")'")
    for name in ("pipe", "sock", "sub", "sub/", "", "."):
        answer = visitor.ask(f"https://cached.test/token?{urlencode({'X-Accel-Redirect': f'/protected/{name}'})}")
        assert (answer.status, "location" in answer.headers) == (404, False), name


@pytest.mark.parametrize("name", ["with-uwsgi", "cached"])
@pytest.mark.parametrize(
    "target",
    [
        "/", "/whoami", "/static/style.css", "/srv/{name}/maintenance/page.html", "/.well-known/acme-challenge/x",
        "@app", "@with_bodies", "x", "0", "?a", "/protected/../static/style.css", "/protected/..%2fapp.db",
        "/protected/%2e%2e/x", "/protected/..", "/protected/../../../../etc/passwd", "/protected/%00", "//protected/",
        "/protected", "/PROTECTED/x", "https://cached.test/protected/x", "/srv/{name}/data/uploads/x",
    ],
)  # fmt: skip
def test_header_leads_to_no_other_place(visitor, name, target):
    """Neither to pages, nor to what only nginx itself may send: without the page, that place of it answers 503."""
    query = urlencode({"X-Accel-Redirect": target.format(name=name)})
    assert visitor.ask(f"https://{name}.test/token?{query}").status == 404


def test_app_without_the_option_leads_nowhere(visitor):
    for target in ("/static/style.css", "/", "@app", "/srv/mover/maintenance/page.html", "/protected/x", "/x/../%0ay"):
        answer = visitor.ask(f"https://mover.test/token?{urlencode({'X-Accel-Redirect': target})}")
        assert (answer.status, len(answer.body)) == (200, 16), "its own response"
        assert "x-accel-redirect" not in answer.headers


def test_other_headers_for_nginx_change_its_own_response_only(visitor):
    given = {"X-Accel-Limit-Rate": "8", "X-Accel-Buffering": "no", "X-Accel-Charset": "koi8-r", "X-Accel-Expires": "99"}
    began = time.monotonic()
    slow = visitor.ask(f"https://mover.test/token?{urlencode(given)}")
    assert len(slow.body) == 16
    assert not [name for name in slow.headers if name.startswith("x-accel")]
    assert time.monotonic() - began < 10
    assert "koi8-r" not in visitor.ask("https://mover.test/token").headers["content-type"]


FORGED = (
    '2026/11/27 10:00:00 [error] 1#1: *1 user "a" was not found in "/etc/nginx/x.htpasswd", '
    f'client: {NOBODY}, server: x, request: "GET / HTTP/1.1", host: "x"'
)


@pytest.mark.parametrize("name", ["with-uwsgi", "mover"])
def test_no_line_of_the_error_log_is_forged(host, visitor, name):
    """fail2ban reads that log. Both names of files and headers that nginx refuses would get there."""
    lines = quote(f"\n{FORGED}\n")
    # nginx decodes the header before it sees the dots.
    for target in (f"/protected/{lines}", f"/protected/{lines}/%2e%2e/x", f"/x{lines}/%2e%2e", lines, f"@{lines}"):
        visitor.ask(f"https://{name}.test/token?{urlencode({'X-Accel-Redirect': target})}")
    as_app(host, "with-uwsgi", f"mkdir -p /srv/with-uwsgi/data/uploads/{shlex.quote(chr(10) + 'user.d')}")
    visitor.ask(f"https://{name}.test/token?{urlencode({'X-Accel-Redirect': '/protected/%0auser.d'})}")
    log = host.file(ERRORS).content_string
    assert NOBODY not in log
    assert "user.d" not in log
    if name != "mover":
        assert NOBODY in host.file(f"/var/log/nginx/{name}.error.log").content_string, "control: nginx does write them"
