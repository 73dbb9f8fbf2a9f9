"""The fixture that the tests of flaskhost-certificates share."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificate_fakes import Host, make_host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = make_host(tmp_path, monkeypatch)
    host.configure(host.site("shop", "shop.test", "www.shop.test"), host.site("blog"))
    return host
