"""Preflight: the values of PostgreSQL's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost.postgres import server
from preflight_cases import case_name, problems_of

EXTRA = "postgres_extra_settings."
VALUE_FAULTS: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("bad_setting_value", "work_mem", "64 bananas", {}),
    ("bad_setting_value", "work_mem", "64 mb", {}),
    ("bad_setting_value", "statement_timeout", "5sec", {}),
    ("bad_setting_value", "work_mem", "64MB", {"settings": {"work_mem": "it says no."}}),
    ("unknown_library", "shared_preload_libraries", "pg_stat_statement", {}),
    ("unknown_library", "shared_preload_libraries", "pg_stat_statements, nope", {}),
    ("unknown_library", "session_preload_libraries", "nope", {"libraries": ["auto_explain"]}),
]


@pytest.mark.parametrize(("kind", "name", "value", "said"), VALUE_FAULTS, ids=case_name)
def test_one_fault_of_a_value(kind: str, name: str, value: Any, said: dict[str, Any]) -> None:
    site = {"postgres_extra_settings": {name: value}}
    assert problems_of(site, answers={"postgres": said}) == {(kind, EXTRA + name)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("work_mem", "64MB"),
        ("work_mem", 65536),
        ("statement_timeout", "1.5 min"),
        ("random_page_cost", 1.1),
        ("cluster_name", "7 dwarfs"),
        ("log_line_prefix", "%m"),
        ("seq_page_cost", "1e3"),
        ("huge_page_size", "0x10"),
        ("jit", False),
        ("shared_preload_libraries", "pg_stat_statements,auto_explain"),
        ("shared_preload_libraries", '"$libdir/auto_explain.so"'),
    ],
)
def test_a_value_in_order(name: str, value: Any) -> None:
    assert problems_of({"postgres_extra_settings": {name: value}}) == set()


def test_the_servers_word_on_a_value_is_the_last_one() -> None:
    site = {"postgres_extra_settings": {"my.motto": "7 dwarfs"}}
    assert problems_of(site) == {("bad_setting_value", EXTRA.rstrip(".") + '["my.motto"]')}
    assert problems_of(site, answers={"postgres": {"settings": {"my.motto": ""}}}) == set()


def test_a_library_may_come_with_a_package() -> None:
    site = {"postgres_extra_settings": {"shared_preload_libraries": "pgaudit"}}
    assert problems_of(site, {"postgres_extra_packages": ["postgresql-17-pgaudit"]}) == set()
    assert problems_of(site) == {("unknown_library", EXTRA + "shared_preload_libraries")}
    assert problems_of(site, answers={"postgres": {"libraries": ["pgaudit"]}}) == set()


def test_a_library_that_is_not_there_is_found_before_a_restart(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    for name in ("auto_explain", "plugins/mine", "own"):
        (tmp_path / f"{name}.so").touch()
    text = (
        f"shared_preload_libraries = 'auto_explain,\"$libdir/own.so\", {tmp_path}/own, nope'\n"
        "session_preload_libraries = 'mine'\nlocal_preload_libraries = 'mine'\nwork_mem = '1MB'\n"
    )
    assert server.missing_libraries(text, tmp_path) == ["nope", "mine"]
    assert server.missing_libraries(f"dynamic_library_path = '/x'\n{text}", tmp_path) == []
