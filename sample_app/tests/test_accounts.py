"""Sign up, log in, log out, a changed password, and what a stranger must not achieve with any of them."""

import pytest
from guestbook import create_app
from guestbook.models import Account, db
from guestbook.passwords import RULES, broken_rules
from shared import PASSWORD, PROXIED, SITE, Visitor


def test_visitor_signs_up_logs_out_and_logs_in(visitor):
    ada = visitor().sign_up("Ada")
    assert "Welcome! You are logged in." in ada.get("/").text
    assert ada.name() == "ada"
    assert ada.send("/logout", page="/").status_code == 303
    assert ada.name() == ""
    answer = ada.log_in(" ADA ")
    assert (answer.status_code, answer.location) == (303, "/")
    assert ada.name() == "ada"


def test_password_is_stored_as_argon2id_only(app, visitor):
    visitor().sign_up("ada")
    with app.app_context():
        account = db.session.query(Account).one()
        assert account.password_hash.startswith("$argon2id$")
        assert PASSWORD not in repr(vars(account))


def test_cost_in_production_is_what_owasp_recommends(production):
    app = create_app()
    Visitor(app, base_url=SITE, headers={**PROXIED, "Referer": SITE}).sign_up("ada")
    with app.app_context():
        assert "$m=19456,t=2,p=1$" in db.session.query(Account).one().password_hash
        db.engine.dispose()


def test_old_hash_is_renewed_at_the_next_login(app, visitor, monkeypatch):
    visitor().sign_up("ada")
    monkeypatch.setitem(app.config, "ARGON2_PASSES", 2)
    assert visitor().log_in("ada").status_code == 303
    with app.app_context():
        assert ",t=2," in db.session.query(Account).one().password_hash


def test_damaged_hash_matches_nothing(app, visitor):
    visitor().sign_up("ada")
    with app.app_context():
        db.session.query(Account).update({"password_hash": "damaged"})
        db.session.commit()
    assert visitor().log_in("ada").status_code == 422


def test_rules_are_shown_before_they_are_broken(visitor):
    page = visitor().get("/signup").text
    assert all(rule in page for rule in RULES)


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("Short-1", RULES[0]),
        ("UPPER-CASE-ONLY-1", RULES[1]),
        ("lower-case-only-1", RULES[2]),
        ("No-digit-in-this", RULES[3]),
        ("NoSymbolInThis1", RULES[4]),
        ("Password1234!", RULES[5]),
        ("P@$$w0rd!!!2024", RULES[5]),
        ("Passw0rd-2026!", RULES[5]),
        ("Welcome-2026-", RULES[5]),
        ("Qwerty-qwerty1", RULES[5]),
        ("Correct-horse-battery-staple-1", RULES[5]),
        ("Aa1!Aa1!Aa1!", RULES[5]),
        ("Grace-hopper-1906", RULES[5]),
    ],
)
def test_password_that_breaks_one_rule_is_refused_with_it(app, visitor, password, rule):
    assert broken_rules(password, "grace") == [rule]
    page = visitor().send("/signup", name="Grace", password=password)
    assert page.status_code == 422
    assert f"Your password needs: {rule}." in page.text
    assert password not in page.text
    with app.app_context():
        assert db.session.query(Account).count() == 0


@pytest.mark.parametrize("name", ["", "ab", "a" * 31, "ada lovelace", "ada\n", "<b>ada</b>", "' OR '1'='1"])
def test_name_with_other_characters_is_refused(visitor, name):
    page = visitor().send("/signup", name=name + "!" if name == "ada\n" else name, password=PASSWORD)
    assert page.status_code == 422
    assert "3 to 30 letters" in page.text


def test_name_that_is_taken_is_refused_in_any_case(visitor):
    visitor().sign_up("ada")
    page = visitor().send("/signup", name="ADA", password=PASSWORD)
    assert page.status_code == 422
    assert "This name is taken." in page.text


def test_wrong_password_and_unknown_name_look_the_same(visitor):
    visitor().sign_up("ada")
    wrong = visitor().log_in("ada", "Wrong-otter-41")
    unknown = visitor().log_in("eve", "Wrong-otter-41")
    assert wrong.status_code == unknown.status_code == 422
    assert "The name or the password is wrong." in wrong.text
    normal = [
        page.text.replace(name, "NAME").replace(find, "")
        for page, name in ((wrong, "ada"), (unknown, "eve"))
        for find in [page.text.split('name="csrf_token" type="hidden" value="')[1].split('"')[0]]
    ]
    assert normal[0] == normal[1]


