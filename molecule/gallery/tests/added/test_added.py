"""After one more app: it serves, and nothing of the others has changed."""

import os
from pathlib import Path

STATE = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "molecule/gallery/state.sh"


def test_the_added_app_serves(host, visitor, history):
    assert "Welcome!" in visitor.ask("https://welcome.test/").body
    assert [entry["verb"] for entry in history("welcome")] == ["deploy"]


def test_the_others_still_serve(visitor, app):
    assert visitor.ask(f"https://{app}.test/").status == 200


def test_the_others_have_the_same_releases_processes_and_history(host):
    """No release, no restart, no setup or release command: state.sh prints all of it. PostgreSQL is in it, too."""
    before = host.file("/root/gallery-before").content_string.strip().splitlines()
    assert host.run_expect([0], STATE.read_text()).stdout.strip().splitlines() == before
    # Each app has at least its slot, its socket and three lines about its releases.
    assert len(before) > 12 * 5
    assert any("flask-kitchen_process@worker.service" in line for line in before)
    assert any("flask-kitchen_timer@clean.timer" in line for line in before)
    assert any("postgresql@" in line for line in before)
