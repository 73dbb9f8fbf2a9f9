"""What a deploy of a hostile app meets: its own functions in its database, and the names and links in its source."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from tenants import PROJECT, hosts, playbook, with_app
from test_postgres import owner

testinfra_hosts = hosts("trixie")

#: As the owner of a database can: functions in the place of PostgreSQL's, which print without end.
NOISE = """
CREATE FUNCTION public.noise() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN LOOP RAISE WARNING '%', repeat('x', 1000); END LOOP; END $$;
CREATE FUNCTION public.pg_advisory_lock(bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM public.noise(); END $$;
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN PERFORM public.noise(); END $$;
ALTER DATABASE mallory SET search_path = public, pg_catalog;
"""
NO_NOISE = """
SET search_path = pg_catalog;
DROP FUNCTION IF EXISTS public.noise(), public.pg_advisory_lock(bigint), public.clock_timestamp();
ALTER DATABASE mallory RESET search_path;
"""


def test_functions_of_an_app_do_not_delay_its_deploy(host: Any) -> None:
    try:
        assert owner(host, NOISE).rc == 0
        for call in ("pg_advisory_lock(7)", "clock_timestamp()"):
            control = owner(host, f"SET client_min_messages = error; SET statement_timeout = '1s'; SELECT {call};")
            assert "statement timeout" in control.stderr, "control: in its own sessions, the app's function is called"
        began = time.monotonic()
        wanted = with_app("mallory", release_command="true", env={"TRY": "noise"})
        status, output = playbook("deploy", host, app="mallory", **wanted)
        assert status == 0, output
        assert time.monotonic() - began < 300
    finally:
        owner(host, NO_NOISE)
        assert playbook("deploy", host, app="mallory", **with_app("mallory"))[0] == 0


# -- names and links of a source --------------------------------------------------------------------------------------

#: A path that would add a line to a unit of systemd, and a name with everything else that a shell or a unit could read.
ADDS_A_LINE = "x\nExecStopPost=+/usr/bin/touch /pwned"
ODD = "-ä b%s$c;$(touch pwned)`touch pwned`'\"${HOME}{data_dir}&|*"


def source(folder: Path, name: str) -> dict[str, Any]:
    """The hostile app's code, in a folder of this name that only a link leads to."""
    shutil.copytree(PROJECT / "tests/apps/hostile", folder / name)
    (folder / "app").symlink_to(name)
    # Another one each time: a release that is there already is not built again.
    (folder / name / "number").write_text(uuid.uuid4().hex, encoding="utf-8")
    return {"path": str(folder), "subdir": "app"}


def run_again(host: Any) -> None:
    """Return to the app's own source."""
    assert playbook("deploy", host, app="mallory", **with_app("mallory"))[0] == 0


@pytest.mark.nightly
def test_no_name_in_a_source_is_executed(host: Any, visitor: Any, tmp_path: Path) -> None:
    before = host.check_output("readlink /srv/mallory/current")
    # systemd reads each transient unit again.
    reload = "systemctl daemon-reload"
    for number, name in enumerate((ADDS_A_LINE, "x\\")):
        told = source(tmp_path / str(number), name)
        # The command has this working directory. Other units of the app have the path of the link.
        wanted = with_app("mallory", source=told, build_command="true")
        status, output = playbook("deploy", host, app="mallory", **wanted)
        host.check_output(reload)
        assert status != 0, output
        assert "a control character, a backslash or invalid UTF-8" in output
    assert host.check_output("readlink /srv/mallory/current") == before
    try:
        # Both a build and a release command have this working directory, or run while the other app is deployed.
        wanted = with_app(
            "mallory", source=source(tmp_path / "odd", ODD), build_command="pwd > where", release_command="true"
        )
        status, output = playbook("deploy", host, app="mallory", **wanted)
        host.check_output(reload)
        assert status == 0, output
        assert visitor.ask("https://mallory.test/").status == 200
        assert ODD in host.check_output("cat %s", f"/srv/mallory/current/src/{ODD}/where")
    finally:
        run_again(host)
    assert host.check_output("find / -xdev -name pwned -type f") == ""


@pytest.mark.nightly
def test_links_in_a_source_neither_lead_out_nor_hold_root(host: Any, tmp_path: Path) -> None:
    chain = [(f"l{number}", f"l{number + 1}") for number in range(20_000)]
    loops = [("here", "."), ("start", "here/../" * 45 + "l0")]
    for number, links in enumerate(
        (chain, [*loops, *chain], [("out", f"{'here/' * 30}../../../../../etc/shadow"), loops[0]])
    ):
        told = source(tmp_path / str(number), "code")
        for name, target in links:
            (tmp_path / str(number) / name).symlink_to(target)
        began = time.monotonic()
        status, output = playbook("deploy", host, app="mallory", **with_app("mallory", source=told))
        assert time.monotonic() - began < 200
        assert status != 0, output
        assert "is a link over too many other links" in output or "out is a link to" in output, output
