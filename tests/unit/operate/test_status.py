"""The status: a row for each app that says what is true, whatever state the host is in, and changes nothing."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost.apps.record import app_record
from ansible.module_utils.flaskhost.deploy import freeze
from ansible.module_utils.flaskhost.deploy.records import Record, Store
from ansible.module_utils.flaskhost.operate import status
from ansible.module_utils.flaskhost.requests import status as status_request
from fakes import tree
from loading import ROOT, load_plugin
from playing import play

NOW = 1_795_000_000.0
DAY = 86400
LIVE, OLD, BAD = "20261118T101500Z-1a2b3c4", "20261110T080000Z-9f8e7d6", "20261119T120000Z-bad0bad"


class Site:
    """One app on one host, as a deploy leaves it: the release LIVE in the blue slot, OLD before it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.units = folder, folder / "srv/shop", folder / "system"
        self.active, self.enabled = {"flask-shop@blue.service"}, {"flask-shop@blue.service"}
        self.rules = True
        self.calls: list[list[str]] = []
        self.ends = "Dec 18 10:00:00 2026 GMT"
        (folder / "run").mkdir()
        (self.root / "slots").mkdir(parents=True)
        self.units.mkdir()
        self.program, self.certificates, self.failed = folder / "flaskhost-certificates", "", set()
        self.app = {
            "app": "shop",
            "root": str(self.root),
            "unit": "flask-shop",
            "socket_dir": str(folder / "run"),
            "live_socket": str(self.root / "live.sock"),
            "certificate": str(folder / "fullchain.pem"),
            "maintenance": str(self.root / "maintenance"),
            "host": "shop.test",
            "health": {"path": "/healthz", "status": 200},
        }
        self.store = Store(self.root)
        self.add(OLD, created=NOW - 9 * DAY, version="v1.3.0")
        self.add(LIVE, created=NOW - DAY, version="v1.4.0", by="bob@desk")
        (self.root / "slots/blue").symlink_to(f"../releases/{LIVE}")
        (self.root / "live.sock").symlink_to(folder / "run/blue.sock")
        (folder / "run/blue.sock").touch()
        self.history([OLD, LIVE, OLD, LIVE])

    def add(self, release: str, **fields: Any) -> None:
        folder = self.store.path(release)
        folder.mkdir(parents=True)
        venv = self.root / "venvs/one"
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        fields = {"healthy": True, "version": "main", "venv": "one", "revision": f"{release[-7:]}0123456789", **fields}
        self.store.write(Record(id=release, identity=release, **fields))

    def history(self, releases: list[str]) -> None:
        entries = [
            {
                "at": NOW - 3600 * (len(releases) - index),
                "release": item,
                "from": "",
                "by": "ada@laptop",
                "verb": "deploy",
            }
            for index, item in enumerate(releases)
        ]
        (self.root / "history.json").write_text(json.dumps(entries))

    def run(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        self.calls.append(list(args))
        if args[0] == "/usr/sbin/nft":
            return (0 if self.rules else 1), "", ""
        if args[0] == str(self.program):
            return 1, self.certificates, "<3>what a person reads"
        if args[1] == "is-failed":
            return 0 if args[-1] in self.failed else 1, "", ""
        if args[0] == "openssl":
            return (0, f"notAfter={self.ends}\n", "") if self.ends else (1, "", "unable to load certificate")
        if args[1] == "show":
            blocks = [f"Id={name}\nActiveState={'active' if name in self.active else 'failed'}\n" for name in args[3:]]
            return 0, "\n".join(blocks), ""
        wanted = {"is-active": self.active, "is-enabled": self.enabled}[args[1]]
        return 0 if args[-1] in wanted else 3, "", ""

    def row(self) -> dict[str, Any]:
        (row,) = status.read(
            self.run, [self.app], self.folder / "freeze.json", self.units, NOW, certificates=self.program
        )
        return row


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(Store, "has_environment", lambda _self, record: record.venv == "one")
    return Site(tmp_path)


class Answer(http.server.BaseHTTPRequestHandler):
    """An app behind its socket."""

    answer: tuple[int, bytes] = (200, b"ok")
    seen: list[tuple[str, ...]]

    def do_GET(self) -> None:
        type(self).seen.append((self.path, self.headers["Host"], self.headers["X-Forwarded-Proto"]))
        code, body = self.answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def serving(site: Site) -> Iterator[type[Answer]]:
    handler = type("Handler", (Answer,), {"seen": []})
    (site.folder / "run/blue.sock").unlink()
    with socketserver.UnixStreamServer(str(site.folder / "run/blue.sock"), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield handler
        server.shutdown()


# --- On the host -----------------------------------------------------------------------------------------------------


def test_a_live_release_is_told_with_all_there_is_to_know(site: Site, serving: type[Answer]) -> None:
    (site.folder / "fullchain.pem").write_text("a certificate")
    assert site.row() == {
        "app": "shop",
        "release": LIVE,
        "commit": "1a2b3c4",
        "version": "v1.4.0",
        "since": NOW - 3600,
        "by": "ada@laptop",
        "slot": "blue",
        "health": "200 ok",
        "previous": OLD,
        "certificate": 29,
        "notes": [],
        "problems": [],
        "host_problems": [],
    }
    assert serving.seen == [("/healthz", "shop.test", "https")]


@pytest.mark.parametrize(
    ("failed", "rules", "note"),
    [
        (False, True, ""),
        (True, True, "firewall rules failed to load, all ports but SSH are blocked"),
        (True, False, "FIREWALL NOT LOADED, every port is open"),
        # Somebody has deleted all tables: systemd does not notice.
        (False, False, "FIREWALL NOT LOADED, every port is open"),
    ],
)
def test_a_firewall_that_is_not_loaded_is_reported(site: Site, failed: bool, rules: bool, note: str) -> None:
    (site.units / status.FIREWALL).touch()
    site.failed, site.rules = {status.FIREWALL} if failed else set(), rules
    notes = site.row()["notes"]
    assert [item.partition(":")[0] for item in notes] == ([note] if note else [])


def test_nothing_is_changed(site: Site, serving: type[Answer]) -> None:
    freeze.write({"shop": {"reason": "x", "until": NOW + 99, "since": NOW, "by": ""}}, site.folder / "freeze.json")
    before = tree(site.folder)
    site.row()
    assert tree(site.folder) == before
    assert {call[1] for call in site.calls if call[0] == "systemctl"} <= {"is-active", "is-enabled", "show"}


@pytest.mark.parametrize(
    ("answer", "wanted", "told"),
    [
        ((500, b""), {}, "500, not 200"),
        ((302, b""), {}, "302, not 200"),
        ((200, b"starting"), {"body": "ready"}, "200, wrong body"),
        ((204, b""), {"status": 204}, "204 ok"),
    ],
)
def test_bad_health_is_told(
    site: Site, serving: type[Answer], answer: tuple[int, bytes], wanted: dict[str, Any], told: str
) -> None:
    serving.answer = answer
    site.app["health"] = {**site.app["health"], **wanted}
    assert site.row()["health"] == told


def test_a_socket_that_nobody_listens_on_is_no_answer(site: Site) -> None:
    assert site.row()["health"] == "no response"


def test_where_nothing_is_deployed_there_is_nothing_to_tell(tmp_path: Path) -> None:
    app = {**status_request.apps_to_ask({"shop": {"domains": ["shop.test"]}})[0], "root": str(tmp_path / "none")}
    app |= {"live_socket": str(tmp_path / "none/live.sock"), "certificate": str(tmp_path / "none.pem")}

    def run(args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        raise AssertionError(args)

    (row,) = status.read(run, [app], tmp_path / "freeze.json", tmp_path, NOW)
    assert {key: value for key, value in row.items() if value} == {"app": "shop"}


def test_without_a_history_the_releases_own_record_counts(site: Site) -> None:
    (site.root / "history.json").unlink()
    row = site.row()
    assert (row["since"], row["by"]) == (NOW - DAY, "bob@desk")


def test_what_is_wrong_with_a_certificate_stands_beside_its_app(site: Site) -> None:
    site.program.touch()
    about = {"shop": ["It ends in 9 days. Run it again."], "hello": ["Another's."]}
    answers = [{"name": name, "problems": problems} for name, problems in about.items()]
    site.certificates = json.dumps({"changed": False, "certificates": answers})
    site.failed = {"flaskhost-certificates-renew.service"}
    notes = "; ".join(site.row()["notes"])
    assert "It ends in 9 days." in notes
    assert "Another's" not in notes
    assert "journalctl -u flaskhost-certificates-renew.service" in notes
    site.certificates, site.failed = json.dumps({"certificates": [{"name": "shop", "problems": []}]}), set()
    assert "certificate" not in "; ".join(site.row()["notes"])


@pytest.mark.parametrize("text", ["", "[]", '{"certificates": 1}', '{"certificates": [{}]}'])
def test_certificates_that_cannot_be_checked_are_told(site: Site, text: str) -> None:
    site.program.touch()
    site.certificates = text
    assert any("flaskhost-certificates check" in note for note in site.row()["notes"])


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"release": 5}]', "null"])
def test_a_damaged_history_is_no_end(site: Site, text: str) -> None:
    (site.root / "history.json").write_text(text)
    assert site.row()["since"] == NOW - DAY


def test_a_record_that_cannot_be_read_is_told(site: Site) -> None:
    (site.store.path(LIVE) / "release.json").write_text("{")
    row = site.row()
    assert (row["release"], row["commit"], row["version"]) == (LIVE, "", "")
    assert "release.json of the live release cannot be read" in row["notes"]


@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("/home/ada/project/sample_app/", "sample_app"),
        ("feature/cart", "feature/cart"),
        ("https://x.test/dist/shop-1.4.tar.gz", "shop-1.4.tar.gz"),
    ],
)
def test_a_path_is_shown_by_its_last_part(site: Site, version: str, shown: str) -> None:
    record = site.store.record(LIVE)
    record.version = version
    site.store.write(record)
    assert site.row()["version"] == shown


