"""How much an app may hold of a file system: what is read from the host, and what is set.

The kernel's part needs a file system with project quotas; molecule/machine/vm/tests/test_disk.py shows it there.
"""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.flaskhost.host import quotas
from ansible.module_utils.flaskhost.host.quotas import Bound, FileSystem
from ansible.module_utils.flaskhost.preflight import disk_warnings
from fakes import nest
from loading import load_plugin

MOUNTS = r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard,prjquota
30 22 254:2 / /srv rw,relatime shared:2 - xfs /dev/vdb rw,attr2,pquota
31 22 254:3 / /srv/my\040disk rw - ext4 /dev/vdc rw
32 22 0:24 / /tmp rw - tmpfs tmpfs rw,prjquota
"""
CSV = """\
Project,BlockStatus,FileStatus,BlockUsed,BlockSoftLimit,BlockHardLimit,BlockGrace,FileUsed,FileSoftLimit,FileHardLimit,FileGrace
#0,ok,ok,16464,0,0,,23,0,0,
#1234567890,ok,ok,2048,0,307200,,40,0,19660,
"""


@pytest.mark.parametrize(
    ("path", "mount", "has"),
    [
        ("/var/lib", "/", True),
        ("/srv/shop", "/srv", True),
        ("/srv/my disk/x", "/srv/my disk", False),
        ("/tmp/a", "/tmp", False),
    ],
)
def test_the_file_system_of_a_path_is_the_nearest_mount(path: str, mount: str, has: bool) -> None:
    found = quotas.file_system(Path(path), MOUNTS.strip())
    assert (found.mount, found.has_quotas) == (mount, has)


@pytest.mark.parametrize(
    ("limit", "size"), [("10G", 10 * 1024**3), ("500M", 500 * 1024**2), ("50%", 2**39), ("2T", 2**41)]
)
def test_a_limit_is_a_size_or_a_share(limit: str, size: int) -> None:
    assert quotas.size(limit, 2**40) == size


def test_projects_differ_and_are_none_that_an_administrator_would_choose() -> None:
    numbers = {quotas.project_of(name) for name in ("shop", "shop-2", "blog", "a")}
    assert len(numbers) == 4
    assert all(2**30 <= number < 2**31 for number in numbers)
    assert quotas.project_of("shop") == quotas.project_of("shop"), "the same on every host, after every restart"


class Quotas:
    """A stand-in for repquota and setquota."""

    def __init__(self, answer: str = CSV) -> None:
        self.answer, self.set = answer, []

    def __call__(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        if command[0] == "repquota":
            return 0, self.answer, ""
        self.set.append(command[1:])
        return 0, "", ""


def test_what_is_bounded_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "wanted", lambda _limit, _mount: Bound(307200, 19660))
    run = Quotas()
    assert quotas.hold(run, "/", [("shop", 1234567890, "300M")]) == []
    assert run.set == []


def test_a_new_bound_is_set_and_only_told_in_check_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "wanted", lambda _limit, _mount: Bound(1024, 100))
    run = Quotas()
    assert quotas.hold(run, "/", [("blog", 7, "1M")], change=False) == ["blog: 1M of /"]
    assert run.set == []
    assert quotas.hold(run, "/", [("blog", 7, "1M")]) == ["blog: 1M of /"]
    assert run.set == [["-P", "7", "0", "1024", "0", "100", "/"]]


def test_a_bound_below_what_is_held_is_refused_with_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "wanted", lambda _limit, _mount: Bound(1024, 100))
    run = Quotas()
    with pytest.raises(
        quotas.QuotaError, match=r"shop uses 2 MB on /; its limits.disk is 1M.*\n.*flask_apps.shop.limits"
    ):
        quotas.hold(run, "/", [("shop", 1234567890, "1M")])
    assert run.set == []


def test_quotas_that_are_off_are_an_error_that_names_the_command() -> None:
    with pytest.raises(quotas.QuotaError, match="quotaon -p -P /"):
        quotas.bounds(lambda _command: (1, "", "repquota: Mountpoint / not found or has no quota enabled."), "/")


def test_a_link_is_not_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas.fcntl, "ioctl", lambda *_: pytest.fail("nothing is asked of what a link leads to"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    assert quotas.adopt(tmp_path / "link", 7) is False
    assert quotas.adopt(tmp_path / "missing", 7) is False


class Projects:
    """A stand-in for the kernel's part: what belongs to the project, and when it was given to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[str] = []
        monkeypatch.setattr(quotas, "_belongs", lambda descriptor, _project: self.path(descriptor) in self.given)
        monkeypatch.setattr(quotas, "_give", lambda descriptor, _project: self.give(self.path(descriptor)))

    def give(self, path: str) -> None:
        if path not in self.given:
            self.given.append(path)

    @staticmethod
    def path(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def test_what_a_tenant_puts_into_its_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projects = Projects(monkeypatch)
    (outside := tmp_path / "outside").mkdir()
    (outside / "secret").write_text("of another")
    (top := tmp_path / "top").mkdir()
    (top / "own").write_text("mine")
    (top / "below").mkdir()
    (top / "below" / "file").touch()
    (top / "link").symlink_to(outside / "secret")
    (top / "folder").symlink_to(outside)
    os.mkfifo(top / "pipe")
    assert quotas.adopt(top, 7) is True
    assert sorted(projects.given) == sorted(map(str, [top / "own", top / "below", top / "below/file", top]))
    assert projects.given[-1] == str(top), "the folder itself is the last: a run that was killed begins anew"


def test_what_an_app_creates_meanwhile_belongs_to_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projects, written = Projects(monkeypatch), set()
    (top := tmp_path / "top").mkdir()
    (top / "below").mkdir()

    def write_after(listing: Any) -> Any:
        """List a folder; right after that the app writes into it, as the kernel has it, with the folder's project."""

        def listed(descriptor: Any) -> Any:
            found = list(listing(descriptor))
            folder = projects.path(descriptor) if isinstance(descriptor, int) else str(descriptor)
            if folder not in written and Path(folder).name in ("top", "below"):
                written.add(folder)
                late = Path(folder, "late")
                for path in (late, late / "folder", late / "folder" / "in"):
                    path.mkdir()
                    if str(path.parent) in projects.given:
                        projects.give(str(path))
            return iter(found)

        return listed

    monkeypatch.setattr(os, "listdir", write_after(os.listdir))
    monkeypatch.setattr(os, "scandir", write_after(os.scandir))
    assert quotas.adopt(top, 7) is True
    monkeypatch.undo()
    assert len(written) == 2
    assert {str(path) for path in top.rglob("*")} - {*projects.given} == set()


def test_a_run_that_was_killed_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projects = Projects(monkeypatch)
    (top := tmp_path / "top").mkdir()
    (top / "below" / "deeper").mkdir(parents=True)
    projects.give(str(top / "below"))
    assert quotas.adopt(top, 7) is True
    assert str(top / "below" / "deeper") in projects.given


@pytest.mark.parametrize(("most", "fits"), [(20_000, True), (1000, False)])
def test_folders_in_each_other_do_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, fits: bool
) -> None:
    given = set()
    monkeypatch.setattr(quotas, "_belongs", lambda descriptor, _project: os.fstat(descriptor).st_ino in given)
    monkeypatch.setattr(quotas, "_give", lambda descriptor, _project: given.add(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(quotas, "_DEEPEST", most, raising=False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, limits[0]), limits[1]))
    (top := tmp_path / "top").mkdir()
    nest(top, 3000)
    open_before = len([*Path("/proc/self/fd").iterdir()])
    try:
        if fits:
            assert quotas.adopt(top, 7) is True
            assert len(given) == 3001
        else:
            with pytest.raises(quotas.QuotaError, match=f"{top} has more than 1000 nested folders"):
                quotas.adopt(top, 7)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1024
        assert len([*Path("/proc/self/fd").iterdir()]) == open_before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        # Python's own rmtree() fails at this depth.
        subprocess.run(["rm", "-rf", str(top)], check=True)


