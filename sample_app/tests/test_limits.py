"""Limits: whom they count, what they say, and what happens without Redis."""

from guestbook import create_app
from shared import PASSWORD, Visitor, find_shown_token, find_token


def sign(visitor, times):
    """Write entries with one token, which is what counts; return the statuses."""
    token = find_token(visitor.get("/"))
    data = {"author": "Ada", "message": "Hello", "csrf_token": token}
    return [visitor.client.post("/", data=data, **visitor.options).status_code for _time in range(times)]


def test_address_is_limited_with_a_page_that_says_how_long(visitor):
    guest = visitor(environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert sign(guest, 11) == [303] * 10 + [429]
    page = guest.send("/", author="Ada", message="Hello")
    assert "too much at once" in page.text
    assert 1 <= int(page.headers["Retry-After"]) <= 60
    # Others are not, and reading is not.
    assert sign(visitor(environ_base={"REMOTE_ADDR": "192.0.2.2"}), 1) == [303]
    assert guest.get("/").status_code == 200


def test_ipv6_is_limited_by_its_network(visitor):
    assert sign(visitor(environ_base={"REMOTE_ADDR": "2001:db8::1"}), 10) == [303] * 10
    assert sign(visitor(environ_base={"REMOTE_ADDR": "2001:db8::2"}), 1) == [429]
    assert sign(visitor(environ_base={"REMOTE_ADDR": "2001:db8:0:1::1"}), 1) == [303]


def test_account_is_limited_whatever_its_address(visitor):
    ada = visitor().sign_up("ada")
    ada.options = {"environ_base": {"REMOTE_ADDR": "192.0.2.1"}}
    assert sign(ada, 10) == [303] * 10
    ada.options = {"environ_base": {"REMOTE_ADDR": "192.0.2.2"}}
    assert sign(ada, 1) == [429]
    assert sign(visitor(), 1) == [303]


def test_each_endpoint_has_a_limit_of_its_own(visitor):
    ada = visitor().sign_up("ada")
    assert sign(ada, 11)[-1] == 429
    assert ada.send("/account/tokens", page="/account", name="laptop").status_code == 201


def test_token_is_limited_and_told_as_json(visitor, client):
    tokens = [
        find_shown_token(visitor().sign_up(name).send("/account/tokens", page="/account", name="x"))
        for name in ("ada", "bob")
    ]

    def write(token):
        return client.post("/api/v1/entries", json={"message": "x"}, headers={"Authorization": f"Bearer {token}"})

    assert {write(tokens[0]).status_code for _time in range(30)} == {201}
    refused = write(tokens[0])
    assert (refused.status_code, refused.mimetype) == (429, "application/problem+json")
    assert refused.json["title"] == "Too Many Requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert write(tokens[1]).status_code == 201


def test_logins_and_sign_ups_are_limited_by_address(visitor):
    guest = visitor()
    statuses = [guest.send("/signup", name=f"name-{number}", password=PASSWORD).status_code for number in range(11)]
    assert statuses == [303] * 10 + [429]
    assert [guest.log_in(f"name-{number}", "x").status_code for number in range(31)] == [422] * 30 + [429]


def test_limits_are_counted_by_all_processes_together(app):
    other = create_app("testing")
    assert sign(Visitor(other), 10) == [303] * 10
    assert sign(Visitor(app), 1) == [429]


def test_without_redis_each_process_counts_for_itself(monkeypatch, empty):
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/redis.sock")
    assert sign(Visitor(create_app("testing")), 11) == [303] * 10 + [429]


def test_limit_that_was_not_exceeded_tells_a_minute(app):
    from guestbook.limits import retry_after  # noqa: PLC0415

    with app.test_request_context():
        assert retry_after() == 60
