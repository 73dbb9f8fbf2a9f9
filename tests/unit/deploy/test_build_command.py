"""The build command completes the code of a release. It has no secrets and no data, and is trusted in nothing."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import build_command
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import BUILD_UID, USER, Unit, fake_owners, nest, read_systemd_run
from release_site import Site
from test_build import Bench


class Workbench(Bench):
    """A build whose commands are written down."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.owners = fake_owners(monkeypatch)
        self.units: list[Unit] = []

    def build(self, command: str, **options: Any) -> Path:
        """Build a release with this command; return its folder."""
        return self.store.path(self.make(run=self.run, build_command=command, **options).id)

    def run(self, args: list[str], **options: Any) -> tuple[int, str, str]:
        if args[0] == "systemd-run" and (unit := read_systemd_run(args)).command[:2] == ["/bin/sh", "-c"]:
            self.units.append(unit)
        return self.host(args, **options)

    def refused(self, command: str, **options: Any) -> ReleaseError:
        with pytest.raises(ReleaseError) as caught:
            self.build(command, **options)
        assert list(self.store.releases.iterdir()) == [], "nothing of the release is left"
        assert caught.value.step == "Run the build command"
        return caught.value


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    return Workbench(tmp_path, monkeypatch)


def test_what_it_makes_is_in_the_release_and_published(bench: Workbench) -> None:
    command = "mkdir -p static && echo 'body {}' > static/site.css && echo compiled > messages.mo; umask 0; touch open"
    folder = bench.build(command)
    assert (folder / "app/messages.mo").read_text() == "compiled\n"
    assert (folder / "static/site.css").read_text() == "body {}\n"
    record = bench.store.record(folder.name)
    assert record
    assert record.static == "src/static"
    assert stat.S_IMODE((folder / "src/open").stat().st_mode) == 0o640
    assert {bench.owners[path][0] for path in [folder / "src", *(folder / "src").rglob("*")]} == {0}
    assert bench.notes.index("Run the build command") < bench.notes.index("Complete the release")
    assert not (folder / "build.env").exists()
    assert not (bench.root / "tmp/build").exists()


def test_it_runs_in_the_sandbox_of_builds(bench: Workbench) -> None:
    seen: list[tuple[int, int]] = []
    run = bench.run

    def watch(args: list[str], **options: Any) -> tuple[int, str, str]:
        if args[-1] == "true":
            seen.append(bench.owners[next(bench.store.releases.iterdir()) / "src/shop.py"])
            assert (bench.root / "tmp/build").is_dir()
        return run(args, **options)

    bench.run = watch
    folder = bench.build("true", build_timeout=77)
    (unit,) = bench.units
    code, record = folder / "src", bench.store.record(folder.name)
    assert record
    assert seen[0][0] == BUILD_UID
    assert unit.properties["RuntimeMaxSec"] == ["77"]
    assert unit.properties["TimeoutStopSec"] == ["10"]
    assert unit.properties["ReadWritePaths"] == [str(code)]
    assert unit.properties["WorkingDirectory"] == [str(code)]
    assert str(code) in unit.properties["BindPaths"]
    assert unit.properties["BindReadOnlyPaths"][0] == str(bench.store.venvs / record.venv)
    assert {f"{bench.folder}:ro", "/run:ro"} <= {*unit.properties["TemporaryFileSystem"]}
    assert "-/etc/flaskhost" in unit.properties["InaccessiblePaths"]
    assert unit.properties["AppArmorProfile"] == [f"-flask-{USER}_build"]
    assert unit.properties["SupplementaryGroups"] == [USER]
    assert "PrivateNetwork" not in unit.properties
    assert unit.environment["PATH"].startswith(f"{bench.store.venvs / record.venv}/bin:")


def test_it_has_the_public_variables_and_no_secret(bench: Workbench) -> None:
    environment = {
        "FLASK_APP": "shop:app",
        "LANG": "C.UTF-8",
        "THEME": "dark",
        "SITE": "https://{host}",
        "DATABASE_URL": "postgresql://shop@/shop",
        "SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://shop@/shop",
        "STORE": "{database_url}",
        "APP_KEY": "{secret_key}",
        "RULES": "{release_dir}/rules",
        "MAIL_PASSWORD": "public, but the secret one counts",
    }
    folder = bench.build("true", environment=environment, secrets={"MAIL_PASSWORD": "hunter2", "SECRET_KEY": "k"})
    (unit,) = bench.units
    given = {name: value for name, value in unit.environment.items() if name not in ("PATH", "HOME", "PYTHONPATH")}
    assert given == {
        "FLASK_APP": "shop:app",
        "LANG": "C.UTF-8",
        "THEME": "dark",
        "SITE": "https://shop.test",
        "RULES": f"{folder}/src/rules",
        "FLASKHOST_RELEASE": folder.name,
        "FLASKHOST_RELEASE_DIR": f"{folder}/src",
    }


def test_it_runs_in_the_apps_folder_and_before_the_data_is_there(bench: Workbench) -> None:
    bench.files |= {"web/shop.py": "app = 1\n", "web/requirements.txt": "flask==3.1.3\n"}
    command = "mkdir instance && echo theirs > instance/seed && pwd > here"
    folder = bench.build(command, source_subdir="web", persistent=["instance"])
    assert (folder / "app/here").read_text().strip() == str(folder / "src/web")
    assert (folder / "app/instance").readlink() == bench.root / "data/instance"
    assert (bench.root / "data/instance/seed").read_text() == "theirs\n"
    bench.build("mkdir instance && echo new > instance/seed", source_subdir="web", persistent=["instance"])
    assert (bench.root / "data/instance/seed").read_text() == "theirs\n", "the data is the app's from then on"