def test_unknown_name_costs_a_hash_too(app, visitor, monkeypatch):
    visitor().sign_up("ada")
    hashed = []
    from guestbook import passwords  # noqa: PLC0415

    whole = passwords.hasher
    monkeypatch.setattr(passwords, "hasher", lambda: hashed.append(1) or whole())
    visitor().log_in("ada", "Wrong-otter-41")
    known, hashed[:] = len(hashed), []
    visitor().log_in("eve", "Wrong-otter-41")
    assert len(hashed) == known == 1


def test_login_form_that_is_incomplete_is_refused(visitor):
    page = visitor().send("/login", name="", password="")
    assert page.status_code == 422
    assert "Please enter your name." in page.text
    assert "X-Flaskhost-Login" not in page.headers


@pytest.mark.parametrize("name", ["' OR '1'='1", "ada' --", "<script>alert(1)</script>"])
def test_injection_logs_nobody_in(visitor, name):
    visitor().sign_up("ada")
    eve = visitor()
    for data in ({"name": name, "password": PASSWORD}, {"name": "ada", "password": name}):
        page = eve.send("/login", **data)
        assert page.status_code == 422
        assert "<script" not in page.text
    assert eve.name() == ""


# --- Sessions ---------------------------------------------------------------------------------------------------------


def session_cookie(visitor):
    return visitor.client.get_cookie("session").value


def test_login_makes_a_new_session(app, visitor):
    """A session that somebody has prepared in a visitor's browser (fixation) ends with the login."""
    visitor().sign_up("ada")
    ada = visitor()
    ada.get("/")
    with ada.client.session_transaction() as session:
        session["planted"] = True
        token = session["csrf_token"]
    ada.log_in("ada")
    with ada.client.session_transaction() as session:
        assert "planted" not in session
        assert session.get("csrf_token") != token
        first = session["id"]
    ada.log_in("ada")
    with ada.client.session_transaction() as session:
        assert session["id"] != first


@pytest.mark.parametrize("path", ["/account/password", "/account/sessions"])
def test_other_sessions_end_and_this_one_goes_on(visitor, path):
    here, elsewhere = visitor().sign_up("ada"), visitor()
    elsewhere.log_in("ada")
    stolen = session_cookie(elsewhere)
    answer = here.send(path, page="/account", current=PASSWORD, password="Loud-badger-72")
    assert answer.status_code == 303
    assert "all other sessions have ended" in here.get("/account").text.lower()
    assert here.name() == "ada"
    assert elsewhere.name() == ""
    thief = visitor()
    thief.client.set_cookie("session", stolen)
    assert thief.name() == ""


def test_changed_password_is_the_only_one(visitor):
    ada = visitor().sign_up("ada")
    ada.send("/account/password", page="/account", current=PASSWORD, password="Loud-badger-72")
    assert visitor().log_in("ada").status_code == 422
    assert visitor().log_in("ada", "Loud-badger-72").status_code == 303


def test_password_is_not_changed_without_the_current_one_or_against_the_rules(visitor):
    ada = visitor().sign_up("ada")
    wrong = ada.send("/account/password", page="/account", current="Wrong-otter-41", password="Loud-badger-72")
    assert wrong.status_code == 422
    assert wrong.headers["X-Flaskhost-Login"] == "failed"
    weak = ada.send("/account/password", page="/account", current=PASSWORD, password="Ada-is-great-1")
    assert weak.status_code == 422
    assert RULES[5] in weak.text
    assert visitor().log_in("ada").status_code == 303


def test_session_of_an_account_that_is_gone_is_nobodys(app, visitor):
    ada = visitor().sign_up("ada")
    with app.app_context():
        db.session.query(Account).delete()
        db.session.commit()
    assert ada.name() == ""


# --- After the login --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/account", "/?page=2", "/entries/1/edit"])
def test_login_goes_on_to_the_page_that_asked_for_it(visitor, target):
    visitor().sign_up("ada")
    assert visitor().log_in("ada", next=target).location == target


def test_page_for_members_sends_to_the_login_and_back(visitor):
    visitor().sign_up("ada")
    guest = visitor()
    answer = guest.get("/account")
    assert (answer.status_code, answer.location) == (303, "/login?next=/account")
    assert 'value="/account"' in guest.get(answer.location).text


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "evil.example",
        "",
    ],
)
def test_login_goes_on_to_no_other_site(visitor, target):
    visitor().sign_up("ada")
    assert visitor().log_in("ada", next=target).location == "/"
