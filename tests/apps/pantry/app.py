"""What is in the pantry. The packages of this app are whatever is the newest today."""

from importlib.metadata import version

import humanize
from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    return {"rice": humanize.metric(2500, "g"), "flask": version("flask"), "humanize": version("humanize")}
