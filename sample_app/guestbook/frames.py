"""Computes the statistics with pandas. A program of its own, so that no worker keeps pandas' 70 MB: see stats.py."""

import json
import sys
from pathlib import Path
from typing import Any

PREFERENCE = Path("/proc/self/oom_score_adj")
if __name__ == "__main__" and PREFERENCE.exists():
    # If memory runs out, this process is to die and not a worker: the page then says 503.
    PREFERENCE.write_text("1000")

import pandas as pd  # noqa: E402

DAYS = 30


def compute(by_day: list[list[Any]], by_author: list[list[Any]], today: str) -> dict[str, Any]:
    """Turn counts of the database into the rows of two tables.

    Args:
        by_day: the day, and its number of entries; days without one are missing.
        by_author: the author, whether it is a member, the number of entries, and the day of the newest.
        today: the last day to show.
    """
    window = pd.date_range(end=today, periods=DAYS)
    days = pd.Series({pd.Timestamp(day): count for day, count in by_day}, dtype="int64").reindex(window, fill_value=0)
    frame = pd.DataFrame({"count": days, "mean": days.rolling(7, min_periods=1).mean().round(1)})
    authors = pd.DataFrame(by_author, columns=["author", "is_member", "count", "newest"])
    authors["share"] = (authors["count"] / authors["count"].sum() * 100).round(1)
    authors = authors.sort_values(["count", "author"], ascending=[False, True])
    return {
        "days": [[day.strftime("%Y-%m-%d"), int(row["count"]), float(row["mean"])] for day, row in frame.iterrows()],
        "authors": authors[["author", "is_member", "count", "share", "newest"]].values.tolist(),
    }


if __name__ == "__main__":
    json.dump(compute(**json.load(sys.stdin)), sys.stdout)
