"""A wheelhouse: everything comes out of it, and nothing from the index."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import source_files, virtualenv
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import GID, UID, run_command
from virtualenv_workshop import PYPROJECT, SERVER, UV, Workshop, version_of, write


def test_the_wheelhouse_is_found_in_the_app_or_at_the_top(tmp_path: Path) -> None:
    app = tmp_path / "services/shop"
    write(tmp_path, vendor__x_whl="", services__shop__app_py="")
    assert source_files.find_wheelhouse(app, "vendor", tmp_path) == tmp_path / "vendor"
    write(app, vendor__x_whl="")
    assert source_files.find_wheelhouse(app, "vendor", tmp_path) == app / "vendor"
    assert source_files.find_wheelhouse(app, "", tmp_path) is None


def test_a_wheelhouse_that_is_missing_or_empty_is_told_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"vendor/wheels is not in the source") as caught:
        source_files.find_wheelhouse(tmp_path, "vendor/wheels")
    assert "wheelhouse" in caught.value.cure
    write(tmp_path, vendor__wheels__README_md="")
    with pytest.raises(ReleaseError, match=r"vendor/wheels has no package"):
        source_files.find_wheelhouse(tmp_path, "vendor/wheels")


@pytest.fixture
def wheelhouse(workshop: Workshop) -> Path:
    folder = workshop.code / "vendor/wheels"
    for name, version in [("flask", "3.1.3"), ("driver", "1.0"), ("gunicorn", "27.0.1")]:
        workshop.wheel(folder, name, version)
    return folder


def test_everything_comes_out_of_the_wheelhouse_and_nothing_from_the_index(
    workshop: Workshop, wheelhouse: Path
) -> None:
    workshop.publish("flask", "3.9.0")
    workshop.publish("gunicorn", "28.0.0")
    builder = workshop.builder(wheelhouse=wheelhouse)
    built = workshop.build(workshop.requirements("flask\n"), ["driver==1.0"], builder)
    found = {name: version_of(built, name) for name in ("flask", "driver", "gunicorn")}
    assert found == {"flask": "3.1.3", "driver": "1.0", "gunicorn": "27.0.1"}
    assert all(call.environment["UV_OFFLINE"] == "1" for call in workshop.calls)
    assert not any("UV_DEFAULT_INDEX" in call.environment for call in workshop.calls)


def test_an_index_that_the_requirements_name_is_not_asked(workshop: Workshop, wheelhouse: Path) -> None:
    workshop.publish("flask", "3.9.0")
    requirements = workshop.requirements(f"--index-url file://{workshop.folder}/index\nflask\n")
    built = workshop.build(requirements, builder=workshop.builder(wheelhouse=wheelhouse))
    assert version_of(built, "flask") == "3.1.3"


@pytest.mark.parametrize("missing", ["flask", "gunicorn"])
def test_what_is_not_in_the_wheelhouse_is_named(workshop: Workshop, wheelhouse: Path, missing: str) -> None:
    workshop.publish("flask", "3.1.3")
    workshop.publish("gunicorn", "27.0.1")
    next(wheelhouse.glob(f"{missing}-*")).unlink()
    with pytest.raises(ReleaseError) as caught:
        workshop.build(workshop.requirements("flask==3.1.3\n"), builder=workshop.builder(wheelhouse=wheelhouse))
    assert missing in caught.value.reason
    assert "wheelhouse wheels" in caught.value.cure


def test_a_lock_of_uvs_is_installed_from_the_wheelhouse(workshop: Workshop, wheelhouse: Path) -> None:
    workshop.requirements(PYPROJECT + 'dependencies = ["flask>=3"]\n', "pyproject.toml")
    cache = {"UV_CACHE_DIR": str(workshop.folder / "cache/lock"), "UV_PYTHON": sys.executable}
    index = workshop.folder / "index/flask"
    workshop.publish("flask", "3.1.3")
    lock = [UV, "lock", "--quiet", "--default-index", f"file://{workshop.folder}/index"]
    run_command(lock, check_rc=True, cwd=str(workshop.code), environ_update=cache)
    shutil.copy(next(index.glob("*.whl")), wheelhouse)
    shutil.rmtree(index)
    built = workshop.build(workshop.code / "uv.lock", builder=workshop.builder(wheelhouse=wheelhouse))
    assert version_of(built, "flask") == "3.1.3"
    assert version_of(built, "gunicorn") == "27.0.1"


def test_the_content_of_the_wheelhouse_is_part_of_the_name(workshop: Workshop, wheelhouse: Path) -> None:
    def key(folder: Path | None) -> str:
        return workshop.builder(wheelhouse=folder).key(requirements, [], SERVER)

    requirements = workshop.requirements("flask\n")
    first = key(wheelhouse)
    assert first != key(None)
    assert first == key(shutil.copytree(wheelhouse, workshop.folder / "releases/2/src/vendor/wheels"))
    (wheelhouse / "README.md").touch()
    assert first == key(wheelhouse)
    workshop.wheel(wheelhouse, "flask", "3.1.3", build="+1")
    before = next(wheelhouse.glob("flask*")).stat().st_size
    second = key(wheelhouse)
    workshop.wheel(wheelhouse, "flask", "3.1.3", build="+2")
    assert next(wheelhouse.glob("flask*")).stat().st_size == before
    assert len({first, second, key(wheelhouse)}) == 3


def test_a_mark_of_the_builder_does_not_outlast_a_run_that_is_killed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is root's from the beginning of the seal on; what is in it is not yet."""
    target = workshop.folder / "venvs/planted"
    (target / "lib").mkdir(parents=True)
    (target / virtualenv.MARK).touch()
    for path in (target, target / "lib", target / virtualenv.MARK):
        workshop.owners[path] = (UID, GID)
    given = os.chown

    def killed(path: Path, *numbers: int, **options: bool) -> None:
        if path != target:
            raise KeyboardInterrupt
        given(path, *numbers, **options)

    monkeypatch.setattr(os, "chown", killed)
    with pytest.raises(KeyboardInterrupt):
        workshop.builder()._seal(target)
    assert workshop.owners[target] == (0, 0)
    assert not virtualenv.is_whole(target)


