"""The maintenance page: which files it consists of, and in which order they are written.

The files are real and in a temporary folder; systemd and nginx are a stand-in that knows which files it has read.
Whether nginx does what the files say is tested with a real one, in the scenario deploy.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from ansible.module_utils.flaskhost.operate import maintenance
from ansible.module_utils.flaskhost.operate.maintenance import Maintenance, Request, Site, page
from ansible.module_utils.flaskhost.requests import maintenance as maintenance_request
from fakes import Killer

ROOT = Path(__file__).resolve().parents[3]


# --- The page --------------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """What a browser sees of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, "all tags are closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def test_the_page_is_whole_by_itself() -> None:
    text = page("Back at 9")
    seen = Seen(text)
    tags = dict(seen.tags)
    assert text.lower().startswith("<!doctype html>")
    assert tags["html"]["lang"]
    assert seen.texts["title"]
    assert seen.texts["p"] == "Back at 9"
    assert ("meta", {"charset": "utf-8"}) in seen.tags
    assert any("width=device-width" in (attributes.get("content") or "") for _tag, attributes in seen.tags), "phones"
    assert not {"link", "script", "img", "iframe"} & tags.keys()
    assert not re.search(r"url\(|@import|src=|href=|https?:", text)


@pytest.mark.parametrize(
    "message", ["<script>alert(1)</script>", "a & b", '"quoted"', "{braces}", "</p></main>", "a\nb"]
)
def test_a_message_is_no_html(message: str) -> None:
    seen = Seen(page(message))
    assert seen.texts["p"] == message
    assert [tag for tag, _attributes in seen.tags] == [tag for tag, _attributes in Seen(page("x")).tags]


def test_the_usual_seconds_are_those_of_nginx() -> None:
    template = (ROOT / "roles/nginx/templates/site.conf.j2").read_text()
    assert f"        default {maintenance.RETRY_AFTER};\n        include {{{{ maintenance }}}}/nginx/retry" in template
    for name in maintenance.SETTINGS:
        assert f"{{{{ maintenance }}}}/{name.replace('.', '*.')};" in template, "nginx finds it"
    assert f"{{{{ maintenance }}}}/{maintenance.PAGE}" in template


# --- Switching -------------------------------------------------------------------------------------------------------


class Host:
    """A host with nginx, as far as the maintenance page can see it. To be given as ``run``."""

    def __init__(self, root: Path, *names: str) -> None:
        self.root, self.conf = root, root / "nginx.conf"
        self.sites = [Site(name, root / name / "maintenance") for name in names]
        self.conf.write_text("".join(f"if (-f {site.folder}/page.html) {{\n" for site in self.sites))
        self.calls: list[str] = []
        self.frozen: set[str] = set()
        self.test_fails = self.reload_fails = False
        self.active = "active"
        #: What nginx has in its memory: the settings' files at the last reload, and whether a page was shown then.
        self.loaded: dict[str, str] = {}
        self.pages_at_reload: list[str] = []
        self._changed_state()

    def __call__(self, args: Sequence[str], **_options: Any) -> tuple[int, str, str]:
        if args[:2] == ["systemctl", "show"]:
            date = time.strftime("%a %Y-%m-%d %H:%M:%S", time.gmtime(self.since))
            stamp = f"{date}.{int(self.since % 1 * 1e6):06d} UTC"
            states = f"ActiveState={self.active}\nUnitFileState=enabled\nStateChangeTimestamp={stamp}\n"
            return 0, f"LoadState=loaded\nNeedDaemonReload=no\n{states}", ""
        self.calls.append(" ".join(args))
        if args == ["/usr/sbin/nginx", "-t", "-q"]:
            return (1, "", 'nginx: [emerg] unknown directive "x" in own.conf\n') if self.test_fails else (0, "", "")
        assert args == ["systemctl", "reload", "nginx.service"]
        if self.reload_fails:
            self._changed_state()
            return 1, "", "Job failed.\n"
        self.loaded = {path: text for path, text in self.files().items() if "/nginx/" in path}
        self.pages_at_reload = [path for path in self.files() if path.endswith(".html")]
        self._changed_state()
        return 0, "", ""

    def _changed_state(self) -> None:
        # Times of inodes are as fine as the kernel's clock tick, and systemd's are finer.
        time.sleep(0.012)
        self.since = time.time()
        time.sleep(0.012)

    def files(self) -> dict[str, str]:
        """All files of the maintenance folders, by their path."""
        found = (path for site in self.sites for path in site.folder.rglob("*"))
        return {str(path.relative_to(self.root)): path.read_text() for path in sorted(found) if path.is_file()}

    def switch(self, check: bool = False, **values: Any) -> maintenance.Outcome:
        """Do what the playbook and its module do."""
        self.calls.clear()
        sites = [{"name": site.name, "folder": str(site.folder)} for site in self.sites]
        said = maintenance_request.request(values, sites)
        chosen = tuple(Site(site["name"], Path(site["folder"])) for site in said["sites"])
        request = Request(
            said["state"] == "present", chosen, said["message"], said["retry_after"], tuple(said["allow"])
        )
        return Maintenance(self, self._check_freeze, check=check, nginx_conf=self.conf).switch(request)

    def _check_freeze(self, app: str) -> None:
        if app in self.frozen:
            raise ReleaseError("Check for a freeze", f"{app} is frozen", "Wait")


