"""The place of a build: an account without rights, and folders that no other build and no app gets at."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ansible.module_utils.flaskhost.deploy import build_room, virtualenv
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError
from fakes import BUILD_GID, BUILD_UID, GID, UID, USER, nest
from virtualenv_workshop import Workshop, write


@pytest.mark.parametrize("user", ["a", "shop", "a" * 31, "a" * 30 + "b"])
def test_the_account_that_builds_is_no_apps(user: str) -> None:
    account = build_room.build_account(user)
    assert re.fullmatch(r"[a-z][a-z0-9-]*_[a-z0-9_]*build", account), "no app's name has an underscore"
    assert len(account) <= 32
    # Not another one at the next update: the cache would be another account's.
    assert build_room.build_account("a" * 26) == f"{'a' * 26}_build"
    assert build_room.build_account("a" * 27) == f"{'a' * 15}_cc0616e61c_build"
    assert build_room.build_account("a" * 31) != build_room.build_account("a" * 30 + "b")


def test_the_account_is_created_with_the_first_build(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.publish("gunicorn", "27.0.1")
    known, builder, made = pwd.getpwnam, workshop.builder(), []
    monkeypatch.setattr(pwd, "getpwnam", lambda name: known(name if made else "no-such-account"))
    run = builder.run

    def useradd(args: list[str], **options: object) -> tuple[int, str, str]:
        if args[0] != "useradd":
            return run(args, **options)
        made.append(args)
        return 0, "", ""

    builder.run = useradd
    assert virtualenv.is_whole(workshop.build(workshop.requirements(""), builder=builder))
    (command,) = made
    assert command[-1] == "shop_build"
    assert {"--system", "--user-group", "--no-create-home", "/usr/sbin/nologin"} <= {*command}


def test_a_cache_of_the_apps_own_user_is_not_used(workshop: Workshop) -> None:
    """An earlier version of Flaskhost built as that user."""
    workshop.publish("gunicorn", "27.0.1")
    poisoned = workshop.folder / "cache/shop/wheels/poison"
    poisoned.mkdir(parents=True)
    os.chown(workshop.folder / "cache/shop", UID, GID)
    workshop.build(workshop.requirements(""))
    assert not poisoned.exists()


def test_what_a_build_has_left_does_not_keep_the_next_one_from_starting(workshop: Workshop) -> None:
    workshop.publish("gunicorn", "27.0.1")
    nest(workshop.folder / "tmp/build")
    assert virtualenv.is_whole(workshop.build(workshop.requirements("")))


def room(workshop: Workshop, run: Any = None) -> build_room.Room:
    """A room of its own, with what it runs."""
    return build_room.Room(
        run or (lambda _args, **_options: (0, "", "")),
        user=USER,
        code=workshop.code,
        folder=workshop.folder / "venvs",
        cache=workshop.folder / "cache/shop",
    )


def test_its_folders_are_closed_and_the_accounts(workshop: Workshop) -> None:
    made = room(workshop)
    made.make_room()
    made.make_room()
    account = (BUILD_UID, BUILD_GID)
    for name, owner in {"cache/shop": account, "tmp": None, "tmp/build": account}.items():
        path = workshop.folder / name
        assert path.stat().st_mode & 0o777 == 0o700, name
        assert workshop.owners.get(path) == owner, name
    (workshop.folder / "tmp/build/left").touch()
    made.remove_room()
    assert list((workshop.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("owner", [0, BUILD_UID])
def test_a_cache_of_its_own_is_kept(workshop: Workshop, owner: int) -> None:
    """It makes the next build take a second, not a minute."""
    wheel = workshop.folder / "cache/shop/wheels/good"
    wheel.mkdir(parents=True)
    os.chown(workshop.folder / "cache/shop", owner, owner)
    room(workshop).make_room()
    assert wheel.exists()


def test_an_account_that_cannot_be_created_is_reported(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> NoReturn:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(
        ReleaseError, match="shop_build could not be created: useradd: cannot lock /etc/passwd"
    ) as error:
        room(workshop, lambda _args: (1, "", "useradd: cannot lock /etc/passwd")).make_room()
    assert "run the same command again" in error.value.cure
    assert not (workshop.folder / "tmp").exists()


def test_code_is_the_accounts_for_one_step(workshop: Workshop) -> None:
    lent = room(workshop)
    assert (lent.code_lent, lent.code_changed) == (False, False)
    write(workshop.code, shop_py="")
    lent.lend_code()
    assert (lent.code_lent, lent.code_changed) == (True, True)
    assert workshop.owners[workshop.code / "shop.py"][0] == BUILD_UID
    lent.take_back_code(GID, "Run the build command", "the build command")
    assert (lent.code_lent, lent.code_changed) == (False, True)
    assert workshop.owners[workshop.code / "shop.py"] == (0, GID)
    assert (workshop.code / "shop.py").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("bad", ["pipe", "link"])
def test_code_that_cannot_be_released_is_refused_with_who_left_it(workshop: Workshop, bad: str) -> None:
    lent = room(workshop)
    lent.lend_code()
    if bad == "pipe":
        os.mkfifo(workshop.code / "bad")
    else:
        (workshop.code / "bad").symlink_to("/etc/shadow")
    with pytest.raises(ReleaseError, match=r"an editable package left behind what cannot be released: .*bad") as error:
        lent.take_back_code(GID, "Build the virtual environment", "an editable package")
    assert error.value.step == "Build the virtual environment"
    assert STILL in error.value.cure
    assert not lent.code_lent, "nothing else may run on code that was taken back"


@pytest.mark.parametrize(
    ("resolver", "seen"), [("/run/systemd/resolve/stub-resolv.conf", True), ("/etc/resolv.conf", False)]
)
def test_a_build_sees_its_own_folders_and_can_resolve_names(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, resolver: str, seen: bool
) -> None:
    real = Path.resolve
    monkeypatch.setattr(Path, "resolve", lambda self: Path(resolver) if str(self) == "/etc/resolv.conf" else real(self))
    found = room(workshop).reach([Path("/srv/shop/code")], [Path("/srv/shop/venvs/1")])
    hidden = [str(workshop.folder.parent), str(workshop.folder / "cache"), "/run"]
    assert [line for line in found if line.startswith("Temp")] == [f"TemporaryFileSystem={each}:ro" for each in hidden]
    assert [line for line in found if line.startswith("Bind")] == [
        "BindReadOnlyPaths=/srv/shop/code",
        "BindPaths=/srv/shop/venvs/1",
        *(["BindReadOnlyPaths=-/run/systemd/resolve"] if seen else []),
    ]
    assert [line for line in found if line.startswith("Inaccessible")] == [
        f"InaccessiblePaths=-{path}" for path in ("/etc/flaskhost", "/var/backups", "/var/lib/postgresql")
    ]
