"""flaskhost-certificates killed at any moment: a repeat ends well, and orders nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificate_fakes import Host, make_host
from fakes import Killer
from flaskhost_certificates import state
from flaskhost_certificates.config import CertificateError
from flaskhost_certificates.store import Store


def whole(host: Host) -> None:
    """What is installed is a pair, for each site that has any."""
    for item in host.config.certificates:
        try:
            pair = Store(item.certificate, item.key).installed()
        except CertificateError:
            pytest.fail("half a pair")
        assert pair is None or pair.fits


@pytest.mark.parametrize("verb", ["prepare", "apply", "drop"])
def test_killed_before_any_change_to_the_disk_a_repeat_ends_well(tmp_path: Path, monkeypatch, verb: str) -> None:
    def begin(folder: Path) -> Host:
        host = make_host(folder, monkeypatch)
        host.configure(host.site("shop"))
        if verb != "prepare":
            host.prepare()
            host.load()
        if verb == "drop":
            host.apply()
            host.configure()
        return host

    def work(host: Host) -> None:
        host.prepare() if verb == "prepare" else host.apply()

    (tmp_path / "0").mkdir()
    # The store has a test of its own of this kind.
    with Killer(but="store.py") as counted:
        host = begin(tmp_path / "0")
        counted.count = 0
        work(host)
        total = counted.count
    assert total > 2
    for number in range(1, total + 1):
        (tmp_path / str(number)).mkdir()
        host = begin(tmp_path / str(number))
        with Killer(number, "store.py"), pytest.raises(KeyboardInterrupt):
            work(host)
        whole(host)
        assert not host.first_run().problems, number
        assert not host.apply().changed, number
        if verb == "drop":
            assert not (host.root / "tls/shop").exists()
            assert not (host.config.letsencrypt / "live/flask-shop").exists()
            assert state.names(host.config.state) == []
        else:
            assert host.is_trusted("shop.test")
            assert host.state("shop").announced == host.installed("shop").fingerprint


@pytest.mark.parametrize("moment", ["certonly", "reload", "after the order"])
def test_killed_at_a_command_a_repeat_ends_well_and_orders_nothing_twice(host: Host, moment: str) -> None:
    host.prepare()
    host.load()
    host.kill_at = moment
    with pytest.raises(KeyboardInterrupt):
        host.apply()
    host.kill_at = ""
    assert not host.apply().problems
    assert host.is_trusted("shop.test")
    assert len(host.orders) == 2
    assert not host.apply().changed
