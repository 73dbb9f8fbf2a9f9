"""The orders, in an SQLite file that the web process, the worker and the clean-up share."""

import sqlite3
from pathlib import Path

FOLDER = Path(__file__).parent / "instance"


def connect():
    return sqlite3.connect(FOLDER / "orders.sqlite", timeout=10, isolation_level=None)
