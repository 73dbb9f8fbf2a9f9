"""A restore of the cluster that was killed is taken back, and nothing that is put aside is lost."""

from __future__ import annotations

from pathlib import Path

from backup_settings import CLUSTER, settings
from flaskhost_backup import (
    paths,
    restore_cluster,
)


def test_a_restore_that_was_killed_is_taken_back(tmp_path: Path) -> None:
    data, aside = tmp_path / "main", tmp_path / "main.before-x"
    aside.mkdir()
    (aside / "PG_VERSION").write_text("15")
    data.mkdir()
    (data / "half").touch()
    config = settings(tmp_path, cluster={**CLUSTER, "data": str(data)})
    restore_cluster.Progress(config).note(data=str(data), aside=str(aside), new=True, running=False, units=[])
    assert "in its place again" in restore_cluster.settle(config).says
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]
    assert not aside.exists()
    assert restore_cluster.settle(config).says == "", "and once is enough"


def test_one_that_was_killed_before_anything_moved_loses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "main"
    data.mkdir()
    (data / "PG_VERSION").write_text("15")
    config = settings(tmp_path, cluster={**CLUSTER, "data": str(data)})
    # The name was noted, and the rename never came.
    restore_cluster.Progress(config).note(data=str(data), aside=str(tmp_path / "main.before-x"), running=False)
    restore_cluster.settle(config)
    assert (data / "PG_VERSION").exists()


def test_what_is_put_aside_never_lands_on_another(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "main"
        folder.mkdir()
        (folder / str(number)).touch()
        expected = restore_cluster._next(folder, "x")
        assert str(paths.move_aside(folder, "x")) == expected
    assert len(list(tmp_path.iterdir())) == 3
