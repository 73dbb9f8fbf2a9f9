"""A collection on packages from 2021, the last ones of Flask 1."""

import flask
from flask import Flask, jsonify, render_template_string

app = Flask(__name__)

PIECES = {1: "Slide rule", 2: "Punched card"}


@app.route("/", methods=["GET"])
def index():
    page = "<title>Museum</title>{% for name in pieces.values() %}<p>{{ name }}</p>{% endfor %}"
    return render_template_string(page, pieces=PIECES)


@app.route("/pieces/<int:number>", methods=["GET"])
def piece(number):
    return jsonify(name=PIECES[number], flask=flask.__version__)
