"""Preflight of the host: its facts, the way to it, its accounts and databases, and what it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps.record import app_record
from ansible.module_utils.flaskhost.host import accounts as host_accounts
from ansible.module_utils.flaskhost.host import questions as host_questions
from preflight_cases import (
    ACCOUNT,
    ADMIN,
    DATABASES,
    GOOD_FACTS,
    GOOD_SETTINGS,
    OTHER_APP,
    case_name,
    found,
    good_apps,
    timers,
)
from rendering import load_filters

# --- Its facts, and the way to it ------------------------------------------------------------------------------------


#: The kind, where it is told, and what is changed in the facts.
FACT_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("unsupported_distribution", "host.distribution", {"distribution": "Ubuntu", "distribution_major_version": "24"}),
    ("unsupported_release", "host.distribution", {"distribution_major_version": "11"}),
    ("unsupported_architecture", "host.architecture", {"architecture": "armv7l"}),
    ("not_systemd", "host.service_mgr", {"service_mgr": "sysvinit"}),
    ("old_python", "host.python", {"python": {"version": {"major": 3, "minor": 9}}}),
    ("too_little_memory", "host.memory", {"memtotal_mb": 470}),
    ("too_little_disk", "host.disk", {"mounts": [{"mount": "/", "size_available": 10**9}]}),
    (
        "too_little_disk",
        "host.disk",
        {"mounts": [*GOOD_FACTS["mounts"], {"mount": "/srv", "size_available": 10**9}]},
    ),
]


@pytest.mark.parametrize(("kind", "path", "changes"), FACT_FAULTS, ids=case_name)
def test_one_fault_of_the_host(project: Path, kind: str, path: str, changes: dict[str, Any]) -> None:
    problems = preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS | changes, project)
    assert found(problems) == {(kind, path)}


@pytest.mark.parametrize(
    ("mounts", "told"),
    [
        ([{"mount": "/", "size_available": 10**10}, {"mount": "/boot", "size_available": 10**6}], []),
        ([{"mount": "/", "size_available": 10**10}, {"mount": "/srv/old", "size_available": 10**6}], []),
        ([{"mount": "/", "size_available": 10**9}, {"mount": "/srv", "size_available": 10**10}], ["holds /,"]),
        ([{"mount": "/", "size_available": 10**10}, {"mount": "/srv", "size_available": 10**9}], ["holds /srv,"]),
        ([{"mount": "/", "size_available": 10**9}], ["holds / and /srv,"]),
        ([{"mount": "/"}, {"size_available": 1}, {"mount": "/etc/hosts", "size_available": 1}], []),
    ],
)
def test_the_disk_that_counts(project: Path, mounts: list[dict[str, Any]], told: list[str]) -> None:
    problems = preflight.find_problems(good_apps(), {}, {"mounts": mounts}, project)
    assert len(problems) == len(told)
    assert all(part in problem["problem"] for part, problem in zip(told, problems, strict=True))


REFUSALS: list[tuple[str, str, dict[str, Any]]] = [
    ("unreachable", "ssh -p 1 op@192.0.2.7 ", {"refusal": "ssh: connect to host 192.0.2.7 port 1: Connection refused"}),
    ("unreachable", "ssh-copy-id -p 1 op@192.0.2.7", {"refusal": "op@192.0.2.7: Permission denied (publickey)."}),
    ("unreachable", "ssh-keygen -R 192.0.2.7", {"refusal": "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"}),
    ("unreachable", "by hand", {"refusal": "Host key verification failed."}),
    ("unreachable", "ansible_host", {"refusal": "ssh: connect to host x port 22: Connection timed out"}),
    ("unreachable", "ansible_host", {"refusal": "Could not resolve hostname x: Name or service not known"}),
    ("unreachable", "ssh -p 1 op@192.0.2.7", {"refusal": "something new"}),
    ("no_python", "apt-get install python3", {"connected": True, "refusal": "/bin/sh: 1: /usr/bin/python3: not found"}),
    ("no_facts", "ssh -p 1 op@192.0.2.7", {"connected": True, "refusal": "MemoryError"}),
    ("no_root", "-K", {"connected": True, "become": True, "refusal": "Missing sudo password"}),
    (
        "no_root",
        "the correct password of op",
        {"connected": True, "become": True, "refusal": "Incorrect sudo password"},
    ),
    ("no_root", "usermod", {"connected": True, "become": True, "refusal": "op is not in the sudoers file."}),
    ("no_root", "apt-get install sudo", {"connected": True, "become": True, "refusal": "/bin/sh: 1: sudo: not found"}),
]


@pytest.mark.parametrize(("kind", "cure", "changes"), REFUSALS, ids=case_name)
def test_one_refusal_on_the_way(kind: str, cure: str, changes: dict[str, Any]) -> None:
    attempt = {"address": "192.0.2.7", "port": 1, "user": "op", "become": False, "connected": False, **changes}
    (problem,) = preflight.find_access_problems([{"attempt": attempt}, {"skipped": True}], "web1")
    assert (problem["kind"], problem["path"]) == (kind, "host web1")
    assert cure in problem["example"]
    assert all(word in problem["problem"] for word in ("192.0.2.7", "port 1", "op", changes["refusal"]))


def test_a_good_way_has_no_problem() -> None:
    assert preflight.find_access_problems([{"attempt": {"refusal": ""}}, {"skipped": True}, None], "web1") == []


def test_a_way_of_which_little_is_known() -> None:
    """Without a port, user and address of the inventory's own, SSH takes its own; the command to try does too."""
    (problem,) = preflight.find_access_problems([{"attempt": {"refusal": "closed"}}], "web1")
    assert "as the user of ~/.ssh/config, or your own, to web1, port 22" in problem["problem"]
    assert problem["example"].startswith("ssh web1 ")
    (problem,) = preflight.find_access_problems([{"attempt": {"refusal": "closed", "port": 22, "user": "op"}}], "web1")
    assert problem["example"].startswith("ssh op@web1 ")


