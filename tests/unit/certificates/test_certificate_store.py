"""A pair on the disk: what nginx reads is always a matching pair, whatever happens to the run that changes it."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from fakes import Killer
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.pairs import Pair, load, sign
from flaskhost_certificates.store import Store, write_file

NOW = 1_800_000_000.0
ONE, TWO, THREE, FOUR, FIVE = (sign([f"{name}.shop.test"], NOW) for name in "abcde")


def make(folder: Path) -> Store:
    return Store(folder / "tls/shop/fullchain.pem", folder / "tls/shop/privkey.pem")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel has been told to keep matters after a power failure, which no test here brings about."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make(tmp_path)


def put_plain(store: Store, certificate: bytes | None, key: bytes | None) -> None:
    """Make the files of an earlier release, or of somebody's hand."""
    store.folder.mkdir(parents=True, exist_ok=True)
    for path, data in ((store.certificate, certificate), (store.key, key)):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)


def versions(store: Store) -> set[str]:
    return {path.name for path in store.versions.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_pair(store: Store) -> None:
    assert store.installed() is None
    assert store.current() == ""
    before = os.umask(0o077)
    try:
        assert store.install(ONE)
    finally:
        os.umask(before)
    assert store.installed() == ONE
    assert store.current() == ONE.fingerprint
    assert str(store.certificate.readlink()) == "current/fullchain.pem"
    assert str(store.key.readlink()) == "current/privkey.pem"
    assert str(store.link.readlink()) == f"versions/{ONE.fingerprint}"
    folders = (store.folder, store.versions, store.versions / ONE.fingerprint)
    assert [mode(path) for path in folders] == [0o700] * 3
    assert (mode(store.certificate), mode(store.key)) == (0o644, 0o600)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "current",
        "fullchain.pem",
        "privkey.pem",
        "versions",
    ]


def test_the_same_pair_again_changes_nothing(store: Store) -> None:
    store.install(ONE)
    before = [(path, path.lstat().st_ctime_ns, path.lstat().st_ino) for path in sorted(store.folder.rglob("*"))]
    assert not store.install(Pair(ONE.chain, ONE.key))
    assert before == [(path, path.lstat().st_ctime_ns, path.lstat().st_ino) for path in sorted(store.folder.rglob("*"))]


def test_permissions_are_put_right_and_are_no_change_of_the_pair(store: Store) -> None:
    store.install(ONE)
    store.key.chmod(0o644)
    store.folder.chmod(0o755)
    assert not store.install(ONE)
    assert (mode(store.key), mode(store.folder)) == (0o600, 0o700)


