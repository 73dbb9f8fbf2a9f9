"""The lock after five failures: for whom it is, for how long, and who gets past it."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from guestbook import create_app, lockout
from guestbook.models import Lockout, db
from shared import PASSWORD, PROXIED, SITE, Visitor

WRONG = "Wrong-otter-41"


def fail(visitor, name="ada", times=5):
    return [visitor.log_in(name, WRONG) for _time in range(times)]


def pass_time(app, **much):
    """Let time pass by making what is stored older."""
    delta = timedelta(**much)
    with app.app_context():
        for row in db.session.query(Lockout):
            row.attempts = [time - delta.total_seconds() for time in row.attempts]
            row.locked_until = row.locked_until and row.locked_until - delta
            row.last_at -= delta
        db.session.commit()


@pytest.mark.parametrize("name", ["ada", "nobody-of-this-name"])
def test_five_failures_from_anywhere_lock_an_account_whether_it_exists_or_not(visitor, name):
    visitor().sign_up("ada")
    for number in range(5):
        answer = fail(visitor(environ_base={"REMOTE_ADDR": f"192.0.2.{number}"}), name, 1)[0]
        assert answer.status_code == 422
        assert answer.headers["X-Flaskhost-Login"] == "failed"
    locked = visitor(environ_base={"REMOTE_ADDR": "192.0.2.99"}).log_in(name)
    assert locked.status_code == 429
    assert 590 <= int(locked.headers["Retry-After"]) <= 600
    assert "Wait 10 minutes" in locked.text
    assert locked.headers["X-Flaskhost-Login"] == "failed"


def test_four_failures_lock_nothing_and_a_login_forgets_them(visitor):
    visitor().sign_up("ada")
    for _round in range(2):
        stranger = visitor()
        fail(stranger, times=4)
        assert stranger.log_in("ada").status_code == 303


def test_fifth_attempt_may_be_the_right_one(visitor):
    visitor().sign_up("ada")
    stranger = visitor()
    fail(stranger, times=4)
    assert stranger.log_in("ada").status_code == 303
    assert len([page for page in fail(visitor(), times=5) if page.status_code == 422]) == 5


def test_lock_ends_after_ten_minutes_and_nothing_prolongs_it(app, visitor):
    visitor().sign_up("ada")
    stranger = visitor()
    fail(stranger)
    pass_time(app, minutes=9)
    assert stranger.log_in("ada").status_code == 429
    pass_time(app, minutes=1, seconds=1)
    assert stranger.log_in("ada").status_code == 303


def test_failures_older_than_ten_minutes_do_not_count(app, visitor):
    visitor().sign_up("ada")
    stranger = visitor()
    fail(stranger, times=4)
    pass_time(app, minutes=10, seconds=1)
    assert [page.status_code for page in fail(stranger, times=4)] == [422] * 4
    assert stranger.log_in("ada").status_code == 303


def test_known_device_gets_past_a_lock_that_a_stranger_keeps_up(app, visitor):
    ada = visitor().sign_up("ada")
    ada.send("/logout", page="/")
    for _round in range(3):
        fail(visitor())
        assert visitor().log_in("ada").status_code == 429
        assert ada.log_in("ada").status_code == 303
        ada.send("/logout", page="/")
        pass_time(app, minutes=10, seconds=1)


def test_known_device_has_five_attempts_too_and_locks_nobody_else(visitor):
    ada = visitor().sign_up("ada")
    ada.send("/logout", page="/")
    fail(ada)
    assert ada.log_in("ada").status_code == 429
    assert visitor().log_in("ada").status_code == 303


def test_device_is_known_for_its_own_account_only(visitor):
    visitor().sign_up("ada")
    eve = visitor().sign_up("eve")
    fail(eve)
    assert eve.log_in("ada").status_code == 429
    assert visitor().log_in("ada").status_code == 429


@pytest.mark.parametrize("forged", ["nonsense", "eyJhY2NvdW50IjoxLCJkZXZpY2UiOiJ4In0.aaaa.bbbb"])
def test_forged_device_is_a_stranger(visitor, forged):
    visitor().sign_up("ada")
    fail(visitor())
    stranger = visitor()
    stranger.client.set_cookie("device", forged)
    assert stranger.log_in("ada").status_code == 429


def test_device_stays_known_when_the_key_changes(production):
    options = {"base_url": SITE, "headers": {**PROXIED, "Referer": SITE}}
    before = create_app()
    ada = Visitor(before, **options).sign_up("ada")
    cookie = ada.client.get_cookie("__Host-device", domain="guestbook.example.com")
    assert (cookie.secure, cookie.http_only, cookie.same_site, cookie.path) == (True, True, "Lax", "/")
    production.setenv("SECRET_KEY", "b1946ac92492d234" * 4)
    production.setenv("SECRET_KEY_FALLBACKS", f'["{before.config["SECRET_KEY"]}"]')
    after = create_app()
    fail(Visitor(after, **options))
    assert Visitor(after, **options).log_in("ada").status_code == 429
    known = Visitor(after, **options)
    known.client.set_cookie("__Host-device", cookie.value, secure=True, domain="guestbook.example.com")
    assert known.log_in("ada").status_code == 303
    for app in (before, after):
        with app.app_context():
            db.engine.dispose()


def test_guessing_the_current_password_locks_as_well(visitor):
    ada = visitor().sign_up("ada")
    data = {"page": "/account", "current": WRONG, "password": "Loud-badger-72"}
    assert [ada.send("/account/password", **data).status_code for _time in range(5)] == [422] * 5
    assert ada.send("/account/password", **{**data, "current": PASSWORD}).status_code == 429


def test_attempts_at_the_same_time_are_not_more_than_five(app):
    """Each is counted before its password is checked."""
    allowed = []

    def attempt():
        with app.test_request_context():
            allowed.append(lockout.begin("ada", None)[1] == 0)

    threads = [threading.Thread(target=attempt) for _number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 7 + [True] * 5


def test_stored_key_does_not_tell_the_name(app, visitor):
    """People type their password into the field for the name."""
    visitor().log_in(PASSWORD, WRONG)
    with app.app_context():
        (row,) = db.session.query(Lockout)
        assert PASSWORD.lower() not in row.key.lower()
        assert len(row.key) == 64


def test_rows_that_count_for_nothing_are_removed(app, visitor):
    fail(visitor(), "ada")
    with app.app_context():
        assert lockout.remove_old() == 0
    pass_time(app, minutes=21)
    fail(visitor(), "bob", 1)
    with app.app_context():
        assert lockout.remove_old() == 1
        (row,) = db.session.query(Lockout)
        assert row.last_at > datetime.now(UTC) - timedelta(minutes=1)
