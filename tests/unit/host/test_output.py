"""What an app prints is limited before root keeps it, and cannot steer a terminal."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host.output import limited
from ansible.module_utils.flaskhost.host.runner import LONGEST_OUTPUT, excerpt, legible, tail


def run(command: list[str], **_more: Any) -> tuple[int, str, str]:
    """Keep the whole output in memory, as AnsibleModule.run_command does."""
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "replace")


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a ``systemd-run``, which passes the output and status of a shell script on."""

    def write(script: str) -> list[str]:
        (tmp_path / "systemd-run").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "systemd-run").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return ["systemd-run", "--quiet", "--pipe", "--", "build"]

    return write


def test_short_output_and_status_are_passed_on(unit: Any) -> None:
    command = unit('echo "out $*"; echo err >&2; exit 7')
    assert limited(run)(command) == (7, "out --quiet --pipe -- build\n", "err\n")


def test_a_unit_that_is_killed_has_failed(unit: Any) -> None:
    assert limited(run)(unit("kill -9 $$"))[0] != 0


def test_other_commands_are_left_alone() -> None:
    seen: list[list[str]] = []
    limited(lambda command, **_more: (seen.append(command), (0, "", ""))[1])(["systemctl", "stop", "flask-shop"])
    assert seen == [["systemctl", "stop", "flask-shop"]]


@pytest.mark.parametrize("stream", ["1", "2"])
def test_the_end_of_an_endless_output_is_kept(unit: Any, stream: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    command = unit(f"{{ yes 'a line of a build' | head --bytes=300M; echo; echo the end; }} >&{stream}; exit 3")
    status, *texts = limited(run)(command)
    text = texts[int(stream) - 1]
    assert status == 3
    assert len(text) < LONGEST_OUTPUT + 100
    assert text.startswith("... (only the last 4 MB are shown)\n")
    assert text.endswith("\nthe end\n")
    # In KiB. Without a limit, 300 MB stay in memory at least once.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


@pytest.mark.parametrize("module", ["flask_release", "flask_run"])
def test_the_modules_that_run_commands_of_an_app_limit_them(module: str) -> None:
    text = Path(__file__).parents[3].joinpath(f"plugins/modules/{module}.py").read_text()
    assert text.count("run_command") == 1
    assert "limited(" in text.split("run_command")[0].rpartition("\n")[2]


def test_a_line_cannot_steer_the_terminal() -> None:
    assert legible("\x1b[31mred\x1b[0m \x1b]0;title\x07 b\x08c\tä") == "red ?]0;title? b?c\tä"
    assert legible("a" * 9000 + "b" * 9000) == "a" * 500 + " ... " + "b" * 500


def test_messages_are_legible() -> None:
    text = "\n".join(f"\x1b[2Jline {number}" for number in range(40))
    assert tail(text, 2) == "line 38\nline 39"
    assert excerpt(text, 1, 1) == "line 0\n... (38 lines left out)\nline 39"
    assert excerpt("a\n\nb\x07", 1, 1) == "a\nb?"
    assert excerpt("a\nb\nc", 5, 5) == "a\nb\nc"


LONG = 1024**2
#: Each text made one of the patterns take time by the square of its length.
SLOW = {
    "a word": "a" * LONG,
    "wheels": "only found wheels for `a` (v" * (LONG // 28),
    "platforms": "Wheels are available for `a` (v" * (LONG // 31),
    "error at": "Error at " * (LONG // 9),
    "dialects": "dialects/postgresql/" * (LONG // 20),
    "redis": "redis" * (LONG // 5),
    "failed": "Failed to build `a @ " * (LONG // 21),
    "headers": "fatal error: " + ".h" * (LONG // 2),
    "dots": "(" + "a." * (LONG // 2),
    "lines": "\n" * LONG,
}


@pytest.mark.parametrize("name", SLOW)
def test_no_text_makes_the_explanation_slow(name: str) -> None:
    """In a process of its own, which can be ended: a slow pattern takes hours."""
    program = textwrap.dedent("""
        import sys, ansible.module_utils
        ansible.module_utils.__path__.append(sys.argv[1])
        from ansible.module_utils.flaskhost.deploy import build_errors, hints
        text = sys.stdin.read()
        failed = "Failed to build `a==1`\\n" + " " * 9 + text
        build_errors.explain(text, "3.13"), build_errors.explain(failed, "3.13"), hints.hint(text)
    """)
    utils = Path(__file__).parents[3] / "plugins" / "module_utils"
    subprocess.run([sys.executable, "-c", program, utils], input=SLOW[name], text=True, check=True, timeout=60)
