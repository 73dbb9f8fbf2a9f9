"""A real browser, Chromium, at the sample app: by keyboard alone, without JavaScript, and with axe-core on each page.

`make sample-app-browser` runs it. With SCREENSHOTS=folder, it also writes the pictures of the README.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from flask_migrate import upgrade
from guestbook import create_app
from guestbook.models import Entry, db
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import text
from werkzeug.serving import make_server

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
PASSWORD, WRONG = "Quiet-otter-41", "Wrong-otter-41"
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
PEOPLE = [("Grace", "Found a moth in the relay, taped it in."), ("Ada", "The engine weaves\nalgebraic patterns.")]


@pytest.fixture(scope="session")
def app() -> Iterator[Flask]:
    os.environ["REDIS_URL"] = os.environ["TEST_REDIS_URL"]
    app = create_app("testing")
    with app.app_context():
        upgrade()
    yield app


@pytest.fixture(scope="session")
def site(app: Flask) -> Iterator[str]:
    """The address of the app, served by a thread."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def entries(app: Flask) -> Iterator[None]:
    """Two entries at the start, and nothing left at the end."""
    with app.app_context():
        db.session.add_all(Entry(author=author, message=message) for author, message in PEOPLE)
        db.session.commit()
    yield
    with app.app_context():
        db.session.execute(text("TRUNCATE entry, account, lockout RESTART IDENTITY CASCADE"))
        db.session.commit()
    with redis.Redis.from_url(os.environ["TEST_REDIS_URL"]) as connection:
        connection.flushall()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # The sandbox needs rights that root in a container does not have.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, site: str) -> Iterator[Callable[..., Page]]:
    """Open a page in a new browser profile. What its console says in the end fails the test."""
    contexts: list[BrowserContext] = []
    said: list[str] = []

    def visit(path: str = "/", **options: Any) -> Page:
        context = chromium.new_context(base_url=site, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path)
        return page

    yield visit
    for context in contexts:
        context.close()
    # Chromium also notes each response of 400 and more.
    assert [line for line in said if "Failed to load resource" not in line] == []


def sign_up(page: Page, name: str = "ada") -> None:
    page.goto("/signup")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_text("Welcome! You are logged in.")).to_be_visible()


def log_in(page: Page, password: str, name: str = "ada") -> None:
    page.goto("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def post(page: Page, message: str) -> None:
    page.goto("/")
    if page.get_by_label("Your name").count():
        page.get_by_label("Your name").fill("Guest")
    page.get_by_label("Your message").fill(message)
    page.get_by_role("button", name="Sign the guestbook").click()


def violations(page: Page) -> list[str]:
    """Return what axe-core finds, best practices too."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


def test_visitor_signs_up_posts_edits_and_deletes(visit):
    page = visit()
    sign_up(page)
    post(page, "Hello from <b>Chromium</b>")
    expect(page.get_by_text("Hello from <b>Chromium</b>")).to_be_visible()
    page.get_by_role("link", name="Edit entry 3").click()
    page.get_by_label("Your message").fill("Hello again")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Hello again")).to_be_visible()
    page.get_by_role("button", name="Delete entry 3").click()
    expect(page.get_by_text("The entry is deleted.")).to_be_visible()
    expect(page.get_by_text("Hello again")).to_have_count(0)


def test_visitor_is_limited(visit):
    page = visit()
    for number in range(10):
        post(page, f"Number {number}")
        expect(page.get_by_text("Your entry is in the book.")).to_be_visible()
    post(page, "One too many")
    expect(page.get_by_role("heading", name="That was too much at once")).to_be_visible()
    assert violations(page) == []


def test_account_is_locked_and_a_known_device_gets_past(visit):
    known, stranger = visit(), visit()
    sign_up(known)
    known.get_by_role("button", name="Log out").click()
    for _attempt in range(5):
        log_in(stranger, WRONG)
        expect(stranger.get_by_text("The name or the password is wrong.")).to_be_visible()
    log_in(stranger, PASSWORD)
    expect(stranger.get_by_text("Too many attempts. Wait 10 minutes")).to_be_visible()
    log_in(known, PASSWORD)
    expect(known.get_by_role("button", name="Log out")).to_be_visible()


def test_site_works_without_javascript(visit):
    page = visit(java_script_enabled=False)
    sign_up(page)
    post(page, "Without a script")
    expect(page.get_by_text("Without a script")).to_be_visible()
    page.goto("/stats")
    expect(page.get_by_role("img", name=re.compile("Entries by day"))).to_be_visible()
    page.goto("/account")
    page.get_by_role("button", name="Log out", exact=True).click()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


def focus(page: Page, name: str, most: int = 40) -> None:
    """Press Tab until an element has the focus, which has to be visible."""
    for _press in range(most):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        label = focused.evaluate("e => e.labels?.[0]?.innerText || e.value || e.innerText")
        if label.strip() == name:
            assert focused.evaluate("e => getComputedStyle(e).outlineStyle") != "none"
            return
    pytest.fail(f"Tab does not reach {name}")


def test_site_works_by_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    focus(page, "Sign up")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Sign up")).to_be_visible()
    for label, words in (("Name", "ada"), ("Password", PASSWORD)):
        focus(page, label)
        page.keyboard.type(words)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Welcome! You are logged in.")).to_be_visible()
    focus(page, "Your message")
    page.keyboard.type("Typed")
    focus(page, "Sign the guestbook")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Your entry is in the book.")).to_be_visible()
    expect(page.get_by_text("Typed", exact=True)).to_be_visible()
    focus(page, "Delete")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The entry is deleted.")).to_be_visible()
    focus(page, "Log out")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_on_any_page(visit, size, scheme):
    page = visit(viewport=SIZES[size], color_scheme=scheme)
    for path in ("/", "/login", "/signup", "/stats", "/nowhere"):
        page.goto(path)
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the screen"
    page.goto("/signup")
    page.get_by_label("Name").fill("?")
    page.get_by_label("Password").fill("short")
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_text("Your password needs")).to_be_visible()
    assert violations(page) == [], "with errors"
    sign_up(page)
    post(page, "Good to be here.")
    assert violations(page) == [], "with a member's entry"
    page.get_by_role("link", name="Edit entry 3").click()
    assert violations(page) == [], "edit"
    page.goto("/account")
    page.get_by_label("Name of the token").fill("laptop")
    page.get_by_role("button", name="Create a token").click()
    expect(page.get_by_text("Your new token")).to_be_visible()
    assert violations(page) == [], "account"
    page.goto("/")
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"guestbook-{size}-{scheme}.png"))


def test_axe_would_find_something(visit):
    """The control: an image without a text."""
    page = visit()
    page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    assert any(line.startswith("image-alt") for line in violations(page))
