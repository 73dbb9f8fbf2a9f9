"""The status: a row for each app that says what is true, whatever state the host is in, and changes nothing."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.flaskhost import app_model, freeze, status
from ansible.module_utils.flaskhost.records import Record, Store
from fakes import tree

ROOT = Path(__file__).resolve().parents[2]
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
    }
    assert serving.seen == [("/healthz", "shop.test", "https")]


@pytest.mark.parametrize(
    ("failed", "rules", "note"),
    [
        (False, True, ""),
        (True, True, "firewall rules failed to load, all but SSH is blocked"),
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
        ((200, b"starting"), {"body": "ready"}, "200 bad"),
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
    assert site.row()["health"] == "no answer"


def test_where_nothing_is_deployed_there_is_nothing_to_tell(tmp_path: Path) -> None:
    app = {**status.apps_to_ask({"shop": {"domains": ["shop.test"]}})[0], "root": str(tmp_path / "none")}
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
    assert "its release.json cannot be read" in row["notes"]


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
        "slot not enabled: a reboot would not bring it back",
        "green slot runs too",
    ]


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
    record.created, record.failed = NOW, "gone back from by ada@laptop"
    site.store.write(record)
    assert site.row()["notes"] == [], "it serves all the same"


def test_maintenance_is_noted(site: Site) -> None:
    (site.root / "maintenance").mkdir()
    assert site.row()["notes"] == []
    (site.root / "maintenance/page.html").write_text("<p>")
    assert site.row()["notes"] == ["maintenance"]


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
    record = app_model.app_record(
        "shop", {**app, "source": {}, "wsgi": "x"}, {"workers": 1, "threads": 1, "memory_mb": 1}
    )
    asked = status.apps_to_ask(apps)
    assert [item["app"] for item in asked] == ["blog", "shop"]
    for key in ("root", "unit", "socket_dir", "live_socket", "certificate", "maintenance"):
        assert asked[1][key] == record[key], key
    assert (asked[1]["host"], asked[1]["health"]["path"]) == ("www.shop.test", "/readyz")
    assert "sesame" not in json.dumps(asked)
    assert [item["app"] for item in status.apps_to_ask(apps, "shop")] == ["shop"]


class Locked(dict):
    """Options of which the secret ones cannot be read: the vault's password is missing."""

    def get(self, key: str, default: Any = None) -> Any:
        if key not in ("domains", "health"):
            raise AssertionError(f"{key} was read")
        return super().get(key, default)


def test_no_secret_is_read() -> None:
    app = Locked({"domains": ["shop.test"], "secrets": {"A": "sesame"}})
    assert status.apps_to_ask({"shop": app})[0]["host"] == "shop.test"


@pytest.mark.parametrize("apps", [None, "", [], {}, {"shop": None}, {"shop": {}}, {"shop": {"domains": []}}])
def test_apps_that_are_not_in_order_are_no_end(apps: Any) -> None:
    assert [item["app"] for item in status.apps_to_ask(apps)] == (["shop"] if apps else [])


def test_a_host_that_cannot_be_asked_is_a_row() -> None:
    found = status.rows(
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
        {"host": "web2", "notes": ["unreachable"]},
        {"host": "web3", "notes": ["cannot be asked: sudo: a password is required"]},
        {"host": "web4", "notes": ["cannot be asked: no answer"]},
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
    head, first, second = status.table([row, {"host": "a-longer-name", "notes": ["unreachable"]}]).splitlines()
    assert (
        first.split()
        == (
            f"web1 shop {LIVE} 1a2b3c4 v1.4.0 2026-11-18 11:06 ada@laptop blue 200 ok {OLD} 0 2h - "
            "maintenance; process worker down"
        ).split()
    )
    assert second.split() == ["a-longer-name", *["-"] * 12, "unreachable"]
    assert head.split("  ")[0] == "host"
    # Whatever is in the rows, a column begins in the same place.
    for title in ("app", "live release", "slot", "cert days", "notes"):
        start = head.index(f"  {title}") + 2
        assert all(line[start - 2 : start] == "  " and line[start] != " " for line in (head, first, second)), title


def test_anothers_text_cannot_move_the_cursor() -> None:
    text = status.table([{"host": "a", "by": "x\x1b[2J\ny", "notes": ["b\tc\u202ed"]}])
    assert text.count("\n") == 1
    assert "x [2J y" in text
    assert text.endswith("b c d")


def test_the_columns_of_the_issue_are_there() -> None:
    titles = list(status.COLUMNS.values())
    assert titles == (
        "host|app|live release|commit|version|since (UTC)|by|slot|health|previous healthy release|cert days|"
        "backup|drill|notes"
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
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(tmp_path / "hosts.yml")]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "LC_ALL": "C.UTF-8",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(  # noqa: S603 - our own playbook
        [*command, str(ROOT / "playbooks/status.yml")], capture_output=True, text=True, check=False, env=environment
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert ["here", "no-such-app-here", *["-"] * 12] in lines, done.stdout
    assert ["down", *["-"] * 12, "unreachable"] in lines
    assert [line[:2] for line in lines if line[-1:] == ["found."]] == [["bare", "-"]]


def test_the_module_answers_in_check_mode() -> None:
    spec = importlib.util.spec_from_file_location("flask_status", ROOT / "plugins/modules/flask_status.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wanted = set(status.apps_to_ask({"shop": {}})[0])
    assert set(module.ARGUMENT_SPEC["apps"]["options"]) == wanted