def test_the_pair_changes_by_one_rename(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.install(ONE)
    seen = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        seen.append((Path(target).name, store.installed()))
        real(source, target)
        seen.append((Path(target).name, store.installed()))

    monkeypatch.setattr(os, "replace", replace)
    assert store.install(TWO)
    assert seen == [("current", ONE), ("current", TWO)]


def test_the_last_versions_are_kept(store: Store) -> None:
    for pair in (ONE, TWO, THREE, FOUR):
        store.install(pair)
    assert versions(store) == {item.fingerprint for item in (TWO, THREE, FOUR)}
    # The oldest is back, and is the last one now.
    store.install(TWO)
    store.install(FIVE)
    assert versions(store) == {item.fingerprint for item in (TWO, FOUR, FIVE)}
    assert store.installed() == FIVE


def test_an_older_version_that_is_back_is_younger_than_the_services_last_reload(store: Store) -> None:
    store.install(ONE)
    store.install(TWO)
    time.sleep(0.02)
    loaded_at = time.time()
    time.sleep(0.02)
    assert store.install(ONE)
    for path in (store.certificate, store.key):
        assert path.stat().st_ctime > loaded_at
        assert path.stat().st_mtime < loaded_at, "nothing else has been changed"


def test_who_loads_the_files_right_before_the_rename_has_not_missed_the_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.install(ONE)
    real, loaded = os.replace, []

    def replace(source: Path, target: Path) -> None:
        time.sleep(0.02)
        loaded.append(time.time())
        time.sleep(0.02)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    store.install(TWO)
    assert store.certificate.stat().st_ctime > loaded[-1]


# --- Files of an earlier release, or of somebody's hand ---------------------------------------------------------------


def test_plain_files_become_a_version(store: Store) -> None:
    put_plain(store, b"# remark\n" + ONE.chain.replace(b"\n", b"\r\n"), ONE.key)
    assert store.current() == ""
    assert store.install(TWO)
    assert store.installed() == TWO
    assert versions(store) == {ONE.fingerprint, TWO.fingerprint}
    assert (store.versions / ONE.fingerprint / "privkey.pem").read_bytes() == ONE.key
    put_plain(store, THREE.chain, THREE.key)
    assert store.install(THREE), "nginx may not have read them"
    assert store.current() == THREE.fingerprint
    assert store.certificate.is_symlink()
    assert not store.install(THREE)


UNUSABLE = [
    (ONE.chain[:200], ONE.key),
    (ONE.chain, b""),
    (ONE.chain, None),
    (None, ONE.key),
    (ONE.key, ONE.chain),
]


@pytest.mark.parametrize(("certificate", "key"), UNUSABLE)
def test_what_cannot_be_used_is_not_lost(store: Store, certificate: bytes | None, key: bytes | None) -> None:
    put_plain(store, certificate, key)
    assert store.install(TWO)
    assert store.installed() == TWO
    (name,) = versions(store) - {TWO.fingerprint}
    assert name.startswith("replaced-")
    assert name.removeprefix("replaced-").isdigit()
    kept = {path.name: path.read_bytes() for path in (store.versions / name).iterdir()}
    assert kept == {
        name: data for name, data in (("fullchain.pem", certificate), ("privkey.pem", key)) if data is not None
    }
    assert all(mode(path) == 0o600 for path in (store.versions / name).iterdir())
    # Certificates come and go, and it stays.
    for pair in (ONE, THREE, FOUR, FIVE):
        store.install(pair)
    assert versions(store) == {name, *(item.fingerprint for item in (THREE, FOUR, FIVE))}


def test_a_key_under_the_name_of_a_certificate_is_readable_for_nobody(store: Store) -> None:
    put_plain(store, ONE.key, None)
    store.install(TWO)
    (folder,) = store.versions.glob("replaced-*")
    assert mode(folder / "fullchain.pem") == 0o600


def test_several_that_cannot_be_used_in_one_second(store: Store) -> None:
    put_plain(store, b"first", b"")
    store.folder.mkdir(exist_ok=True)
    store.versions.mkdir()
    names = [store._set_aside({"fullchain.pem": text}, NOW) for text in (b"first", b"second", b"first")]
    assert names == ["replaced-1800000000", "replaced-1800000000-2", "replaced-1800000000"]


def test_one_file_by_hand_over_its_link(store: Store) -> None:
    store.install(ONE)
    store.key.unlink()
    store.key.write_bytes(TWO.key)
    assert not store.installed().fits
    assert store.install(ONE)
    assert store.installed() == ONE
    assert not store.install(ONE)


def test_a_version_that_was_damaged_is_made_anew(store: Store) -> None:
    store.install(ONE)
    store.certificate.write_bytes(b"damage")
    with pytest.raises(CertificateError, match=r"fullchain\.pem contains no PEM certificate"):
        store.installed()
    assert store.install(ONE)
    assert store.installed() == ONE
    assert [path.read_bytes() for path in store.versions.glob("replaced-*/fullchain.pem")] == [b"damage"]
    # And one that is not current.
    store.install(TWO)
    (store.versions / ONE.fingerprint / "privkey.pem").unlink()
    assert store.install(ONE)
    assert store.installed() == ONE


def test_what_nginx_read_of_a_damaged_version_stays_until_the_new_one_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.install(ONE)
    store.certificate.write_bytes(b"damage")
    real, seen = os.rename, []

    def rename(source: Path, target: Path) -> None:
        real(source, target)
        seen.append(store.certificate.read_bytes())

    monkeypatch.setattr(os, "rename", rename)
    store.install(ONE)
    assert set(seen) == {b"damage"}


def test_what_an_earlier_run_has_kept_is_not_kept_twice(store: Store) -> None:
    """It was killed between the two links, a while ago."""
    put_plain(store, None, ONE.key)
    kept = store.versions / "replaced-1"
    kept.mkdir(parents=True)
    (kept / "fullchain.pem").write_bytes(b"damage")
    (kept / "privkey.pem").write_bytes(ONE.key)
    store.link.symlink_to("versions/replaced-1")
    store.certificate.symlink_to("current/fullchain.pem")
    assert store.current() == "", "no pair"
    assert store.install(TWO)
    assert versions(store) == {"replaced-1", TWO.fingerprint}


def test_a_link_that_is_missing_comes_back(store: Store) -> None:
    for path in (store.certificate, store.key, store.link):
        store.install(ONE)
        path.unlink()
        assert store.installed() is None
        assert store.install(ONE)
        assert store.installed() == ONE
    assert versions(store) == {ONE.fingerprint}


def test_links_to_elsewhere_are_plain_files(store: Store, tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    put_plain(store, None, None)
    for path, data in ((store.certificate, ONE.chain), (store.key, ONE.key)):
        (tmp_path / "live" / path.name).write_bytes(data)
        path.symlink_to(tmp_path / "live" / path.name)
    assert store.install(TWO)
    assert store.installed() == TWO
    assert (tmp_path / "live/fullchain.pem").read_bytes() == ONE.chain
    assert ONE.fingerprint in versions(store)


# --- Killed ----------------------------------------------------------------------------------------------------------


class Death(Killer):
    """Before every change to the disk: the making of files, their times and modes too."""

    CHANGES = (*Killer.CHANGES, "fchmod", "fsync", "open", "utime")


def situation(store: Store, name: str) -> Pair | None:
    """Bring about what the run finds; returns the pair that nginx reads before."""
    if name.startswith("plain"):
        put_plain(store, ONE.chain, ONE.key)
        return ONE
    if name.startswith("unusable"):
        put_plain(store, *UNUSABLE[int(name[-1])])
        return None
    for pair in {"first": [], "next": [ONE], "fourth": [FOUR, THREE, ONE], "back": [TWO, ONE]}[name]:
        store.install(pair)
    return store.installed()


@pytest.mark.parametrize("name", ["first", "next", "fourth", "back", "plain", *(f"unusable {n}" for n in range(5))])
def test_killed_before_any_change_to_the_disk(tmp_path: Path, name: str) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        store = make(tmp_path / str(number))
        before = situation(store, name)
        lost = {path.name: path.read_bytes() for path in (store.certificate, store.key) if path.is_file()}
        where = name
        try:
            with Death(number) as death:
                store.install(TWO)
            killed = False
        except KeyboardInterrupt:
            where = f"{name}, before change {number}: {death.last}"
            try:
                read = load(store.certificate, store.key)
            except CertificateError:
                read = None
            assert read in (before, TWO), where
        changed = store.install(TWO)
        if not killed:
            assert not changed
        assert store.installed() == TWO, where
        left = [path.name for path in store.folder.rglob("*") if "partial" in path.name]
        assert left == [], where
        usable = {item for item in versions(store) if not item.startswith("replaced-")}
        assert len(usable) <= 3, where
        replaced = versions(store) - usable
        assert len(replaced) == name.startswith("unusable"), where
        if before is not None:
            assert before.fingerprint in usable, where
        for folder in replaced:
            assert {path.name: path.read_bytes() for path in (store.versions / folder).iterdir()} == lost, where
        assert not store.install(TWO), where
    assert number > 8


def test_killed_while_it_takes_in_files_twice(tmp_path: Path) -> None:
    """A second kill, in the run that repeats the first."""
    for first in range(8, 24, 3):
        for second in range(1, 24, 2):
            store = make(tmp_path / f"{first}-{second}")
            put_plain(store, ONE.chain, ONE.key)
            for number in (first, second):
                try:
                    with Death(number):
                        store.install(TWO)
                except KeyboardInterrupt:
                    assert load(store.certificate, store.key) in (ONE, TWO)
            store.install(TWO)
            assert store.installed() == TWO
            assert versions(store) == {ONE.fingerprint, TWO.fingerprint}


def test_half_of_a_removed_version_is_never_taken_for_one(tmp_path: Path) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        store = make(tmp_path / str(number))
        for pair in (FOUR, THREE, ONE):
            store.install(pair)
        try:
            with Death(number):
                store.install(TWO)
            killed = False
        except KeyboardInterrupt:
            pass
        store.install(FOUR)
        assert not list(store.versions.glob("replaced-*"))


def test_killed_while_it_removes(tmp_path: Path) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        store = make(tmp_path / str(number))
        for pair in (ONE, TWO):
            store.install(pair)
        try:
            with Death(number):
                store.remove()
            killed = False
        except KeyboardInterrupt:
            store.remove()
        assert not store.folder.exists()
    assert number > 8
    store.remove()


# --- What cannot be done ---------------------------------------------------------------------------------------------


def test_a_key_that_does_not_belong_is_not_installed(store: Store) -> None:
    store.install(ONE)
    with pytest.raises(CertificateError, match="its private key does not belong"):
        store.install(Pair(TWO.chain, ONE.key))
    assert store.installed() == ONE


def test_a_disk_that_refuses_is_a_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.install(ONE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CertificateError) as caught:
        store.install(TWO)
    assert "could not be installed: No space left on device" in caught.value.reason
    assert "run the same command again" in caught.value.cure
    assert store.installed() == ONE
    monkeypatch.undo()
    assert store.install(TWO)


def test_two_folders_are_refused(tmp_path: Path) -> None:
    for certificate, key in (("a/fullchain.pem", "b/privkey.pem"), ("a/x.pem", "a/x.pem")):
        with pytest.raises(CertificateError, match="not two files of one folder"):
            Store(tmp_path / certificate, tmp_path / key)


def test_a_file_by_a_rename(tmp_path: Path) -> None:
    path = tmp_path / "hsts.map"
    assert write_file(path, b"one", 0o644)
    assert not write_file(path, b"one", 0o644)
    first = path.stat().st_ino
    assert write_file(path, b"two", 0o600)
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    assert path.stat().st_ino != first
    (tmp_path / ".hsts.map.partial").write_bytes(b"of a run that was killed")
    assert write_file(path, b"three", 0o600)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(CertificateError, match=r"none/x could not be written: No such file"):
        write_file(tmp_path / "none/x", b"", 0o644)