def test_a_mark_that_is_not_roots_counts_for_nothing(workshop: Workshop) -> None:
    target = workshop.folder / "venvs/planted"
    target.mkdir(parents=True)
    (target / virtualenv.MARK).touch()
    assert virtualenv.is_whole(target)
    workshop.owners[target / virtualenv.MARK] = (UID, GID)
    assert not virtualenv.is_whole(target)


def test_a_second_name_of_another_file_is_not_given_to_root(workshop: Workshop) -> None:
    """Where fs.protected_hardlinks is off, a package that is built could name any file of the same disk."""
    target = workshop.folder / "venvs/linked"
    target.mkdir(parents=True)
    (workshop.folder / "shadow").write_text("secret", encoding="utf-8")
    (target / "shadow").hardlink_to(workshop.folder / "shadow")
    with pytest.raises(ReleaseError, match="is a hard link"):
        workshop.builder()._seal(target)
    assert target / "shadow" not in workshop.owners


def test_a_package_with_many_names_is_read_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    requirements, wheels = workshop.requirements("flask==3.1.3\n"), workshop.code / "wheels"
    wheels.mkdir()
    (wheels / "large.bin").write_bytes(b"large")
    for number in range(100):
        (wheels / f"link{number}.whl").symlink_to("large.bin")
        (wheels / f"hard{number}.whl").hardlink_to(wheels / "large.bin")
    seen: list[Path] = []
    monkeypatch.setattr(virtualenv.archives, "file_digest", lambda path: (seen.append(path), "0" * 64)[1])
    assert workshop.builder(wheelhouse=wheels).key(requirements, [], SERVER)
    assert len(seen) == 1
