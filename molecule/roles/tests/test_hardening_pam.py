"""Without `hardening_pam` wrong passwords are not counted and old ones are taken, on a host that had it before."""

from __future__ import annotations

from typing import Any

import pytest
from test_hardening import become, change, tester  # noqa: F401 - the last one is a fixture
from undo import apply

testinfra_hosts = ["ansible://role_hardening"]
pytestmark = pytest.mark.nightly

FIRST = "Vq7#mZ2!xR9_pLw4sD-kT6b"
#: One for each time: a password that the user has had is refused as an old one.
OTHERS = ("Hn3%wB8?cF5=jYt1eU+aG9v", "Zk4@sM9;dL6.rXq2oW:bN8h", "Pf5^gT7,vJ3~uCe9iA-mD1y")


def counts(host: Any) -> bool:
    """Whether a right password is refused after as many wrong ones as close an account."""
    for _try in range(5):
        assert not become(host, "wrong")
    closed = not become(host, FIRST)
    host.run("faillock --user tester --reset")
    return closed


def takes_an_old_one(host: Any, other: str) -> bool:
    """Whether the user, after another password, may take the first one again. The user has it in any case."""
    changed = change(host, FIRST, other)
    assert changed.rc == 0, changed
    taken = change(host, other, FIRST).rc == 0
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
    assert not takes_an_old_one(host, OTHERS[0]), "control"
    try:
        assert apply(host, hardening_pam=False) > 0
        assert not counts(host)
        assert takes_an_old_one(host, OTHERS[1])
        assert apply(host, hardening_pam=False) == 0
    finally:
        apply(host)
    assert counts(host), "and again"
    assert not takes_an_old_one(host, OTHERS[2]), "and again"
