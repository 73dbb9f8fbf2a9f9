"""Without `hardening_pam` wrong passwords are not counted and old ones are taken, on a host that had it before."""

from __future__ import annotations

from typing import Any

import pytest
from test_hardening import become, change, tester  # noqa: F401 - the last one is a fixture
from undo import apply

testinfra_hosts = ["ansible://role_hardening"]
pytestmark = pytest.mark.nightly

FIRST, SECOND = "Vq7#mZ2!xR9_pLw4sD-kT6b", "Hn3%wB8?cF5=jYt1eU+aG9v"


def counts(host: Any) -> bool:
    """Whether a right password is refused after as many wrong ones as close an account."""
    for _try in range(5):
        assert not become(host, "wrong")
    closed = not become(host, FIRST)
    host.run("faillock --user tester --reset")
    return closed


def takes_an_old_one(host: Any) -> bool:
    """Whether the user may take the password before the last one again, and has it then."""
    assert change(host, FIRST, SECOND).rc == 0
    taken = change(host, SECOND, FIRST).rc == 0
    if not taken:
        host.run_expect([0], f"printf 'tester:%s' '{FIRST}' | chpasswd --crypt-method YESCRYPT")
    return taken


@pytest.fixture
def user(host: Any, tester: str) -> str:  # noqa: F811 - the fixture
    """A user with a good password, and the operator in the group that may become it."""
    host.run_expect([0], "gpasswd --add debian operators")
    assert change(host, "open sesame", FIRST).rc == 0
    return tester


def test_wrong_passwords_are_not_counted_and_old_ones_taken_without_pam(host, user):
    assert counts(host), "control"
    assert not takes_an_old_one(host), "control"
    try:
        assert apply(host, hardening_pam=False) > 0
        assert not counts(host)
        assert takes_an_old_one(host)
        assert apply(host, hardening_pam=False) == 0
    finally:
        apply(host)
    assert counts(host), "and again"
    assert not takes_an_old_one(host), "and again"
