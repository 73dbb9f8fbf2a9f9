"""What the tests of the gallery share: the apps' names, and what is known of their releases on a host."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

APPS = yaml.safe_load((Path(__file__).parents[1] / "group_vars" / "all" / "apps.yml").read_text())["flask_apps"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes ``app`` with each of the twelve apps."""
    if "app" in metafunc.fixturenames:
        metafunc.parametrize("app", APPS)


@pytest.fixture
def history(host: Any) -> Callable[[str], list[dict[str, Any]]]:
    """The function that returns which releases of an app were live, oldest first."""
    return lambda name: json.loads(host.file(f"/srv/{name}/history.json").content_string)


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """The function that waits until another one returns something true, for at most half a minute."""

    def wait(check: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (found := check()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    return wait
