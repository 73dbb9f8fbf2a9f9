"""Adds numbers with a function in C, from a package that is part of this repository."""

import fastsum
from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def index():
    numbers = [float(number) for number in request.args.getlist("n")]
    return {"sum": fastsum.total(numbers), "compiled": fastsum.__file__.endswith(".so")}
