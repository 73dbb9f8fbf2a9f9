"""Settings of flaskhost-backup, and answers of pgBackRest: for the tests of the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flaskhost_backup import (
    pgbackrest,
    state,
)
from flaskhost_backup.config import Config, parse

NOW = 1_795_311_000.0
SYSTEM = "7710797430735645469"


def backup_item(label: str, stop: int, kind: str = "full", timeline: int = 1, first: int = 2) -> dict[str, Any]:
    return {
        "archive": {"start": f"{timeline:08X}{0:08X}{first:08X}", "stop": f"{timeline:08X}{0:08X}{first + 1:08X}"},
        "database": {"id": 1, "repo-key": 1},
        "error": False,
        "info": {"size": 23177582, "repository": {"delta": 2843728, "size": 2843728}},
        "label": label,
        "lsn": {"start": "0/2000028", "stop": "0/3000050"},
        "timestamp": {"start": stop - 2, "stop": stop},
        "type": kind,
    }


def info_text(*backups: dict[str, Any], code: int = 0, message: str = "ok") -> str:
    stanza = {
        "archive": [
            {"database": {"id": 1, "repo-key": 1}, "id": "15-1", "max": "00000002000000000000000A", "min": "1"}
        ],
        "backup": list(backups),
        "db": [{"id": 1, "repo-key": 1, "system-id": int(SYSTEM), "version": "15"}],
        "name": "main",
        "repo": [{"cipher": "aes-256-cbc", "key": 1, "status": {"code": code, "message": message}}],
        "status": {"code": code, "message": message},
    }
    return json.dumps([stanza])


def info(*backups: dict[str, Any]) -> pgbackrest.Info:
    return pgbackrest.parse_info(info_text(*backups))


def settings(folder: Path, **more: Any) -> Config:
    values: dict[str, Any] = {"host": "h1", "repository": str(folder / "repository"), "state": str(folder / "state")}
    values |= {"secrets": str(folder / "secrets"), "cache": str(folder / "cache"), **more}
    return parse(json.dumps(values))


CLUSTER = {"version": "15", "data": "/nowhere/main", "start": ["true"], "stop": ["true"]}


def good(folder: Path, *kinds: str, at: float) -> None:
    for kind in kinds:
        state.State(folder / "state").note(kind, {"at": at, "ok": True, "problems": []})
