"""What the hostile app sees of its neighbor from inside its sandbox."""

from __future__ import annotations

from typing import Any

from tenants import attack


def test_the_attack_tool_runs_as_the_hostile_app(visitor: Any) -> None:
    """The positive control of every other test: code that is posted runs, as the app's own user."""
    assert attack(visitor, "import getpass; print(getpass.getuser())").strip() == "mallory"


def test_a_neighbors_files_are_closed(visitor: Any) -> None:
    output = attack(
        visitor,
        """
        import pathlib
        for path in ("/srv/alice/data", "/srv/alice/current/env", "/srv/alice/current/src", "/etc/flaskhost/alice"):
            try:
                print(path, [str(item) for item in pathlib.Path(path).iterdir()] or pathlib.Path(path).read_text())
            except OSError as error:
                print("refused", path, error.strerror)
        """,
    )
    assert len([line for line in output.splitlines() if line.startswith("refused ")]) == 4, output
