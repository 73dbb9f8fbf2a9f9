"""Where the apps keep their data. What is written here names the release that it was written under: see ../second."""

import json

FORM = (
    '--edge\r\nContent-Disposition: form-data; name="picture"; filename="{name}.txt"\r\n'
    "Content-Type: text/plain\r\n\r\nA cat, under {name}.\r\n--edge--\r\n"
)


def test_setup_command_has_created_the_tables_of_the_diary(host, visitor, history):
    note = json.loads(host.file("/srv/diary/data/.flaskhost-setup.json").content_string)
    assert (note["state"], note["command"]) == ("done", "flask init-db")
    text = f"Written under {history('diary')[-1]['release']}"
    assert visitor.ask("https://diary.test/", "POST", body=f"text={text}").status == 302
    assert text in visitor.ask("https://diary.test/").body
    assert host.file("/srv/diary/data/instance/diary.sqlite").user == "diary"


def test_upload_is_stored_outside_of_the_release(host, visitor, history):
    name = history("album")[-1]["release"]
    answer = visitor.ask(
        "https://album.test/",
        "POST",
        headers={"Content-Type": "multipart/form-data; boundary=edge"},
        body=FORM.format(name=name),
    )
    assert (answer.status, answer.headers["location"]) == (302, f"/pictures/{name}.txt")
    assert visitor.ask(f"https://album.test/pictures/{name}.txt").body == f"A cat, under {name}."
    assert host.file(f"/srv/album/data/uploads/{name}.txt").user == "album"


def test_app_has_created_its_own_tables_at_its_start(host, visitor, history):
    sql = "select tableowner from pg_tables where tablename = 'guest'"
    assert host.run_expect([0], f'sudo -u postgres psql -d guests -tAc "{sql}"').stdout.strip() == "guests"
    name = f"Ada of {history('guests')[-1]['release']}"
    assert visitor.ask("https://guests.test/", "POST", body=f"name={name}").status == 302
    assert name in visitor.ask("https://guests.test/").json["guests"]
