"""An app's own files and the names of its variables: in its releases, and nobody else's to read."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import environment
from ansible.module_utils.flaskhost.deploy.build import Build
from ansible.module_utils.flaskhost.deploy.records import Store
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import GID, fake_owners, load_environment_file
from release_site import MODULE, Site, assert_in_order

SECRET = "q7Wd-Zk2pXv9Lr4T"


def variables(folder: Path) -> dict[str, str]:
    return load_environment_file((folder / "env").read_text(encoding="utf-8"))


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_are_in_the_release_and_for_the_app_alone(site: Site) -> None:
    files = {"config/deep/shop.toml": f"key = '{SECRET}'\nurl = '{{host}} {{data_dir}}'\n", "shop.py": "app = 7\n"}
    outcome = site.deploy(files=files)
    assert_in_order(site, outcome)
    folder = site.path(outcome)
    written = folder / "src/config/deep/shop.toml"
    assert written.read_text() == f"key = '{SECRET}'\nurl = 'www.shop.example {site.root}/data'\n"
    assert (folder / "app/shop.py").read_text() == "app = 7\n", "in the place of the repository's"
    for path in (written, folder / "src/shop.py"):
        assert (stat.S_IMODE(path.stat().st_mode), site.owners[path]) == (0o640, (0, GID))
    assert not list(folder.rglob("*.partial"))
    assert not any(SECRET in word for call in site.host.calls for word in call)
    assert SECRET not in (folder / "release.json").read_text()


def test_nothing_is_built_after_the_files_are_there(site: Site) -> None:
    before = len(site.host.calls)
    seen: list[bool] = []
    real = Build._build

    def build(self: Build, app_dir: Path, code: Path) -> Path:
        seen.append((app_dir / "shop.toml").exists())
        return real(self, app_dir, code)

    site.monkeypatch.setattr(Build, "_build", build)
    assert (site.path(site.deploy(files={"shop.toml": SECRET})) / "app/shop.toml").exists()
    assert seen == [False]
    assert len(site.host.calls) > before


def test_another_content_is_another_release_and_a_rollback_brings_the_old_one(site: Site) -> None:
    plain = site.deploy()
    first = site.deploy(files={"shop.toml": "one"})
    assert first.release != plain.release
    assert not site.deploy(files={"shop.toml": "one"}).changed
    plan = site.deploy(check=True, files={"shop.toml": "two"}).plan
    assert plan[0].endswith("with changes in: files")
    second = site.deploy(files={"shop.toml": "two"})
    assert (site.path(second) / "app/shop.toml").read_text() == "two"
    site.rollback(files={"shop.toml": "two"})
    assert site.host.served() == first.release
    assert (site.root / "current/app/shop.toml").read_text() == "one"


def test_the_first_domain_counts_where_it_is_used(site: Site) -> None:
    site.deploy(files={"shop.toml": "{data_dir} {!host}"})
    assert not site.deploy(files={"shop.toml": "{data_dir} {!host}"}, host="new.test").changed
    site.deploy(files={"shop.toml": "{host}"})
    site.deploy(files={"shop.toml": "{host}"}, host="new.test")
    assert (site.root / "current/app/shop.toml").read_text() == "new.test"


@pytest.mark.parametrize("path", ["static/shop.toml", "static/deep/shop.toml", "static/site.css"])
def test_a_file_that_would_be_published_is_refused(site: Site, path: str) -> None:
    error = site.refused(files={path: SECRET})
    assert "the web server publishes" in error.reason
    assert SECRET not in f"{error.reason} {error.cure}"


def test_a_file_in_a_linked_static_folder_is_refused(site: Site) -> None:
    site.change({"web/dist/app.js": "x"})
    (site.code / "public").symlink_to("web/dist")
    assert "the web server publishes" in site.refused(files={"web/dist/x": SECRET}, static_path="public").reason


def test_a_file_in_a_persistent_folder_is_refused(site: Site) -> None:
    error = site.refused(files={"instance/config.py": SECRET})
    assert "files names instance/config.py" in error.reason
    assert not (site.root / "data/instance/config.py").exists()


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes one file into a code tree; the folder outside of it must stay as it is."""
    fake_owners(monkeypatch)
    code, outside = tmp_path / "src", tmp_path / "outside"
    for folder in (code / "real", outside):
        folder.mkdir(parents=True)
    (code / "link").symlink_to(outside)
    (code / "inner").symlink_to("real")
    (outside / "there").write_text("old")
    (code / "final").symlink_to(outside / "there")
    (code / "dangling").symlink_to(outside / "new")
    os.mkfifo(code / "fifo")
    (code / "file").write_text("old")

    def write(name: str, content: str = SECRET) -> None:
        options = {"user": "shop", "files": {name: content}}
        try:
            Build(lambda *_a, **_k: (0, "", ""), options, Store(tmp_path), lambda _step: None)._write_files(
                code, None, GID, {}
            )
        finally:
            assert [path.name for path in outside.iterdir()] == ["there"]
            assert (outside / "there").read_text() == "old"
            assert (code / "final").is_symlink()
            assert not list(code.rglob("*.partial"))

    return write


