"""A run that fails half-way, and one after it that does not: every service has what the files say."""

from __future__ import annotations

from fleet import changed, play


def test_a_service_that_a_failed_run_has_not_reached_is_reached_by_the_next(webs):
    own = "/etc/fail2ban/jail.d/zz-own.local"
    for web in webs:
        web.run(f"printf '[sshd]\\nfilter = there-is-no-such-filter\\n' > {own}")
    try:
        status, output = play("--tags", "fail2ban", fail2ban_maxretry=7)
        assert status != 0
        assert "there-is-no-such-filter" in output
        for web in webs:
            # The new file is there, and what runs goes on as it was.
            assert "maxretry = 7" in web.run("cat /etc/fail2ban/jail.d/flaskhost.conf")
            assert web.run("fail2ban-client get sshd maxretry").strip() == "5"
    finally:
        for web in webs:
            web.run(f"rm {own}")
    try:
        status, output = play("--tags", "fail2ban", fail2ban_maxretry=7)
        assert status == 0, output
        for web in webs:
            assert web.run("fail2ban-client get sshd maxretry").strip() == "7"
    finally:
        status, output = play("--tags", "fail2ban")
    assert status == 0, output
    for web in webs:
        assert web.run("fail2ban-client get sshd maxretry").strip() == "5"
    status, output = play("--tags", "fail2ban")
    assert (status, changed(output)[:2]) == (0, [0, 0]), output
