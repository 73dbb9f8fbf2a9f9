"""The place of a build: an account without rights, and folders that no other build and no app gets at."""

from __future__ import annotations

import os
import pwd
import re

import pytest
from ansible.module_utils.flaskhost.deploy import build_room, virtualenv
from fakes import GID, UID, nest
from virtualenv_workshop import Workshop


@pytest.mark.parametrize("user", ["a", "shop", "a" * 31, "a" * 30 + "b"])
def test_the_account_that_builds_is_no_apps(user: str) -> None:
    account = build_room.build_account(user)
    assert re.fullmatch(r"[a-z][a-z0-9-]*_[a-z0-9_]*build", account), "no app's name has an underscore"
    assert len(account) <= 32
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
