"""An environment holds what its lock says, is built once for it, and is whole or is not used."""

from __future__ import annotations

import io
import os
import platform
import re
import stat
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import virtualenv
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import BUILD_GID, BUILD_UID, GID, UID, USER, nest, run_command, tree
from virtualenv_workshop import PYPROJECT, UV, Workshop, version_of

# -- building, with the real uv -------------------------------------------------------------------------------------


def test_the_environment_has_the_lock_the_extras_and_the_server(workshop: Workshop) -> None:
    for name, version in [("flask", "3.1.3"), ("flask", "3.1.4"), ("driver", "1.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    builder = workshop.builder()
    built = workshop.build(workshop.requirements("flask==3.1.3\n"), ["driver==1.0"], builder)
    assert list(built.glob("lib/python3*/site-packages/flask/__pycache__/*.pyc"))
    assert version_of(built, "flask") == "3.1.3"
    assert version_of(built, "driver") == "1.0"
    assert version_of(built, "gunicorn") == "27.0.1"
    assert builder.warnings == []
    assert virtualenv.is_whole(built)


def test_what_uv_runs_has_the_apps_rights_only(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    built = workshop.build(workshop.requirements(""))
    assert [Path(call.command[0]).name for call in workshop.calls] == ["uv", "uv", "uv", "find"]
    for call in workshop.calls:
        assert call.properties["ReadWritePaths"] == [str(built), str(workshop.folder / "cache/shop")]
        assert call.properties["WorkingDirectory"] == [str(built if call.command[0] == "find" else workshop.code)]
        assert call.properties["ProtectSystem"] == ["strict"]
        assert call.properties["NoNewPrivileges"] == ["yes"]
        assert call.environment["UV_CACHE_DIR"] == str(workshop.folder / "cache/shop")
        assert call.environment["UV_PYTHON_DOWNLOADS"] == "never"
        # Of the app's it has the code alone, and of other apps nothing; nor has it a socket of the host's.
        assert {f"{workshop.folder.parent}:ro", f"{workshop.folder}/cache:ro", "/run:ro"} < {
            *call.properties["TemporaryFileSystem"]
        }
        assert str(workshop.code) in call.properties["BindReadOnlyPaths"]
        temporary = workshop.folder / "tmp/build"
        assert call.properties["BindPaths"] == [
            f"{temporary}:/tmp",
            f"{temporary}:/var/tmp",
            str(built),
            str(workshop.folder / "cache/shop"),
        ]
        assert not temporary.exists(), "it is gone when the environment is whole"
        assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700
        assert call.properties["SupplementaryGroups"] == [USER]
        assert call.properties["AppArmorProfile"] == [f"-flask-{USER}_build"]
        assert "ReadOnlyPaths" not in call.properties, "one path can be one thing: /run is empty"


def test_a_build_from_a_wheelhouse_has_no_network(workshop: Workshop) -> None:
    folder = workshop.code / "wheels"
    workshop.wheel(folder, "gunicorn", "27.0.1")
    workshop.build(workshop.requirements(""), builder=workshop.builder(wheelhouse=folder))
    assert all(call.properties["PrivateNetwork"] == ["yes"] for call in workshop.calls)


def test_a_finished_environment_is_roots(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    before = os.umask(0o002)
    try:
        built = workshop.build(workshop.requirements(""))
    finally:
        os.umask(before)
    everything = [built, *built.rglob("*")]
    given = {path: workshop.owners[path] for path in everything if path.name != virtualenv.MARK}
    assert given == dict.fromkeys(given, (0, 0))
    assert [path for path in everything if not path.is_symlink() and path.lstat().st_mode & 0o022] == []
    assert workshop.owners[workshop.folder / "cache/shop"] == (BUILD_UID, BUILD_GID)


def test_no_file_in_the_cache_stays_writable_for_everyone(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    builder = workshop.builder()
    workshop.build(workshop.requirements(""), builder=builder)
    files = [path for path in builder.cache.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name.endswith(".lock") for path in files)
    assert [path for path in files if path.stat().st_mode & 0o002] == []


def test_a_whole_environment_is_left_alone(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("")
    built = workshop.build(requirements)
    before = tree(built)
    workshop.calls.clear()
    assert workshop.build(requirements) == built
    assert workshop.calls == []
    assert tree(built) == before


def test_an_interrupted_environment_is_built_anew(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("")
    built = workshop.build(requirements)
    (built / virtualenv.MARK).unlink()
    next(built.glob("lib/python3*/site-packages/gunicorn/__init__.py")).unlink()
    (built / "left-over").touch()
    assert workshop.build(requirements) == built
    assert version_of(built, "gunicorn") == "27.0.1"
    assert not (built / "left-over").exists()


def test_an_environment_that_a_package_has_marked_is_built_anew(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("")
    planted = workshop.folder / "venvs" / workshop.key(requirements)
    planted.mkdir(parents=True)
    (planted / virtualenv.MARK).touch()
    os.chown(planted, UID, GID)
    assert not virtualenv.is_whole(planted)
    assert version_of(workshop.build(requirements), "gunicorn") == "27.0.1"


def test_the_mark_is_not_written_through_a_link(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/x"
    target.mkdir(parents=True)
    (target / virtualenv.MARK).symlink_to(workshop.folder / "nologin")
    workshop.builder()._seal(target)
    assert not (workshop.folder / "nologin").exists()
    assert not (target / virtualenv.MARK).is_symlink()
    assert virtualenv.is_whole(target)


def test_nothing_that_a_package_left_stays_writable(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/x"
    (target / "lib").mkdir(parents=True)
    for name, mode in (("lib/open.py", 0o666), ("lib/suid", 0o4755), ("lib/plain.py", 0o644)):
        (target / name).touch()
        (target / name).chmod(mode)
    (target / "lib").chmod(0o777)
    outside = workshop.folder / "outside"
    outside.touch()
    outside.chmod(0o666)
    (target / "lib/link").symlink_to(outside)
    workshop.builder()._seal(target)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")}
    assert modes["open.py"] == modes["plain.py"] == 0o644
    assert modes["suid"] == modes["lib"] == 0o755
    assert modes["link"] == 0o666
    assert outside not in workshop.owners


def test_folders_in_each_other_are_refused_and_removed(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/deep"
    nest(target)
    with pytest.raises(ReleaseError, match=r"more than 100 levels deep"):
        workshop.builder()._seal(target)
    virtualenv.remove(target)
    assert not target.exists()


def test_an_environment_that_is_removed_in_part_is_not_whole(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.publish("gunicorn", "27.0.1")
    built = workshop.build(workshop.requirements(""))

    def killed(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(virtualenv.tree, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        virtualenv.remove(built)
    assert built.exists()
    assert not virtualenv.is_whole(built)


def test_a_server_that_is_not_the_one_of_the_lock_is_refused(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    builder, requirements = workshop.builder(), workshop.requirements("")
    workshop.forge("gunicorn", "27.0.1")
    with pytest.raises(ReleaseError, match="Hash mismatch"):
        workshop.build(requirements, builder=builder)
    # Installed by its hash, the same one is not in the way.
    assert version_of(workshop.build(requirements), "gunicorn") == "27.0.1-forged"


def test_what_the_server_depends_on_is_in_its_lock_or_is_refused(workshop: Workshop) -> None:
    for name in ("gunicorn", "helper"):
        workshop.publish(name, "27.0.1")
    shelf = workshop.folder / "index/gunicorn"
    workshop.wheel(shelf, "gunicorn", "27.0.1", needs="helper")
    with pytest.raises(ReleaseError, match=r"no trusted hash was provided for:\s+`helper`"):
        workshop.build(workshop.requirements(""))
    workshop.server_lock = "\n".join(workshop.pinned(name, "27.0.1") for name in ("gunicorn", "helper"))
    assert version_of(workshop.build(workshop.requirements("")), "helper") == "27.0.1"


@pytest.mark.parametrize("lock", ["", "gunicorn==27.0.10 --hash=sha256:00", "# gunicorn==27.0.1"])
def test_a_server_without_hashes_is_not_installed(workshop: Workshop, lock: str) -> None:
    workshop.publish("gunicorn", "27.0.1")
    builder = workshop.builder()
    builder.server_lock = lock
    with pytest.raises(ReleaseError, match=r"gunicorn==27.0.1 has no hashes"):
        workshop.build(workshop.requirements(""), builder=builder)
    assert workshop.calls == []


def test_an_older_server_in_the_lock_gives_way_and_the_play_says_so(workshop: Workshop) -> None:
    for version in ("9.0.0", "27.0.1"):
        workshop.publish("gunicorn", version)
    builder = workshop.builder()
    built = workshop.build(workshop.requirements("gunicorn==9.0.0\n"), builder=builder)
    assert version_of(built, "gunicorn") == "27.0.1"
    assert len(builder.warnings) == 1
    assert "requirements.txt pins gunicorn 9.0.0" in builder.warnings[0]
    assert "gunicorn==27.0.1" not in builder.warnings[0]


@pytest.mark.parametrize("version", ["27.0.1", "100.0"])
def test_an_equal_or_newer_server_in_the_lock_is_kept(workshop: Workshop, version: str) -> None:
    workshop.publish("gunicorn", version)
    builder = workshop.builder()
    built = workshop.build(workshop.requirements(f"gunicorn=={version}\n"), builder=builder)
    assert version_of(built, "gunicorn") == version
    assert builder.warnings == []


def test_a_lock_of_uvs_is_installed_as_it_is_and_without_the_project(workshop: Workshop) -> None:
    for name, version in [("flask", "3.1.3"), ("toolbox", "1.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    text = PYPROJECT + 'dependencies = ["flask>=3"]\n[dependency-groups]\ndev = ["toolbox"]\n'
    workshop.requirements(text, "pyproject.toml")
    cache = {"UV_CACHE_DIR": str(workshop.folder / "cache/lock"), "UV_PYTHON": sys.executable}
    lock = [UV, "lock", "--quiet", "--default-index", f"file://{workshop.folder}/index"]
    run_command(lock, check_rc=True, cwd=str(workshop.code), environ_update=cache)
    workshop.publish("flask", "3.2.0")
    before = tree(workshop.code)
    built = workshop.build(workshop.code / "uv.lock")
    assert version_of(built, "flask") == "3.1.3"
    packages = {path.name for path in built.glob("lib/python3*/site-packages/*.dist-info")}
    assert packages == {"flask-3.1.3.dist-info", "gunicorn-27.0.1.dist-info"}
    assert tree(workshop.code) == before


def test_a_pyproject_is_installed_without_the_project(workshop: Workshop) -> None:
    for name, version in [("flask", "3.1.3"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    built = workshop.build(workshop.requirements(PYPROJECT + 'dependencies = ["flask"]\n', "pyproject.toml"))
    packages = {path.name for path in built.glob("lib/python3*/site-packages/*.dist-info")}
    assert packages == {"flask-3.1.3.dist-info", "gunicorn-27.0.1.dist-info"}


def test_an_environment_that_cannot_be_built_is_said_why_and_is_not_used(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    requirements = workshop.requirements("no-such-package==1.0\n")
    for _ in range(2):
        with pytest.raises(ReleaseError) as caught:
            workshop.build(requirements)
        assert caught.value.step == "Build the virtual environment"
        assert "uv pip failed with status" in caught.value.reason
        assert "no-such-package" in caught.value.reason
    assert not virtualenv.is_whole(workshop.folder / "venvs" / workshop.key(requirements))


@pytest.mark.parametrize("folder", ["venvs", "cache"])
def test_a_full_disk_is_no_fault_of_the_lock(workshop: Workshop, folder: str) -> None:
    place = workshop.folder / folder
    place.mkdir()
    workshop.publish("gunicorn", "27.0.1")
    workshop.publish("large", "1.0")
    with zipfile.ZipFile(next((workshop.folder / "index/large").glob("*.whl")), "a") as wheel:
        wheel.writestr("large/data", os.urandom(2 * 1024**2))
    if run_command(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)])[0]:
        pytest.skip("needs a disk of its own to fill")
    try:
        with pytest.raises(ReleaseError) as caught:
            workshop.build(workshop.requirements("large==1.0\n"))
    finally:
        run_command(["umount", str(place)], check_rc=True)
    assert "No space left on device" in caught.value.reason
    assert "Free space on the disk" in caught.value.cure
    assert "Correct the lock" not in caught.value.cure


def test_a_long_output_is_cut_to_its_last_lines(workshop: Workshop) -> None:
    uv = workshop.folder / "uv"
    uv.write_text("#!/bin/sh\nseq 100\necho the reason >&2\nexit 2\n", encoding="utf-8")
    uv.chmod(0o755)
    with pytest.raises(ReleaseError) as caught:
        workshop.build(workshop.requirements(""), builder=workshop.builder(uv=str(uv)))
    assert caught.value.reason.startswith("uv venv failed with status 2:\n87\n")
    assert caught.value.reason.endswith("\nthe reason")


# -- extra packages with hashes -------------------------------------------------------------------------------------


@pytest.fixture
def stocked(workshop: Workshop) -> Workshop:
    """An index with what an app, its driver and its server need; the driver needs a library that the lock has."""
    for name, version in [("flask", "3.1.3"), ("library", "1.0"), ("library", "2.0"), ("gunicorn", "27.0.1")]:
        workshop.publish(name, version)
    workshop.publish("driver", "1.0", needs="library")
    return workshop


def hashed_lock(workshop: Workshop) -> Path:
    return workshop.requirements(f"{workshop.pinned('flask', '3.1.3')}\n{workshop.pinned('library', '1.0')}\n")


def test_extra_packages_with_hashes_are_verified_together_with_the_lock(stocked: Workshop) -> None:
    builder = stocked.builder()
    entry = stocked.pinned("driver", "1.0").replace(" --hash", " \\\n    --hash") + "\n"
    built = stocked.build(hashed_lock(stocked), [entry], builder)
    assert (version_of(built, "driver"), version_of(built, "library")) == ("1.0", "1.0")
    assert builder.warnings == []


def test_an_extra_package_that_was_exchanged_is_refused(stocked: Workshop) -> None:
    entry = stocked.pinned("driver", "1.0")
    stocked.forge("driver", "1.0")
    for lock in (hashed_lock(stocked), stocked.requirements("flask==3.1.3\nlibrary==1.0\n", "plain.txt")):
        with pytest.raises(ReleaseError, match="Hash mismatch"):
            stocked.build(lock, [entry])


def test_what_an_extra_package_with_hashes_depends_on_has_hashes_too(stocked: Workshop) -> None:
    lock = stocked.requirements(stocked.pinned("flask", "3.1.3") + "\n")
    entry = stocked.pinned("driver", "1.0")
    with pytest.raises(ReleaseError, match=r"no trusted hash was provided for:\s+`library`"):
        stocked.build(lock, [entry])
    built = stocked.build(lock, [entry, stocked.pinned("library", "2.0")])
    assert version_of(built, "library") == "2.0"


def test_extra_packages_without_hashes_beside_a_lock_with_some_are_installed_with_a_warning(stocked: Workshop) -> None:
    builder = stocked.builder()
    built = stocked.build(hashed_lock(stocked), ["driver==1.0"], builder)
    assert version_of(built, "driver") == "1.0"
    assert len(builder.warnings) == 1
    assert "installed unverified: driver==1.0. requirements.txt has hashes." in builder.warnings[0]
    # The cure is a command that prints what to write.
    command = builder.warnings[0].rpartition("output of: ")[2].replace("uv pip", f"{UV} pip")
    printed = run_command(["sh", "-c", f"{command} --index-url file://{stocked.folder}/index -q"], check_rc=True)[1]
    entries = ["".join(part) for part in re.findall(r"(?m)^(\S+)((?: \\\n +--hash=\S+)+)", printed)]
    assert [entry.split("==")[0] for entry in entries] == ["driver", "library"]
    builder = stocked.builder()
    lock = stocked.requirements(stocked.pinned("flask", "3.1.3") + "\n")
    assert version_of(stocked.build(lock, entries, builder), "driver") == "1.0"
    assert builder.warnings == []


def test_extra_packages_beside_a_lock_without_hashes_need_none(stocked: Workshop) -> None:
    builder = stocked.builder()
    stocked.build(stocked.requirements("flask==3.1.3\n"), ["driver==1.0"], builder)
    assert builder.warnings == []


# -- packages without a wheel -----------------------------------------------------------------------------------------

BACKEND = """
import sys

def build_wheel(folder, settings=None, metadata=None):
    print("gcc -c speedy.c")
    sys.exit("error: command 'gcc' failed: No such file or directory")
"""


def test_a_package_that_cannot_be_built_is_named_with_the_debian_packages(workshop: Workshop) -> None:
    """With the real uv: an archive whose build wants a compiler, and a wheel for another Python."""
    shelf = workshop.folder / "index/speedy"
    shelf.mkdir(parents=True)
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "speedy"\nversion = "1.2.3"\n',
        "backend.py": BACKEND,
        "PKG-INFO": "Metadata-Version: 2.2\nName: speedy\nVersion: 1.2.3\n",
    }
    with tarfile.open(shelf / "speedy-1.2.3.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"speedy-1.2.3/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    other = "3.9" if sys.version_info[:2] != (3, 9) else "3.10"
    tag = f"cp{other.replace('.', '')}"
    wheel = workshop.wheel(shelf, "speedy", "1.2.3")
    wheel = wheel.rename(shelf / f"speedy-1.2.3-{tag}-{tag}-linux_{platform.machine()}.whl")
    names = ["speedy-1.2.3.tar.gz", wheel.name]
    (shelf / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names), encoding="utf-8")
    with pytest.raises(ReleaseError) as caught:
        workshop.build(workshop.requirements("speedy==1.2.3\n"))
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert caught.value.reason == (
        f"speedy 1.2.3 has no wheel for Python {own}, only for Python {other}, and could not be built. The first error "
        "of its build:\nerror: command 'gcc' failed: No such file or directory"
    )
    assert caught.value.cure.startswith("Add to the app: build_packages: [gcc, python3-dev]. Or: Pin a version of")


def test_each_step_of_a_build_has_the_apps_time_limit(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    builder = workshop.builder()
    builder.timeout = 77
    workshop.build(workshop.requirements(""), builder=builder)
    assert {limit for call in workshop.calls for limit in call.properties["RuntimeMaxSec"]} == {"77"}