def test_its_failure_is_told_with_its_first_and_last_lines(bench: Workbench) -> None:
    error = bench.refused("seq 1 40; echo 'sh: 1: npm: not found' >&2; exit 3")
    lines = error.reason.splitlines()
    assert lines[0] == "'seq 1 40; echo 'sh: 1: npm: not found' >&2; exit 3' failed with status 3:"
    assert lines[1:7] == ["1", "2", "3", "4", "5", "... (21 lines left out)"]
    assert lines[-1] == "sh: 1: npm: not found"
    assert "The previous release, if any, still serves." in error.cure
    assert "no program npm. Name its Debian package: in build_packages" in error.cure


def test_its_time_is_limited(bench: Workbench) -> None:
    assert "was stopped after 0 s (build_timeout):" in bench.refused("exit 1", build_timeout=0).reason


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("ln -s /etc/passwd users", "users is a link to /etc/passwd, outside the source."),
        ("ln -s ../../other up", "up is a link to ../../other, outside the source."),
        ("mkfifo pipe", "pipe is a device, a pipe or a socket."),
        ("d=d; for i in $(seq 120); do d=$d/d; done; mkdir -p $d", "nested more than 100 levels deep."),
        ("rm -r instance; ln -s /etc instance", "instance is a link to /etc, outside the source."),
    ],
)
def test_what_it_leaves_behind_is_not_trusted(bench: Workbench, command: str, reason: str) -> None:
    bench.files["instance/a"] = "a"
    error = bench.refused(command, persistent=["instance"])
    assert error.reason.startswith("the build command left behind what cannot be released: ")
    assert error.reason.endswith(reason)


def test_a_hard_link_to_a_file_elsewhere_is_refused(bench: Workbench) -> None:
    (bench.folder / "victim").write_text("theirs")
    assert "is a hard link to a file outside" in bench.refused(f"ln {bench.folder}/victim mine").reason
    folder = bench.build("ln shop.py copy.py; ln -s shop.py link.py")
    assert (folder / "src/copy.py").read_text() == "app = 1\n"


def test_the_apps_folder_stays_where_it_is(bench: Workbench) -> None:
    bench.files |= {"web/shop.py": "app = 1\n", "web/requirements.txt": "flask==3.1.3\n", "other/shop.py": ""}
    error = bench.refused("cd .. && rm -r web && ln -s other web", source_subdir="web")
    assert error.reason == "the build command replaced or removed the app's folder 'web'."


def test_a_folder_above_a_persistent_one_stays_a_folder(bench: Workbench) -> None:
    bench.files |= {"static/a.css": "a", "public/a.css": "a"}
    with pytest.raises(ReleaseError, match="static/uploads, but static is a link to public"):
        bench.build("rm -r static; ln -s public static", persistent=["static/uploads"])


def test_a_killed_one_is_repeated_whatever_it_has_left(bench: Workbench) -> None:
    def killed(args: list[str], **options: Any) -> tuple[int, str, str]:
        if args[-1] == "true":
            nest(next(bench.store.releases.iterdir()) / "src/deep")
            raise KeyboardInterrupt
        return bench.host(args, **options)

    with pytest.raises(KeyboardInterrupt):
        bench.make(run=killed, build_command="true")
    assert bench.build("touch built").joinpath("src/built").exists()
    assert len(list(bench.store.releases.iterdir())) == 1


# -- in a deploy ------------------------------------------------------------------------------------------------------


def test_a_changed_command_is_a_new_release_and_none_is_none(site: Site) -> None:
    before = site.deploy()
    assert "build command" not in site.record(before.release).parts
    assert not site.deploy(build_command="").changed
    built = site.deploy(build_command="echo 1 > built")
    assert (site.path(built) / "src/built").read_text() == "1\n"
    assert not site.deploy(build_command="echo 1 > built").changed
    plan = site.deploy(check=True, build_command="echo 2 > built").plan
    assert "with changes in: build command" in plan[0]
    assert not site.deploy(build_command="echo 1 > built", build_timeout=30, build_packages=["npm"]).changed


def test_new_packages_of_the_system_are_a_new_release(site: Site) -> None:
    before = site.deploy()
    assert "system packages" not in site.record(before.release).parts
    after = site.deploy(system_packages=["libmagic1", "ffmpeg"])
    assert after.release != before.release
    assert not site.deploy(system_packages=["ffmpeg", "libmagic1"]).changed


def test_a_failed_one_never_serves(site: Site) -> None:
    before = site.deploy()
    error = site.refused(build_command="exit 4")
    assert "'exit 4' failed with status 4" in error.reason
    assert f"{before.release} still serves." in error.cure


def test_variables_are_those_that_anybody_may_see() -> None:
    found = build_command.variables(
        {"A": "{data_dir}", "SECRET_KEY_FALLBACKS": "[]"}, {"B"}, {"data_dir": "/d", "release_dir": "/r"}, "1"
    )
    assert found == {"A": "/d", "FLASKHOST_RELEASE": "1", "FLASKHOST_RELEASE_DIR": "/r"}
