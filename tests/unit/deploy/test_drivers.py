"""The driver of an app's database: which one is installed, the URL that names it, and what is said if there is none."""

from __future__ import annotations

import stat
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.deploy import database, drivers
from ansible.module_utils.flaskhost.deploy.hints import hint
from ansible.module_utils.flaskhost.host.runner import ReleaseError
from fakes import Unit, read_systemd_run
from release_site import Site

URI = "postgresql+psycopg://shop@/shop?host=/var/run/postgresql"
DATABASE = {"DATABASE_URL": "postgresql://shop@/shop?host=/var/run/postgresql", drivers.VARIABLE: URI}
OLD, NEW = {"sqlalchemy": "2.0.44"}, {"sqlalchemy": "2.1.9"}


def install(environment: Path, *packages: str) -> Path:
    place = environment / "lib/python3.13/site-packages"
    for name in packages:
        (place / f"{name}.dist-info").mkdir(parents=True)
    return environment


def test_packages_are_read_from_the_names_of_folders(tmp_path: Path) -> None:
    install(tmp_path / "venv", "SQLAlchemy-2.0.44", "psycopg2_binary-2.9.13", "psycopg-3.3.9")
    (tmp_path / "venv/lib/python3.13/site-packages/psycopg").mkdir()
    (tmp_path / "link").symlink_to("venv")
    wanted = {"sqlalchemy": "2.0.44", "psycopg2-binary": "2.9.13", "psycopg": "3.3.9"}
    assert drivers.packages(tmp_path / "venv") == drivers.packages(tmp_path / "link") == wanted
    assert drivers.packages(tmp_path / "none") == {}


@pytest.mark.parametrize("part", ["lib", "lib/python3.13", "lib/python3.13/site-packages"])
def test_no_link_in_an_environment_is_followed(tmp_path: Path, part: str) -> None:
    """A package can put one there while it is built."""
    install(tmp_path / "elsewhere", "psycopg-3.3.9")
    link = tmp_path / "venv" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere" / part)
    assert drivers.packages(tmp_path / "venv") == {}


def test_names_are_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, *(f"p{number}-1" for number in range(9)))
    monkeypatch.setattr(drivers, "_MOST", 5)
    assert len(drivers.packages(tmp_path)) == 5