def test_a_missing_sudo_is_not_a_missing_python() -> None:
    attempt = {"refusal": "sudo: python3: command not found", "become": True, "connected": True}
    (problem,) = preflight.find_access_problems([{"attempt": attempt}], "web1")
    assert problem["kind"] == "no_root"


def test_the_noise_around_a_refusal_is_left_out() -> None:
    said = (
        "Task failed: Failed to connect to the host via ssh: Warning: Permanently added '192.0.2.7' (ED25519) to the "
        "list of known hosts.\r\nop@192.0.2.7: Permission denied (publickey)."
    )
    (problem,) = preflight.find_access_problems([{"attempt": {"refusal": said}}], "web1")
    assert problem["problem"].endswith(": op@192.0.2.7: Permission denied (publickey).")


# --- Accounts of the host ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "word"),
    [
        ({"home": "/home/todo", "group": False}, "user"),
        ({"home": "/srv/other/data", "group": False}, "user"),
        ({"home": "", "group": False}, "user"),
        ({"home": None, "group": True}, "group"),
        ({"home": "/srv/todo/data", "group": True}, "group"),
    ],
)
def test_an_app_takes_over_no_account_of_the_host(project: Path, account: dict[str, Any], word: str) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    accounts = {"todo": account}
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"accounts": accounts})
    assert (problem["kind"], problem["path"]) == (ACCOUNT, "flask_apps.todo")
    assert f"The host has a {word} todo" in problem["problem"]
    assert problem["example"].startswith("todo-app")


def test_an_app_may_have_its_own_account(project: Path) -> None:
    home = app_record("todo", OTHER_APP)["data"]
    apps = {**good_apps(), "todo": OTHER_APP}
    for accounts in ({"todo": {"home": home, "group": False}}, {}, None, {"todo": None}, [], {"x": {"home": "/x"}}):
        assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"accounts": accounts}) == []


