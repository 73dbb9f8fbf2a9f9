"""Packages of many kinds: each app answers with what its packages make of the request."""

import os
import re
import tomllib
from pathlib import Path

VERSE = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "tests/apps/verse"


def packages(host, app):
    """The installed packages of an app, by name, with their versions."""
    listed = host.run_expect([0], f"ls -d /srv/{app}/current/venv/lib/python*/site-packages/*.dist-info").stdout
    return dict(re.findall(r"(?m)([^/\s]+)-([^-\s]+)\.dist-info$", listed.lower()))


def test_translations_were_compiled_by_the_build_command(host, visitor):
    assert host.run("find /srv/phrases/current/app/ -name '*.mo'").stdout.count(".mo") == 2
    for language, greeting in (("sv", "God morgon"), ("de-DE,de;q=0.9", "Guten Morgen"), ("fi", "Good morning")):
        answer = visitor.ask("https://phrases.test/", headers={"Accept-Language": language})
        assert answer.json["greeting"] == greeting


def test_project_and_its_plugin_are_found_by_their_entry_points(host, visitor):
    assert visitor.ask("https://toolbox.test/").json == {
        "version": "2.3.0",
        "tools": {"roman": "Roman numerals.", "upper": "Capital letters."},
    }
    assert visitor.ask("https://toolbox.test/roman/1984").json["result"] == "MCMLXXXIV"
    assert {"toolbox", "toolbox_roman"} <= packages(host, "toolbox").keys()


def test_pins_from_2021_are_installed_as_they_are(host, visitor):
    assert visitor.ask("https://museum.test/pieces/2").json == {"flask": "1.1.4", "name": "Punched card"}
    found = packages(host, "museum")
    assert (found["werkzeug"], found["jinja2"], found["markupsafe"]) == ("1.0.1", "2.11.3", "1.1.1")


def test_packages_of_the_source_were_built_on_the_host(host, visitor):
    assert visitor.ask("https://abacus.test/?n=1.5&n=2.25").json == {"about": "three", "compiled": True, "sum": 3.75}
    # What the build of the editable package has written beside the code belongs to root, as the code does.
    code = "/srv/abacus/current/src/vendor/words"
    assert host.file(f"{code}/words.egg-info").is_directory
    assert host.run_expect([0], f"find {code}/ ! -user root").stdout == ""


def test_versions_that_nothing_pins_are_kept_on_the_host(host, visitor):
    answer = visitor.ask("https://pantry.test/").json
    kept = host.run_expect([0], "cat /srv/pantry/resolved/*.txt").stdout.splitlines()
    assert {f"flask=={answer['flask']}", f"humanize=={answer['humanize']}"} <= set(kept)
    assert any(line.startswith("werkzeug==") for line in kept)


def test_packages_of_poetry_are_those_of_its_lock_file_without_the_group_dev(host, visitor):
    assert "<em>all night</em>" in visitor.ask("https://verse.test/rain").body
    locked = tomllib.loads((VERSE / "poetry.lock").read_text(encoding="utf-8"))["package"]
    found = packages(host, "verse")
    for package in locked:
        wanted = package["version"] if "main" in package["groups"] else None
        assert found.get(package["name"]) == wanted, package["name"]
