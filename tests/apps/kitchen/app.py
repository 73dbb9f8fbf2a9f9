"""Takes orders. A worker cooks them, and a timer cleans up."""

import orders
from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def index():
    with orders.connect() as db:
        return dict(db.execute("SELECT name, state FROM dish ORDER BY id"))


@app.post("/")
def order():
    with orders.connect() as db:
        db.execute("INSERT INTO dish (name) VALUES (?)", [request.form["dish"]])
    return {"ordered": request.form["dish"]}, 202