#: An app with a cache and a queue, and the users that it needs beside its own.
STORES = {"cache": "redis", "cache_mb": 8, "queue": "redis", "queue_mb": 8}
BESIDE = {"todo_build": "flask_apps.todo", "todo_cache": "flask_apps.todo.cache", "todo_queue": "flask_apps.todo.queue"}


@pytest.mark.parametrize(("name", "path"), BESIDE.items())
@pytest.mark.parametrize(
    ("account", "word"), [({"home": "/home/x", "group": False}, "user"), ({"home": None, "group": True}, "group")]
)
def test_builds_caches_and_queues_take_over_no_account_of_the_host(
    project: Path, name: str, path: str, account: dict[str, Any], word: str
) -> None:
    apps = {**good_apps(), "todo": {**OTHER_APP, **STORES}}
    answers = {"accounts": {name: account}}
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers=answers)
    assert (problem["kind"], problem["path"]) == (ACCOUNT, path)
    assert f"The host has a {word} {name}" in problem["problem"]
    assert name in problem["example"]


def test_the_users_of_an_earlier_run_and_those_of_what_an_app_does_not_have_are_no_problem(project: Path) -> None:
    own = {name: {"home": "/nonexistent", "group": False} for name in BESIDE}
    apps = {**good_apps(), "todo": {**OTHER_APP, **STORES}}
    assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"accounts": own}) == []
    foreign = {name: {"home": "/home/x", "group": False} for name in ("todo_cache", "todo_queue")}
    apps = {**good_apps(), "todo": OTHER_APP}
    assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"accounts": foreign}) == []


def test_the_host_is_asked_for_all_users_that_an_app_needs() -> None:
    asked = preflight.host_questions({"todo": {**OTHER_APP, **STORES}}, GOOD_SETTINGS)["names"]
    assert asked == ["todo", *BESIDE]


@pytest.mark.parametrize(("name", "path"), BESIDE.items())
def test_an_administrator_is_no_user_of_an_app(project: Path, name: str, path: str) -> None:
    apps = {**good_apps(), "todo": {**OTHER_APP, **STORES}}
    admins = [*GOOD_SETTINGS["admin_users"], {**GOOD_SETTINGS["admin_users"][0], "name": name}]
    (problem,) = preflight.find_problems(apps, {**GOOD_SETTINGS, "admin_users": admins}, GOOD_FACTS, project)
    assert (problem["kind"], problem["path"]) == (ADMIN, f"admin_users[{len(admins) - 1}].name")
    assert problem["problem"].endswith(f"of flask_apps.todo runs as the user {name}.")


# --- Roles and databases of PostgreSQL --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ({"roles": {"todo": ""}, "database": False, "owner": ""}, "has the role todo, which"),
        ({"roles": {}, "database": True, "owner": "carol"}, "has the database todo (owner: carol), which"),
        (
            {"roles": {"todo": "", "todo-owner": "shop"}, "database": True, "owner": "todo"},
            'has the role todo, the role todo-owner (of the app "shop") and the database todo (owner: todo), which',
        ),
    ],
)
def test_an_app_takes_over_nothing_in_postgresql(project: Path, taken: dict[str, Any], words: str) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    answers = {"databases": {"foreign": {"todo": taken}, "silent": ""}}
    (problem,) = preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers=answers)
    assert (problem["kind"], problem["path"]) == (DATABASES[0], "flask_apps.todo")
    assert words in problem["problem"]
    assert problem["example"].startswith("todo-app")
    assert "## A name that is taken" in (Path(__file__).parents[3] / "docs/postgres.md").read_text()


def test_postgresql_that_cannot_say_is_a_problem_of_the_host(project: Path) -> None:
    answers = {"databases": {"foreign": {}, "silent": "17/main"}}
    (problem,) = preflight.find_problems(good_apps(), GOOD_SETTINGS, GOOD_FACTS, project, answers=answers)
    assert (problem["kind"], problem["path"]) == (DATABASES[1], "host.postgresql")
    assert problem["example"].startswith("sudo systemctl start postgresql@17-main")