def test_postgresql_starts_without_the_bounds_and_gets_them_back() -> None:
    files = quotas.start_units(
        "postgresql@17-main.service", "pg_isready", "/", {9: Bound(1024, 10), 7: Bound(2048, 20)}
    )
    drop_in, unit = files.values()
    assert list(files) == [
        "/etc/systemd/system/postgresql@17-main.service.d/70-flaskhost-bounds.conf",
        "/etc/systemd/system/flaskhost-bounds-postgresql-17-main.service",
    ]
    assert drop_in.index("setquota -P 7 0 0 0 0 /") < drop_in.index("setquota -P 9 0 0 0 0 /")
    assert "Wants=flaskhost-bounds-postgresql-17-main.service" in drop_in
    assert "Restart=on-failure" in drop_in
    assert (
        unit.index("pg_isready") < unit.index("setquota -P 7 0 2048 0 20 /") < unit.index("setquota -P 9 0 1024 0 10 /")
    )


# -- preflight -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mounts", "apps", "database", "named"),
    [
        ([("/", "rw,prjquota")], True, True, ""),
        ([("/", "rw")], True, True, "/srv and /var/lib/postgresql"),
        ([("/", "rw"), ("/srv", "rw,pquota")], True, True, "/var/lib/postgresql"),
        ([("/", "rw,prjquota"), ("/srv", "rw")], True, True, "/srv"),
        ([("/", "rw"), ("/srv", "rw,prjquota")], True, False, ""),
        ([("/", "rw"), ("/var", "rw,prjquota")], False, True, ""),
        ([], True, False, "/srv"),
    ],
)
def test_preflight_warns_if_nothing_bounds_a_disk(
    mounts: list[tuple[str, str]], apps: bool, database: bool, named: str
) -> None:
    facts = {"mounts": [{"mount": mount, "options": options} for mount, options in mounts]}
    said = disk_warnings(facts, "web1", runs_apps=apps, runs_database=database)
    assert len(said) == bool(named)
    for line in said:
        assert line.startswith("web1: limits.disk")
        assert f"The file system of {named} has no project quotas" in line
        assert "docs/isolation.md" in line