@pytest.mark.parametrize(
    ("ends", "days"), [("Nov 22 10:00:00 2026 GMT", 3), ("Nov 16 12:00:00 2026 GMT", -2), ("soon", None), ("", None)]
)
def test_the_days_of_the_certificate(site: Site, ends: str, days: int | None) -> None:
    (site.folder / "fullchain.pem").write_text("a certificate")
    site.ends = ends
    assert site.row()["certificate"] == days


def test_no_certificate_is_not_asked_for(site: Site) -> None:
    assert site.row()["certificate"] is None
    assert not [call for call in site.calls if call[0] == "openssl"]


# --- Notes -----------------------------------------------------------------------------------------------------------


def test_a_slot_whose_socket_is_gone_is_noted(site: Site) -> None:
    (site.folder / "run/blue.sock").unlink()
    assert site.row()["notes"] == ["slot not running"]


def test_a_slot_that_is_not_as_it_should_be_is_noted(site: Site) -> None:
    site.active, site.enabled = {"flask-shop@green.service"}, set()
    assert site.row()["notes"] == [
        "slot not running",
        "slot not enabled: the app would not start after a reboot",
        "green slot runs too",
    ]


def test_a_live_link_that_somebody_has_removed_is_noted(site: Site) -> None:
    (site.root / "live.sock").unlink()
    assert site.row()["notes"] == ["no release is live: ansible-playbook playbooks/deploy.yml -e app=shop"]
    (site.root / "current").symlink_to(f"releases/{LIVE}")
    row = site.row()
    assert (row["slot"], row["release"], row["health"]) == ("blue", LIVE, "")
    assert row["notes"] == ["live.sock is missing, visitors get 502: ansible-playbook playbooks/deploy.yml -e app=shop"]


