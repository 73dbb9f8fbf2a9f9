"""The apps' roles and databases: what is compared, and that every difference is a step and nothing else is.

What PostgreSQL itself makes of the SQL is seen in the scenario ``default``.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.postgres import database_questions, database_steps
from ansible.module_utils.flaskhost.postgres import databases as logic
from ansible.module_utils.flaskhost.postgres import psql as postgres_psql
from ansible.module_utils.flaskhost.postgres import scram as postgres_scram
from loading import load_plugin

PASSWORD = "correct-horse-battery-staple"
#: The rights that everybody has on a database that was just made.
OPEN = [["", "CONNECT"], ["", "TEMPORARY"]]
OWNERS = ["CREATE", "CONNECT", "TEMPORARY"]


def role(**changes: Any) -> dict[str, Any]:
    plain = {**dict.fromkeys(logic.ATTRIBUTES, False), "rolinherit": True, "rolcanlogin": True}
    plain["comment"] = "Flaskhost: shop"
    return {**plain, "limit": -1, "password": None, "settings": [], **changes}


def database(owner: str, rights: list[list[str]]) -> dict[str, Any]:
    mine = [[owner, right] for right in OWNERS]
    return {"owner": owner, "encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C.UTF-8", "rights": mine + rights}


WANTED = logic.Database(
    "shop",
    "shop-owner",
    password=PASSWORD,
    connections=35,
    owner_connections=5,
    settings={"statement_timeout": "60s", "lock_timeout": ""},
    extensions=("citext",),
)
SHARED = logic.Database("shop", "shop")
EMPTY: dict[str, Any] = {
    "version": 150000,
    "recovery": False,
    "roles": {},
    "databases": {"postgres": database("postgres", []), "template1": database("postgres", [])},
    "before": [],
    "members": [],
    "extensions": {"citext": True, "postgis": False, "file_fdw": False},
}
DEFAULTS = [[kind, right] for kind, (_word, rights) in logic.DEFAULT_RIGHTS.items() for right in rights]


def settled() -> tuple[dict[str, Any], dict[str, Any]]:
    """A cluster and a database that are as :data:`WANTED` says."""
    cluster = copy.deepcopy(EMPTY)
    cluster["roles"] = {
        "shop": role(limit=35, settings=["statement_timeout=60s"]),
        "shop-owner": role(limit=5, password=postgres_scram.verifier(PASSWORD)),
    }
    cluster["databases"]["shop"] = database("shop-owner", [["shop", "CONNECT"], ["shop", "TEMPORARY"]])
    return cluster, {**database_questions.FRESH, "defaults": DEFAULTS, "extensions": ["plpgsql", "citext"]}


def all_steps(wanted: logic.Database, cluster: dict[str, Any], inside: Any) -> list[database_steps.Step]:
    return database_steps.role_steps([wanted], cluster) + database_steps.content_steps(wanted, cluster, inside)


def says(wanted: logic.Database, cluster: dict[str, Any], inside: Any) -> list[str]:
    return [step.says for step in all_steps(wanted, cluster, inside)]


# --- Passwords -------------------------------------------------------------------------------------------------------


def test_a_verifier_is_postgresqls_own() -> None:
    """Made by PostgreSQL 15 of the password "pencil"."""
    stored = (
        "SCRAM-SHA-256$4096:ll/4B03ILNFpHzlhJR+B8g==$mbfGjlf044NlEldpi6UvAW1hAPMmYx5uE1yL2oTv7yw=:"
        "evCtCprjyZXk/JPqFf9W/2g6zEs/BbLjG6nxs832lpg="
    )
    assert postgres_scram.fits("pencil", stored)
    assert not postgres_scram.fits("Pencil", stored)


@pytest.mark.parametrize("stored", [None, "", "md5d8578edf8458ce06fbc5bb76a58c5ca4", "SCRAM-SHA-256$4096:a$b:c"])
def test_what_is_no_verifier_fits_no_password(stored: str | None) -> None:
    assert not postgres_scram.fits("pencil", stored)


def test_a_password_needs_no_quotes_and_is_new_each_time() -> None:
    made = {postgres_scram.new_password() for _ in range(20)}
    assert len(made) == 20
    assert all(len(password) >= 43 and password.replace("-", "").replace("_", "").isalnum() for password in made)


# --- The plan --------------------------------------------------------------------------------------------------------


def test_no_empty_database_is_created_beside_one_that_was_put_aside() -> None:
    cluster, _inside = settled()
    cluster["before"] = ["shop_before_20261121t101500z"]
    assert database_steps.problems([WANTED], cluster) == []
    del cluster["databases"]["shop"]
    (problem,) = database_steps.problems([WANTED], cluster)
    assert "shop_before_20261121t101500z" in problem
    assert 'RENAME TO "shop"\'' in problem
    # Another app's.
    cluster["before"] = ["bookshop_before_20261121t101500z"]
    assert database_steps.problems([WANTED], cluster) == []


def test_where_all_is_as_it_should_be_nothing_is_done() -> None:
    assert says(WANTED, *settled()) == []


def test_a_bare_cluster_gets_everything() -> None:
    found = all_steps(WANTED, EMPTY, database_questions.FRESH)
    assert [step.says for step in found] == [
        "create the role shop",
        "shop: statement_timeout = 60s",
        "create the role shop-owner",
        "shop-owner: change the password",
        "create the database shop",
        "revoke the rights of PUBLIC on shop",
        "shop: allow connections to its database",
        "shop: grant rights on new objects of shop-owner",
        "shop: install the extension citext",
    ]
    text = database_steps.script(found)
    assert PASSWORD not in text, "PostgreSQL is given what it stores, and not the password"
    assert 'OWNER "shop-owner"' in text


@pytest.mark.parametrize(
    ("name", "change", "step"),
    [
        ("shop", {"rolsuper": True}, "shop: allow logins, remove super"),
        ("shop", {"rolcreatedb": True}, "shop: allow logins, remove createdb"),
        ("shop-owner", {"rolbypassrls": True}, "shop-owner: allow logins, remove bypassrls"),
        ("shop", {"rolcanlogin": False}, "shop: allow logins"),
        ("shop", {"comment": ""}, "mark shop as a role of the app shop"),
        ("shop-owner", {"comment": "Ask Carol"}, "mark shop-owner as a role of the app shop"),
        ("shop", {"limit": -1}, "shop: connection limit 35, was -1"),
        ("shop", {"settings": []}, "shop: statement_timeout = 60s"),
        ("shop", {"settings": ["statement_timeout=60s", "lock_timeout=1s"]}, "shop: reset lock_timeout"),
        ("shop-owner", {"password": postgres_scram.verifier("another")}, "shop-owner: change the password"),
    ],
)
def test_a_role_that_was_changed_is_set_right(name: str, change: dict[str, Any], step: str) -> None:
    cluster, inside = settled()
    cluster["roles"][name] |= change
    assert says(WANTED, cluster, inside) == [step]


@pytest.mark.parametrize("mine", [{"settings": ["statement_timeout=60s", "work_mem=1GB"]}, {"password": "md5x"}])
def test_what_the_operator_has_given_the_apps_role_stays(mine: dict[str, Any]) -> None:
    cluster, inside = settled()
    cluster["roles"]["shop"] |= mine
    assert says(WANTED, cluster, inside) == []


@pytest.mark.parametrize("name", ["shop", "postgres", "template1"])
def test_a_database_that_is_open_to_everybody_is_closed(name: str) -> None:
    cluster, inside = settled()
    cluster["databases"][name]["rights"] += OPEN
    assert says(WANTED, cluster, inside) == [f"revoke the rights of PUBLIC on {name}"]


def test_the_app_is_no_member_of_its_owner() -> None:
    cluster, inside = settled()
    cluster["members"] = [["shop-owner", "shop"], ["reporting", "shop"]]
    assert says(WANTED, cluster, inside) == ["remove shop from shop-owner"]


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"public_create": True}, "shop: PUBLIC may not create tables"),
        ({"usage": True}, "shop: grant the app USAGE on the schema public"),
        ({"defaults": DEFAULTS[1:]}, "shop: grant rights on new objects of shop-owner"),
        ({"bare": 3}, "shop: grant rights on all objects of shop-owner"),
        ({"extensions": ["plpgsql"]}, "shop: install the extension citext"),
        ({"foreign": 1}, "shop: transfer the database and its objects to shop-owner"),
    ],
)
def test_what_is_in_a_database_is_set_right(change: dict[str, Any], step: str) -> None:
    cluster, inside = settled()
    assert says(WANTED, cluster, {**inside, **change}) == [step]


def test_a_database_of_the_app_is_handed_over_whole_or_not_at_all() -> None:
    cluster, inside = settled()
    cluster["roles"].pop("shop-owner")
    cluster["databases"]["shop"] = database("shop", OPEN)
    steps = all_steps(WANTED, cluster, {**inside, "foreign": 7, "bare": 7, "defaults": []})
    (handing,) = [step for step in steps if "transfer the database" in step.says]
    assert handing.together
    assert 'REASSIGN OWNED BY "shop" TO "shop-owner";' in handing.sql
    assert "GRANT" in handing.sql, "in the same transaction, so that the app never finds itself without"
    text = database_steps.script([handing])
    assert text.index("BEGIN;") < text.index("REASSIGN") < text.index("\\gexec") < text.index("COMMIT;")


def test_a_database_of_nobodys_role_gets_its_owner() -> None:
    cluster, inside = settled()
    cluster["databases"]["shop"]["owner"] = "postgres"
    (step,) = all_steps(WANTED, cluster, inside)
    assert 'ALTER DATABASE "shop" OWNER TO "shop-owner";' in step.sql
    assert "REASSIGN" not in step.sql, "what else postgres owns is not the app's"


def test_the_way_back_to_one_role() -> None:
    cluster, inside = settled()
    found = says(logic.Database("shop", "shop", connections=35, settings=WANTED.settings), cluster, inside)
    assert found == [
        "shop-owner: forbid logins",
        "shop-owner: connection limit none, was 5",
        "shop-owner: remove the password",
        "shop: transfer the database and its objects to shop",
    ]


def test_a_plain_database_is_its_apps_own() -> None:
    cluster = copy.deepcopy(EMPTY)
    assert says(SHARED, cluster, database_questions.FRESH) == [
        "create the role shop",
        "create the database shop",
        "revoke the rights of PUBLIC on shop",
    ]
    cluster["roles"]["shop"] = role()
    cluster["databases"]["shop"] = database("shop", [])
    assert says(SHARED, cluster, database_questions.FRESH) == []


def test_a_login_of_the_network_is_the_apps_role_and_can_be_taken_away() -> None:
    cluster, inside = settled()
    login = logic.Login("shop-a", PASSWORD)
    wanted = logic.Database(**{**WANTED.__dict__, "logins": (login,)})
    assert says(wanted, cluster, inside) == [
        "create the role shop-a",
        "shop-a: change the password",
        "shop-a: statement_timeout = 60s",
        'shop-a: role = "shop"',
        "make shop-a a member of shop",
    ]
    cluster["roles"]["shop-a"] = role(
        limit=35, password=postgres_scram.verifier(PASSWORD), settings=["statement_timeout=60s", "role=shop"]
    )
    cluster["members"] = [["shop", "shop-a"]]
    assert says(wanted, cluster, inside) == []
    gone = logic.Database(**{**WANTED.__dict__, "logins": (logic.Login("shop-a"),)})
    assert says(gone, cluster, inside) == ["shop-a: forbid logins", "shop-a: remove the password"]


# --- What cannot be --------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_told_before_anything_is_changed() -> None:
    cluster, _inside = settled()
    assert database_steps.problems([WANTED], cluster) == []
    wanted = logic.Database("shop", "shop", extensions=("citext", "postgis", "file_fdw", "vektor"))
    first, second = database_steps.problems([wanted], cluster)
    assert "does not trust the extension file_fdw" in first
    assert "there is no extension vektor" in second
    assert "postgresql-15-" in second
    assert len(database_steps.problems([wanted], cluster, ["file_fdw"])) == 1
    cluster["databases"]["shop"]["encoding"] = "SQL_ASCII"
    assert "SQL_ASCII" in database_steps.problems([WANTED], cluster)[0]
    assert "read-only" in database_steps.problems([WANTED], {**cluster, "recovery": True})[0]


def test_a_name_cannot_end_what_it_is_in() -> None:
    assert logic.identifier('a"; DROP TABLE x; --') == '"a""; DROP TABLE x; --"'
    assert logic.literal("it's") == "'it''s'"
    assert "'it''s'" in database_questions.cluster_question([logic.Database("it's", "it's")])


def test_functions_of_the_apps_are_never_called() -> None:
    """A superuser that looks for names in the schema public calls what an owner has put there."""
    assert "-c search_path= " in postgres_psql.OPTIONS


def test_answers_are_told_apart() -> None:
    assert postgres_psql.answers('{"a": [1,\n 2]}\n["x"]\n') == [{"a": [1, 2]}, ["x"]]
    assert postgres_psql.answers("\n") == []


# --- The module ------------------------------------------------------------------------------------------------------


@pytest.fixture
def module() -> Any:
    return load_plugin("plugins/modules/postgres_databases.py")


def options(module: Any, **changes: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in module.ARGUMENT_SPEC["databases"]["options"].items()}
    return {"cluster": "17/main", "databases": [{**defaults, "name": "shop", **changes}], "logins": {}}


def test_a_password_is_made_once_and_written_for_root_alone(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "chown", lambda *_: None)
    path = tmp_path / "shop" / "database_owner.env"
    variables = {"DATABASE_URL": "postgresql://shop-owner:{password}@/shop"}
    given = options(module, owner="shop-owner", owner_file=str(path), owner_variables=variables)
    (wanted,), files = module.wanted_databases(given)
    assert module.write_files(files, check=True) == [f"write {path}"]
    assert not path.exists()
    module.write_files(files, check=False)
    assert path.stat().st_mode & 0o777 == 0o600
    assert f'DATABASE_URL="postgresql://shop-owner:{wanted.password}@/shop"' in path.read_text()
    assert 'PGUSER="shop-owner"' in path.read_text()
    (again,), files = module.wanted_databases(given)
    assert again.password == wanted.password
    assert files[path] == path.read_text()


def test_an_owners_file_goes_where_the_app_is_the_owner(module: Any, tmp_path: Path) -> None:
    path = tmp_path / "database_owner.env"
    path.write_text('PGPASSWORD="x"\n')
    (wanted,), files = module.wanted_databases(options(module, owner_file=str(path)))
    assert (wanted.owner, wanted.password, files) == ("shop", "", {path: None})
    assert module.write_files(files, check=False) == [f"remove {path}"]
    assert not path.exists()
    assert module.write_files(files, check=False) == []


def test_passwords_of_the_network_are_given_by_the_last_word(module: Any) -> None:
    given = options(module, owner="shop-owner") | {"logins": {"shop": {"owner": "o", "a": "p", "b": ""}}}
    (wanted,), files = module.wanted_databases(given)
    assert wanted.password == "o"
    assert wanted.logins == (logic.Login("shop-a", "p"), logic.Login("shop-b", ""))
    assert files == {}


def test_times_are_given_with_their_unit(module: Any) -> None:
    (wanted,), _files = module.wanted_databases(options(module, statement_timeout=65))
    assert wanted.settings == {
        "statement_timeout": "65s",
        "lock_timeout": "",
        "idle_in_transaction_session_timeout": "",
    }


# -- temporary files -------------------------------------------------------------------------------------------------


def test_temporary_files_may_hold_a_quarter_of_what_the_database_may(module: Any, tmp_path: Path) -> None:
    assert module.temporary("10G", tmp_path) == 2560
    assert module.temporary("", tmp_path) == 0
    there = os.statvfs(tmp_path)
    assert module.temporary("50%", tmp_path) == there.f_blocks * there.f_frsize // 2 // 4 // 1024**2


def test_connections_of_a_role_share_what_its_temporary_files_may_hold() -> None:
    bounded = replace(WANTED, temporary=2560, connections=20, owner_connections=4)
    steps = [step.says for step in database_steps.role_steps([bounded], copy.deepcopy(EMPTY))]
    assert "shop: temp_file_limit = 128MB" in steps
    assert "shop-owner: temp_file_limit = 640MB" in steps


@pytest.mark.parametrize(("connections", "limit"), [(-1, "25MB"), (1000, "16MB"), (1, "2560MB")])
def test_a_connection_has_always_some_room_for_temporary_files(connections: int, limit: str) -> None:
    assert replace(WANTED, temporary=2560).temporary_files(connections) == {"temp_file_limit": limit}


def test_without_a_bound_a_limit_that_was_set_goes() -> None:
    present = role(settings=["temp_file_limit=128MB"])
    steps = database_steps._role(
        "shop", "shop", {"shop": present}, login=True, limit=-1, settings=WANTED.temporary_files(20)
    )
    assert [step.says for step in steps] == ["shop: reset temp_file_limit"]
