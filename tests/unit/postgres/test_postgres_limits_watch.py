"""How flaskhost_postgres_limits.py asks PostgreSQL, and what it does with the answers and without any."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flaskhost_postgres_limits as limits
import pytest
from flaskhost_postgres_limits import Gone, Journal, Names, Refused, Server, Session, Watch

# --- The connection --------------------------------------------------------------------------------------------------

#: Stands for psql: answers each question, or does what the question says.
PSQL = """
import json, os, sys, time
told = []
for line in sys.stdin:
    if not line.startswith("\\\\echo "):
        told.append(line.strip())
        continue
    question, told, state = " ".join(told), [], "00000"
    mark = line.split()[1]
    if "DIE" in question:
        print("psql: error: connection to server failed:")
        print("  the database system is shutting down")
        sys.exit(2)
    if "QUIT" in question:
        sys.exit(2)
    if "HANG" in question:
        time.sleep(60)
    if "REFUSE" in question:
        print("ERROR:  out of shared memory")
        state = "53200"
    if "ENVIRONMENT" in question:
        print(json.dumps([dict(os.environ), os.getcwd()]))
    print("a line that is no row")
    print('[1, "two"]')
    print(mark, state, flush=True)
"""


@pytest.fixture
def psql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Server]]:
    """Connections to close, which speak with our program instead of psql."""
    script, popen, opened = tmp_path / "psql.py", subprocess.Popen, list[Server]()
    script.write_text(PSQL)

    def start(command: list[str], **given: Any) -> subprocess.Popen[str]:
        assert command[0] in {f"/usr/lib/postgresql/{version}/bin/psql" for version in (15, 17)}
        assert command[1:] == ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        return popen([sys.executable, "-I", str(script)], **given)

    monkeypatch.setattr(limits.subprocess, "Popen", start)
    yield opened
    for server in opened:
        server.close()


def connect(psql: list[Server], cluster: str = "17/main", port: int = 5433) -> Server:
    psql.append(Server(cluster, port))
    return psql[-1]


def test_rows_are_json_and_nothing_else_is_one(psql: list[Server]) -> None:
    server = connect(psql)
    assert server.ask("SELECT 1;") == [[1, "two"]]
    assert server.ask("SELECT 2;") == [[1, "two"]], "the same connection serves again"


def test_what_postgresql_refuses_is_told_and_the_connection_stays(psql: list[Server]) -> None:
    server = connect(psql)
    with pytest.raises(Refused, match=r"^53200$"):
        server.ask("REFUSE;")
    assert server.ask("SELECT 1;") == [[1, "two"]]


def test_a_connection_that_ends_says_why(psql: list[Server]) -> None:
    with pytest.raises(Gone) as caught:
        connect(psql).ask("DIE;")
    assert str(caught.value) == "psql: error: connection to server failed: the database system is shutting down"
    server = connect(psql)
    with pytest.raises(Gone, match=r"^psql has ended$"):
        server.ask("QUIT;")
    with pytest.raises(Gone):
        server.ask("SELECT 1;")


def test_a_server_that_does_not_answer_is_left(psql: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER", 0.5)
    server = connect(psql)
    with pytest.raises(Gone):
        server.ask("HANG;")
    assert server.process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("cluster", "timeout"), [("15/main", False), ("17/main", True)])
def test_no_setting_of_others_reaches_the_connection(
    psql: list[Server], monkeypatch: pytest.MonkeyPatch, cluster: str, timeout: bool
) -> None:
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    (environment, folder), _row = connect(psql, cluster).ask("ENVIRONMENT;")
    options = environment["PGOPTIONS"].split("-c ")
    assert (folder, environment["PGHOST"], environment["PGPORT"]) == ("/", "/run/postgresql", "5433")
    assert (environment["PGUSER"], environment["PGDATABASE"]) == ("postgres", "postgres")
    assert "PGSERVICE" not in environment
    assert {"search_path= ", "role=none ", "lock_timeout=2s "} <= {*options}
    assert any(option.startswith("transaction_timeout=0") for option in options) is timeout


# --- The watch -------------------------------------------------------------------------------------------------------

SUPERUSER, MALLORY = 10, 2
NAMES_ROWS = [
    ["role", SUPERUSER, "postgres", True], ["role", MALLORY, "mallory", False], ["database", 102, "mallory"],
]  # fmt: skip


class Asked:
    """A connection that answers from a list, and notes what it was asked.

    Attributes:
        sessions: what each look finds; an exception is raised.
        refused: statements that PostgreSQL rejects, each once.
        asked: the statements so far, by their names.
    """

    def __init__(self, *sessions: Any) -> None:
        self.sessions, self.refused, self.asked, self.closed = [*sessions], list[str](), list[str](), False

    def ask(self, sql: str) -> list[list[Any]]:
        names = {getattr(limits, name): name for name in ("SIZES_SQL", "LOOK_SQL", "NAMES_SQL", "HOLD_SQL")}
        name = names.get(sql, sql)
        self.asked.append(name)
        if name in self.refused:
            self.refused.remove(name)
            raise Refused("53200")
        if name == "EXECUTE look;":
            found = self.sessions.pop(0)
            if isinstance(found, Exception):
                raise found
            return found
        return {"SIZES_SQL": [[500, 400]], "NAMES_SQL": NAMES_ROWS}.get(name, [])

    def close(self) -> None:
        self.closed = True


class Clock:
    """The time, which only sleeping lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 1000.0, list[float]()
        monkeypatch.setattr(limits.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(limits.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def watch(clock: Clock, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch that notes the processes that it ends as lines, instead of ending them."""
    made = Watch("17/main", Journal(lines.append))
    monkeypatch.setattr(made, "end", lambda pids: lines.extend(f"end {pid}" for pid in pids))
    return made


def row(pid: int, locks: int = 0, role: int = MALLORY) -> list[Any]:
    return [pid, 102, role, True, locks, 0, 0.0, 0.0]


def test_who_takes_too_much_is_ended_and_told(watch: Watch, clock: Clock, lines: list[str]) -> None:
    server = Asked([row(7, 10)], [row(7, 501), row(8, 1, SUPERUSER)], [row(8, 1, SUPERUSER)], Gone("ended"))
    with pytest.raises(Gone):
        watch.serve(server)
    assert lines[0] == "end 7"
    assert lines[1].startswith("<4>Ended 1 session(s) of the role mallory in the database mallory, which held 501 loc")
    assert len(lines) == 2
    # As usual, and fast after an offense.
    assert clock.slept == [limits.LOOK, limits.FAST_LOOK, limits.FAST_LOOK]
    begin = ["SIZES_SQL", "LOOK_SQL", "ROLLBACK;", "HOLD_SQL", "NAMES_SQL"]
    assert server.asked == [*begin, *["EXECUTE fresh;", "EXECUTE look;"] * 4]


def test_names_and_locks_are_renewed(watch: Watch, clock: Clock) -> None:
    looks = int(limits.NAMES) + 2
    server = Asked(*[[row(7)]] * looks, Gone("ended"))
    with pytest.raises(Gone):
        watch.serve(server)
    assert server.asked.count("HOLD_SQL") == 2
    # The first one lasts for a minute; the catalogs' locks are released before they are taken again.
    second = len(server.asked) - 1 - server.asked[::-1].index("HOLD_SQL")
    assert server.asked[second - 1] == "ROLLBACK;"
    assert server.asked[:second].count("EXECUTE look;") == limits.NAMES + 1


def test_a_new_role_is_looked_up_at_once(watch: Watch) -> None:
    watch.names = Names({SUPERUSER: "postgres"}, {}, frozenset({SUPERUSER}))
    server = Asked([row(7)], [row(7)], [row(8, role=99)])
    assert watch.look(server) == [Session(7, 102, MALLORY, client=True)]
    assert server.asked == ["EXECUTE fresh;", "EXECUTE look;", "NAMES_SQL"]
    assert watch.names.role(MALLORY) == "mallory"
    watch.look(server)
    assert server.asked[3:] == ["EXECUTE fresh;", "EXECUTE look;"]
    # The names cannot be read while the table is full. The sessions count all the same.
    server.refused = ["NAMES_SQL"]
    assert [session.pid for session in watch.look(server)] == [8]


@pytest.mark.parametrize("refused", ["HOLD_SQL", "NAMES_SQL"])
def test_catalogs_that_cannot_be_locked_are_tried_again(watch: Watch, clock: Clock, refused: str) -> None:
    server = Asked([row(7)], [row(7)], Gone("ended"))
    server.refused = [refused]
    with pytest.raises(Gone):
        watch.serve(server)
    held = ["ROLLBACK;", "HOLD_SQL", *(["NAMES_SQL"] if refused == "NAMES_SQL" else []), "ROLLBACK;"]
    assert server.asked[2 : 2 + len(held)] == held
    assert server.asked.count("HOLD_SQL") == 2
    server.refused = ["ROLLBACK;", "ROLLBACK;"]
    assert watch.hold(server) is False


def test_after_a_look_that_failed_the_transaction_begins_anew(watch: Watch, clock: Clock, lines: list[str]) -> None:
    server = Asked(Refused("53200"), [row(7)], Gone("ended"))
    with pytest.raises(Gone):
        watch.serve(server)
    assert server.asked.count("HOLD_SQL") == 2
    assert clock.slept == [0.1, limits.LOOK]
    assert watch.full_since is None
    assert lines == []


def test_all_apps_are_ended_if_the_table_stays_full(
    watch: Watch, clock: Clock, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = {
        71: "postgres: 17/main: mallory mallory [local] SELECT",
        72: "postgres: 17/main: root postgres [local] idle",
        73: "postgres: 17/main: checkpointer",
        74: "postgres: 17/main: alice alice [local] idle",
    }
    monkeypatch.setattr(limits, "postmaster", lambda cluster: {"17/main": 70}[cluster])
    monkeypatch.setattr(limits, "children", lambda parent: titles if parent == 70 else [])
    monkeypatch.setattr(limits, "title", titles.__getitem__)
    watch.names = Names({SUPERUSER: "root"}, {}, frozenset({SUPERUSER}))
    clock.now += 7
    watch.trouble("57P03")
    assert watch.full_since is None, "another error says nothing of the table"
    watch.trouble("53200")
    clock.now += limits.HELPLESS - 0.5
    watch.trouble("FATAL: out of shared memory")
    assert lines == []
    clock.now += 0.5
    watch.trouble("53200")
    assert lines[:2] == ["end 71", "end 74"]
    assert lines[2].startswith("<4>Ended all 2 sessions of apps: for 5 seconds the lock table was full")
    assert watch.full_since is None
    watch.trouble("53200")
    assert len(lines) == 3, "the next time begins anew"


def test_a_watch_that_is_blind_says_so_now_and_then(watch: Watch, clock: Clock, lines: list[str]) -> None:
    for _second in range(181):
        watch.trouble("57P03")
        clock.now += 1
    assert len(lines) == 2
    assert "PostgreSQL 17/main could not be checked for 60 seconds" in lines[0]
    assert lines[0].endswith("lock table: 57P03")


class Stop(BaseException):
    """Ends the loop that never ends."""


def test_a_lost_connection_is_made_anew(watch: Watch, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[Any] = [OSError("no psql"), Asked(Gone("a")), Asked(), Asked(Stop())]
    servers[2].refused = ["SIZES_SQL"]
    opened = []

    def server(cluster: str, number: int) -> Any:
        opened.append((cluster, number))
        made = servers[len(opened) - 1]
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setattr(limits, "Server", server)
    monkeypatch.setattr(limits, "port", lambda _cluster: 5433)
    monkeypatch.setattr(servers[3], "ask", lambda _sql: (_ for _ in ()).throw(Stop()))
    with pytest.raises(Stop):
        watch.run()
    assert opened == [("17/main", 5433)] * 4
    assert [item.closed for item in servers[1:]] == [True, True, True]
    # Faster while the table is full: the third connection was refused for that.
    assert clock.slept == [limits.LOOK, limits.LOOK, 0.1]


def test_only_processes_of_the_cluster_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, ended = Watch("17/main", Journal(print)), list[tuple[int, int]]()

    def kill(pid: int, number: int) -> None:
        ended.append((pid, number))
        if pid == 71:
            raise ProcessLookupError

    monkeypatch.setattr(limits, "postmaster", {"17/main": 70}.__getitem__)
    monkeypatch.setattr(limits, "is_child", lambda pid, parent: parent == 70 and pid != 4711)
    monkeypatch.setattr(limits.os, "kill", kill)
    watch.end([4711, 71, 72])
    assert ended == [(71, signal.SIGTERM), (72, signal.SIGTERM)]


# --- The host --------------------------------------------------------------------------------------------------------


def test_a_cluster_is_found_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SOCKETS", tmp_path)
    assert limits.postmaster("17/main") == 0
    (tmp_path / "17-main.pid").write_text("")
    assert limits.postmaster("17/main") == 0
    (tmp_path / "17-main.pid").write_text("4711\n/var/lib/postgresql/17/main\n")
    assert limits.postmaster("17/main") == 4711


@pytest.mark.parametrize(
    ("text", "port"),
    [("", 5432), ("port = 5433\n", 5433), ("port 5433\n  port='5434' # x\n", 5434), ("#port = 5433\n", 5432)],
)
def test_the_port_is_the_last_one_of_the_settings(monkeypatch: pytest.MonkeyPatch, text: str, port: int) -> None:
    def read(path: Path, **_given: Any) -> str:
        assert str(path) == "/etc/postgresql/17/main/postgresql.conf"
        return text

    monkeypatch.setattr(limits.Path, "read_text", read)
    assert limits.port("17/main") == port


def test_a_title_is_that_of_the_process() -> None:
    assert Path(sys.executable).name in limits.title(os.getpid())
    assert limits.title(2**22 + 1) == ""


def test_the_unit_names_the_cluster(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(watch: Watch) -> None:
        watch.journal.say(json.dumps(watch.cluster), 1.0)

    monkeypatch.setattr(Watch, "run", run)
    limits.main(["17-my-cluster"])
    assert capsys.readouterr().out == '<4>"17/my-cluster"\n'