def test_a_process_that_is_down_is_noted(site: Site) -> None:
    wants = site.units / "multi-user.target.wants"
    wants.mkdir()
    for name in ("worker", "clock"):
        (wants / f"flask-shop_process@{name}.service").symlink_to("../x")
    site.active.add("flask-shop_process@clock.service")
    assert site.row()["notes"] == ["process worker down"]


def test_a_release_that_was_taken_back_is_noted(site: Site) -> None:
    site.add(BAD, created=NOW - 60, healthy=False, failed="7 of 9 answers were errors.\nIts last log lines: ...")
    assert site.row()["notes"] == [f"{BAD} failed: 7 of 9 answers were errors."]
    site.add("20261120T000000Z-better", created=NOW - 10)
    assert site.row()["notes"] == [], "it is history by now"
    record = site.store.record(LIVE)
    record.created, record.failed = NOW, "rolled back by ada@laptop"
    site.store.write(record)
    assert site.row()["notes"] == [], "it serves all the same"


def test_maintenance_is_noted(site: Site) -> None:
    (site.root / "maintenance").mkdir()
    assert site.row()["notes"] == []
    (site.root / "maintenance/page.html").write_text("<p>")
    assert site.row()["notes"] == ["maintenance"]


def test_the_page_of_a_restore_is_no_page_of_an_operators(site: Site, serving: type[Answer]) -> None:
    folder, page = site.root / "maintenance", site.folder / "run/flaskhost-page-20261121T101500Z-7/shop.html"
    folder.mkdir()
    (folder / "page.html").symlink_to(page)
    assert site.row()["notes"] == [], "the run has ended, and nginx finds no page"
    page.parent.mkdir()
    page.touch()
    row = site.row()
    assert row["notes"] == ["maintenance page of restore 20261121T101500Z-7, removed when the restore ends"]
    assert row["problems"] == row["notes"]


