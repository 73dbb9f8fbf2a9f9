"""The API: what goes in and out, who may use it, and its description."""

import re

import pytest
from guestbook.models import ApiToken, Entry, db
from shared import find_shown_token

ENTRIES = "/api/v1/entries"


@pytest.fixture
def member(visitor):
    return visitor().sign_up("ada")


@pytest.fixture
def token(member):
    return find_shown_token(member.send("/account/tokens", page="/account", name="laptop"))


@pytest.fixture
def api(client, token):
    """Send requests with the member's token."""

    def send(method, path=ENTRIES, **options):
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        return client.open(path, method=method, headers=headers, **options)

    return send


def test_entry_is_written_read_changed_and_deleted(api, client):
    written = api("POST", json={"message": "  From a program "})
    assert (written.status_code, written.location) == (201, f"{ENTRIES}/1")
    assert written.json["message"] == "From a program"
    assert (written.json["author"], written.json["account_id"], written.json["updated_at"]) == ("ada", 1, None)
    read = client.get(f"{ENTRIES}/1")
    assert read.json == written.json
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", read.json["created_at"])
    changed = api("PUT", f"{ENTRIES}/1", json={"message": "Changed"})
    assert changed.json["message"] == "Changed"
    assert changed.json["updated_at"]
    assert api("DELETE", f"{ENTRIES}/1").status_code == 204
    assert client.get(f"{ENTRIES}/1").status_code == 404
    assert api("DELETE", f"{ENTRIES}/1").status_code == 404


def test_answer_sets_no_cookie(api):
    assert "Set-Cookie" not in api("POST", json={"message": "Hello"}).headers


def test_lists_are_paged_and_lose_nothing_when_entries_come(app, client):
    with app.app_context():
        db.session.add_all(Entry(author="Ada", message=str(number)) for number in range(1, 26))
        db.session.commit()
    first = client.get(f"{ENTRIES}?limit=10").json
    with app.app_context():
        db.session.add(Entry(author="Ada", message="late"))
        db.session.commit()
    second = client.get(first["next"]).json
    third = client.get(second["next"]).json
    ids = [entry["id"] for page in (first, second, third) for entry in page["items"]]
    assert ids == list(range(25, 0, -1))
    assert third["next"] is None
    assert client.get(ENTRIES).json["items"][0]["message"] == "late"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "before=0", "before=99999999999"])
def test_page_outside_of_the_bounds_is_refused(client, query):
    assert client.get(f"{ENTRIES}?{query}").status_code == 422


def test_unchanged_answer_is_not_sent_again(api, client):
    api("POST", json={"message": "Hello"})
    for path in (ENTRIES, f"{ENTRIES}/1"):
        etag = client.get(path).headers["ETag"]
        again = client.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.data) == (304, b"")
        api("PUT", f"{ENTRIES}/1", json={"message": f"Changed {path}"})
        assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_version_that_somebody_else_has_changed_is_kept(api, client):
    api("POST", json={"message": "Hello"})
    etag = client.get(f"{ENTRIES}/1").headers["ETag"]
    header = {"If-Match": etag}
    assert api("PUT", f"{ENTRIES}/1", json={"message": "First"}, headers=header).status_code == 200
    for method in ("PUT", "DELETE"):
        late = api(method, f"{ENTRIES}/1", json={"message": "Second"}, headers=header)
        assert (late.status_code, late.mimetype) == (412, "application/problem+json")
    assert client.get(f"{ENTRIES}/1").json["message"] == "First"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "message"),
        ({"message": ""}, "message"),
        ({"message": "   "}, "message"),
        ({"message": "x" * 1001}, "message"),
        ({"message": 5}, "message"),
        ({"message": "nul\x00byte"}, "message"),
        ({"message": "Hello", "author": "eve"}, "author"),
        ([], "body"),
    ],
)
def test_invalid_body_is_refused_with_the_field_and_without_the_input(app, api, body, field):
    answer = api("POST", json=body)
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert [fault["field"] for fault in answer.json["errors"]] == [field]
    assert "xxx" not in answer.text
    with app.app_context():
        assert db.session.query(Entry).count() == 0


def test_body_that_is_no_json_is_refused(api):
    assert api("POST", data="{", content_type="application/json").status_code == 400
    assert api("POST", data={"message": "Hello"}).status_code == 415


@pytest.mark.parametrize("text", ["' OR '1'='1", "<script>alert(1)</script>"])
def test_injection_is_text(api, client, text):
    assert api("POST", json={"message": text}).json["message"] == text
    assert "<script" not in client.get("/").text
    assert client.get(ENTRIES).headers["X-Content-Type-Options"] == "nosniff"


# --- Tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer guestbook_forged", "Basic YWRhOmFk", "Bearer ' OR '1'='1"])
def test_without_a_valid_token_nothing_is_written(client, token, header):
    answer = client.post(ENTRIES, json={"message": "Hello"}, headers={"Authorization": header} if header else {})
    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"].lower().startswith("bearer")


def test_token_is_stored_as_a_digest_and_shown_once(app, member, token):
    assert len(token) > 40
    with app.app_context():
        (stored,) = db.session.query(ApiToken)
        assert stored.digest not in token
        assert token not in repr(vars(stored))
    page = member.get("/account").text
    assert "laptop" in page
    assert token not in page


def test_revoked_token_is_worth_nothing(member, api):
    assert api("POST", json={"message": "Hello"}).status_code == 201
    assert member.send("/account/tokens/1/revoke", page="/account").status_code == 303
    assert api("POST", json={"message": "Hello"}).status_code == 401


@pytest.mark.parametrize("name", ["", "x" * 41])
def test_token_needs_a_name(member, name):
    assert member.send("/account/tokens", page="/account", name=name).status_code == 422


def test_number_of_tokens_is_limited(app, member):
    with app.app_context():
        db.session.add_all(ApiToken(account_id=1, name="x", digest=str(number)) for number in range(20))
        db.session.commit()
    page = member.send("/account/tokens", page="/account", name="one more")
    assert page.status_code == 422
    assert "Please revoke one first." in page.text


# --- Description ------------------------------------------------------------------------------------------------------


def test_description_names_every_operation_and_its_models(app, client):
    description = client.get("/api/v1/openapi.json").json
    assert description["openapi"].startswith("3.1")
    described = {
        (method.upper(), path)
        for path, operations in description["paths"].items()
        for method in operations
        if method != "parameters"
    }
    served = {
        (method, rule.rule.replace("<int:number>", "{number}"))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/")
    }
    assert described == served
    schemas = description["components"]["schemas"]
    assert schemas["EntryIn"]["properties"]["message"]["maxLength"] == 1000
    named = set(re.findall(r"#/components/schemas/(\w+)", str(description)))
    assert {"EntryIn", "EntryOut", "EntryList", "Problem"} <= named <= set(schemas)
