"""A page in the visitor's language. Git has the translations as text; pybabel compiles them."""

from flask import Flask, request
from flask_babel import Babel, get_locale
from flask_babel import gettext as _

LANGUAGES = ["en", "de", "sv"]


def choose():
    return request.accept_languages.best_match(LANGUAGES)


app = Flask(__name__)
Babel(app, locale_selector=choose)


@app.get("/")
def index():
    return {"language": str(get_locale()), "greeting": _("Good morning"), "farewell": _("See you soon")}