def test_what_an_operator_has_chosen_is_no_problem(site: Site, serving: type[Answer]) -> None:
    (site.root / "maintenance").mkdir()
    (site.root / "maintenance/page.html").write_text("<p>")
    entry = {"reason": "audit", "until": NOW + 3600, "since": NOW, "by": "ada@laptop"}
    freeze.write({"shop": entry}, site.folder / "freeze.json")
    row = site.row()
    assert (len(row["notes"]), row["problems"], row["host_problems"]) == (2, [], [])


def test_a_site_that_does_not_answer_is_a_problem(site: Site) -> None:
    assert site.row()["problems"] == ["health: no response"]
    site.active = set()
    assert "slot not running" in site.row()["problems"]


def test_a_site_that_has_lost_its_link_is_a_problem(site: Site) -> None:
    (site.root / "live.sock").unlink()
    assert site.row()["problems"] == ["no release is live: ansible-playbook playbooks/deploy.yml -e app=shop"]


def backups(site: Site, **answer: Any) -> dict[str, Any]:
    """The row where flaskhost-backup gives this answer."""
    program = site.folder / "flaskhost-backup"
    program.touch()
    state = {"good": {"at": NOW - 7200}, "last": {"ok": True}}
    said = {"enabled": True, "database": True, "second": True, "problems": []}
    said |= {"database_state": state, "drill_state": state, **answer}

    def run(args: Sequence[str], **options: Any) -> tuple[int, str, str]:
        return (0, json.dumps(said), "") if args[0] == str(program) else site.run(args, **options)

    files = {"certificates": site.program, "backups": program}
    (row,) = status.read(run, [site.app], site.folder / "freeze.json", site.units, NOW, **files)
    return row


def test_what_is_wrong_with_the_backups_is_a_problem_of_the_host(site: Site, serving: type[Answer]) -> None:
    for problem in ("A restore of all databases was killed", "The last drill failed.", "The database shop is empty"):
        row = backups(site, problems=[problem], unfinished=[])
        assert (row["notes"], row["problems"], row["host_problems"]) == ([problem], [], [problem])
    row = backups(site, enabled=False, problems=["There are no backups"])
    assert (row["notes"], row["host_problems"]) == (["There are no backups"], [])


def test_a_host_without_apps_is_a_row_too(site: Site) -> None:
    (row,) = status.read(site.run, [], site.folder / "freeze.json", site.units, NOW, certificates=site.program)
    assert row == {"app": "", "notes": [], "problems": [], "host_problems": []}


ASIDE = {
    "name": "/srv/shop/data.before-x",
    "bytes": 2_000_000,
    "at": NOW,
    "remove": "sudo rm -r /srv/shop/data.before-x",
}


