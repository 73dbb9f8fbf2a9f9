"""Numbers in words. The list is a file beside this one, and only an editable installation finds it."""

from pathlib import Path

NAMES = Path(__file__).with_name("names.txt").read_text(encoding="utf-8").split()
