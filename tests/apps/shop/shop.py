"""A price list. Its settings are in a Python file, whose path is in the variable SHOP_SETTINGS."""

from flask import Flask

PRICES = {"coffee": 3, "tea": 2}

app = Flask(__name__)
app.config.from_envvar("SHOP_SETTINGS")


@app.get("/")
def index():
    return {name: f"{price * app.config['RATE']:.2f} {app.config['CURRENCY']}" for name, price in PRICES.items()}
