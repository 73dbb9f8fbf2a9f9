"""Every route, as nobody, as a member, as another member and as a moderator.

A route that is in none of the tables below fails the last test: whoever adds one says here who may use it.
"""

import pytest
from guestbook import avatars
from guestbook.models import Account, Entry, Export, db, now
from shared import find_shown_token

OPEN, LOGIN, REFUSED, MISSING, NO_TOKEN = "open", "login", 403, 404, 401
#: The result for nobody, the owner, another member and a moderator. Entry 1 and everything else belong to the owner.
GET = {
    "/": (OPEN, OPEN, OPEN, OPEN),
    "/signup": (OPEN, OPEN, OPEN, OPEN),
    "/login": (OPEN, OPEN, OPEN, OPEN),
    "/account": (LOGIN, OPEN, OPEN, OPEN),
    "/entries/<int:number>/edit": (LOGIN, OPEN, REFUSED, REFUSED),
    "/api/v1/entries": (OPEN, OPEN, OPEN, OPEN),
    "/api/v1/entries/<int:number>": (OPEN, OPEN, OPEN, OPEN),
    "/api/v1/openapi.json": (OPEN, OPEN, OPEN, OPEN),
    "/account/exports/<int:number>": (LOGIN, OPEN, MISSING, MISSING),
    "/avatars/<name>": (OPEN, OPEN, OPEN, OPEN),
    "/stats": (OPEN, OPEN, OPEN, OPEN),
    "/healthz": (OPEN, OPEN, OPEN, OPEN),
    "/readyz": (OPEN, OPEN, OPEN, OPEN),
    "/static/<path:filename>": (OPEN, OPEN, OPEN, OPEN),
}
POST = {
    "/": (OPEN, OPEN, OPEN, OPEN),
    "/signup": (OPEN, OPEN, OPEN, OPEN),
    "/login": (OPEN, OPEN, OPEN, OPEN),
    "/logout": (LOGIN, OPEN, OPEN, OPEN),
    "/account/password": (LOGIN, OPEN, OPEN, OPEN),
    "/account/sessions": (LOGIN, OPEN, OPEN, OPEN),
    "/account/avatar": (LOGIN, OPEN, OPEN, OPEN),
    "/account/exports": (LOGIN, OPEN, OPEN, OPEN),
    "/account/tokens": (LOGIN, OPEN, OPEN, OPEN),
    "/account/tokens/<int:number>/revoke": (LOGIN, OPEN, MISSING, MISSING),
    "/entries/<int:number>/edit": (LOGIN, OPEN, REFUSED, REFUSED),
    "/entries/<int:number>/delete": (LOGIN, OPEN, REFUSED, OPEN),
}
#: With a token of each; a session counts for nothing.
API = {
    ("POST", "/api/v1/entries"): (NO_TOKEN, OPEN, OPEN, OPEN),
    ("PUT", "/api/v1/entries/<int:number>"): (NO_TOKEN, OPEN, REFUSED, REFUSED),
    ("DELETE", "/api/v1/entries/<int:number>"): (NO_TOKEN, OPEN, REFUSED, OPEN),
}
PEOPLE = ["nobody", "member", "other", "moderator"]


def fill(rule):
    """A path of a rule: the member's own thing, or a file that exists."""
    return rule.replace("<int:number>", "1").replace("<path:filename>", "style.css").replace("<name>", "1-x.webp")


@pytest.fixture
def people(app, visitor, instance):
    """A visitor for each role; the first entry is the member's."""
    found = {name: visitor() if name == "nobody" else visitor().sign_up(name) for name in PEOPLE}
    assert app.test_cli_runner().invoke(args=["promote", "moderator"]).output == "moderator is a moderator\n"
    found["member"].send("/", message="Mine")
    found["member"].send("/account/tokens", page="/account", name="mine")
    with app.app_context():
        (avatars.folder() / "1-x.webp").touch()
        db.session.add(Export(account_id=1, finished_at=now(), content=""))
        db.session.commit()
    return found


def outcome(answer):
    if answer.status_code == 303 and answer.location.startswith("/login"):
        return LOGIN
    return answer.status_code if answer.status_code in (401, 403, 404) else OPEN


@pytest.mark.parametrize("rule", GET)
def test_reading(people, rule):
    assert tuple(outcome(people[name].get(fill(rule))) for name in PEOPLE) == GET[rule]


@pytest.mark.parametrize("rule", POST)
@pytest.mark.parametrize("number", range(4), ids=PEOPLE)
def test_changing(app, people, rule, number):
    answer = people[PEOPLE[number]].send(fill(rule), page="/", message="Changed")
    assert outcome(answer) == POST[rule][number]
    if POST[rule][number] != OPEN:
        with app.app_context():
            assert db.session.get(Entry, 1).message == "Mine"


@pytest.mark.parametrize(("method", "rule"), API)
@pytest.mark.parametrize("number", range(4), ids=PEOPLE)
def test_api(app, people, method, rule, number):
    person, json = people[PEOPLE[number]], {"message": "Changed"}
    assert person.client.open(fill(rule), method=method, json=json).status_code == 401, "with the session only"
    header = {}
    if number:
        page = person.send("/account/tokens", page="/account", name="mine")
        header = {"Authorization": f"Bearer {find_shown_token(page)}"}
    answer = person.client.open(fill(rule), method=method, json=json, headers=header)
    assert outcome(answer) == API[method, rule][number]
    if API[method, rule][number] != OPEN:
        with app.app_context():
            assert db.session.get(Entry, 1).message == "Mine"


@pytest.mark.parametrize("rule", POST)
def test_nothing_is_changed_without_the_token_of_a_page(app, people, rule):
    answer = people["member"].client.post(fill(rule), data={"message": "Forged"})
    assert answer.status_code == 400
    with app.app_context():
        assert [entry.message for entry in db.session.query(Entry)] == ["Mine"]
    assert people["member"].name() == "member"


def test_every_route_is_in_a_table(app):
    routes = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in rule.methods}
    known = set(API) | {("GET", rule) for rule in GET} | {("POST", rule) for rule in POST}
    assert {route for route in routes if route[0] not in ("HEAD", "OPTIONS")} == known


def test_unknown_name_is_not_promoted(app):
    done = app.test_cli_runner().invoke(args=["promote", "nobody"])
    assert done.exit_code != 0
    assert "there is no account nobody" in done.output


def test_role_that_does_not_exist_is_refused_by_the_database(app, visitor):
    visitor().sign_up("ada")
    with app.app_context(), pytest.raises(Exception, match="ck_account_role"):
        db.session.query(Account).update({"role": "king"})


def test_refused_page_says_so_in_the_sites_look(people):
    assert "That is not yours to change" in people["other"].get("/entries/1/edit").text
    assert people["member"].get("/entries/99/edit").status_code == 404
