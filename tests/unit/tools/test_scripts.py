"""What the scripts and benchmarks share (scripts/common.py), and what runs side by side (scripts/side_by_side.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"

#: Sets something up, waits to be ended, and takes it down.
SCRIPT = """
import sys, time
from common import guarded

def main():
    try:
        print("set up", flush=True)
        time.sleep(30)
    finally:
        print("taken down", flush=True)

guarded(main)
"""


def test_what_is_ended_by_another_program_takes_down_what_it_has_set_up() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=SCRIPTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout
        assert script.stdout.readline() == "set up\n"
        script.send_signal(signal.SIGTERM)
        output, errors = script.communicate(timeout=120)

    assert output == "taken down\n"
    assert "Traceback" not in errors
    assert script.returncode == 130


#: A Molecule whose scenario `one` ends when `two` has begun, and whose scenario `broken` fails; and such a make.
PROGRAM = """\
#!/bin/sh
for name; do true; done
touch began-$name
echo "this is $name"
case $name in
  one) for _ in $(seq 1000); do test -e began-two && exit 0; sleep 0.1; done; exit 9 ;;
  broken) echo "the reason"; exit 3 ;;
  hardening) for _ in $(seq 10); do test -e began-two && exit 8; sleep 0.1; done; exit 0 ;;
  killed) kill -KILL $$ ;;
  long) sleep 1000 & echo $! > child; wait ;;
  *) sleep 1 ;;
esac
"""


def run_scenarios(folder: Path, *names: str, script: str = "scenarios.py") -> subprocess.CompletedProcess[str]:
    """Run the real script on a Molecule, or a make, of our own."""
    with start_scenarios(folder, *names, script=script) as process:
        output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(names, process.returncode, output, errors)


def start_scenarios(folder: Path, *names: str, script: str = "scenarios.py") -> subprocess.Popen[str]:
    """Begin a run of the real script."""
    for name in ("molecule", "make"):
        program = folder / name
        program.write_text(PROGRAM.replace("began-", f"{folder}/began-").replace("> child", f"> {folder}/child"))
        program.chmod(0o755)
    return subprocess.Popen(
        [sys.executable, SCRIPTS / script, *names],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_scenarios_run_side_by_side_and_each_line_says_whose_it_is(tmp_path: Path) -> None:
    finished = run_scenarios(tmp_path, "one", "two", "three")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for name in ("one", "two", "three"):
        assert f"{name:<5} | this is {name}\n" in finished.stdout


def test_stages_joined_by_a_plus_run_side_by_side_and_the_others_after_them(tmp_path: Path) -> None:
    finished = run_scenarios(tmp_path, "one+two", "three", script="stages.py")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "one | this is one\n" in finished.stdout
    assert "\nthis is three\n" in finished.stdout


def test_stages_run_one_after_the_other(tmp_path: Path) -> None:
    assert run_scenarios(tmp_path, "hardening", "two", script="stages.py").returncode == 0


def test_stage_that_fails_ends_the_run_and_is_shown_last(tmp_path: Path) -> None:
    finished = run_scenarios(tmp_path, "four+broken", "three", script="stages.py")
    assert finished.returncode == 3
    end = finished.stdout.partition("The last lines of broken, which failed:")[2]
    assert "the reason" in end
    assert "four              ok" in end
    assert "broken            FAILED" in end
    assert "three             not run" in end
    assert not (tmp_path / "began-three").exists()


def test_stages_that_keep_going_run_all_and_fail_all_the_same(tmp_path: Path) -> None:
    finished = run_scenarios(tmp_path, "--keep-going", "broken", "three", script="stages.py")
    assert finished.returncode == 3
    assert "broken            FAILED" in finished.stdout
    assert (tmp_path / "began-three").exists()


def test_stage_with_a_variable_hands_it_to_make(tmp_path: Path) -> None:
    assert run_scenarios(tmp_path, "three RELEASE=bookworm", script="stages.py").returncode == 0
    assert (tmp_path / "began-RELEASE=bookworm").exists()


def test_scenario_with_a_full_load_runs_before_the_others_and_alone(tmp_path: Path) -> None:
    finished = run_scenarios(tmp_path, "two", "hardening", "three")
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("names", [("broken", "two", "three"), ("two", "broken", "three")])
def test_scenario_that_fails_ends_the_run_and_is_shown_last(tmp_path: Path, names: tuple[str, ...]) -> None:
    finished = run_scenarios(tmp_path, *names, "four", "five", "six", "one")
    assert finished.returncode == 3
    end = finished.stdout.partition("The last lines of broken, which failed:")[2]
    assert "the reason" in end
    assert "broken            FAILED" in end
    assert "one               not run" in end
    assert not (tmp_path / "began-one").exists()


def test_scenario_that_a_signal_ends_has_failed(tmp_path: Path) -> None:
    finished = run_scenarios(tmp_path, "killed")
    assert finished.returncode == 1
    assert "killed            FAILED" in finished.stdout


def test_scenarios_end_with_all_that_they_have_begun(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with start_scenarios(tmp_path, "long", "two") as process:
        assert process.stdout
        while process.stdout.readline() != "long | this is long\n":
            assert process.poll() is None
        while not child.exists() or not child.read_text():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    # What has ended and is not yet waited for has no command line any more.
    command = Path("/proc", child.read_text().strip(), "cmdline")
    assert not command.exists() or not command.read_text()