def test_packages_from_a_url_can_be_left_out(tmp_path: Path) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    for name in ("Flask-3.1.3", "my_lib-1.0+local.1", "git-1.0", "bad name-1", "evil-1\n--index-url x"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    (packages / "git-1.0.dist-info/direct_url.json").touch()
    wanted = {"flask": "3.1.3", "my-lib": "1.0+local.1"}
    assert drivers.packages(tmp_path, from_index=True) == wanted
    assert drivers.packages(tmp_path) == {**wanted, "git": "1.0"}


@pytest.mark.parametrize(
    ("installed", "named", "driver"),
    [
        ({**NEW, "psycopg": "3.3.9", "psycopg2": "2.9"}, "auto", "psycopg"),
        ({**OLD, "psycopg": "3.3.9", "psycopg2-binary": "2.9"}, "auto", "psycopg"),
        ({"sqlalchemy": "1.4.54", "psycopg": "3.3.9", "psycopg2-binary": "2.9"}, "auto", "psycopg2"),
        ({"sqlalchemy": "2", "psycopg": "3.3.9"}, "auto", "psycopg"),
        ({**NEW, "psycopg2-binary": "2.9"}, "auto", "psycopg2"),
        ({**OLD, "psycopg2": "2.9"}, "auto", "psycopg2"),
        ({**NEW, "pg8000": "1"}, "auto", "pg8000"),
        ({**NEW, "asyncpg": "1", "pg8000": "1"}, "auto", "pg8000"),
        ({**NEW, "asyncpg": "1"}, "auto", "asyncpg"),
        ({"psycopg2": "2.9"}, "auto", "psycopg2"),
        ({**NEW, "psycopg": "3.3.9", "psycopg2": "2.9"}, "psycopg2", "psycopg2"),
        (NEW, "auto", ""),
        ({}, "auto", ""),
    ],
)
def test_the_installed_driver_is_chosen(installed: dict[str, str], named: str, driver: str) -> None:
    assert drivers.choose(installed, named) == driver


@pytest.mark.parametrize(
    ("uri", "driver", "made"),
    [
        (URI, "psycopg", URI),
        (URI, "", URI),
        (URI, "psycopg2", "postgresql+psycopg2://shop@/shop?host=/var/run/postgresql"),
        (f"{URI}&port=6432", "asyncpg", "postgresql+asyncpg://shop@/shop?host=/var/run/postgresql&port=6432"),
        (URI, "pg8000", "postgresql+pg8000://shop@/shop?unix_sock=/var/run/postgresql/.s.PGSQL.5432"),
        (f"{URI}&port=6432&a=1", "pg8000",
         "postgresql+pg8000://shop@/shop?unix_sock=/var/run/postgresql/.s.PGSQL.6432&a=1"),
        ("postgresql+psycopg://shop-owner:a-_b@/shop?host=/var/run/postgresql", "psycopg2",
         "postgresql+psycopg2://shop-owner:a-_b@/shop?host=/var/run/postgresql"),
        ("postgresql+psycopg://shop:pw@db1/shop?host=/x", "psycopg2", "postgresql+psycopg://shop:pw@db1/shop?host=/x"),
        (DATABASE["DATABASE_URL"], "psycopg2", DATABASE["DATABASE_URL"]),
    ],
)  # fmt: skip
def test_only_flaskhosts_own_url_gets_the_driver(uri: str, driver: str, made: str) -> None:
    assert drivers.with_driver(uri, driver) == made


@pytest.mark.parametrize(
    ("installed", "named", "words"),
    [
        (NEW, "auto", ("but its packages contain no driver", 'extra_packages: ["psycopg[binary]==3.3.9"]')),
        ({"sqlalchemy": "1.4.54"}, "auto", ("no driver", "psycopg2-binary==2.9.13")),
        ({"sqlalchemy": "1.4.54", "psycopg": "3.3.9"}, "auto", ("1.4 cannot use psycopg 3", "psycopg2-binary==2.9.13")),
        ({**NEW, "psycopg": "3.3.9"}, "psycopg2", ("database_driver is psycopg2", "database_driver: psycopg,")),
        (NEW, "pg8000", ("database_driver is pg8000", "Add it: pg8000, in the lock file.")),
    ],
)  # fmt: skip
def test_a_missing_driver_is_named_with_the_line_to_add(
    installed: dict[str, str], named: str, words: tuple[str, str]
) -> None:
    fault = drivers.find_fault(installed, named)
    assert fault
    assert [word in text for word, text in zip(words, fault, strict=True)] == [True, True], fault


@pytest.mark.parametrize(
    ("installed", "named"),
    [
        ({**NEW, "psycopg": "3.3.9"}, "auto"),
        ({**OLD, "psycopg2-binary": "2.9"}, "psycopg2"),
        # Not through SQLAlchemy.
        ({}, "auto"),
        ({"psycopg": "3.3.9"}, "psycopg2"),
        ({**NEW, "psycopg2cffi": "1"}, "auto"),
        # The user knows better: psycopg is for code of the app's own.
        ({"sqlalchemy": "1.4.54", "psycopg": "3.3.9"}, "psycopg"),
    ],
)
def test_nothing_is_said_of_an_app_that_can_connect(installed: dict[str, str], named: str) -> None:
    assert drivers.find_fault(installed, named) is None


# --- In a release ----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    # Whether or not there is a psql where the tests run.
    monkeypatch.setattr(database.Database, "lock", lambda *_arguments: nullcontext())
    monkeypatch.setattr(database.Database, "revision", lambda _self: "")
    monkeypatch.setattr(database.Database, "time", lambda _self: "")
    site.options["environment"].update(DATABASE)
    site.options["database_driver"] = "auto"
    return site


def lock(site: Site, *packages: str) -> None:
    site.change({"requirements.txt": "".join(f"{name}\n" for name in ("flask==3.1.3", *packages))})


def variables(site: Site, release: str) -> dict[str, str]:
    lines = (site.root / "releases" / release / "env").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize("package", ["psycopg", "psycopg2_binary"])
def test_a_release_has_the_driver_of_its_packages(shop: Site, package: str) -> None:
    lock(shop, "SQLAlchemy==2.1.9", f"{package}==1")
    shop.options["environment"]["STORE"] = "{sqlalchemy_database_uri}"
    release = shop.deploy().release
    found, driver = variables(shop, release), package.removesuffix("_binary")
    assert found[drivers.VARIABLE] == found["STORE"] == URI.replace("psycopg", driver)
    assert found["DATABASE_URL"] == DATABASE["DATABASE_URL"]
    assert shop.record(release).driver == driver


def test_the_driver_makes_no_new_release(shop: Site) -> None:
    """Neither does the update to the version of Flaskhost that looks for it."""
    lock(shop, "SQLAlchemy==2.1.9", "psycopg2==1")
    assert variables(shop, shop.deploy(database_driver="").release)[drivers.VARIABLE] == URI
    assert not shop.deploy().changed


def test_a_url_of_the_users_own_stays_as_it_is(shop: Site) -> None:
    lock(shop, "SQLAlchemy==2.1.9")
    outcome = shop.deploy(database_driver="")
    assert variables(shop, outcome.release)[drivers.VARIABLE] == URI
    assert outcome.warnings == []


def test_without_a_driver_nothing_of_the_app_is_started(shop: Site) -> None:
    lock(shop, "SQLAlchemy==2.1.9")
    refused = shop.refused(release_command="true")
    assert refused.step == "Check the database driver"
    assert 'extra_packages: ["psycopg[binary]==3.3.9"]' in refused.cure
    assert not any("/bin/sh" in call for call in shop.host.calls)
    assert shop.ids() == []


def test_an_app_that_has_always_worked_without_a_driver_is_only_warned(shop: Site) -> None:
    lock(shop, "SQLAlchemy==2.1.9")
    shop.deploy(database_driver="")
    shop.change({"shop.py": "app = 2\n"})
    outcome = shop.deploy()
    assert "contain no driver. The live release has the same" in outcome.warnings[0]


def test_a_release_that_loses_its_driver_is_refused(shop: Site) -> None:
    lock(shop, "SQLAlchemy==2.1.9", "psycopg==3.3.9")
    shop.deploy()
    lock(shop, "SQLAlchemy==2.1.9")
    assert "contain no driver" in shop.refused().reason


@pytest.fixture
def owner(shop: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = shop.folder / "database_owner.env"
    login = URI.replace("shop@", "shop-owner:sesame@")
    file.write_text(f'{drivers.VARIABLE}="{login}"\nSTORE="{login}&a=1"\n', encoding="utf-8")
    monkeypatch.setattr(drivers, "RUNTIME", shop.folder / "runtime")
    return file


def test_the_release_command_has_the_owners_login_with_the_same_driver(shop: Site, owner: Path) -> None:
    lock(shop, "SQLAlchemy==2.1.9", "psycopg2==1")
    seen: list[tuple[str, int]] = []
    units: list[Unit] = []
    real = shop.host._run

    def run(args: list[str], **options: Any) -> tuple[int, str, str]:
        if "/bin/sh" in args:
            # The file is gone afterwards.
            units.append(read_systemd_run(args))
            file = Path(units[0].properties["EnvironmentFile"][-1])
            seen.append((file.read_text(encoding="utf-8"), stat.S_IMODE(file.stat().st_mode)))
        return real(args, **options)

    shop.monkeypatch.setattr(shop.host, "_run", run)
    shop.deploy(release_command="true", owner_file=str(owner))
    login = "postgresql+psycopg2://shop-owner:sesame@/shop?host=/var/run/postgresql"
    assert seen == [(f'{drivers.VARIABLE}="{login}"\nSTORE="{login}&a=1"\n', 0o600)]
    own = units[0].properties["EnvironmentFile"][-1]
    assert units[0].properties["ExecStopPost"][-1] == f"-+/bin/rm --force {own}"
    assert list((shop.folder / "runtime").iterdir()) == []
    assert not any("sesame" in item for call in shop.host.calls for item in call)


def test_with_psycopg_the_owners_file_itself_is_used(shop: Site, owner: Path) -> None:
    lock(shop, "SQLAlchemy==2.1.9", "psycopg==3.3.9")
    shop.deploy(release_command="true", owner_file=str(owner))
    unit = read_systemd_run(next(call for call in shop.host.calls if "/bin/sh" in call))
    assert unit.properties["EnvironmentFile"][-1] == str(owner)
    assert not drivers.RUNTIME.exists()


def test_a_temporary_login_is_removed_if_the_command_fails(shop: Site, owner: Path) -> None:
    with pytest.raises(ReleaseError), drivers.owner_login(str(owner), "psycopg2"):
        raise ReleaseError("", "", "")
    assert list(drivers.RUNTIME.iterdir()) == []


# --- Hints -----------------------------------------------------------------------------------------------------------

TRACE = (
    '  File "/venv/lib/sqlalchemy/dialects/postgresql/{0}.py", line 6\n    import {0}\n'
    "ModuleNotFoundError: No module named {0!r}"
)


@pytest.mark.parametrize(
    ("installed", "missing", "words"),
    [
        ({**OLD, "psycopg": "3.3.9"}, "psycopg2", "2.0 then uses psycopg2. The app's packages contain psycopg."),
        ({**NEW, "psycopg2": "2.9"}, "psycopg", "2.1 then uses psycopg. The app's packages contain psycopg2."),
        (OLD, "psycopg2", "no driver for PostgreSQL"),
        ({**NEW, "psycopg": "3"}, "psycopg2", "no driver for PostgreSQL"),
    ],
)  # fmt: skip
def test_a_url_without_a_driver_has_a_hint(installed: dict[str, str], missing: str, words: str) -> None:
    found = hint(TRACE.format(missing), installed)
    assert words in found
    assert ('env: {DATABASE_URL: "{sqlalchemy_database_uri}"}' in found) is ("then uses" in words)


def test_an_import_of_the_apps_own_has_the_usual_hint() -> None:
    assert "no driver" in hint(
        "import psycopg2\nModuleNotFoundError: No module named 'psycopg2'", {**OLD, "psycopg": "3"}
    )