def test_what_is_put_aside_is_listed_once_for_each_host(site: Site, serving: type[Answer]) -> None:
    row = {"host": "web1", **backups(site, aside=[ASIDE])}
    rows = [row, {**row, "app": "blog"}]
    lines = status_request.table(rows).splitlines()
    assert [line for line in lines if line.startswith("Kept by")] == [
        "Kept by a restore on web1: /srv/shop/data.before-x, 2.0 MB, 2026-11-18 11:06 UTC. To delete it: "
        "sudo rm -r /srv/shop/data.before-x"
    ]
    found = status_request.report(rows, NOW)
    assert (found["ok"], found["aside"]) == (True, [{"host": "web1", **ASIDE}])


def test_a_report_is_green_only_if_nothing_has_to_be_seen_to() -> None:
    row = {"host": "web1", "app": "shop", "problems": ["slot not running"], "host_problems": ["no drill"]}
    found = status_request.report(
        [row, {**row, "app": "blog", "problems": []}, {"host": "web2", "host_problems": ["gone"]}], NOW
    )
    assert not found["ok"]
    assert found["problems"] == ["web1: shop: slot not running", "web1: no drill", "web2: gone"]
    assert json.loads(json.dumps(found)) == found
    assert status_request.report([{"host": "web1", "app": "shop", "problems": []}], NOW)["ok"]


def test_a_freeze_is_noted_until_it_ends(site: Site) -> None:
    file = site.folder / "freeze.json"
    entry = {"reason": "audit", "until": NOW + 3600, "since": NOW, "by": "ada@laptop"}
    freeze.write({"*": entry, "shop": {**entry, "until": NOW - 1}, "blog": entry}, file)
    assert site.row()["notes"] == [f"frozen until {freeze.utc(NOW + 3600)}: audit"]
    file.write_text("{")
    assert str(file) in site.row()["notes"][0]


# --- On the controller -----------------------------------------------------------------------------------------------


def test_what_is_asked_is_where_the_app_is(tmp_path: Path) -> None:
    app = {"domains": ["www.shop.test", "shop.test"], "health": {"path": "/readyz"}, "secrets": {"A": "sesame"}}
    apps = {"shop": app, "blog": {"domains": ["blog.test"]}}
    record = app_record("shop", {**app, "source": {}, "wsgi": "x"})
    asked = status_request.apps_to_ask(apps)
    assert [item["app"] for item in asked] == ["blog", "shop"]
    for key in ("root", "unit", "socket_dir", "live_socket", "certificate", "maintenance"):
        assert asked[1][key] == record[key], key
    assert (asked[1]["host"], asked[1]["health"]["path"]) == ("www.shop.test", "/readyz")
    assert "sesame" not in json.dumps(asked)
    assert [item["app"] for item in status_request.apps_to_ask(apps, "shop")] == ["shop"]


class Locked(dict):
    """Options of which the secret ones cannot be read: the vault's password is missing."""

    def get(self, key: str, default: Any = None) -> Any:
        if key not in ("domains", "health", "cache", "queue"):
            raise AssertionError(f"{key} was read")
        return super().get(key, default)


def test_no_secret_is_read() -> None:
    app = Locked({"domains": ["shop.test"], "secrets": {"A": "sesame"}})
    assert status_request.apps_to_ask({"shop": app})[0]["host"] == "shop.test"


@pytest.mark.parametrize("apps", [None, "", [], {}, {"shop": None}, {"shop": {}}, {"shop": {"domains": []}}])
def test_apps_that_are_not_in_order_are_no_end(apps: Any) -> None:
    assert [item["app"] for item in status_request.apps_to_ask(apps)] == (["shop"] if apps else [])


