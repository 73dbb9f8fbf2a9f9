"""What a visitor sees and sends."""

from datetime import UTC, datetime, timedelta

import pytest
from guestbook.models import AUTHOR_LENGTH, MESSAGE_LENGTH, Account, ApiToken, Entry, db


def count_entries(app) -> int:
    with app.app_context():
        return db.session.query(Entry).count()


def test_empty_book_invites(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "still blank" in page.text


def test_entry_is_stored_and_shown_after_a_redirect(client, sign):
    answer = sign("Ada Lovelace", "The engine weaves\nalgebraic patterns.")
    assert (answer.status_code, answer.location) == (303, "/")
    page = client.get("/")
    assert "Ada Lovelace" in page.text
    assert "The engine weaves\nalgebraic patterns." in page.text
    assert "Thank you!" in page.text
    assert "Thank you!" not in client.get("/").text


def test_spaces_around_an_entry_are_dropped(app, sign):
    sign("  Ada ", " Hello\n\n")
    with app.app_context():
        entry = db.session.query(Entry).one()
        assert (entry.author, entry.message) == ("Ada", "Hello")


def test_entry_has_the_time_in_utc(app, sign):
    sign()
    with app.app_context():
        created_at = db.session.query(Entry).one().created_at
    assert created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=1)


def test_time_of_another_zone_is_stored_as_the_same_moment(app):
    moment = datetime.fromisoformat("2026-11-21T12:30:00+05:30")
    with app.app_context():
        db.session.add(Entry(author="Ada", message="Hello", created_at=moment))
        db.session.commit()
        assert db.session.query(Entry).one().created_at == moment


@pytest.mark.parametrize("field", ["author", "message"])
def test_html_is_escaped(client, sign, field):
    sign(**{field: "<script>alert(1)</script>"})
    page = client.get("/")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<script" not in page.text


@pytest.mark.parametrize("token", [None, "", "forged"])
def test_without_a_valid_token_nothing_is_stored_and_the_text_is_kept(app, client, token):
    data = {"author": "Mallory", "message": "From elsewhere"} | ({} if token is None else {"csrf_token": token})
    page = client.post("/", data=data)
    assert page.status_code == 400
    assert "expired" in page.text
    assert "From elsewhere</textarea>" in page.text
    assert count_entries(app) == 0


@pytest.mark.parametrize(
    ("author", "message", "complaint"),
    [
        ("", "Hello", "Please tell us your name."),
        ("   ", "Hello", "Please tell us your name."),
        ("Ada", "", "Please write a message."),
        ("A" * (AUTHOR_LENGTH + 1), "Hello", f"at most {AUTHOR_LENGTH} characters"),
        ("Ada", "m" * (MESSAGE_LENGTH + 1), f"at most {MESSAGE_LENGTH} characters"),
        ("Ada\nBob", "Hello", "letters, digits and punctuation"),
        ("Ada", "nul\x00byte", "letters, digits and punctuation"),
    ],
)
def test_invalid_entry_is_refused_with_a_reason(app, sign, author, message, complaint):
    page = sign(author, message)
    assert page.status_code == 422
    assert complaint in page.text
    assert 'aria-invalid="true"' in page.text
    assert count_entries(app) == 0


def test_longest_entry_is_accepted_with_line_breaks_as_browsers_send_them(app, sign):
    assert sign("Ä" * AUTHOR_LENGTH, "\r\n".join("m" * (MESSAGE_LENGTH // 2))[:-1] + "x").status_code == 303
    assert count_entries(app) == 1


def test_entries_are_paged_with_the_newest_first(app, client):
    with app.app_context():
        db.session.add_all(Entry(author="Ada", message=f"number {n:02}") for n in range(1, 26))
        db.session.commit()
    first, second, last = (client.get("/", query_string={"page": n}).text for n in (1, 2, 3))
    assert first.index("number 25") < first.index("number 16")
    assert "number 15" not in first
    assert "number 15" in second
    assert "number 16" not in second
    assert "number 01" in last
    assert "25 entries" in first
    assert ('rel="prev"' in first, 'rel="next"' in first) == (False, True)
    assert ('rel="prev"' in last, 'rel="next"' in last) == (True, False)


@pytest.mark.parametrize("page", ["0", "-1", "2", "9" * 30])
def test_page_that_does_not_exist_is_not_found(client, page):
    assert client.get("/", query_string={"page": page}).status_code == 404


def test_page_works_under_a_strict_content_security_policy(client, sign):
    sign()
    page = client.get("/").text
    for inline in ("<style", "<script", "style=", "onclick=", "javascript:", "data:"):
        assert inline not in page
    assert client.get("/static/style.css", buffered=True).status_code == 200
    assert client.get("/static/logo.svg", buffered=True).mimetype == "image/svg+xml"


def test_members_entry_has_their_name_and_can_be_changed(app, visitor):
    ada = visitor().sign_up("ada")
    assert ada.send("/", message="My frist words").status_code == 303
    assert ada.send("/entries/1/edit", message="").status_code == 422
    assert ada.send("/entries/1/edit", message="My <b>first</b> words").status_code == 303
    page = visitor().get("/").text
    assert "My &lt;b&gt;first&lt;/b&gt; words" in page
    assert "<strong>ada</strong>" in page
    with app.app_context():
        entry = db.session.query(Entry).one()
        assert entry.updated_at > entry.created_at
    assert ada.send("/entries/1/delete", page="/").status_code == 303
    assert count_entries(app) == 0


def test_guest_cannot_sign_as_a_member(app, visitor):
    visitor().sign_up("ada")
    visitor().send("/", author="ada", message="I am ada", account_id="1")
    with app.app_context():
        assert db.session.query(Entry).one().account_id is None
    assert "member</span>" not in visitor().get("/").text


def test_injection_is_text(app, sign):
    assert sign("' OR '1'='1", "'); DROP TABLE entry; --").status_code == 303
    with app.app_context():
        entry = db.session.query(Entry).one()
        assert (entry.author, entry.message) == ("' OR '1'='1", "'); DROP TABLE entry; --")


def test_pages_of_an_account_are_kept_by_no_cache(client, visitor):
    assert visitor().sign_up("ada").get("/").headers["Cache-Control"] == "private, no-store"
    assert "Cache-Control" not in client.get("/").headers


@pytest.mark.parametrize("words", ["<script>alert(1)</script>", "' OR '1'='1", "{{ 7 * 7 }}"])
def test_every_field_is_text_and_nothing_else(app, visitor, words):
    """Whatever the form: it is stored or refused as it is, and shown escaped."""
    guest, ada = visitor(), visitor().sign_up("ada")
    pages = [
        guest.send("/", author=words, message=words),
        guest.send("/", author="", message=words),
        guest.send("/signup", name=words, password=words),
        guest.send("/login", name=words, password=words, next=words),
        ada.send("/", message="Mine"),
        ada.send("/entries/2/edit", message=words),
        ada.send("/account/tokens", page="/account", name=words),
        ada.send("/account/password", page="/account", current=words, password=words),
        *(ada.get(path, query_string={"page": words, "next": words}) for path in ("/", "/account", "/stats", "/login")),
    ]
    shown = "".join(page.text for page in pages)
    assert "<script" not in shown
    assert words != "{{ 7 * 7 }}" or words in shown
    assert {page.status_code for page in pages} <= {200, 201, 303, 422}
    with app.app_context():
        assert [entry.message for entry in db.session.query(Entry).order_by(Entry.id)] == [words, words]
        assert db.session.query(ApiToken).one().name == words
        assert db.session.query(Account).one().name == "ada"
