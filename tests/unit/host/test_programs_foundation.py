"""What the programs on a host share with the modules: locks, files, links, commands and failures."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.host import atomic, command, failures, json_state, lock, tree

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- Locks -----------------------------------------------------------------------------------------------------------


def test_the_holder_of_a_lock_is_named(tmp_path: Path) -> None:
    path, waits = tmp_path / "lock", []
    assert lock.holder(path) == ""
    with lock.hold(path, "full", 0):
        assert lock.holder(path).startswith(f"full, process {os.getpid()}, since 20")
        with pytest.raises(lock.Busy) as caught, lock.hold(path, "drill", 1.0, waits.append):
            pytest.fail("two runs at once")
    assert caught.value.holder.startswith("full, process")
    assert sum(waits) == 1.0
    assert lock.holder(path) == ""


def test_a_lock_with_anything_in_it_is_held_by_another_run(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.open_file(path) as stream:
        assert lock.acquire(stream)
        for text in ("", "garbage", "[]", '{"verb": "full"}', "\udcff"):
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
            assert lock.holder(path) == "another run"


def test_only_root_can_open_a_lock_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o666)
    path.chmod(0o666)
    with lock.open_file(path):
        assert mode(path) == 0o600


def test_a_lock_is_not_passed_to_other_programs(tmp_path: Path) -> None:
    with lock.open_file(tmp_path / "lock") as stream:
        assert not os.get_inheritable(stream.fileno())


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_lock_file_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "lock", tmp_path / "other"
    if kind == "link":
        other.touch(0o644)
    if kind.endswith("link"):
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError):
        lock.open_file(path)
    assert lock.holder(path) == ""
    assert other.exists() == (kind == "link")
    assert kind != "link" or mode(other) == 0o644


@ROOT_ONLY
def test_a_lock_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    os.chown(path, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to another user"):
        lock.open_file(path)
    assert path.stat().st_uid == 65534


# --- Files -----------------------------------------------------------------------------------------------------------


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"\xff\r\n", mode=0o640)
    assert (path.read_bytes(), mode(path)) == (b"\xff\r\n", 0o640)
    atomic.write(path, "é\n")
    assert (path.read_bytes(), mode(path)) == ("é\n".encode(), 0o600)


def test_a_file_is_created_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.create(path, "one", mode=0o644)
    assert mode(path) == 0o644
    for there in (path, tmp_path / "link"):
        if there != path:
            there.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(FileExistsError):
            atomic.create(there, "two")
    assert path.read_text() == "one"
    assert not (tmp_path / "elsewhere").exists()


def test_a_state_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state.json"
    before = os.umask(0o022)
    try:
        json_state.write(path, {"at": 1})
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert json_state.read(path) == {"at": 1}
    for text in ("", "[]", "{", "\udcff"):
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        assert json_state.read(path) == {}
    assert json_state.read(tmp_path / "none") == {}


# --- Links -----------------------------------------------------------------------------------------------------------


@ROOT_ONLY
def test_only_roots_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "real/inner/file").touch()
    (tmp_path / "relative").symlink_to("real/../real")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    wanted = (tmp_path / "real/inner").stat().st_ino
    for way in ("real", "relative", "absolute"):
        with tree.parent(tmp_path / way / "inner/file") as folder:
            assert os.fstat(folder).st_ino == wanted
            assert not os.get_inheritable(folder)
    os.lchown(tmp_path / "relative", 65534, 65534)
    for do in (lambda path: tree.parent(path).__enter__(), tree.remove_path):
        with pytest.raises(tree.ForeignLink, match="'relative' in its path does not belong to root"):
            do(tmp_path / "absolute/inner/file")
    assert (tmp_path / "real/inner/file").exists()


@ROOT_ONLY
def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(tree.ForeignLink), tree.parent(tmp_path / "one/file"):
        pytest.fail("a circle has no end")


def test_a_path_is_removed_and_no_link_in_it_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/inner/link").symlink_to(tmp_path / "kept")
    tree.remove_path(tmp_path / "folder")
    tree.remove_path(tmp_path / "folder")
    tree.remove_path(tmp_path / "none/file")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


# --- Commands --------------------------------------------------------------------------------------------------------


def test_a_command_has_the_environment_that_it_is_given(tmp_path: Path) -> None:
    script = "pwd; umask; env | grep -c . ; cat; echo no >&2; exit 3"
    shell = ["/bin/sh", "-c", script]
    status, out, errors = command.run(shell, environment={"A": "b"}, data="é")
    assert (status, errors) == (3, "no\n")
    assert out.splitlines()[:2] == ["/", "0077"]
    assert out.endswith("é")
    assert command.run(["/bin/cat"], environment={}) == (0, "", "")
    with (tmp_path / "out").open("wb") as out_stream, Path("/etc/hostname").open("rb") as stream:
        assert command.run(["/bin/cat"], environment={}, stream=stream, out=out_stream) == (0, "", "")
    assert (tmp_path / "out").read_bytes() == Path("/etc/hostname").read_bytes()


def test_a_command_ends_at_its_time_limit_and_its_errors_are_kept() -> None:
    slow = ["/bin/sh", "-c", "echo locked >&2; exec sleep 60"]
    assert command.run(slow, environment={}, timeout=0.5) == (124, "", "locked\n\nsh timed out after 0.5 s.")
    # A program that starts the command is not what the message is about.
    slow = ["sleep", "60"]
    limited = command.run(slow, environment={"PATH": "/usr/bin:/bin"}, before=["/usr/bin/env", "--"], timeout=0.2)
    assert limited == (124, "", "sleep timed out after 0.2 s.")


def test_a_command_that_does_not_exist_is_no_exception() -> None:
    assert command.run(["/none/program"], environment={}) == (127, "", "/none/program: No such file or directory")


# --- Failures --------------------------------------------------------------------------------------------------------


def test_a_failure_has_a_cure() -> None:
    assert str(failures.Failure("It is locked.", "Wait.")) == "It is locked. Wait."
    assert str(failures.Failure("It is locked.")) == "It is locked."


def test_a_systems_error_is_named_with_its_file() -> None:
    assert failures.system_error(OSError(28, "No space left on device", "/x")) == "No space left on device (/x)"
    assert failures.system_error(OSError("timed out")) == "timed out"


def test_a_defect_shows_a_secret_only_if_there_can_be_none() -> None:
    try:
        raise ValueError("hunter2")
    except ValueError as error:
        open_text = failures.defect(error, "flaskhost-x")
        closed = failures.defect(error, "flaskhost-x", secret=True)
    assert open_text.startswith("flaskhost-x has a bug: ValueError (test_programs_foundation.py, line ")
    assert open_text.endswith("): hunter2. Please report it.")
    assert "hunter2" not in closed


def test_the_journal_shows_a_problem_as_an_error() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(failures.__file__).parent)!r}); "
        "import failures; failures.report('One.\\nTwo.')"
    )
    for environment, wanted in (({}, "One. Two.\n"), ({failures.UNIT: "x"}, "<3>One. Two.\n")):
        done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, check=False)
        assert done.stderr.decode() == wanted


def test_of_errors_without_end_the_end_is_kept() -> None:
    script = "head --bytes=50000000 /dev/zero | tr '\\0' x >&2; echo the end >&2; echo out; exit 3"
    status, out, errors = command.run(["sh", "-c", script], environment={"PATH": "/usr/bin:/bin"})
    assert (status, out) == (3, "out\n")
    assert len(errors) == command.LONGEST_ERRORS
    assert errors.endswith("x" * 100 + "the end\n")


def test_what_a_killed_program_has_left_behind_is_not_waited_for() -> None:
    began = time.monotonic()
    script = "echo why >&2; sleep 20 & sleep 20"
    status, _out, errors = command.run(["sh", "-c", script], environment={"PATH": "/usr/bin:/bin"}, timeout=0.5)
    assert status == command.TIMED_OUT
    assert errors == "why\n\nsh timed out after 0.5 s."
    assert time.monotonic() - began < 15