TEST, RELOAD = "/usr/sbin/nginx -t -q", "systemctl reload nginx.service"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, "shop", "my-blog")


def test_a_plain_on_and_off_is_one_file_and_no_reload(host: Host) -> None:
    outcome = host.switch(maintenance="on", app="shop", message="Back at 9")
    assert (outcome.changed, outcome.reloaded, outcome.apps) == (True, False, ["shop"])
    assert host.files() == {"shop/maintenance/page.html": page("Back at 9")}
    outcome = host.switch(maintenance="off", app="shop")
    assert (outcome.changed, outcome.reloaded, outcome.apps) == (True, False, ["shop"])
    assert host.files() == {}
    assert host.calls == []


def test_nginx_can_read_what_is_written(host: Host) -> None:
    before = os.umask(0o077)
    try:
        host.switch(maintenance="on", app="shop", allow="203.0.113.7", retry_after=60)
    finally:
        os.umask(before)
    folder = host.sites[0].folder
    assert [path.stat().st_mode & 0o777 for path in (folder.parent, folder, folder / "nginx")] == [0o755] * 3
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


def test_testers_are_known_to_nginx_before_the_page_is_there(host: Host) -> None:
    outcome = host.switch(maintenance="on", app="my-blog", allow=["2001:db8::/32", "203.0.113.7"], retry_after=60)
    assert (outcome.changed, outcome.reloaded) == (True, True)
    assert host.calls == [TEST, RELOAD]
    assert host.pages_at_reload == []
    variable = "$flaskhost_my_blog_closed_to_address"
    assert host.loaded == {
        "my-blog/maintenance/nginx/allow.conf": (
            f"geo {variable} {{\n    default 1;\n    203.0.113.7 0;\n    2001:db8::/32 0;\n}}\n"
        ),
        "my-blog/maintenance/nginx/closed.map": f"on {variable};\n",
        "my-blog/maintenance/nginx/retry_after.map": "on 60;\n",
    }
    assert "my-blog/maintenance/page.html" in host.files()


def test_the_same_again_changes_nothing(host: Host) -> None:
    wanted = {"maintenance": "on", "app": "all", "allow": ["203.0.113.7", "::1"], "retry_after": 60}
    assert host.switch(**wanted).apps == ["my-blog", "shop"]
    assert host.calls == [TEST, RELOAD], "one reload for all"
    outcome = host.switch(**{**wanted, "allow": "::1,203.0.113.7/32"})
    assert (outcome.changed, outcome.reloaded, outcome.diff, host.calls) == (False, False, [], [])
    assert host.switch(maintenance="off", app="all").changed
    assert not host.switch(maintenance="off", app="all").changed


def test_another_message_needs_no_reload_and_other_testers_do(host: Host) -> None:
    host.switch(maintenance="on", app="shop", allow="203.0.113.7")
    assert host.switch(maintenance="on", app="shop", allow="203.0.113.7", message="Later").changed
    assert host.calls == []
    assert host.switch(maintenance="on", app="shop", allow="203.0.113.8", message="Later").changed
    assert host.calls == [TEST, RELOAD]


def test_the_testers_of_the_last_time_do_not_see_the_app(host: Host) -> None:
    """Off is one file and leaves the settings; the next time they are gone before the page is there."""
    host.switch(maintenance="on", app="shop", allow="203.0.113.7", retry_after=60)
    host.switch(maintenance="off", app="shop")
    assert host.calls == []
    assert len(host.files()) == 3
    outcome = host.switch(maintenance="on", app="shop")
    assert outcome.reloaded
    assert host.pages_at_reload == []
    assert (host.loaded, list(host.files())) == ({}, ["shop/maintenance/page.html"])


def test_an_empty_page_is_a_page(host: Host) -> None:
    """As after `touch page.html`: nginx goes by its being there."""
    host.sites[0].folder.mkdir(parents=True)
    (host.sites[0].folder / "page.html").touch()
    assert host.switch(maintenance="off", app="shop").changed
    assert host.files() == {}


