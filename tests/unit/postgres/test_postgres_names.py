"""Whose the roles and databases are that have an app's name. PostgreSQL itself is asked in molecule/tenants."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.postgres import database_steps
from ansible.module_utils.flaskhost.postgres import databases as postgres_databases
from ansible.module_utils.flaskhost.postgres import names as postgres_names

ROOT = Path(__file__).resolve().parents[3]
SHOP = {"shop": {"roles": ["shop", "shop-owner", "shop-a"], "owner_file": "/nonexistent", "home": "/srv/shop/data"}}
MARK = "Flaskhost: shop"
OURS = {"shop": {"owner": "shop-owner", "open": False}}
HANDMADE = {"shop": {"owner": "carol", "open": True}}


def found(roles: dict[str, str], databases: Any = (), known: dict[str, bool] | None = None) -> Any:
    return postgres_names.foreign(SHOP, {"roles": roles, "databases": dict(databases)}, known or {}).get("shop")


@pytest.mark.parametrize("known", [{}, {"shop": False}])
def test_what_somebody_has_made_by_hand_is_foreign(known: dict[str, bool]) -> None:
    assert found({"shop": ""}, {}, known) == {"roles": {"shop": ""}, "database": False, "owner": ""}
    assert found({}, HANDMADE, known) == {"roles": {}, "database": True, "owner": "carol"}
    assert found({"shop-owner": "Carol's role"}, {}, known) == {
        "roles": {"shop-owner": ""},
        "database": False,
        "owner": "",
    }
    both = {"shop": {"owner": "shop", "open": True}}
    assert found({"shop": ""}, both, known) == {"roles": {"shop": ""}, "database": True, "owner": "shop"}


def test_nothing_is_foreign_where_there_is_nothing() -> None:
    assert found({}) is None
    assert found({}, {}, {"shop": True}) is None


def test_what_is_marked_is_the_apps_own() -> None:
    marked = dict.fromkeys(SHOP["shop"]["roles"], MARK)
    assert found(marked, OURS) is None
    # Whatever an app does to its database: another owner's, open to everybody, or dropped.
    assert found(marked, HANDMADE) is None
    assert found(marked) is None
    assert found({"shop": f"the shop's\n{MARK}"}, OURS) is None


def test_a_login_that_is_not_marked_is_foreign_beside_roles_that_are() -> None:
    roles = {"shop": MARK, "shop-owner": MARK, "shop-a": ""}
    assert found(roles, OURS) == {"roles": {"shop-a": ""}, "database": False, "owner": ""}


@pytest.mark.parametrize("known", [{}, {"shop": True}, {"shop": False}])
def test_a_role_of_another_app_is_foreign(known: dict[str, bool]) -> None:
    """The app shop was removed; its owner's role is in the way of an app with the name shop-owner."""
    assert found({"shop": "Flaskhost: other"}, OURS, known)["roles"] == {"shop": "other"}


def test_what_an_earlier_version_has_made_is_the_apps_own() -> None:
    roles = {"shop": "", "shop-owner": "", "shop-a": ""}
    assert found(roles, OURS, {"shop": True}) is None
    assert found(roles, HANDMADE, {"shop": True}) is None


@pytest.mark.parametrize(
    ("database", "ours"),
    [
        ({"owner": "shop-owner", "open": False}, True),
        ({"owner": "shop", "open": False}, True),
        ({"owner": "shop", "open": True}, False),
        ({"owner": "carol", "open": False}, False),
    ],
)
def test_an_app_that_was_removed_before_the_upgrade_may_come_back(database: dict[str, Any], ours: bool) -> None:
    """Only its system user is left, and an app without a database has one too: its database has to look like ours."""
    assert (found({"shop": ""}, {"shop": database}, {"shop": False}) is None) is ours


def test_a_mark_is_one_line_of_the_comment() -> None:
    assert postgres_names.marked(postgres_names.marking("", "shop")) == "shop"
    assert postgres_names.marked(postgres_names.marking("Ask Carol first", "shop")) == "shop"
    assert postgres_names.marking("Ask Carol first\nFlaskhost: old", "shop") == "Ask Carol first\nFlaskhost: shop"
    for nobody in ("", None, "not Flaskhost: shop", "flaskhost: shop"):
        assert postgres_names.marked(nobody) == ""


# --- The host --------------------------------------------------------------------------------------------------------


class Host:
    """A fake host with a cluster; only its folders are real."""

    def __init__(self, tmp_path: Path, version: str = "17") -> None:
        self.settings = tmp_path / "etc"
        self.calls: list[tuple[list[str], dict[str, Any]]] = []
        self.answer: tuple[int, str, str] = (0, json.dumps({"roles": {}, "databases": {}}), "")
        folder = self.settings / version / "main"
        self.data = tmp_path / "data" / version
        folder.mkdir(parents=True)
        (self.data / "base" / "1").mkdir(parents=True)
        (self.data / "PG_VERSION").write_text(version)
        (folder / "postgresql.conf").write_text(f"data_directory = '{self.data}'\n")
        self.access = folder / "pg_hba.conf"

    def run(self, command: list[str], **options: Any) -> tuple[int, str, str]:
        self.calls.append((command, options))
        return self.answer

    def look_up(self, apps: Any = SHOP, version: str = "") -> dict[str, Any]:
        return dict(postgres_names.look_up(self.run, apps, version, self.settings))