def test_a_host_that_cannot_be_asked_is_a_row() -> None:
    found = status_request.rows(
        [
            ["web1", {"rows": [{"app": "shop", "release": LIVE}, {"app": "blog"}]}],
            ["web2", {"unreachable": True, "msg": "Data could not be sent"}],
            ["web3", {"failed": True, "msg": "sudo: a password is required\nand more"}],
            ["web4", None],
        ]
    )
    assert found == [
        {"host": "web1", "app": "shop", "release": LIVE},
        {"host": "web1", "app": "blog"},
        {"host": "web2", "notes": [status_request.UNREACHABLE], "host_problems": [status_request.UNREACHABLE]},
        {
            "host": "web3",
            "notes": ["status not available: sudo: a password is required"],
            "host_problems": ["status not available: sudo: a password is required"],
        },
        {
            "host": "web4",
            "notes": ["status not available: no result"],
            "host_problems": ["status not available: no result"],
        },
    ]


def test_the_table() -> None:
    row = {
        "host": "web1",
        "app": "shop",
        "release": LIVE,
        "commit": "1a2b3c4",
        "version": "v1.4.0",
        "since": NOW,
        "by": "ada@laptop",
        "slot": "blue",
        "health": "200 ok",
        "previous": OLD,
        "certificate": 0,
        "backup": "2h",
        "notes": ["maintenance", "process worker down"],
    }
    head, first, second = status_request.table([row, {"host": "a-longer-name", "notes": ["unreachable"]}]).splitlines()
    assert (
        first.split()
        == (
            f"web1 shop {LIVE} 1a2b3c4 v1.4.0 2026-11-18 11:06 ada@laptop blue 200 ok {OLD} 0 - - 2h - "
            "maintenance; process worker down"
        ).split()
    )
    assert second.split() == ["a-longer-name", *["-"] * 14, "unreachable"]
    assert head.split("  ")[0] == "host"
    # Whatever is in the rows, a column begins in the same place.
    for title in ("app", "live release", "slot", "cert days", "notes"):
        start = head.index(f"  {title}") + 2
        assert all(line[start - 2 : start] == "  " and line[start] != " " for line in (head, first, second)), title


def test_anothers_text_cannot_move_the_cursor() -> None:
    text = status_request.table([{"host": "a", "by": "x\x1b[2J\ny", "notes": ["b\tc\u202ed"]}])
    assert text.count("\n") == 1
    assert "x [2J y" in text
    assert text.endswith("b c d")


def test_the_columns_of_the_issue_are_there() -> None:
    titles = list(status_request.COLUMNS.values())
    assert titles == (
        "host|app|live release|commit|version|since (UTC)|by|slot|health|previous healthy release|cert days|"
        "cache|queue|backup|drill|notes"
    ).split("|")


def test_the_playbook_goes_on_without_a_host(tmp_path: Path) -> None:
    """For real, but with one host that nobody listens for, one without Python, and this machine."""
    hosts = {
        "down": {"ansible_host": "127.0.0.1", "ansible_port": 1},
        "here": {"ansible_connection": "local", "ansible_become": False},
        "bare": {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": "/nowhere"},
    }
    apps = {"no-such-app-here": {"domains": ["x.test"]}}
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"children": {"app": {"hosts": hosts}}, "vars": {"flask_apps": apps}}})
    )
    arguments = ["-i", "hosts.yml", ROOT / "playbooks/status.yml", "-e", "json=status.json"]
    done = play(*arguments, cwd=tmp_path, HOME=str(tmp_path))
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode != 0, "a host that is down is not well"
    assert "down: unreachable" in done.stdout
    assert ["here", "no-such-app-here", *["-"] * 14] in lines, done.stdout
    assert [line[:16] for line in lines if line[:2] == ["down", "-"]] == [["down", *["-"] * 14, "unreachable:"]]
    assert [line[:2] for line in lines if line[-1:] == ["found."] and line[0] == "bare"] == [["bare", "-"]]
    found = json.loads((tmp_path / "status.json").read_text())
    assert not found["ok"]
    assert [text for text in found["problems"] if text.startswith("down: unreachable")]
    assert [row["app"] for row in found["rows"] if row["host"] == "here"] == ["no-such-app-here"]


def test_the_module_answers_in_check_mode() -> None:
    module = load_plugin("plugins/modules/flask_status.py")
    wanted = set(status_request.apps_to_ask({"shop": {}})[0])
    assert set(module.ARGUMENT_SPEC["apps"]["options"]) == wanted
