"""The Python that an app asks for: what it is part of, and what is said where it is missing or does not fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import lock, pythons
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import FakeHost, run_command
from release_site import Site
from virtualenv_workshop import SERVER, Workshop, version_of, write

OWN = ".".join(map(str, sys.version_info[:3]))


def install(folder: Path, version: str, link: str = "3.99") -> Path:
    """Put a version into the folder of versions, as the role python does: here, the Python of the tests."""
    name = f"cpython-{version}-linux-x86_64-gnu"
    python = Path(pythons.executable(folder, name))
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)
    (folder / name / pythons.MARK).touch()
    (folder / link).unlink(missing_ok=True)
    (folder / link).symlink_to(name)
    return python


@pytest.fixture
def folder(site: Site) -> Path:
    place = site.folder / "opt/python"
    place.mkdir(parents=True)
    site.options["pythons"] = str(place)
    # Always there, and of no version that an app asks for.
    site.options["python"] = sys.executable
    return place


# -- the release ------------------------------------------------------------------------------------------------------


def test_without_the_option_a_release_stays_as_it_is(site: Site, folder: Path) -> None:
    site.deploy()
    assert not site.deploy(pythons="/elsewhere").changed
    assert not site.deploy(interpreter_version=OWN.rpartition(".")[0]).changed, "the distribution has that version"


def test_another_version_is_another_release_with_an_environment_of_its_own(site: Site, folder: Path) -> None:
    first = site.record(site.deploy().release)
    python = install(folder, "3.99.1")
    second = site.record(site.deploy(interpreter_version="3.99").release)
    assert first.venv != second.venv
    assert [name for name in first.parts if first.parts[name] != second.parts[name]] == ["packages"]
    assert any(str(python) in call for call in site.host.calls)
    assert not site.deploy(interpreter_version="3.99").changed


def test_a_new_patch_level_is_a_new_release(site: Site, folder: Path) -> None:
    install(folder, "3.99.1")
    first = site.deploy(interpreter_version="3.99")
    install(folder, "3.99.2")
    assert "with changes in: packages" in site.deploy(check=True, interpreter_version="3.99").plan[0]
    second = site.deploy(interpreter_version="3.99")
    assert site.record(first.release).venv != site.record(second.release).venv
    install(folder, "3.99.1", "3.99.1")
    third = site.deploy(interpreter_version="3.99.1")
    assert third.release == first.release, "the version that was live is the one that is chosen now"


def test_no_version_is_removed_while_a_release_is_built(site: Site, folder: Path) -> None:
    install(folder, "3.99.1")
    free: list[bool] = []
    real = site.host.__class__.__call__

    def watched(host: FakeHost, args: list[str], **options: Any) -> tuple[int, str, str]:
        if "venv" in args:
            with lock.open_file(folder / pythons.IN_USE) as stream:
                free.append(lock.acquire(stream))
        return real(host, args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeHost, "__call__", watched)
        site.deploy(interpreter_version="3.99")
    assert free == [False]
    with lock.open_file(folder / pythons.IN_USE) as stream:
        assert lock.acquire(stream)


def test_a_version_that_is_not_installed_is_said_before_anything_is_done(site: Site, folder: Path) -> None:
    site.deploy()
    error = site.refused(interpreter_version="3.99")
    assert (error.step, error.reason) == ("Find the Python version", "Python 3.99 is not installed on this host.")
    assert "site.yml" in error.cure
    assert len(site.ids()) == 1
    # Before site.yml has installed it, check mode shows the release that would follow.
    assert site.deploy(check=True, interpreter_version="3.99").changed


@pytest.mark.parametrize("target", ["/usr", "../../usr", "cpython-3.99.1-linux-x86_64-gnu", "cpython-3.99.1"])
def test_a_link_to_anything_else_is_no_version(site: Site, folder: Path, target: str) -> None:
    install(folder, "3.99.2")
    (folder / "3.99").unlink()
    (folder / "3.99").symlink_to(target)
    assert "not installed" in site.refused(interpreter_version="3.99").reason


# -- the environment --------------------------------------------------------------------------------------------------


def test_the_name_of_an_environment_has_the_patch_level_and_what_is_kept_has_not(workshop: Workshop) -> None:
    requirements = workshop.requirements("flask\n")

    def names(version: str) -> tuple[str, Path | None]:
        builder = workshop.builder(version=version)
        return builder.key(requirements, [], SERVER), builder._kept(requirements, workshop.code)

    plain, older, newer = names(""), names("3.12.8"), names("3.12.9")
    assert len({plain[0], older[0], newer[0]}) == 3
    # A security update of Python is no reason for other packages.
    assert older[1] == newer[1]


def test_an_environment_is_made_of_the_version(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    workshop.publish("flask", "3.1.3")
    python = install(workshop.folder / "python", OWN)
    target = workshop.build(
        workshop.requirements("flask==3.1.3\n"), builder=workshop.builder(python=str(python), version=OWN)
    )
    assert version_of(target, "flask") == "3.1.3"
    assert pythons.ask_version(run_command, f"{target}/bin/python") == OWN


def test_a_project_that_does_not_support_the_version_is_refused_before_anything_is_built(workshop: Workshop) -> None:
    write(workshop.code, pyproject_toml='[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.12,<3.14"\n')
    requirements = workshop.requirements("flask==3.1.3\n")
    with pytest.raises(ReleaseError) as caught:
        workshop.build(requirements, builder=workshop.builder(version="3.14.1"))
    assert caught.value.reason == (
        "pyproject.toml requires Python >=3.12,<3.14, but on this host, the app would run with Python 3.14.1, which "
        "the option python sets."
    )
    cure = 'Set the app\'s option python: "3.13". Then run site.yml, which installs that version.'
    assert caught.value.cure == cure
    assert workshop.calls == []
    assert not (workshop.folder / "venvs").exists()


def test_the_distributions_version_is_compared_too(workshop: Workshop) -> None:
    write(workshop.code, pyproject_toml='[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.99"\n')
    minor = OWN.rpartition(".")[0]
    with pytest.raises(ReleaseError) as caught:
        workshop.build(workshop.requirements("flask==3.1.3\n"))
    assert caught.value.reason.endswith(f"would run with Python {minor}, the distribution's.")
    assert caught.value.cure == f"Change the range in the source to one that contains {minor}."


def test_hashes_are_asked_for_with_the_apps_own_version(workshop: Workshop) -> None:
    for name, version in (("gunicorn", "27.0.1"), ("flask", "3.1.3"), ("psycopg", "3.3.9")):
        workshop.publish(name, version)
    workshop.sign()
    requirements = workshop.requirements(f"{workshop.pinned('flask', '3.1.3')}\n")
    builder = workshop.builder(version="3.98.7")
    workshop.build(requirements, ["psycopg==3.3.9"], builder)
    assert "--python-version 3.98 -" in "".join(builder.warnings)
