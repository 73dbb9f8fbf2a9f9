"""On a host: print how many seconds each deploy took, from the start of its build until its release was live."""

from __future__ import annotations

import json
from pathlib import Path

for history in sorted(Path("/srv").glob("*/history.json")):
    seconds = []
    for entry in json.loads(history.read_text()):
        record = history.parent / "releases" / entry["release"] / "release.json"
        if entry["verb"] == "deploy" and record.exists():
            seconds.append(f"{entry['at'] - json.loads(record.read_text())['created']:6.1f}")
    print(f"{history.parent.name:<12}{''.join(seconds)}")
