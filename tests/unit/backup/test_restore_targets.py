"""To which point a restore goes: the backup that it begins with, its timeline, and the write-ahead log after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from backup_settings import CLUSTER, SYSTEM, backup_item, info, settings
from flaskhost_backup import (
    drill,
    pgbackrest,
    state,
    targets,
    timelines,
    wal,
)
from flaskhost_backup.config import BackupError
from flaskhost_backup.tools import Done

# --- What is chosen --------------------------------------------------------------------------------------------------


THREE = (
    backup_item("20261101-000000F", 1000),
    backup_item("20261101-000000F_20261102-000000D", 2000, "diff"),
    backup_item("20261103-000000F", 3000, timeline=2, first=9),
)


@pytest.mark.parametrize(
    ("target", "label"),
    [
        (targets.Target(), "20261103-000000F"),
        (targets.Target("time", "2500"), "20261101-000000F_20261102-000000D"),
        (targets.Target("time", "1500"), "20261101-000000F"),
        (targets.Target("backup", "20261101-000000F"), "20261101-000000F"),
        # Its timeline was left when the cluster was restored: a backup of the newer one does not lead to it.
        (targets.Target("point", "shop@r", {"at": 9000, "timeline": 1}), "20261101-000000F_20261102-000000D"),
    ],
)
def test_a_restore_begins_with_the_last_backup_before_its_target(target: targets.Target, label: str) -> None:
    assert targets.choose(info(*THREE), target).label == label


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (targets.Target("time", "999"), "There is no backup from before 1970-01-01 00:16:39 UTC. The first one was"),
        (targets.Target("backup", "20200101-000000F"), "The backup 20200101-000000F does not exist."),
    ],
)
def test_a_target_before_the_first_backup_is_refused(target: targets.Target, says: str) -> None:
    with pytest.raises(BackupError, match=says.replace(".", r"\.")):
        targets.choose(info(*THREE), target)
    with pytest.raises(BackupError, match="There is no backup yet"):
        targets.choose(info(), targets.Target())


def test_pgbackrest_is_told_the_very_point() -> None:
    backup = info(*THREE).backups[0]
    assert targets.arguments(backup, targets.Target("time", "1795310125.25")) == [
        "--set=20261101-000000F", "--type=time", "--target=2026-11-22 01:15:25.250000+00", "--target-action=promote",
    ]  # fmt: skip
    point = targets.Target("point", "shop@r", {"timeline": 3})
    assert targets.arguments(backup, point)[1:] == [
        "--type=name", "--target=shop@r", "--target-timeline=3", "--target-action=promote",
    ]  # fmt: skip
    assert targets.arguments(backup, targets.Target()) == ["--set=20261101-000000F", "--type=default"]


def test_a_restore_goes_along_the_timeline_that_the_cluster_is_on() -> None:
    """The defect D2: a restore was taken back, and the archive has a timeline 2 that nobody is on."""
    text = "1\t0/3000158\tbefore 2026-11-22 01:15:25+00\n\n2\t0/5000000\tno recovery target specified\n"
    assert timelines.parse_history(text) == {1: 0x3000158, 2: 0x5000000}
    one, two = backup_item("1F", 1000), backup_item("2F", 2000, timeline=2)
    on_one = timelines.Line(1)
    assert targets.choose(info(one, two), targets.Target(), on_one).label == "1F"
    assert targets.choose(info(one, two), targets.Target()).label == "2F"
    with pytest.raises(BackupError, match="timeline 1 of its WAL"):
        targets.choose(info(two), targets.Target(), on_one)
    first = info(one).backups[0]
    assert "--target-timeline=1" in targets.arguments(first, targets.Target(), on_one)
    assert "--target-timeline=1" in targets.arguments(first, targets.Target("time", "1500"), on_one)
    assert "--recovery-option=recovery_target_timeline=current" in targets.arguments(
        first, targets.Target("backup", "1F"), on_one
    )
    # A timeline that comes from another one; a backup of that which was taken after it was left leads elsewhere.
    on_three = timelines.Line(3, {1: 0x3000050})
    assert on_three.holds(first)
    assert not timelines.Line(3, {1: 0x3000049}).holds(first)
    assert not on_three.holds(info(two).backups[0])
    assert timelines.Line(3, None).holds(first), "what is not known keeps nobody from a restore"


def test_where_a_timeline_comes_from_is_read_from_the_repository(tmp_path: Path) -> None:
    class Backrest:
        def get(self, path: Path) -> str:
            assert str(path) == "archive/main/15-1/00000003.history"
            return "1\t0/3000158\tx\n"

    assert timelines.line(Backrest(), tmp_path, 3).left_at is None
    (tmp_path / "archive/main/15-1").mkdir(parents=True)
    (tmp_path / "archive/main/15-1/00000003.history").touch()
    assert timelines.line(Backrest(), tmp_path, 3).left_at == {1: 0x3000158}
    assert timelines.line(Backrest(), tmp_path, 1) == timelines.Line(1)
    assert timelines.recorded(tmp_path / "records") == 0
    timelines.remember(tmp_path / "records", 3)
    assert timelines.recorded(tmp_path / "records") == 3


def test_the_last_commits_are_taken_from_the_old_data_also_beside_a_timeline_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, cluster={**CLUSTER, "data": str(tmp_path / "main")})
    aside, archive = tmp_path / "aside", tmp_path / "repository/archive/main/15-1"
    for folder in (aside / "pg_wal", tmp_path / "main/pg_wal", archive / "x"):
        folder.mkdir(parents=True)
    names = ["000000010000000000000004", "000000010000000000000005"]
    for name in names:
        (aside / "pg_wal" / name).touch()
    for name in (names[0], "000000020000000000000005"):
        (archive / "x" / f"{name}-abc.zst").touch()
    copied: list[str] = []

    def run(command: list[Any], **_options: Any) -> Done:
        copied.append(Path(command[-2]).name)
        return Done(0, "", "")

    monkeypatch.setattr(wal.tools, "run", run)
    monkeypatch.setattr(wal, "control_data", lambda *_given: {"Database system identifier": SYSTEM})
    wal.salvage(config.need_cluster(), tmp_path / "repository", aside, info(), 1)
    assert copied == names
    copied.clear()
    wal.salvage(config.need_cluster(), tmp_path / "repository", aside, info(), 0)
    assert copied == [], "as the newest timeline of the archive has it"


def test_a_drill_goes_to_where_the_rows_were_counted() -> None:
    target = drill._target("L", {"point": "flaskhost-L", "timeline": 2})
    assert (target.kind, target.value) == ("point", "flaskhost-L")
    assert targets.choose(info(*THREE), target).label == "20261103-000000F"
    assert drill._target("L", {}).kind == "backup"


def test_a_release_is_found_by_its_name_and_app(tmp_path: Path) -> None:
    config, now = settings(tmp_path), state.State(tmp_path / "state")
    for app in ("blog", "shop"):
        now.add_point({"name": f"{app}@r1", "app": app, "release": "r1", "at": 5, "timeline": 1})
    assert targets.release_target(config, "shop", "r1").value == "shop@r1"
    with pytest.raises(BackupError, match=r"Available: r1\."):
        targets.release_target(config, "shop", "r2")


def test_old_points_of_the_same_app_are_forgotten(tmp_path: Path) -> None:
    now = state.State(tmp_path)
    now.add_point({"name": "blog@r", "app": "blog"})
    for number in range(state.POINTS + 5):
        now.add_point({"name": f"shop@{number}", "app": "shop"})
    names = [item["name"] for item in now.points()]
    assert len(names) == state.POINTS + 1
    assert (names[0], names[1]) == ("blog@r", "shop@5")


# --- The log ---------------------------------------------------------------------------------------------------------


def archive(folder: Path, *names: str) -> Path:
    place = folder / "archive" / "main" / "15-1" / "0000000100000000"
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        (place / name).touch()
    return folder


def test_a_gap_in_the_log_is_found(tmp_path: Path) -> None:
    names = [f"00000001{0:08X}{number:08X}-abc.zst" for number in (1, 2, 3, 6, 7)]
    archive(tmp_path, *names, "000000010000000000000004.partial-abc.zst", "000000010000000000000002.00000028.backup")
    new, old = pgbackrest.gaps(tmp_path, f"00000001{0:08X}{2:08X}")
    assert new == ["The WAL has a gap: 2 segments from 000000010000000000000004 are missing."]
    assert old == []
    # One that the newest backup does not need is no reason to fail.
    assert pgbackrest.gaps(tmp_path, f"00000001{0:08X}{6:08X}") == ([], new)


def test_the_log_goes_on_where_its_number_wraps(tmp_path: Path) -> None:
    archive(tmp_path, f"00000001{0:08X}{0xFF:08X}-a.zst", f"00000001{1:08X}{0:08X}-a.zst")
    archive(tmp_path, f"00000002{7:08X}{0:08X}-a.zst")
    assert pgbackrest.gaps(tmp_path) == ([], []), "and another timeline begins where it begins"


def test_a_restore_to_now_refuses_to_stop_at_a_gap_in_silence(tmp_path: Path) -> None:
    archive(tmp_path, *(f"00000001{0:08X}{number:08X}-a.zst" for number in (2, 3, 5)))
    backup = info(THREE[0]).backups[0]
    with pytest.raises(BackupError, match="accept_gap"):
        wal.need_no_gap(tmp_path, backup, accept=False)
    assert "are not in the database" in wal.need_no_gap(tmp_path, backup, accept=True)[0]


def test_a_failed_hand_over_is_told_and_stops_no_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Silent:
        def ask(self, sql: str) -> list[list[str]]:
            asked.append(sql)
            return []

        def hand_over(self, *, seconds: float) -> str:
            raise BackupError(f"PostgreSQL has not archived its WAL for {seconds:.0f} s.")

    (said,) = wal.hand_over(Silent())
    assert said == "The last commits may be missing: PostgreSQL has not archived its WAL for 30 s."
    (said,) = wal.hand_over(Silent(), "It was taken from the old data")
    assert said.startswith("It was taken from the old data: PostgreSQL")
    monkeypatch.setattr(Silent, "hand_over", lambda *_a, **_o: "000000010000000000000001")
    assert wal.hand_over(Silent()) == []
    # Without a commit after it, a restore to a time would not know that it has come to its end.
    assert asked == ["SELECT pg_current_xact_id()"] * 3
