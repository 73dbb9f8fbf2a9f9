"""A hostile app's own functions in its database, which a deploy asks for the app's lock, the time and the revision."""

from __future__ import annotations

import time
from typing import Any

from tenants import hosts, playbook, with_app
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
