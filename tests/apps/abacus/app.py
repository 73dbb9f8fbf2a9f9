"""Adds numbers with a function in C, from a package that is part of this repository. Another package is editable."""

import fastsum
from flask import Flask, request
from words import NAMES

app = Flask(__name__)


@app.get("/")
def index():
    numbers = [float(number) for number in request.args.getlist("n")]
    total = fastsum.total(numbers)
    name = NAMES[int(total)] if 0 <= total < len(NAMES) else "many"
    return {"sum": total, "about": name, "compiled": fastsum.__file__.endswith(".so")}
