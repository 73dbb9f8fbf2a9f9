"""BENCHMARK APP ONLY: the page that the WSGI and the ASGI app send."""

from jinja2 import Environment, select_autoescape

ROWS = [(number, f"row {number}") for number in range(20)]
QUERY = "SELECT n, 'row ' || n FROM generate_series(0, 19) AS n"
SECONDS = 0.05

template = Environment(autoescape=select_autoescape(default_for_string=True)).from_string(
    "<!doctype html>\n<html lang='en'>\n<title>{{ title }}</title>\n<h1>{{ title }}</h1>\n<table>\n"
    "{% for number, text in rows %}<tr><td>{{ number }}</td><td>{{ text }}</td></tr>\n{% endfor %}</table>\n"
)
