"""The web server may read one folder of the data, by the option protected_files, from the first release on."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from ansible.module_utils.flaskhost.deploy import protected
from ansible.module_utils.flaskhost.host import acl
from release_site import Site, assert_in_order

WEB = "nobody"


def rights(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return acl.read(descriptor).rights(pwd.getpwnam(WEB).pw_uid)
    finally:
        os.close(descriptor)


@pytest.fixture
def shared(site: Site) -> Site:
    site.options |= {"persistent": ["instance", "uploads"], "protected_folder": "uploads", "web_user": WEB}
    site.host.quick = False
    return site


def test_folder_is_readable_from_the_first_release_on(shared: Site) -> None:
    # Its name there says that the build has created it, with the files of the source.
    assert "uploads" in shared.deploy().new_folders
    data = shared.root / "data"
    assert (rights(data), rights(data / "uploads"), rights(data / "instance")) == (1, 5, 0)
    assert not shared.deploy().changed
    assert_in_order(shared)


def test_option_needs_no_release(shared: Site) -> None:
    first = shared.deploy(protected_folder="")
    data = shared.root / "data"
    assert rights(data) is None
    assert shared.deploy(check=True).changed
    assert rights(data) is None
    assert shared.deploy().changed
    assert rights(data / "uploads") == 5
    assert shared.deploy(check=True, protected_folder="").changed
    assert shared.deploy(protected_folder="").changed
    assert rights(data) is rights(data / "uploads") is None
    assert data.stat().st_mode & 0o777 == 0o700
    assert not shared.deploy(protected_folder="").changed
    assert shared.path(first).name == shared.host.served()


def test_folder_in_a_persistent_one_is_created(shared: Site) -> None:
    shared.options["protected_folder"] = "instance/files"
    shared.deploy()
    assert rights(shared.root / "data/instance/files") == 5
    assert rights(shared.root / "data/instance") == 1
    assert not shared.deploy().changed


def test_a_rollback_works_whatever_the_app_has_made_of_the_folder(shared: Site) -> None:
    first = shared.deploy()
    shared.change({"shop.py": "app = 2\n"})
    shared.deploy()
    assert rights(shared.root / "data/uploads") == 5
    (shared.root / "data/uploads").rename(shared.root / "data/gone")
    (shared.root / "data/uploads").symlink_to("gone")
    assert shared.rollback().release == first.release


@pytest.mark.parametrize("place", ["uploads", "."])
def test_a_link_is_refused_and_what_serves_stays(shared: Site, place: str) -> None:
    shared.deploy(protected_folder="")
    path = (shared.root / "data" / place).resolve()
    path.rename(shared.folder / "elsewhere")
    path.symlink_to(shared.folder / "elsewhere")
    error = shared.refused()
    assert error.step == protected.STEP
    assert "follows no links" in error.reason
    assert "mount" in error.cure
    assert "still serves" in error.cure
    assert not shared.deploy(protected_folder="").changed, "the operator's link, without the option"


def test_without_a_web_server_there_is_nobody_to_read(shared: Site) -> None:
    shared.deploy(web_user="web-none", protected_folder="")
    assert "has no user web-none" in shared.refused(web_user="web-none").reason


def test_file_system_without_acls_is_named(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.deploy(protected_folder="")

    def none(*_arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", none)
    assert "no ACLs" in shared.refused().reason