@pytest.mark.parametrize(
    "name",
    ["link/x", "inner/x", "real/../../outside/x", "../outside/x", "..", "real/..", "/etc/shop.toml", "final",
     "dangling", "fifo", "real", "file/x", "fifo/x", "link/../x"],
)  # fmt: skip
def test_a_file_never_leaves_the_code_and_replaces_nothing_but_a_file(writer: Any, name: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        writer(name)
    assert f"files names {name}" in caught.value.reason
    assert SECRET not in caught.value.reason


@pytest.mark.parametrize(("name", "content"), [("a", f"{SECRET}\ud800"), ("\ud800", SECRET), ("a\0b", SECRET)])
def test_what_is_not_utf8_is_refused_without_its_content(writer: Any, name: str, content: str) -> None:
    with pytest.raises(ReleaseError, match="not valid UTF-8") as caught:
        writer(name, content)
    assert SECRET not in str(caught.value.reason)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/y"])
def test_too_long_a_name_is_an_error_of_the_disk(writer: Any, name: str) -> None:
    with pytest.raises(OSError, match="too long"):
        writer(name)


def test_files_are_no_parameter_that_ansible_shows() -> None:
    assert MODULE.ARGUMENT_SPEC["files"]["no_log"] is True


# -- variables under other names --------------------------------------------------------------------------------------


def test_variables_name_the_releases_own_folder(site: Site) -> None:
    given = {"FLASK_APP": "shop:app", "CONFIG": "{release_dir}/shop.toml", "STORE": "sqlite:///{data_dir}/x"}
    for number in range(2):
        site.change({"shop.py": f"app = {number}\n"})
        folder = site.path(site.deploy(environment=given))
        found = variables(folder)
        assert found["FLASKHOST_RELEASE_DIR"] == f"{folder}/app"
        assert found["CONFIG"] == f"{folder}/app/shop.toml"
        assert found["STORE"] == f"sqlite:///{site.root}/data/x"
    assert not site.deploy(environment=given).changed


def test_another_name_of_the_key_follows_its_rotation_and_outlives_no_release(site: Site) -> None:
    keys = environment.SecretKeys(Path(site.options["secrets_dir"]))

    def of_keys() -> dict[str, str]:
        return load_environment_file(keys.variables_file.read_text(encoding="utf-8"))

    first = site.deploy(secrets={"APP_SECRET": "{secret_key}"})
    assert "APP_SECRET" not in variables(site.path(first))
    assert site.record(first.release).key_names == ["APP_SECRET"]
    assert of_keys() == dict.fromkeys(("APP_SECRET", "SECRET_KEY"), keys.read()[0])
    # The module of the rotation knows no options of the app.
    environment.SecretKeys(Path(site.options["secrets_dir"])).write(["new", *keys.read()])
    assert of_keys()["APP_SECRET"] == of_keys()["SECRET_KEY"] == "new"
    site.deploy(secrets={"OTHER": "{secret_key}"})
    assert {"APP_SECRET", "OTHER"} <= of_keys().keys(), "a rollback needs the first one"
    site.options["keep_releases"] = 1
    for number in range(2):
        site.change({"shop.py": f"app = {number}\n"})
        site.deploy(secrets={"OTHER": "{secret_key}"})
    assert of_keys().keys() == {"OTHER", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}


def test_a_key_of_the_users_is_part_of_the_release(site: Site) -> None:
    found = variables(site.path(site.deploy(secrets={"SECRET_KEY": SECRET, "APP_SECRET": "{secret_key}"})))
    assert found["APP_SECRET"] == found["SECRET_KEY"] == SECRET


def test_the_name_of_the_database_in_a_secret_url_is_in_no_option_that_is_shown(site: Site) -> None:
    given = {"FLASK_APP": "shop:app", "STORE": "{database_url}"}
    outcome = site.deploy(environment=given, secrets={"DATABASE_URL": f"postgresql://shop:{SECRET}@db1/shop"})
    assert variables(site.path(outcome))["STORE"] == f"postgresql://shop:{SECRET}@db1/shop"
    assert SECRET not in json.dumps(given)


def test_the_release_command_needs_the_owners_login_under_each_name(site: Site, tmp_path: Path) -> None:
    owner = tmp_path / "owner.env"
    owner.write_text('DATABASE_URL="postgresql://shop-owner:sesame@/shop"\n')
    given = {"FLASK_APP": "shop:app", "STORE": "{database_url}"}
    options = {"release_command": "true", "owner_file": str(owner), "environment": given}
    error = site.refused(**options)
    assert "STORE names the database" in error.reason
    assert "site.yml" in error.cure
    owner.write_text(owner.read_text() + 'STORE="postgresql://shop-owner:sesame@/shop"\n')
    assert_in_order(site, site.deploy(**options))