def test_postgres_is_asked_once_in_its_own_database(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.answer = (0, json.dumps({"roles": {"shop": ""}, "databases": {}}), "")
    assert host.look_up()["foreign"] == {"shop": {"roles": {"shop": ""}, "database": False, "owner": ""}}
    ((command, options),) = host.calls
    assert "--dbname=postgres" in command
    assert command[command.index("--cluster") + 1] == "17/main"
    assert "search_path= " in options["environ_update"]["PGOPTIONS"]
    assert "\\connect" not in options["data"]


def test_a_name_cannot_end_what_it_is_in() -> None:
    text = postgres_names.question({"it's": {"roles": ["it's", "it's-owner"]}})
    assert "ARRAY['it''s', 'it''s-owner']" in text
    assert "ARRAY['it''s']" in text


def test_a_host_without_postgres_is_asked_nothing(tmp_path: Path) -> None:
    nothing = {"foreign": {}, "silent": ""}
    host = Host(tmp_path)
    assert postgres_names.look_up(host.run, SHOP, "17", tmp_path / "none") == nothing
    assert host.look_up({}) == nothing
    assert host.calls == []


def test_the_cluster_that_serves_is_asked(tmp_path: Path) -> None:
    host = Host(tmp_path)
    Host(tmp_path, "15")
    for version, asked in (("", "17/main"), ("15", "15/main"), ("16", "17/main")):
        host.look_up(version=version)
        assert asked in host.calls[-1][0]
    (host.settings / "17/main/start.conf").write_text("# by hand\nmanual\n")
    for version in ("", "17"):
        host.look_up(version=version)
        assert "15/main" in host.calls[-1][0]


@pytest.mark.parametrize("answer", [(2, "", "no server"), (0, "", ""), (0, "nonsense", "")])
def test_postgres_that_does_not_answer_is_told_if_it_has_databases(
    tmp_path: Path, answer: tuple[int, str, str]
) -> None:
    host = Host(tmp_path)
    host.answer = answer
    assert host.look_up()["silent"] == "", "an installation that was killed can be repeated"
    (host.data / "base" / "16384").mkdir()
    assert host.look_up()["silent"] == "17/main"
    host.access.write_text('# Role: postgres. x\nlocal   "shop" "shop" peer\n')
    assert host.look_up()["silent"] == "", "an app that is known to be ours needs no answer"


def test_an_earlier_version_has_left_its_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(tmp_path)
    owner_file = tmp_path / "owner.env"
    apps = {"shop": {**SHOP["shop"], "owner_file": str(owner_file)}}
    homes = {"shop": "/home/shop"}

    def account(name: str) -> Any:
        return SimpleNamespace(pw_dir=homes[name])

    monkeypatch.setattr(postgres_names.pwd, "getpwnam", account)
    assert postgres_names.known(apps, host.access) == {}
    homes["shop"] = "/srv/shop/data"
    assert postgres_names.known(apps, host.access) == {"shop": False}
    for line in ('local   "shopper" "shopper" peer', 'local "shop" "carol" peer', 'local all "shop" peer'):
        host.access.write_text(f"# Role: postgres. x\n{line}\n")
        assert postgres_names.known(apps, host.access) == {"shop": False}
    host.access.write_text('local   "shop" "shop" peer map=x\n')
    assert postgres_names.known(apps, host.access) == {"shop": False}, "a file that somebody else wrote"
    host.access.write_text('# Role: postgres. x\nlocal   "shop" "shop" peer map=x\n')
    assert postgres_names.known(apps, host.access) == {"shop": True}
    host.access.unlink()
    owner_file.touch()
    assert postgres_names.known(apps, host.access) == {"shop": True}


def test_the_traces_are_those_that_the_role_leaves() -> None:
    text = (ROOT / "roles/postgres/templates/pg_hba.conf.j2").read_text()
    assert postgres_names._OURS in text
    assert '\nlocal   "{{ database.name }}" "{{ database.name }}" peer' in text


def test_the_role_marks_what_it_makes_in_the_same_transaction() -> None:
    empty = {"roles": {}, "databases": {}, "members": [], "extensions": {}}
    login = postgres_databases.Login("shop-a", "")
    wanted = postgres_databases.Database("shop", "shop-owner", password="x", logins=(login,))
    steps = [step for step in database_steps.role_steps([wanted], empty) if "create the role" in step.says]
    assert [step.says.rpartition(" ")[2] for step in steps] == SHOP["shop"]["roles"]
    assert all(step.together and f"IS '{MARK}';" in step.sql for step in steps)


def test_it_runs_where_preflight_has_yet_to_refuse() -> None:
    path = ROOT / "plugins/module_utils/flaskhost/postgres/names.py"
    ast.parse(path.read_text(), feature_version=(3, 7))
