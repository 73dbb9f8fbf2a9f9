"""After a second release of each app with changed code: what the first one has left is still there."""

import json


def test_second_release_serves_with_the_changed_code(host, history, app):
    first, second = history(app)
    assert (first["verb"], second["verb"]) == ("deploy", "deploy")
    assert host.file(f"/srv/{app}/current").linked_to.endswith(f"/{second['release']}")
    assert second["release"] != first["release"]
    host.run_expect([0], f"grep -rq '^# The second release.$' /srv/{app}/current/src")
    host.run_expect([1], f"grep -rq '^# The second release.$' /srv/{app}/releases/{first['release']}/src")


def test_diary_was_not_set_up_again(host, visitor, history):
    first = history("diary")[0]["release"]
    note = json.loads(host.file("/srv/diary/data/.flaskhost-setup.json").content_string)
    assert note["release"] == first
    assert f"Written under {first}" in visitor.ask("https://diary.test/").body


def test_upload_can_be_downloaded(visitor, history):
    name = history("album")[0]["release"]
    assert visitor.ask(f"https://album.test/pictures/{name}.txt").body == f"A cat, under {name}."


def test_rows_in_the_apps_own_tables_are_kept(visitor, history):
    assert f"Ada of {history('guests')[0]['release']}" in visitor.ask("https://guests.test/").json["guests"]


def test_orders_are_kept_and_the_worker_runs_the_new_code(host, visitor, history):
    first, second = (entry["release"] for entry in history("kitchen"))
    assert visitor.ask("https://kitchen.test/").json[f"Soup of {first}"] == "cooked"
    pid = host.run("systemctl show --property=MainPID --value flask-kitchen_process@worker").stdout.strip()
    assert f"FLASKHOST_RELEASE={second}" in host.run(f"cat /proc/{pid}/environ").stdout.split("\0")


def test_settings_file_is_the_second_releases_own(host, history):
    for entry in history("shop"):
        assert host.file(f"/srv/shop/releases/{entry['release']}/app/shop.cfg").contains("SEK")


def test_packages_without_pins_are_the_same(host, history):
    records = [f"/srv/pantry/releases/{entry['release']}/release.json" for entry in history("pantry")]
    first, second = (json.loads(host.file(path).content_string)["venv"] for path in records)
    assert first == second
    assert len(host.run("ls /srv/pantry/resolved").stdout.split()) == 1


def test_each_release_has_its_own_build_of_the_projects_own_code(host, history):
    for app in ("toolbox", "abacus"):
        records = [f"/srv/{app}/releases/{entry['release']}/release.json" for entry in history(app)]
        first, second = (json.loads(host.file(path).content_string)["venv"] for path in records)
        assert first != second, app
