"""The stacks of PAM, played through: whoever got in before has to get in after.

The stacks below are what Debian 12's pam-auth-update made of the role's profiles, not written by hand.
"""

from __future__ import annotations

import pytest
from ansible.module_utils.flaskhost.host import pam_stack

AUTH = """\
auth	required			pam_faillock.so preauth
auth	[success=3 default=ignore]	pam_unix.so try_first_pass
auth	[default=die]			pam_faillock.so authfail
auth	sufficient			pam_faillock.so authsucc
auth	requisite			pam_deny.so
auth	required			pam_permit.so
"""
DEBIANS_AUTH = """\
# /etc/pam.d/common-auth
auth	[success=1 default=ignore]	pam_unix.so nullok
auth	requisite			pam_deny.so
auth	required			pam_permit.so
"""
ACCOUNT = """\
account	[success=1 new_authtok_reqd=done default=ignore]	pam_unix.so
account	requisite			pam_deny.so
account	required			pam_permit.so
account	required			pam_faillock.so
"""
PROFILE = """\
Name: Count wrong passwords
Default: yes
Priority: 0
Auth-Type: Primary
Auth:
	[default=die]			pam_faillock.so authfail
	sufficient			pam_faillock.so authsucc
Account-Type: Additional
Account:
	required			pam_faillock.so
"""


@pytest.mark.parametrize("auth", [AUTH, DEBIANS_AUTH])
def test_a_good_stack_has_no_faults(auth: str) -> None:
    assert pam_stack.faults(auth, ACCOUNT) == []


@pytest.mark.parametrize("jump", ["success=2", "success=9"])
def test_a_jump_that_locks_out_is_found(jump: str) -> None:
    assert pam_stack.faults(AUTH.replace("success=3", jump), ACCOUNT) == ["common-auth rejects a correct password"]


def test_an_account_stack_that_refuses_all_is_found() -> None:
    """SSH asks it for log-ins by key, too."""
    found = pam_stack.faults(AUTH, ACCOUNT.replace("success=1", "success=0"))
    assert len(found) == 1
    assert "every login over SSH" in found[0]


def test_an_open_stack_is_found() -> None:
    found = pam_stack.faults(AUTH.replace("[default=die]", "optional").replace("requisite", "optional"), ACCOUNT)
    assert found == ["common-auth accepts a wrong password"]


def test_an_argument_is_taken_from_its_module_alone() -> None:
    text = pam_stack.without(DEBIANS_AUTH + "auth optional pam_other.so nullok\n", "pam_unix.so", "nullok")
    assert "pam_unix.so\n" in text
    assert "pam_other.so nullok" in text
    assert pam_stack.without(text, "pam_unix.so", "nullok") == text


def test_what_a_profile_brings_is_looked_for() -> None:
    assert pam_stack.missing_lines(PROFILE, {"auth": AUTH, "account": ACCOUNT}) == []
    assert pam_stack.missing_lines(PROFILE, {"auth": DEBIANS_AUTH, "account": ACCOUNT}) == [
        "auth pam_faillock.so",
        "auth pam_faillock.so",
    ]


def test_a_key_outlasts_a_password() -> None:
    """pam_unix.so(8): no_pass_expiry. Once, whatever is there already, and in no other kind of line."""
    once = pam_stack.having(ACCOUNT, "account", "pam_unix.so", "no_pass_expiry")
    assert "pam_unix.so no_pass_expiry\n" in once
    assert once.count("no_pass_expiry") == 1
    assert pam_stack.having(once, "account", "pam_unix.so", "no_pass_expiry") == once
    assert pam_stack.having(AUTH, "account", "pam_unix.so", "no_pass_expiry") == AUTH
    assert pam_stack.faults(AUTH, once) == []
