"""Clean up. A timer runs this."""

from datetime import UTC, datetime

import orders

with (orders.FOLDER / "cleaned.log").open("a") as log:
    log.write(f"{datetime.now(UTC).isoformat()} cleaned\n")
