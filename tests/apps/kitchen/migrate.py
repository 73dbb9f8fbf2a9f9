"""Bring the tables up to date, and keep a log of when that was."""

from datetime import UTC, datetime

import orders

with orders.connect() as db:
    db.execute("CREATE TABLE IF NOT EXISTS dish (id INTEGER PRIMARY KEY, name TEXT, state TEXT DEFAULT 'ordered')")
with (orders.FOLDER / "migrations.log").open("a") as log:
    log.write(f"{datetime.now(UTC).isoformat()} migrated\n")
