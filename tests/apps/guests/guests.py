"""A guest book without migrations: it creates its tables when it starts."""

import os

from flask import Flask, redirect, request
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy()


class Guest(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), nullable=False)


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ.get("DATABASE_URL", "sqlite:///guests.db")
    db.init_app(app)
    with app.app_context():
        db.create_all()

    @app.get("/")
    def index():
        return {"guests": [guest.name for guest in db.session.scalars(db.select(Guest).order_by(Guest.id))]}

    @app.post("/")
    def sign():
        db.session.add(Guest(name=request.form["name"]))
        db.session.commit()
        return redirect("/")

    return app