def test_settings_that_nginx_refuses_are_taken_back(host: Host) -> None:
    host.switch(maintenance="on", app="shop", retry_after=60)
    host.switch(maintenance="off", app="shop")
    before = host.files()
    host.test_fails = True
    with pytest.raises(ReleaseError, match=r'unknown directive "x" in own\.conf'):
        host.switch(maintenance="on", app="all", allow="203.0.113.7")
    assert host.files() == before
    assert host.calls == [TEST]
    host.test_fails = False
    host.switch(maintenance="on", app="shop", retry_after=60)
    assert host.calls == [TEST, RELOAD], (
        "nginx has not read the files since they were written, though they are the same"
    )


def test_a_reload_that_failed_is_made_up_for(host: Host) -> None:
    host.reload_fails = True
    with pytest.raises(ReleaseError, match="Job failed"):
        host.switch(maintenance="on", app="shop", allow="203.0.113.7")
    assert "shop/maintenance/page.html" not in host.files()
    host.reload_fails = False
    assert host.switch(maintenance="on", app="shop", allow="203.0.113.7").reloaded
    assert len(host.loaded) == 2


def test_an_nginx_that_does_not_run_reads_it_when_it_starts(host: Host) -> None:
    host.active = "inactive"
    outcome = host.switch(maintenance="on", app="shop", allow="203.0.113.7")
    assert (outcome.changed, outcome.reloaded, host.calls) == (True, False, [])
    assert len(host.files()) == 3


def test_a_site_that_nginx_does_not_know_is_refused(host: Host) -> None:
    for break_it in (lambda: host.conf.write_text("http {}\n"), host.conf.unlink):
        break_it()
        with pytest.raises(ReleaseError, match="is not configured for the maintenance page of my-blog") as caught:
            host.switch(maintenance="on", app="all")
        assert "site.yml" in caught.value.cure
        assert host.files() == {}
    assert not host.switch(maintenance="off", app="all").changed, "a page is taken away anyway"


@pytest.mark.parametrize("word", ["on", "off"])
def test_one_frozen_app_and_none_is_touched(host: Host, word: str) -> None:
    host.switch(maintenance="on", app="my-blog")
    before = host.files()
    host.frozen = {"shop"}
    with pytest.raises(ReleaseError, match="shop is frozen"):
        host.switch(maintenance=word, app="all", message="Another")
    assert host.files() == before
    assert host.switch(maintenance="off", app="my-blog").changed


@pytest.mark.parametrize(
    ("values", "reloaded"),
    [({}, False), ({"allow": "203.0.113.7"}, True), ({"retry_after": 5}, True), ({"maintenance": "off"}, False)],
)
def test_check_mode_foretells_and_changes_nothing(host: Host, values: dict[str, Any], reloaded: bool) -> None:
    if values.get("maintenance") == "off":
        host.switch(maintenance="on", app="shop")
    wanted = {"maintenance": "on", "app": "shop", **values}
    before = host.files()
    foretold = host.switch(check=True, **wanted)
    assert (host.files(), host.calls) == (before, [])
    assert foretold.reloaded is reloaded
    assert foretold == host.switch(**wanted)
    assert not host.switch(check=True, **wanted).changed


def test_the_diff_shows_the_files(host: Host) -> None:
    host.switch(maintenance="on", app="shop", message="Old")
    (entry,) = host.switch(maintenance="on", app="shop", message="New").diff
    assert entry["before_header"] == entry["after_header"] == str(host.sites[0].folder / "page.html")
    assert ("Old" in entry["before"], "New" in entry["after"]) == (True, True)
    (entry,) = host.switch(maintenance="off", app="shop").diff
    assert entry["after"] == ""


@pytest.mark.parametrize(("before", "after"), [("", "203.0.113.7"), ("203.0.113.7", ""), ("203.0.113.7", "::1")])
def test_killed_at_any_moment_the_next_run_ends_as_it_should(tmp_path: Path, before: str, after: str) -> None:
    """And nobody ever gets a page that is half written, or settings that nginx would refuse."""
    old = {"maintenance": "on", "app": "shop", "allow": before, "message": "Old"}
    new = {"maintenance": "on", "app": "shop", "allow": after, "message": "New"}
    number, killed = 0, True
    while killed:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        host = Host(folder, "shop")
        host.switch(**old)
        try:
            with Killer(number):
                host.switch(**new)
            killed = False
        except KeyboardInterrupt:
            files = host.files()
            assert files["shop/maintenance/page.html"] in (page("Old"), page("New"))
            if "shop/maintenance/nginx/closed.map" in files:
                assert "shop/maintenance/nginx/allow.conf" in files, "nginx could not be started"
            if files["shop/maintenance/page.html"] == page("New"):
                assert after in host.loaded.get("shop/maintenance/nginx/allow.conf", "")
        host.switch(**new)
        assert host.files()["shop/maintenance/page.html"] == page("New")
        assert set(host.loaded) == {path for path in host.files() if "/nginx/" in path}
        assert bool(host.loaded) is bool(after)
        assert not host.switch(**new).changed
    assert number > 3
