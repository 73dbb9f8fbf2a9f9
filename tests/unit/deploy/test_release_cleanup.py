"""Which releases are kept, and which ones go with a deploy."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.flaskhost.deploy import (
    records,
)
from ansible.module_utils.flaskhost.deploy.app import Outcome
from ansible.module_utils.flaskhost.deploy.records import RECORD
from fakes import tree
from release_site import CODE, Site, assert_in_order


def release_number(site: Site, number: int) -> Outcome:
    site.change({"shop.py": f"app = {number}\n", "requirements.txt": f"flask==3.1.{number}\n"})
    return site.deploy(keep_releases=3)


def test_so_many_releases_are_kept_with_their_environments(site: Site) -> None:
    made = [release_number(site, number).release for number in range(6)]
    assert site.ids() == sorted(made[-3:])
    venvs = {site.record(name).venv for name in made[-3:]}
    assert {path.name for path in (site.root / "venvs").iterdir()} == venvs
    assert_in_order(site)


def test_a_release_that_a_slot_holds_is_kept_however_old(site: Site) -> None:
    made = [release_number(site, number).release for number in range(3)]
    site.change({"shop.py": "app = 0\n", "requirements.txt": "flask==3.1.0\n"})
    back = site.deploy(keep_releases=1)
    assert back.release == made[0]
    assert site.ids() == [made[0], made[2]]
    assert_in_order(site, back)


def test_a_release_that_was_removed_in_part_is_not_served_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = release_number(site, 0)
    release_number(site, 1)

    remove = records.tree.remove

    def killed(name: str, parent: int) -> None:
        if name != first.release:
            return remove(name, parent)
        (site.path(first) / "src/shop.py").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.tree, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            site.change({"shop.py": "app = 2\n"})
            site.deploy(keep_releases=1)
    again = release_number(site, 0)
    assert_in_order(site, again)
    assert (site.path(again) / "app/shop.py").exists()


def test_a_release_that_was_never_healthy_goes_with_the_next_one_that_is(site: Site) -> None:
    first = site.deploy()
    site.change({"fails-the-gate": "", "requirements.txt": "flask==9\n"})
    site.refused()
    assert len(site.ids()) == len(list((site.root / "venvs").iterdir())) == 2
    (site.code / "fails-the-gate").unlink()
    second = site.deploy()
    assert site.ids() == sorted([first.release, second.release])


def test_a_refused_release_goes_with_a_deploy_that_has_nothing_else_to_do(site: Site) -> None:
    """The operator went back to the former code: no release is built, and the refused one is removed."""
    first = site.deploy()
    site.change({"fails-the-gate": "", "requirements.txt": "flask==9\n"})
    site.refused()
    assert len(site.ids()) == len(list((site.root / "venvs").iterdir())) == 2
    (site.code / "fails-the-gate").unlink()
    site.change(CODE)
    assert site.deploy(check=True).changed
    assert len(site.ids()) == 2
    outcome = site.deploy()
    assert (outcome.changed, outcome.release) == (True, first.release)
    assert site.ids() == [first.release]
    assert [path.name for path in (site.root / "venvs").iterdir()] == [site.record(first.release).venv]
    assert_in_order(site, first)
    assert not site.deploy().changed


def test_a_release_that_serves_is_kept_whatever_its_record_says(site: Site) -> None:
    first = site.deploy()
    for damage in ("{", None):
        record = site.path(first) / RECORD
        record.write_text(damage, encoding="utf-8") if damage else record.unlink()
        site.change({"shop.py": f"app = {damage!r}\n", "requirements.txt": f"flask=={bool(damage) + 1}\n"})
        before = tree(site.path(first) / "src")
        venv = (site.path(first) / "venv").resolve()
        second = site.deploy()
        assert_in_order(site, second)
        assert tree(site.path(first) / "src") == before
        assert venv.is_dir()
        first = second


def test_a_release_whose_record_is_damaged_goes_with_its_environment(site: Site) -> None:
    made = [release_number(site, number) for number in range(3)]
    (site.path(made[0]) / RECORD).write_text("{", encoding="utf-8")
    (site.path(made[1]) / RECORD).write_text('{"id": 1}', encoding="utf-8")
    last = release_number(site, 3)
    assert site.ids() == sorted([made[2].release, last.release])
    assert len(list((site.root / "venvs").iterdir())) == 2


def test_what_is_no_release_is_left_alone(site: Site) -> None:
    site.deploy()
    for folder in ("releases", "venvs"):
        (site.root / folder / "README").write_text("a hand's", encoding="utf-8")
    site.change({"shop.py": "app = 2\n"})
    site.deploy(keep_releases=1)
    assert (site.root / "releases/README").exists()
    assert (site.root / "venvs/README").exists()


def test_a_record_that_another_version_wrote_is_no_reason_to_stop(site: Site) -> None:
    first = site.deploy()
    record = site.path(first) / RECORD
    content = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**content, "of_tomorrow": "abc"}), encoding="utf-8")
    assert not site.deploy().changed
    # One that Flaskhost of yesterday wrote.
    older = {
        name: content[name] for name in ("id", "identity", "version", "revision", "venv", "created", "healthy", "size")
    }
    record.write_text(json.dumps(older), encoding="utf-8")
    assert not site.deploy().changed
    site.change({"shop.py": "app = 2\n"})
    assert_in_order(site, site.deploy())
    assert site.rollback().release == first.release
