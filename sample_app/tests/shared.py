"""What the tests share: the services that they run on, and the site as its proxy presents it."""

import os
import re
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

DATABASE, REDIS = os.environ["TEST_DATABASE_URI"], os.environ["TEST_REDIS_URL"]
#: What nginx sends; the production configuration believes it.
PROXIED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "guestbook.example.com"}
SITE = "https://guestbook.example.com"
#: A password that follows all rules.
PASSWORD = "Quiet-otter-41"


def find_token(page: TestResponse) -> str:
    """Read the token against forgery out of a page's form."""
    found = re.search(r'name="csrf_token" type="hidden" value="([^"]+)"|name="csrf_token" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1] or found[2]


def find_shown_token(page: TestResponse) -> str:
    """Read the new API token, which its page shows once."""
    found = re.search(r'<code class="token">([^<]+)</code>', page.text)
    assert found, page.text
    return found[1]


class Visitor:
    """A browser: it keeps cookies, and sends forms with the token of the page that they are on."""

    def __init__(self, app: Flask, **options: Any) -> None:
        self.client, self.options = app.test_client(), options

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.client.get(path, **{**self.options, **options})

    def send(self, path: str, page: str = "", **data: Any) -> TestResponse:
        token = find_token(self.get(page or path))
        return self.client.post(path, data={**data, "csrf_token": token}, **self.options)

    def sign_up(self, name: str, password: str = PASSWORD) -> "Visitor":
        answer = self.send("/signup", name=name, password=password)
        assert answer.status_code == 303, answer.text
        return self

    def log_in(self, name: str, password: str = PASSWORD, **data: Any) -> TestResponse:
        return self.send("/login", name=name, password=password, **data)

    def name(self) -> str:
        """Return who the menu says is logged in, or nothing."""
        found = re.search(r'<a href="/account">([^<]+)</a>', self.get("/").text)
        return found[1] if found else ""
