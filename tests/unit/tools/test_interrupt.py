"""The runs that molecule/failures/interrupt.py kills: at named tasks that there are, and at drawn ones."""

from __future__ import annotations

import random
import re
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "molecule/failures"))

import interrupt

#: A run with a child of a session of its own, as Ansible's workers are; it notes what it comes to.
RUN = """
cd "$(dirname "$0")"
for number in 1 2 3 4; do
  echo "$number" >> begun
  echo "TASK [base : Step | Number $number] ****"
  setsid sh -c 'echo $$ >> children; exec sleep 30' &
  while ! test -s children; do sleep 0.05; done
  sleep 0.4
done
kill $(cat children)
exit ${STATUS:-0}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.write_text(RUN)
    return path


def begun(run: Path) -> list[str]:
    return run.with_name("begun").read_text().split()


def test_a_run_is_killed_within_its_task_with_its_children(run: Path) -> None:
    assert interrupt.killed(["sh", run], lambda _number, name: name.startswith("base : Step | Number 2"), 0.1) == (
        2, "base : Step | Number 2",
    )  # fmt: skip
    time.sleep(0.6)
    assert begun(run) == ["1", "2"]
    for child in run.with_name("children").read_text().split():
        status = Path("/proc", child, "status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_point_that_no_run_comes_to_is_an_error(run: Path) -> None:
    chance = random.Random(1)
    assert interrupt.at_points(["sh", run], [("base : Step | Number 3", "")], chance) == 3
    with pytest.raises(interrupt.Missed, match=r"No run was killed at 'base : Step \| Number 5'"):
        interrupt.at_points(["sh", run], [("base : Step | Number 5", "")], chance)


def test_a_point_within_a_task_is_waited_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def on_host(condition: str) -> bool:
        asked.append(condition)
        return "2" in begun(run)

    monkeypatch.setattr(interrupt, "on_host", on_host)
    chance = random.Random(1)
    assert interrupt.at_points(["sh", run], [("base : Step | Number 1", "test -e it")], chance) == 1
    assert begun(run)[:2] == ["1", "2"] != begun(run)[2:]
    assert set(asked) == {"test -e it"}
    monkeypatch.setattr(interrupt, "on_host", lambda _condition: False)
    with pytest.raises(interrupt.Missed, match="No run was killed"):
        interrupt.at_points(["sh", run], [("base : Step | Number 1", "test -e it")], chance)


def test_a_run_that_fails_by_itself_is_an_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS", "4")
    with pytest.raises(interrupt.Missed, match="ended with 4 before it was killed"):
        interrupt.killed(["sh", run], lambda _number, _name: False, 0)


def test_a_seed_draws_the_same_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[object]] = [[], [], []]
    for number, seed in enumerate(("7", "7", "8")):
        monkeypatch.setattr(
            interrupt, "killed", lambda _command, is_it, deep, into=drawn[number]: (
                into.append((deep, [task for task in range(200) if is_it(task, "")])) or (1, "x")
            ),
        )  # fmt: skip
        interrupt.at_random([], 100, random.Random(seed))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == interrupt.MOMENTS


@pytest.mark.parametrize("point", sorted({point for point, _condition in interrupt.POINTS}))
def test_each_point_is_a_task(point: str) -> None:
    role, _colon, name = point.partition(" : ")
    names = []
    for path in (ROOT / "roles" / role / "tasks").rglob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert isinstance(yaml.safe_load(text), list)
        names += re.findall(r"^\s*- name: (.+)$", text, re.MULTILINE)
    assert [item for item in names if item.startswith(name)], names
