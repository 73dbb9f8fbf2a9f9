"""What the tests share: the services that they run on, and the site as its proxy presents it."""

import os

DATABASE, REDIS = os.environ["TEST_DATABASE_URI"], os.environ["TEST_REDIS_URL"]
#: What nginx sends; the production configuration believes it.
PROXIED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "guestbook.example.com"}
SITE = "https://guestbook.example.com"
