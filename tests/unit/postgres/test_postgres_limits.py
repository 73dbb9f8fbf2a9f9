"""What ends sessions that take the shared memory of all databases: whom it picks, what it says, and whom it never ends.

Whether PostgreSQL can be asked while its table of locks is full, and gives it back, is tested with a real one, in the
scenario tenants.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import flaskhost_postgres_limits as limits
import pytest
from flaskhost_postgres_limits import Judge, Names, Session, Table

ROOT = Path(__file__).resolve().parents[3]
ALICE, MALLORY, SHOP = 101, 102, 103
OWNER, BACKUP, SUPERUSER = 3, 4, 10
NAMES = Names(
    {1: "alice", 2: "mallory", OWNER: "mallory-owner", BACKUP: "flaskhost_session_1", SUPERUSER: "postgres"},
    {ALICE: "alice", MALLORY: "mallory", SHOP: "shop"},
    frozenset({SUPERUSER}),
)


@pytest.fixture
def judge() -> Judge:
    tables = (
        Table("locks", "locks", "max_locks_per_transaction", 500),
        Table("predicate locks", "predicates", "max_pred_locks_per_transaction", 500),
    )
    return Judge(tables, NAMES)


def mallory(pid: int, locks: int = 0, role: int = 2, predicates: int = 0) -> Session:
    return Session(pid, MALLORY, role, client=True, locks=locks, predicates=predicates)


# --- The tables of locks ---------------------------------------------------------------------------------------------


def test_what_postgresql_plans_for_is_a_databases_own(judge: Judge) -> None:
    assert judge.judge([mallory(7, 500), Session(8, ALICE, 1, client=True, locks=20)], 0.0) == ([], [])
    assert judge.pause(0.0) == limits.LOOK


def test_a_session_with_more_is_ended_and_the_line_says_all_that_an_operator_needs(judge: Judge) -> None:
    pids, [line] = judge.judge([mallory(7, 501, OWNER), Session(8, ALICE, 1, client=True, locks=20)], 0.0)
    assert pids == [7]
    for said in ("role mallory-owner", "database mallory", "held 501 locks", "share one table", "limit is 500",
                 "max_locks_per_transaction in postgres_extra_settings"):  # fmt: skip
        assert said in line
    assert "did so again" not in line
    assert judge.pause(1.0) == limits.FAST_LOOK
    assert judge.pause(limits.ALERT + 1) == limits.LOOK


def test_what_several_sessions_and_roles_of_a_database_hold_is_added_up(judge: Judge) -> None:
    sessions = [mallory(7, 40), mallory(8, 300, OWNER), mallory(9, 220)]
    pids, [line] = judge.judge(sessions, 0.0)
    # Until half of the bound is left, those with the most first.
    assert pids == [8, 9]
    assert "2 session(s) of the role mallory, mallory-owner" in line
    assert "held 560 locks" in line


def test_what_a_worker_of_a_query_holds_counts_and_only_its_client_is_ended(judge: Judge) -> None:
    worker = Session(9, MALLORY, 2, client=False, locks=300)
    assert judge.judge([mallory(7, 250), worker], 0.0)[0] == [7]


def test_several_apps_together_leave_some_of_the_table(judge: Judge) -> None:
    sessions = [mallory(7, 400), Session(8, ALICE, 1, client=True, locks=20)]
    assert judge.judge([*sessions, Session(9, SHOP, 9, client=True, locks=205)], 0.0)[0] == []
    assert judge.judge([*sessions, Session(9, SHOP, 9, client=True, locks=206)], 0.0)[0] == [7]


def test_predicate_locks_have_a_table_of_their_own(judge: Judge) -> None:
    assert judge.judge([mallory(7, 400, predicates=400)], 0.0)[0] == []
    pids, [line] = judge.judge([mallory(7, predicates=501)], 0.0)
    assert pids == [7]
    assert "held 501 predicate locks" in line
    assert "max_pred_locks_per_transaction" in line


def test_no_superuser_is_ended_and_none_counts(judge: Judge) -> None:
    assert judge.judge([Session(7, MALLORY, SUPERUSER, client=True, locks=999, age=9999, queue=0.9)], 0.0) == ([], [])


def test_a_role_that_is_not_known_yet_is_an_apps(judge: Judge) -> None:
    pids, [line] = judge.judge([Session(7, MALLORY, 77, client=True, locks=501)], 0.0)
    assert pids == [7]
    assert "role number 77" in line


def test_one_that_still_ends_is_told_again_and_is_no_second_offense(judge: Judge) -> None:
    assert judge.judge([mallory(7, 501)], 0.0)[0] == [7]
    assert judge.judge([mallory(7, 501)], 0.1) == ([7], [])
    assert judge.judge([mallory(8, 0)], 0.2) == ([], [])


def test_a_second_offense_ends_every_session_of_the_database_for_a_while(judge: Judge) -> None:
    judge.judge([mallory(7, 501)], 0.0)
    pids, [line] = judge.judge([mallory(8, 501), mallory(9)], 5.0)
    assert pids == [8]
    assert "every session of mallory is ended for 60 seconds" in line
    bystander = Session(11, ALICE, 1, client=True)
    assert judge.judge([mallory(9), mallory(10, 3, OWNER), bystander], 5.1) == ([9, 10], [])
    assert judge.judge([mallory(12)], 5.0 + limits.BAR - 1)[0] == [12]
    assert judge.judge([mallory(13), bystander], 5.0 + limits.BAR) == ([], [])
    # And the next one is seen at once.
    assert judge.pause(5.0 + limits.BAR + limits.ALERT - 1) == limits.FAST_LOOK
    assert "every session" in judge.judge([mallory(14, 501)], 5.0 + limits.BAR + 1)[1][0]


def test_an_offense_is_forgotten(judge: Judge) -> None:
    judge.judge([mallory(7, 501)], 0.0)
    assert "every session" not in judge.judge([mallory(8, 501)], limits.ALERT)[1][0]


def test_an_offense_of_another_database_is_not_its_neighbors(judge: Judge) -> None:
    judge.judge([mallory(7, 501)], 0.0)
    assert "every session" not in judge.judge([Session(8, ALICE, 1, client=True, locks=501)], 1.0)[1][0]


def test_a_backup_of_thousands_of_tables_is_ended_but_never_closes_the_app(judge: Judge) -> None:
    for pid in range(7, 12):
        pids, [line] = judge.judge([mallory(pid, 501, BACKUP), mallory(1)], float(pid))
        assert pids == [pid]
        assert "max_locks_per_transaction" in line
        assert "every session" not in line


# --- The queue of NOTIFY ---------------------------------------------------------------------------------------------


def waiting(pid: int, age: float, queue: float, role: int = 2) -> Session:
    return Session(pid, MALLORY, role, client=True, age=age, queue=queue)


@pytest.mark.parametrize(
    ("age", "queue", "ended"),
    [
        (9999, 1 / 32, False),
        (60, 0.04, False),
        (61, 0.032, True),
        (61, 1 / 4, True),
        (6, 1 / 4, False),
        (5, 0.26, False),
        (6, 0.26, True),
    ],
)
def test_old_transactions_are_ended_when_the_queue_fills(judge: Judge, age: float, queue: float, ended: bool) -> None:
    pids, lines = judge.judge([waiting(7, age, queue), waiting(8, 0, queue)], 0.0)
    assert pids == [7] * ended
    assert len(lines) == ended


def test_the_oldest_is_the_first_one_a_second_and_a_backup_the_last(judge: Judge) -> None:
    sessions = [waiting(7, 70, 0.1), waiting(8, 90, 0.1), waiting(9, 5000, 0.1, BACKUP)]
    pids, [line] = judge.judge(sessions, 0.0)
    assert pids == [8]
    for said in ("role mallory", "database mallory", "90 seconds", "10% of the queue of NOTIFY", "limit: 3%"):
        assert said in line
    assert judge.judge(sessions, 0.5) == ([], [])
    assert judge.judge([sessions[0], sessions[2]], 1.0)[0] == [7]
    assert judge.judge([sessions[2]], 2.0)[0] == [9]


# --- What it asks, says and ends -------------------------------------------------------------------------------------


def test_a_few_lines_a_minute_and_none_is_lost_without_a_word() -> None:
    lines: list[str] = []
    journal = limits.Journal(lines.append)
    for second in range(20):
        journal.say(f"line {second}", float(second))
    assert len(lines) == limits.LINES
    assert lines[0] == "<4>line 0"
    journal.say("a minute after the first one", 60.0)
    assert len(lines) == limits.LINES
    journal.say("later", 100.0)
    assert lines[-1] == f"<4>later ({21 - limits.LINES} earlier messages were left out.)"


def test_what_is_asked_while_the_table_is_full_needs_no_catalog() -> None:
    look = limits.LOOK_SQL
    assert set(re.findall(r"(?:FROM|JOIN) +([a-z_.]+)\(?", look)) <= {
        "pg_catalog.pg_stat_get_activity", "pg_catalog.pg_lock_status", "pg_catalog.clock_timestamp",
    }  # fmt: skip
    assert "pg_stat_activity" not in look
    assert "pg_locks" not in look


@pytest.mark.parametrize(
    ("title", "apps"),
    [
        ("postgres: 17/main: mallory-owner mallory [local] SELECT", True),
        ("postgres: mallory mallory 10.0.0.7(41234) idle in transaction", True),
        ("postgres: 17/main: postgres postgres [local] idle", False),
        ("postgres: 17/main: root postgres [local] idle", False),
        ("postgres: 17/main: walsender standby 10.0.0.7(41234) streaming 0/3000060", False),
        ("postgres: 17/main: autovacuum worker mallory", False),
        ("postgres: 17/main: parallel worker for PID 71", False),
        ("postgres: 17/main: checkpointer", False),
        ("postgres: 17/main: logical replication launcher", False),
        ("/usr/lib/postgresql/17/bin/postgres -D /var/lib/postgresql/17/main", False),
        ("", False),
    ],
)
def test_whom_it_ends_if_it_cannot_ask(title: str, apps: bool) -> None:
    assert limits.is_of_an_app(title, ["postgres", "root"]) is apps


def test_a_process_is_ended_only_if_postgresql_has_started_it() -> None:
    assert limits.is_child(os.getpid(), os.getppid())
    assert not limits.is_child(os.getpid(), 1 if os.getppid() != 1 else 2)
    assert not limits.is_child(2**22 + 1, os.getppid())
    assert os.getpid() in limits.children(os.getppid())


def test_the_unit_leaves_the_shared_memory_of_its_user_alone() -> None:
    unit = (ROOT / "roles" / "postgres" / "templates" / "limits.service.j2").read_text(encoding="utf-8")
    assert "RemoveIPC=yes" not in unit
    for line in ("BindsTo=postgresql@%i.service", "PrivateNetwork=yes", "User=postgres", "NoNewPrivileges=yes"):
        assert line in unit.splitlines()
