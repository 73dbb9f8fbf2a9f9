"""docs/promises.md: each promise names tests that exist and what runs them, which runs that scenario."""

from __future__ import annotations

import re

import pytest
import yaml
from named_tests import ROOT, STEP, TEST, missing, nightly_of, rows

GUIDE = ROOT / "docs" / "promises.md"
COLUMNS = 3
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
#: The scenarios that make test runs.
DAILY = set(re.search(r"(?m)^SCENARIO \?= (.*)$", MAKEFILE).group(1).split())


def runs_daily(file, name):
    """Whether make test runs a test or a step of a scenario."""
    if file.startswith("tests/unit/"):
        return True
    if file.split("/")[0] not in DAILY:
        return False
    return file.endswith(".yml") or name not in nightly_of(ROOT / "molecule" / file)


def test_table_is_read():
    assert len(rows(GUIDE)) > 40


@pytest.mark.parametrize("row", rows(GUIDE), ids=lambda row: row[0][:40])
def test_promise_names_tests_that_exist_and_what_runs_them(row):
    assert len(row) == COLUMNS, row
    _promise, tests, run_by = row
    named = TEST.findall(tests) + STEP.findall(tests)
    assert len(named) == tests.count("::") > 0, tests
    assert missing(tests) == []
    commands = {"`make test`" if runs_daily(file, name) else "`make nightly`" for file, name in named}
    assert {command.strip() for command in run_by.split(",")} == commands


def test_guide_is_listed_in_the_readme():
    assert "(docs/promises.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_nights_of_the_workflow_are_those_of_make():
    parts = re.findall(r'"([^"]+)"|(\S+)', re.search(r"(?m)^NIGHTLY \?= (.*)$", MAKEFILE).group(1))
    workflow = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["nightly"]["strategy"]["matrix"]["part"] == [quoted or bare for quoted, bare in parts]
    for quoted, bare in parts:
        assert re.search(rf"(?m)^{(quoted or bare).split()[0]}: ", MAKEFILE)