@pytest.mark.parametrize(
    "answer", [None, {}, [], {"foreign": []}, {"foreign": {"todo": None, "shop": {}, "x": {"roles": 1}}}]
)
def test_postgresql_may_say_nothing(project: Path, answer: Any) -> None:
    apps = {**good_apps(), "todo": OTHER_APP}
    assert preflight.find_problems(apps, GOOD_SETTINGS, GOOD_FACTS, project, answers={"databases": answer}) == []


def test_postgresql_is_asked_for_all_roles_of_the_apps_with_a_database() -> None:
    with_database = {**OTHER_APP, "database": True}
    apps = {"todo": with_database, "plain": OTHER_APP, "a'b": with_database, "postgres": with_database, 7: {}}
    logins = {"postgres_logins": {"todo": {"a": "x", "B": "x", 3: "x"}, "plain": {"a": "x"}}}
    asked = preflight.host_questions(apps, logins)["databases"]
    assert list(asked) == ["todo"]
    assert asked["todo"]["roles"] == ["todo", "todo-owner", "todo-a"]
    record = app_record("todo", OTHER_APP)
    assert (asked["todo"]["owner_file"], asked["todo"]["home"]) == (record["database_owner_file"], record["data"])
    assert preflight.host_questions(apps, logins, has_databases=False)["databases"] == {}
    assert preflight.host_questions(None, None)["databases"] == {}


def test_names_are_read_without_the_values() -> None:
    apps = {"shop": object(), 1: {}, "s" * 50: {}, "a b": {}, "\u00fc": {}}
    assert preflight.names_to_look_up(apps) == ["shop", "a b"]
    for nothing in (None, "", [], preflight.Unreadable("x")):
        assert preflight.names_to_look_up(nothing) == []


def test_accounts_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"shop": SimpleNamespace(pw_dir="/srv/shop/data", pw_gid=7), "ada": SimpleNamespace(pw_dir="/a", pw_gid=8)}
    groups = {"shop": SimpleNamespace(gr_gid=7), "ada": SimpleNamespace(gr_gid=9), "docker": SimpleNamespace(gr_gid=3)}
    monkeypatch.setattr(host_accounts.pwd, "getpwnam", users.__getitem__)
    monkeypatch.setattr(host_accounts.grp, "getgrnam", groups.__getitem__)
    assert host_accounts.accounts(["shop", "ada", "docker", "nobody-has-it"]) == {
        "shop": {"home": "/srv/shop/data", "group": False},
        "ada": {"home": "/a", "group": True},
        "docker": {"home": None, "group": True},
    }


# --- What the host is asked ------------------------------------------------------------------------------------------


class Host:
    """A host whose programs answer what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls = folder, list[list[str]]()
        for version in ("9.6", "15", "17"):
            for place in ("bin/postgres", "lib/auto_explain.so"):
                path = folder / version / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        if command[0] == "systemd-analyze":
            bad = "every full moon" in command
            return int(bad), "", "Failed to parse it: Invalid argument\n" if bad else ""
        bad = any(word.endswith("bananas") for word in command)
        return int(bad), "", "x LOG:  y\nx FATAL:  it is no size\nx HINT:  Valid units." if bad else ""

    def ask(self, *arguments: Any) -> dict[str, Any]:
        return dict(host_questions.answer(self.run, *arguments, programs=self.folder))


def test_the_host_is_asked_for_all_times_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.ask(["daily", "-x"], {})["calendars"] == {"-x": "", "daily": ""}
    assert host.calls == [["systemd-analyze", "calendar", "--", "-x", "daily"]]
    assert host.ask(["daily", "every full moon"], {})["calendars"] == {
        "daily": "",
        "every full moon": "Failed to parse it: Invalid argument",
    }
    assert host_questions.answer(lambda _command: (127, "", "none"), ["x"], {})["calendars"] == {"x": ""}


LISTS = """gcc:
  Installed: {installed}
  Candidate: 4:12.2.0-3
  Version table:
 *** 4:12.2.0-3 500
{lists}        100 /var/lib/dpkg/status
libjpeg-dev:
  Installed: (none)
  Candidate: (none)
  Version table:
