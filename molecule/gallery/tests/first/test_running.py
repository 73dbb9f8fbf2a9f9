"""What the apps do beside their pages: settings from a file, a worker, a timer, and a stream."""

import time


def test_site_answers_over_https(visitor, app):
    assert visitor.ask(f"https://{app}.test/").status == 200


def test_settings_are_in_a_file_that_only_root_and_the_app_can_read(host, visitor):
    assert visitor.ask("https://shop.test/").json == {"coffee": "33.00 SEK", "tea": "22.00 SEK"}
    file = host.file("/srv/shop/current/app/shop.cfg")
    assert (file.user, file.group, file.mode) == ("root", "shop", 0o640)


def test_worker_of_the_procfile_does_what_is_in_the_queue(visitor, history, eventually):
    dish = f"Soup of {history('kitchen')[-1]['release']}"
    assert visitor.ask("https://kitchen.test/", "POST", body=f"dish={dish}").status == 202
    assert eventually(lambda: visitor.ask("https://kitchen.test/").json[dish] == "cooked")


def test_release_command_of_the_procfile_has_run_once_for_each_release(host, history):
    lines = host.file("/srv/kitchen/data/instance/migrations.log").content_string.splitlines()
    assert len(lines) == len(history("kitchen"))


def test_timer_runs_its_command_again_and_again(host, eventually):
    assert host.service("flask-kitchen_timer@clean.timer").is_enabled

    def cleaned():
        log = host.file("/srv/kitchen/data/instance/cleaned.log")
        return len(log.content_string.splitlines()) if log.exists else 0

    before = cleaned()
    assert eventually(lambda: cleaned() >= before + 2)


def test_events_arrive_one_by_one_and_not_at_the_end(visitor):
    arrived = []
    with visitor.handshake("ticker.test") as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: ticker.test\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as answer:
            assert b" 200 " in answer.readline()
            arrived += [time.monotonic() for line in answer if line.startswith(b"data: ")]
    assert len(arrived) == 8
    # Sent within three and a half seconds.
    assert arrived[-1] - arrived[0] > 2
    assert arrived[3] - arrived[0] < arrived[-1] - arrived[0] - 1
