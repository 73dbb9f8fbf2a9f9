"""The phase prepare: what is in a release, where its code comes from, and when it is asked for."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import (
    environment,
)
from ansible.module_utils.flaskhost.deploy.records import RECORD
from ansible.module_utils.flaskhost.deploy.sources import folders
from fakes import GID, UID, read_systemd_run, run_command
from release_site import CODE, Site, assert_in_order, to

# -- what is in a release ---------------------------------------------------------------------------------------------


def test_what_is_in_a_release(site: Site) -> None:
    folder = site.path(site.deploy())
    assert sorted(path.name for path in folder.iterdir()) == [
        "app",
        "env",
        "processes",
        "release.json",
        "server.conf.py",
        "src",
        "static",
        "venv",
    ]
    assert (folder / "app/shop.py").read_text(encoding="utf-8") == CODE["shop.py"]
    assert (folder / "server.conf.py").read_text(encoding="utf-8") == "workers = 2\n"
    assert json.loads((folder / RECORD).read_text(encoding="utf-8"))["version"] == str(site.code)
    command = [sys.executable, "-c", ""]
    systemd = ["systemd-run", f"--property=EnvironmentFile={folder}/env", "--", *command]
    variables = read_systemd_run(systemd).environment
    assert variables["MAIL_PASSWORD"] == "hunter $2"
    assert variables["FLASK_APP"] == "shop:app"
    assert variables["FLASKHOST_RELEASE"] == folder.name
    # The keys are in no release: to go back must not bring one back that was replaced.
    assert not any("SECRET_KEY" in name for name in variables)
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))
    assert f'SECRET_KEY="{keys.read()[0]}"' in keys.variables_file.read_text(encoding="utf-8")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_who_may_do_what(site: Site, umask: int) -> None:
    os.umask(umask)
    site.host.quick = False
    site.options["persistent"] = ["instance", "deep/er/uploads"]
    (site.code / "static/img").mkdir()
    (site.code / "static/img/cat.png").write_text("cat", encoding="utf-8")
    folder = site.path(site.deploy())

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.lstat().st_mode)

    root, etc = site.root, site.folder / "etc/flaskhost"
    for path in (root, root / "releases", folder, root / "slots", etc, folder / "static", folder / "static/img"):
        assert (path, mode(path)) == (path, 0o755)
    assert (mode(root / "venvs"), site.owners[root / "venvs"]) == (0o750, (0, GID))
    assert (mode(root / "data"), site.owners[root / "data"]) == (0o700, (UID, GID))
    assert (mode(etc / "shop"), site.owners.get(etc / "shop", (0, 0))) == (0o700, (0, 0))
    assert mode(etc / "shop/secret_key") == mode(folder / "env") == mode(folder / RECORD) == 0o600
    assert mode(root / ".lock") == 0o600
    assert (mode(folder / "src"), site.owners[folder / "src"]) == (0o750, (0, GID))
    assert (mode(folder / "src/shop.py"), site.owners[folder / "src/shop.py"]) == (0o640, (0, GID))
    assert mode(folder / "static/img/cat.png") == 0o644
    assert mode(folder / "src/deep/er") & 0o755 == 0o755
    assert os.umask(0o022) == 0o022


def test_what_the_app_may_write_is_linked_into_its_code(site: Site) -> None:
    site.change({"deep/uploads/welcome.txt": "hello", "instance/dev.db": "the developer's"})
    site.options["persistent"] = ["instance", "./deep/uploads/"]
    outcome = site.deploy()
    app = site.path(outcome) / "app"
    for name in ("instance", "deep/uploads"):
        assert (app / name).is_symlink()
        assert (app / name).resolve() == site.root / "data" / name
    assert list((site.root / "data/instance").iterdir()) == []
    assert outcome.new_folders == ["instance", "deep/uploads"]
    site.change({"shop.py": "app = 2\n"})
    assert site.deploy().new_folders == []


def test_code_is_in_a_folder_of_its_own(site: Site) -> None:
    for name in CODE:
        path = site.code / "services/shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (site.code / name).rename(path)
    outcome = site.deploy(source_subdir="services/shop")
    folder = site.path(outcome)
    assert str((folder / "app").readlink()) == "src/services/shop"
    assert (folder / "static/site.css").read_text(encoding="utf-8") == "body {}"
    assert (folder / "app/instance").resolve() == site.root / "data/instance"
    assert "no folder 'services/other'" in site.refused(source_subdir="services/other").reason


@pytest.mark.parametrize("name", ["-ä b%s$c;$(touch pwned)`touch pwned`'\"${HOME}{data_dir}&|*", " "])
def test_the_name_of_its_folder_is_nothing_but_a_name(site: Site, name: str) -> None:
    (site.code / name).mkdir()
    for item in CODE:
        path = site.code / name / item
        path.parent.mkdir(parents=True, exist_ok=True)
        (site.code / item).rename(path)
    (site.code / "app").symlink_to(name)
    outcome = site.deploy(
        source_subdir="app", build_command="pwd > where", release_command="true", persistent=["instance"]
    )
    folder = site.path(outcome)
    assert str((folder / "app").readlink()) == f"src/{name}"
    assert (folder / "app/where").read_text(encoding="utf-8") == f"{folder / 'src' / name}\n"
    assert (folder / "static/site.css").read_text(encoding="utf-8") == "body {}"
    assert not list(site.folder.rglob("pwned"))


@pytest.mark.parametrize("name", ["x\nExecStopPost=+/usr/bin/touch pwned", "x\\", "x\udcff"])
def test_a_folder_whose_name_a_unit_cannot_have_is_refused(site: Site, name: str) -> None:
    (site.code / name).mkdir(parents=True)
    for item in CODE:
        path = site.code / name / item
        path.parent.mkdir(parents=True, exist_ok=True)
        (site.code / item).rename(path)
    (site.code / "app").symlink_to(name)
    error = site.refused(source_subdir="app")
    assert "a control character, a backslash or invalid UTF-8" in error.reason
    assert "\n" not in error.reason
    assert site.ids() == []


# -- a git repository -----------------------------------------------------------------------------------------------


def test_a_repository_is_deployed_and_its_data_is_taken_over_once(site: Site) -> None:
    site.host.quick = False
    site.change({"instance/start.db": "first rows", "instance/more/x": "x"})

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        command = ["git", *who, "-C", str(site.code), *arguments]
        return run_command(command, check_rc=True, environ_update={"GIT_CONFIG_GLOBAL": "/dev/null"})[1].strip()

    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--message=one")
    site.options.update(source_path="", source_repo=f"file://{site.code}", source_version="main")
    first = site.deploy()
    assert first.revision == git("rev-parse", "HEAD")
    assert first.release.endswith(first.revision[:7])
    assert site.record(first.release).version == "main"
    assert stat.S_IMODE((site.root / "repository.git").lstat().st_mode) == 0o700
    data = site.root / "data/instance"
    assert (data / "start.db").read_text(encoding="utf-8") == "first rows"
    assert (data / "more/x").exists()
    assert [path.name for path in (site.root / "data").iterdir()] == ["instance"]
    assert not site.deploy().changed
    (data / "start.db").write_text("rows of the app", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    git("commit", "--quiet", "--all", "--message=two")
    second = site.deploy()
    assert_in_order(site, second)
    assert (site.path(second) / "app/instance/start.db").read_text(encoding="utf-8") == "rows of the app"
    assert "no branch or tag 'v9'" in site.refused(source_version="v9").reason


# -- static files ---------------------------------------------------------------------------------------------------


def test_static_files_are_published_beside_the_code(site: Site) -> None:
    shutil.rmtree(site.code / "static")
    site.change({"pkg/web/static/a.css": "a", "pkg/web/__init__.py": "", "pkg/web/static/deep/b.js": "b"})
    (site.code / "pkg/web/static/link.py").symlink_to("../__init__.py")
    folder = site.path(site.deploy(wsgi="pkg.web:create_app()"))
    assert sorted(str(path.relative_to(folder)) for path in (folder / "static").rglob("*.*")) == [
        "static/a.css",
        "static/deep/b.js",
    ]
    assert (folder / "static/a.css").samefile(folder / "app/pkg/web/static/a.css")
    assert (folder / "app/pkg/web/__init__.py").stat().st_mode & 0o777 == 0o640


def test_an_app_without_static_files_has_an_empty_folder(site: Site) -> None:
    shutil.rmtree(site.code / "static")
    assert list((site.path(site.deploy()) / "static").iterdir()) == []


@pytest.mark.parametrize("persistent", [["static"], ["public"]])
def test_a_folder_that_the_app_may_write_is_not_published(site: Site, persistent: list[str]) -> None:
    """Root would change the modes of files that the app exchanges for links meanwhile."""
    path = f"{persistent[0]}/static" if persistent == ["public"] else ""
    data = site.root / "data" / persistent[0] / ("static" if path else "")
    data.mkdir(parents=True)
    (data / "upload.css").write_text("x", encoding="utf-8")
    (data / "upload.css").chmod(0o600)
    folder = site.path(site.deploy(persistent=persistent, static_path=path))
    assert list((folder / "static").iterdir()) == []
    assert stat.S_IMODE((data / "upload.css").lstat().st_mode) == 0o600


def test_each_release_has_the_static_files_of_the_others(site: Site) -> None:
    first = site.deploy()
    site.change({"static/site.css": "new", "static/new.css": "n"})
    asked = to(site, "gate")
    old, new = site.path(first) / "static", site.root / "releases" / asked.release / "static"
    # Before the flip already: with several hosts a page of the new release may ask an old one for its files.
    assert (old / "new.css").read_text(encoding="utf-8") == "n"
    assert (old / "site.css").read_text(encoding="utf-8") == "body {}"
    assert (new / "site.css").read_text(encoding="utf-8") == "new"
    (site.code / "static/new.css").unlink()
    for name in ("flip", "finish"):
        site.phase(name, release=asked.release)
    third = site.path(site.deploy()) / "static"
    assert (third / "new.css").read_text(encoding="utf-8") == "n"


# -- the source is sent where it is needed --------------------------------------------------------------------------


def test_the_code_is_asked_for_only_where_it_is_missing(site: Site) -> None:
    digest = folders.digest(site.code)
    asked = site.deployment(source_digest=digest).go()
    assert (asked.changed, asked.needs_source, asked.release) == (True, True, "")
    assert site.host.calls == []
    site.deploy()
    again = site.deployment(source_digest=digest).go()
    assert (again.changed, again.needs_source) == (False, False)


def test_a_release_that_is_there_already_is_served_without_the_code(site: Site) -> None:
    first = site.deploy()
    digest = folders.digest(site.code)
    site.change({"shop.py": "app = 2\n"})
    site.deploy()
    back = site.deployment(source_digest=digest).go()
    assert not back.needs_source
    assert back.release == first.release
    assert_in_order(site, back)


def test_a_release_whose_environment_is_gone_is_made_anew(site: Site) -> None:
    for _ in range(2):
        outcome = site.deploy()
        assert_in_order(site, outcome)
        shutil.rmtree(site.root / "venvs" / site.record(outcome.release).venv)
    assert site.deploy().changed
    assert_in_order(site)


# -- timers -----------------------------------------------------------------------------------------------------------


def test_a_timer_that_systemd_does_not_understand_is_refused_before_anything_is_built(site: Site) -> None:
    site.deploy()
    error = site.refused(timers={"nightly": {"command": "x", "on_calendar": "someday"}})
    assert "flask_apps.shop.timers.nightly.on_calendar" in error.reason
    assert len(site.ids()) == 1


def test_code_that_came_along_is_built_in_the_same_run(site: Site) -> None:
    site.change({"shop.py": "app = 'along'\n"})
    packed, digest = site.folder / "along.tar.gz", folders.digest(site.code)
    folders.pack(site.code, packed)
    data = base64.b64encode(packed.read_bytes()).decode()
    outcome = site.deployment(source_digest=digest, source_data=data).go()
    assert (outcome.changed, outcome.needs_source) == (True, False)
    assert (site.root / "current/app/shop.py").read_text() == "app = 'along'\n"
    again = site.deployment(source_digest=digest, source_data=data).go()
    assert (again.changed, again.needs_source) == (False, False)