def test_has_quotas_needs_a_file_system_that_has_projects() -> None:
    assert not FileSystem("/", "/dev/vda1", "btrfs", ("rw", "prjquota")).has_quotas


# -- the module database_bounds ----------------------------------------------------------------------------------------


@pytest.fixture
def database_bounds() -> Any:
    return load_plugin("plugins/modules/database_bounds.py")


def test_databases_that_a_restore_has_put_aside_count_for_nobody(
    database_bounds: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted: dict[str, int] = {}
    monkeypatch.setattr(quotas, "adopt", lambda top, project, _change: bool(adopted.setdefault(str(top), project) or 1))
    monkeypatch.setattr(quotas, "hold", lambda _run, _mount, limits, _change: [str(limits)])
    monkeypatch.setattr(quotas, "wanted", lambda _limit, _mount: Bound(1024, 10))
    monkeypatch.setattr(database_bounds, "units", lambda *_: [])
    module = SimpleNamespace(check_mode=False, run_command=None, params={"databases": {"shop": "1G", "free": ""}})
    found = {"shop": 5, "shop_before_20261124": 6, "free": 7, "postgres": 1, "stranger_before_1": 8}
    (old := tmp_path / "15/base/5").mkdir(parents=True)
    there = {"15": tmp_path / "15", "17": Path("/17")}
    monkeypatch.setattr(database_bounds.postgres_server, "clusters", lambda _name: there)
    database_bounds.bound(module, FileSystem("/", "/dev/vda1", "ext4"), Path("/17/base"), found)
    assert adopted == {str(old): 0, "/17/base/5": quotas.project_of("shop"), "/17/base/6": 0}
    # What an upgrade has left may be links of what is there now.
    assert next(iter(adopted)) == str(old)


@pytest.mark.parametrize(("asked", "cluster"), [("", "17/main"), ("15/main", "15/main")])
def test_the_cluster_is_the_newest_that_starts_at_boot(
    database_bounds: Any, monkeypatch: pytest.MonkeyPatch, asked: str, cluster: str
) -> None:
    there = {version: Path() for version in ("9", "15", "17", "18")}
    monkeypatch.setattr(database_bounds.postgres_server, "clusters", lambda _name: there)
    monkeypatch.setattr(database_bounds.postgres_server, "starts", lambda folder: "18" not in folder.parts)
    assert database_bounds.cluster(SimpleNamespace(params={"cluster": asked})) == cluster
