"""The smallest app."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return "<!doctype html><title>Welcome</title><p>Welcome!</p>\n"