"""


@pytest.mark.parametrize(
    ("lists", "unknown"),
    [("        500 http://mirror.test/debian bookworm/main amd64 Packages\n", ["lippq-dev"]), ("", [])],
)
def test_debian_packages_are_looked_up_where_the_host_has_lists(lists: str, unknown: list[str]) -> None:
    calls: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        calls.append(command)
        return 0, LISTS.format(installed="4:12.2.0-3", lists=lists), "N: Unable to locate package lippq-dev\n"

    wanted = ["gcc", "libjpeg-dev", "lippq-dev"]
    assert host_questions.answer(run, [], {}, packages=wanted)["unknown_packages"] == unknown
    assert [call for call in calls if "apt-cache" in call] == [
        ["timeout", "30", "apt-cache", "policy", "--", "gcc", *wanted]
    ]
    assert host_questions.answer(lambda _command: (127, "", ""), [], {}, packages=wanted)["unknown_packages"] == []


def test_an_app_that_runs_and_is_no_longer_in_the_inventory_is_warned_about(tmp_path: Path) -> None:
    """It was renamed, or taken out: its data stays under the old name, and its workers go on."""
    listed = "flask-old@blue.service\nflask-old@blue.socket\nflask-old_timer@nightly.timer\nflask-shop@green.service\n"
    for name in ("old/slots", "shop/slots", "quiet/slots", "older/data"):
        (tmp_path / name).mkdir(parents=True)
    asked: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return 0, "".join(f"{line} loaded active running x\n" for line in listed.splitlines()), ""

    def warnings(apps: list[str] | None) -> list[str]:
        places = {"programs": tmp_path, "backups": tmp_path / "none", "apps": apps, "root": tmp_path}
        found = host_questions.answer(run, [], {}, **places)["others"]
        return list(load_filters()["flask_host_warnings"]({"answers": {"others": found}}, "web1"))

    (text,) = warnings(["shop"])
    assert text.startswith("web1: the app old runs on this host but is not in flask_apps")
    stop = "sudo systemctl disable --now flask-old@blue.service flask-old@blue.socket flask-old_timer@nightly.timer"
    assert text.endswith(stop)
    asked.clear()
    assert warnings(["shop", "old", "quiet"]) == warnings(None) == []
    assert asked == []
    for nothing in (None, {}, {"answers": None}, {"answers": {}}, {"answers": {"others": "x"}}):
        assert load_filters()["flask_host_warnings"](nothing, "web1") == []


def test_restores_that_were_killed_are_warned_about(tmp_path: Path) -> None:
    program = tmp_path / "flaskhost-backup"
    program.touch()
    told = "A restore was killed. Finish it: sudo flaskhost-backup restore --confirm h1"

    def ask(status: int, out: str) -> list[str]:
        places = {"programs": tmp_path, "backups": program}
        found = host_questions.answer(lambda _command: (status, out, ""), [], {}, **places)["restores"]
        warn = load_filters()["flask_host_warnings"]
        return list(warn({"answers": {"restores": found}}, "web1"))

    assert ask(0, json.dumps({"unfinished": [told], "problems": [told]})) == [f"web1: {told}"]
    # A program of an earlier version, one that fails, and a host without any.
    assert ask(0, json.dumps({"problems": []})) == []
    assert ask(1, "Traceback") == []
    program.unlink()
    assert ask(0, json.dumps({"unfinished": [told]})) == []
    assert load_filters()["flask_host_warnings"]({"skipped": True}, "web1") == []


def test_a_restart_for_backups_that_are_switched_is_told_before(tmp_path: Path) -> None:
    def ask(backup: Any) -> list[str]:
        found = host_questions.answer(lambda _command: (1, "", ""), [], {}, "15", programs=tmp_path, clusters=tmp_path)
        return list(warn([{}, backup], ["flask_apps", "backup"], {"answers": found}, "db1"))

    secret, warn = {"passphrase": "a secret"}, load_filters()["flask_archive_warnings"]
    assert ask(secret) == [], "a bare host has nothing to restart"
    file = tmp_path / "15/main/conf.d/60-flaskhost.conf"
    file.parent.mkdir(parents=True)
    file.write_text("jit = 'off'\n", encoding="utf-8")
    assert ask(secret)[0].startswith("db1: this run turns backups on, and restarts PostgreSQL once")
    assert ask("") == ask({"keep_days": 3}) == []
    file.write_text("archive_command = 'x'\narchive_mode = 'on'\n", encoding="utf-8")
    assert ask(secret) == []
    assert "turns backups off" in ask("")[0]
    assert "turns backups off" in ask({"passphrase": ""})[0]
    assert ask({"passphrase": preflight.Unreadable("'v' is undefined")}) == []
    assert warn([{}, secret], ["flask_apps", "backup"], {"skipped": True}, "db1") == []


def test_postgres_is_asked_as_its_own_user_and_without_a_cluster(tmp_path: Path) -> None:
    host = Host(tmp_path)
    found = host.ask([], {"work_mem": "64 bananas", "jit": "on"})["postgres"]
    assert found == {
        "settings": {"work_mem": "it is no size. Valid units.", "jit": ""},
        "libraries": ["auto_explain"],
    }
    silent = host_questions.answer(lambda _command: (124, "", ""), [], {"jit": "on"}, programs=tmp_path)
    assert silent["postgres"]["settings"] == {}
    command = host.calls[0]
    assert str(tmp_path / "17/bin/postgres") in command
    assert command.index("--reuid=postgres") < command.index(str(tmp_path / "17/bin/postgres"))
    assert "config_file=/dev/null" in command
    assert command[-4:] == ["-c", "jit=on", "-C", "jit"]
    host.calls.clear()
    assert host.ask([], {"jit": "on"}, "15")["postgres"]
    assert str(tmp_path / "15/bin/postgres") in host.calls[0]
    assert host.ask([], {"jit": "on"}, "16")["postgres"] == {}
    assert host_questions.answer(host.run, [], {"jit": "on"}, programs=tmp_path / "none")["postgres"] == {}


def test_the_host_is_asked_nothing_that_is_already_wrong() -> None:
    site = {
        "postgres_extra_settings": {"work_mem": "1MB", "x y": "1", "jit": True, "a": "b\nc", "b": [1]},
        "backup": {"full": "Sun 02:15", "diff": 7},
        "postgres_version": "15",
    }
    asked = load_filters()["flask_host_questions"]([good_apps(timers("daily\n")), *site.values()], ["apps", *site])
    assert asked == {
        "apps": ["shop", "todo"],
        "names": ["shop", "todo", "shop_build", "todo_build"],
        "packages": [],
        "databases": {
            "shop": {
                "roles": ["shop", "shop-owner"],
                "owner_file": "/etc/flaskhost/shop/database_owner.env",
                "home": "/srv/shop/data",
            },
        },
        "calendars": ["Sun 02:15"],
        "postgres_settings": {"work_mem": "1MB", "jit": "on"},
        "postgres_version": "15",
        "interfaces": False,
    }
    assert preflight.host_questions(None, None)["calendars"] == []


def test_only_packages_that_are_whole_count_as_installed() -> None:
    """apt installs the others: an installation was interrupted, or only a removed package's settings are left."""
    lines = [
        "ii \tnginx\t1.26.3-3",
        "hi \tpostgresql-17\t17.6-0",
        "ii \tlibc6\t2.41-12",
        "ii \tlibc6\t2.41-12",
        "rc \ttelnet\t0.17",
        "iU \tredis-server\t8.0.2",
        "iF \tchrony\t4.6",
        "un \tapache2\t",
        "no line of dpkg",
    ]
    asked: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return 0, "\n".join(lines), ""

    found = host_questions.installed(run)
    assert list(found) == ["nginx", "postgresql-17", "libc6"]
    assert found["libc6"] == [{"version": "2.41-12"}] * 2
    assert asked[0][0] == "dpkg-query"
    assert host_questions.installed(lambda _command: (127, "", "no such program")) == {}
