"""The templates of fail2ban, rendered as Ansible does it: what a line of the log means, and which jails there are."""

from __future__ import annotations

import configparser
import json
import re
import time
from typing import Any

import pytest
from nginx_config import DEBIAN, nginx, proxied, server, site
from rendering import ROLES, render

#: What fail2ban puts in the place of <ADDR>: its RE_IP4 and RE_IP6 in ipdns.py and failregex.py.
ADDRESS = (
    r"(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
    r"|\[?(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|:){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):))\]?)"
)


def fail2ban_filter(mode: str) -> dict[str, str]:
    """The filter in one of its modes, as fail2ban reads it: <names> are replaced, and %% is a percent sign."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(render("fail2ban", "filter.conf.j2"))
    options = {**parser["Definition"], "mode": mode}
    for _round in range(8):
        for name, value in options.items():
            options[name] = re.sub(r"<([\w-]+)>", lambda tag: options.get(tag[1], tag[0]), value)
    return {name: value.replace("%%", "%").replace("<ADDR>", ADDRESS) for name, value in options.items()}


def banned(mode: str, *lines: str) -> list[str]:
    """Whose failures these lines are. The date is cut out before the line is compared, as fail2ban does it."""
    options = fail2ban_filter(mode)
    date = options["datepattern"].replace("%Y-%m-%dT%H:%M:%S%z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")
    found = []
    for line in lines:
        rest, cut = re.subn(date, "", line, count=1) if date else (line, 1)
        match = re.search(options["failregex"], rest) if cut else None
        if match:
            found.append(match["ip4"] or match["ip6"])
    return found


def access(path: str = "/", status: int = 404, address: str = "198.51.100.7", **changes: Any) -> str:
    """A line of the access log, in the form that nginx.conf.j2 gives it."""
    text = render("nginx", "nginx.conf.j2", DEBIAN["13"]).partition("log_format flaskhost_json escape=json")[2]
    log_format = "".join(re.findall(r"'(.*)'", text.partition(";\n")[0]))
    values = {
        "time_iso8601": "2026-11-21T18:39:00+00:00",
        "request_id": "a34814a36d1ee12c106b7679bb6fb749",
        "remote_addr": address,
        "host": "shop.test",
        "flaskhost_method": "GET",
        "flaskhost_path": path,
        "server_protocol": "HTTP/2.0",
        "status": str(status),
        "body_bytes_sent": "162",
        "request_time": "0.003",
        "upstream_response_time": "0.002",
        "upstream_status": str(status),
        "flaskhost_login": "",
        "flaskhost_release": "20261121T183900-1a2b3c4",
        "http_user_agent": "curl/7.88.1",
        **changes,
    }
    return re.sub(r"\$(\w+)", lambda found: json.dumps(values[found[1]])[1:-1], log_format)


def test_the_lines_of_these_tests_are_those_of_the_log() -> None:
    # Written by nginx 1.22 with these settings.
    real = (
        '{"time":"2026-11-21T18:39:00+00:00","request_id":"a34814a36d1ee12c106b7679bb6fb749","remote_addr":"198.51.100.7",'
        '"host":"shop.test","method":"GET","path":"/","protocol":"HTTP/2.0","status":429,"bytes":162,"request_time":0.000,'
        '"upstream_time":"","upstream_status":"","login":"","release":"","user_agent":"curl/7.88.1"}'
    )
    empty = {"upstream_response_time": "", "upstream_status": "", "flaskhost_release": "", "request_time": "0.000"}
    assert access(status=429, **empty) == real
    assert banned("limits", real) == ["198.51.100.7"]


@pytest.mark.parametrize(
    "path",
    ["/wp-login.php", "/blog/xmlrpc.PHP", "/.env", "/a/.git/config", "/cgi-bin/luci", "/phpmyadmin/", "/%2e/.aws/x"],
)
def test_a_scanner_is_told_by_what_it_asks_for(path: str) -> None:
    assert banned("probes", access(path), access(path, 403, "2001:db8::7")) == ["198.51.100.7", "2001:db8::7"]
    assert banned("probes", access(path, 200), access(path, 302), access(path, 502)) == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/login",
        "/.well-known/security.txt",
        "/.well-known/acme-challenge/x",
        "/wp",
        "/php",
        "/a.phpx",
        "/solr-panels",
    ],
)
def test_a_visitor_who_is_lost_is_no_scanner(path: str) -> None:
    assert banned("probes", access(path)) == []


def test_missing_pages_count_and_missing_pictures_do_not() -> None:
    assert banned("missing", access("/nothing"), access("/a/b")) == ["198.51.100.7"] * 2
    assert banned("missing", access("/static/app.1a2b.css"), access("/favicon.ico"), access("/a.PNG")) == []
    assert banned("missing", access("/", 200), access("/", 500)) == []


def test_a_limit_counts_where_nginx_refused_and_not_the_app() -> None:
    assert banned("limits", access(status=429, upstream_status="", upstream_response_time="")) == ["198.51.100.7"]
    assert banned("limits", access(status=429), access(status=503, upstream_status="")) == []


@pytest.mark.parametrize("mode", ["probes", "missing", "limits", "login"])
@pytest.mark.parametrize("part", ["/.php", "/.a", ".css", "/", '"', "\\"])
def test_a_path_made_for_it_does_not_hold_up_fail2ban(mode: str, part: str) -> None:
    """Four times as long as nginx lets one be: where the time grows with the square, it is ten seconds."""
    began = time.process_time()
    for status in (200, 404, 429):
        banned(mode, access(part * (32000 // len(part)), status))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("mode", ["probes", "missing", "limits", "login"])
def test_nobody_gets_another_one_banned(mode: str) -> None:
    forged = (
        '","remote_addr":"192.0.2.66","host":"x","method":"GET","path":"/wp-login.php","protocol":"x","status":404,"'
        'bytes":1,"request_time":0.1,"upstream_time":"0.1","upstream_status":"404","login":"failed","release":"'
    )
    lines = [
        access(forged, 200),
        access("/", 200, http_user_agent=forged),
        access("/", 200, host=forged),
        access("/", 200, http_user_agent=access("/.env", address="192.0.2.66")),
        "x" + access("/.env"),
    ]
    assert banned(mode, *lines) == []
    assert "192.0.2.66" not in banned(mode, access(forged), access("/.env", http_user_agent=forged))


def test_an_app_reports_the_client_that_it_responds_to() -> None:
    lines = (access("/login", status, flaskhost_login="failed") for status in (200, 302, 401, 500))
    assert banned("login", *lines) == ["198.51.100.7"] * 4
    assert banned("login", access("/login", address="2001:db8::7", flaskhost_login="failed")) == ["2001:db8::7"]
    assert banned("login", access("/login", 401), access("/login", http_user_agent="failed")) == []


def test_the_guides_tell_apps_the_header_that_is_read() -> None:
    http = nginx(site())
    (variable,) = [item for item in http.all("map") if item.words[2] == "$flaskhost_login"]
    assert {item.words[0]: item.words[1] for item in variable.block} == {"default": "", "failed": "failed"}
    for guide in ("docs/apps.md", "roles/fail2ban/README.md"):
        text = (ROLES.parent / guide).read_text()
        ((name, value),) = set(re.findall(r'response\.headers\["([\w-]+)"\] = "(\w+)"', text))
        assert variable.words[1] == "$upstream_http_" + name.lower().replace("-", "_")
        assert value == "failed"
        assert all(place.all("proxy_hide_header", name) for place in proxied(server(http, "shop.test", "443")))


def test_a_banned_address_gets_nothing_of_its_site() -> None:
    http = nginx(site(bans={"login": "/bans/shop/login", "probes": "/bans/shop/probes"}), site("my-blog"))
    answering = server(http, "shop.test", "443")
    checks = answering.all("if", "(-f")
    folders = [item.words[2].removesuffix(")") for item in checks if "$flaskhost_address" in item.words[2]]
    assert folders == ["/bans/shop/login/$flaskhost_address", "/bans/shop/probes/$flaskhost_address"]
    assert all(item.one("return").words[1] == "403" for item in checks[:2])
    assert "$flaskhost_address" not in str(server(http, "my-blog.test", "443"))
    name = http.one("map", "$remote_addr").block[1].words[0].removeprefix("~").replace("(?<", "(?P<")
    assert re.search(name, "::ffff:192.0.2.7")["flaskhost_mapped"] == "192.0.2.7"
    assert not re.search(name, "2001:db8::ffff:1")
    assert "$flaskhost_address" not in str(nginx(site()))


def jails(connection: str = "", **variables: Any) -> dict[str, dict[str, str]]:
    """The jails that are on, with what they share."""
    facts = {"env": {"SSH_CONNECTION": connection}} if connection else {}
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(render("fail2ban", "jail.conf.j2", facts, **variables))
    return {name: dict(parser[name]) for name in parser.sections() if parser[name]["enabled"] == "true"}


WATCHED = {
    "fail2ban_access_logs": ["/logs/access.log"],
    "fail2ban_error_logs": ["/logs/error.log"],
    "fail2ban_sites": [
        {
            "name": name,
            "access_log": f"/logs/{name}.log",
            "bans": {jail: f"/bans/{name}/{jail}" for jail in ("login", "missing", "probes")},
        }
        for name in ("shop", "hello")
    ],
}


def test_a_jail_is_there_for_what_is_watched() -> None:
    assert list(jails()) == ["sshd"]
    found = jails(**WATCHED)
    web = {"flaskhost-probes", "flaskhost-missing", "flaskhost-limits", "nginx-http-auth"}
    sites = {f"{jail}-{name}": (jail, name) for jail in ("login", "missing", "probes") for name in ("shop", "hello")}
    assert set(found) == {"sshd", *web, *sites}
    nothing = "/etc/fail2ban/filter.d/flaskhost.conf"
    for name in web:
        assert (found[name]["port"], found[name]["protocol"]) == ("80,443", "tcp,udp"), "SSH stays open"
        assert found[name]["logpath"].startswith(f"{nothing}\n/logs/")
        assert "action" not in found[name]
    # No app has a say in what nginx itself refuses. A flood has to end at the firewall.
    assert found["flaskhost-limits"]["logpath"].split()[1:] == ["/logs/access.log", "/logs/shop.log", "/logs/hello.log"]
    for name, (jail, site_name) in sites.items():
        assert found[name]["logpath"].split() == [nothing, f"/logs/{site_name}.log"]
        assert found[name]["action"] == f'flaskhost-site[bans="/bans/{site_name}/{jail}"]', "no two share a folder"
        assert found[name]["filter"] == f"flaskhost[mode={jail}]"
    assert found["sshd"]["bantime.overalljails"] == "false", "an app does not make the bans of others longer"
    assert found["sshd"]["backend"] == "systemd"
    assert found["flaskhost-probes"]["backend"] == "polling"


def test_wrong_passwords_in_a_log_that_the_app_can_forge_ban_from_its_site_only() -> None:
    site_bans = {jail: f"/bans/shop/{jail}" for jail in ("login", "missing", "probes", "auth")}
    shop = {"name": "shop", "access_log": "/logs/shop.log", "auth_log": "/logs/shop.error.log", "bans": site_bans}
    found = jails(fail2ban_sites=[shop])["auth-shop"]
    assert found["filter"] == "nginx-http-auth[mode=normal]"
    assert found["logpath"].split()[1:] == ["/logs/shop.error.log"]
    assert found["action"] == 'flaskhost-site[bans="/bans/shop/auth"]'
    assert "port" not in found


def test_the_jail_of_ssh_believes_only_what_journald_knows_itself() -> None:
    """A process chooses its own name and its identifier, and any process may write to the journal."""
    fields = [match.partition("=")[0] for match in jails()["sshd"]["journalmatch"].split(" + ")]
    assert set(fields) == {"_SYSTEMD_UNIT", "_SYSTEMD_SLICE"}


@pytest.mark.parametrize(
    ("connection", "ignored", "ports"),
    [
        ("", set(), "22"),
        ("203.0.113.9 50000 192.0.2.1 2222", {"203.0.113.9"}, "22,2222"),
        ("2001:db8::9 50000 2001:db8::1 22", {"2001:db8::9"}, "22"),
        ("fe80::9%eth0 50000 fe80::1%eth0 22", {"fe80::9"}, "22"),
    ],
)
def test_who_runs_the_playbook_is_never_banned(connection: str, ignored: set[str], ports: str) -> None:
    wanted = {"fail2ban_ignore": ["198.51.100.0/24"], "fail2ban_peers": ["192.0.2.12", "web2.test", "fe80::1%eth0", ""]}
    found = jails(connection, **wanted)["sshd"]
    assert set(found["ignoreip"].split()) == {"127.0.0.0/8", "::1", "198.51.100.0/24", "192.0.2.12"} | ignored
    assert found["port"] == ports


def test_bans_are_remembered_for_longer_than_the_longest() -> None:
    text = render("fail2ban", "fail2ban.conf.j2", fail2ban_bantime_max=1000)
    assert int(re.search(r"^dbpurgeage = (\d+)$", text, re.MULTILINE)[1]) > 1000
    assert jails(fail2ban_bantime_max=1000)["sshd"]["bantime.maxtime"] == "1000"
