"""The project's plugins as modules of Python: a file of plugins/ is in no package, so that it is loaded by its path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def load_plugin(path: str) -> Any:
    """Load a file by its path in the project, anew each time: tests may change what is in it."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    if not spec or not spec.loader:
        raise AssertionError(f"{path} is no file of Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
