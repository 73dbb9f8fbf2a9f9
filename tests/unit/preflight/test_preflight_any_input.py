"""Preflight falls over no input, and shows no secret of it."""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.module_utils.flaskhost.apps.schema import Option
from ansible.module_utils.flaskhost.preflight import role_options, settings
from ansible.module_utils.flaskhost.settings.acme import ACME_OPTIONS
from loading import ROOT
from preflight_cases import (
    GOOD_APP,
    GOOD_FACTS,
    OTHER_APP,
    PAIR,
    SCALARS,
    SECRET,
    SPECS,
    A,
    Trap,
    found,
    good_apps,
    merged,
)


def test_a_template_that_fails_is_a_problem_among_others(project: Path) -> None:
    apps = good_apps({"wsgi": 7}) | {"blog": Trap(OTHER_APP, domains=["blog.localhost"], config="trap")}
    problems = preflight.find_problems(apps, {}, {}, project)
    assert found(problems) == {("wrong_type", A + "wsgi"), ("undefined", "flask_apps.blog.config")}
    assert "the filter failed" in problems[-1]["problem"]


@pytest.mark.parametrize("option", ["certificate", "key"])
def test_the_reason_of_a_failed_template_shows_nothing_of_a_key(project: Path, option: str) -> None:
    tls = PAIR | {option: preflight.Unreadable(f"cannot decode {SECRET}")}
    problems = preflight.find_problems(good_apps({"tls": tls}), {}, {}, project)
    assert found(problems) == {("undefined", f"{A}tls.{option}")}
    assert SECRET not in preflight.render(problems, "web1")


@pytest.mark.parametrize("option", ["env", "secrets"])
def test_the_reason_of_a_failed_template_is_not_shown_where_it_may_hold_a_secret(project: Path, option: str) -> None:
    values = {
        "TOKEN": preflight.Unreadable(f"cannot decode {SECRET}"),
        "MISSING": preflight.Unreadable("'v' is undefined"),
    }
    problems = preflight.find_problems(good_apps({option: values}), {}, {}, project)
    assert found(problems) == {("undefined", f"{A}{option}.TOKEN"), ("undefined", f"{A}{option}.MISSING")}
    assert SECRET not in preflight.render(problems, "web1")
    assert "the variable v is not defined" in problems[-1]["problem"]


def junk(generator: random.Random, depth: int = 0) -> Any:
    """A random value: YAML's types, and some that YAML cannot make."""
    kind = generator.random()
    if depth > 5 or kind < 0.55:
        return generator.choice(SCALARS)
    if kind < 0.75:
        return [junk(generator, depth + 1) for _ in range(generator.randrange(4))]
    content = {generator.choice(JUNK_KEYS): junk(generator, depth + 1) for _ in range(generator.randrange(8))}
    return Trap(content) if kind < 0.85 else content


def every_key(options: Mapping[str, Option]) -> list[str]:
    return [name for key, option in options.items() for name in (key, *every_key(option.options))]


KEYS = [
    *every_key(APP_OPTIONS),
    *every_key(ACME_OPTIONS),
    *settings.SETTINGS,
    *GOOD_FACTS,
    "name",
    "keys",
    "port",
    "from",
    "protocol",
]
JUNK_KEYS = [*KEYS, *(scalar for scalar in SCALARS if scalar.__hash__)]


def test_no_input_raises_and_no_secret_is_shown(project: Path) -> None:
    generator = random.Random(20261121)
    told: set[str] = set()
    for _round in range(800):
        apps, site, facts = (junk(generator) for _ in range(3))
        if generator.random() < 0.7:
            options = {key: junk(generator) for key in generator.sample(list(APP_OPTIONS), 6)}
            apps = {"shop": merged(GOOD_APP, options), "todo": Trap({generator.choice(KEYS): junk(generator)})}
            apps["shop"]["secrets"] = {"TOKEN": SECRET, "OTHER": [SECRET], "trap": SECRET}
            apps["shop"]["tls"] = {"mode": "files", "certificate": junk(generator), "key": SECRET}
            site = {key: junk(generator) for key in settings.SETTINGS}
            if generator.random() < 0.5:
                site["acme"] = {key: junk(generator) for key in ACME_OPTIONS}
                site["acme"]["external_account"] = {"key_id": junk(generator), "hmac_key": f"{SECRET}+"}
            facts = {key: junk(generator) for key in GOOD_FACTS}
        problems = preflight.find_problems(apps, site, facts, project)
        for problem in problems:
            assert list(problem) == ["kind", "path", "problem", "example"]
            assert all(isinstance(text, str) and text for text in problem.values()), problem
        told |= {problem["kind"] for problem in problems}
        message = preflight.render(problems, "web1")
        message.encode()
        assert SECRET not in message
        assert "\x1b" not in message
        assert isinstance(preflight.find_access_problems([apps, {"attempt": site}, {"attempt": facts}], "web1"), list)
    # The fuzz reaches deep: many rules have spoken.
    assert len(told) >= 20, sorted(told)


def test_no_value_raises() -> None:
    generator = random.Random(20261123)

    def junk(depth: int = 0) -> Any:
        kind = generator.random()
        if depth > 3 or kind < 0.5:
            return generator.choice(SCALARS)
        if kind < 0.75:
            return [junk(depth + 1) for _ in range(generator.randrange(4))]
        keys = [scalar for scalar in [*SCALARS, *role_options.EGRESS_OPTIONS] if scalar.__hash__]
        return {generator.choice(keys): junk(depth + 1) for _ in range(generator.randrange(5))}

    for _round in range(300):
        options = {name: junk() for name in SPECS}
        site = {"postgres_extra_settings": {"work_mem": junk(), "shared_preload_libraries": junk()}, "backup": junk()}
        site |= {name: junk() for name in ("package_index", "private_address", "deploy_batch", "clone_target")}
        apps = good_apps({"timers": junk()})
        odd = {
            "answers": junk(),
            "clocks": generator.choice((junk(), {"web1": [9, 10], "web2": junk(), "web3": [0, 1]})),
        }
        problems = preflight.find_problems(apps, site, {}, ROOT, options=options, specs=SPECS, host="web1", **odd)
        preflight.render(problems, "web1").encode()
        preflight.host_questions(apps, site)


def test_the_module_runs_where_preflight_has_yet_to_refuse() -> None:
    """On an old Python it has to run, so that preflight can say that it is too old."""
    for path in ("module_utils/flaskhost/host/questions.py", "modules/preflight_host.py"):
        ast.parse((ROOT / "plugins" / path).read_text(), feature_version=(3, 7))
    assert sys.version_info >= (3, 11)
