"""The second input has taken effect everywhere, and what was not touched has stayed."""

import json
import socket

import pytest


def test_new_name_redirects_and_the_old_one_is_refused(visitor):
    answer = visitor.ask("https://new.guestbook.test/")
    assert (answer.status, answer.headers["location"]) == (301, "https://guestbook.test/")
    with visitor.connect(80) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: old.guestbook.test\r\n\r\n")
        assert connection.recv(100) == b""


def test_certificate_has_the_new_names(visitor):
    der = visitor.handshake("guestbook.test").getpeercert(binary_form=True)
    assert b"new.guestbook.test" in der
    assert b"old.guestbook.test" not in der


def test_new_version_serves_from_the_other_slot(visitor, host):
    assert "Hello from v2" in visitor.ask("https://hello.test/").body
    assert "second version" in visitor.ask("https://hello.test/static/hello.txt").body
    assert host.file("/srv/hello/live.sock").linked_to.endswith("/green.sock")
    assert not host.file("/run/flask-hello/blue.sock").exists


@pytest.mark.parametrize("app", ["hello", "ledger"])
def test_setup_command_has_run_once_for_both_releases(host, app):
    """With a database on each host on each of them, and without one on the first host for both."""
    if app == "hello" and host.check_output("hostname") != "fh-bookworm":
        assert not host.file("/srv/hello/data/setups").exists
        return
    assert host.file(f"/srv/{app}/data/setups").content_string == "set up\n"
    note = json.loads(host.file(f"/srv/{app}/data/.flaskhost-setup.json").content_string)
    assert (note["state"], note["command"]) == ("done", "echo set up >> $HOME/setups")


def test_setup_command_of_an_app_with_data_has_not_run(host):
    assert not host.file("/srv/guestbook/data/setups").exists
    note = json.loads(host.file("/srv/guestbook/data/.flaskhost-setup.json").content_string)
    assert note["state"] == "found"


def test_the_same_lock_has_the_same_environment(host):
    assert len(host.run("ls /srv/hello/venvs").stdout.split()) == 1
    assert len(host.run("ls /srv/hello/releases").stdout.split()) == 2


def test_secret_that_was_taken_out_is_gone(host):
    pid = host.process.filter(user="hello")[0].pid
    assert "ODD=" not in host.run(f"cat /proc/{pid}/environ").stdout


def test_secret_key_has_stayed(host):
    pid = host.process.filter(user="hello")[0].pid
    key = host.file("/etc/flaskhost/hello/secret_key").content_string.strip()
    assert f"SECRET_KEY={key}" in host.run(f"cat /proc/{pid}/environ").stdout


def test_new_number_of_workers_runs_in_the_same_release(host):
    """In the other slot, and without a release command: nothing that could concern the data has changed."""
    assert len(host.process.filter(user="guestbook")) == 1 + 3
    assert len(host.run("ls /srv/guestbook/releases").stdout.split()) == 1
    assert host.file("/srv/guestbook/live.sock").linked_to.endswith("/green.sock")
    verbs = [entry["verb"] for entry in json.loads(host.file("/srv/guestbook/history.json").content_string)]
    assert verbs == ["deploy", "restart"]


def test_entries_have_outlived_the_release(visitor):
    assert "Written by a test" in visitor.ask("https://guestbook.test/").body


def test_new_body_limit_holds(visitor):
    assert visitor.ask("https://hello.test/", "POST", body="a" * (1024 * 1024 + 1)).status != 413
    assert visitor.ask("https://hello.test/", "POST", body="a" * (2 * 1024 * 1024 + 1)).status == 413


def test_new_port_is_let_in(host):
    address = host.run("hostname --all-ip-addresses").stdout.split()[0]
    with pytest.raises(ConnectionRefusedError), socket.create_connection((address, 9100), timeout=3):
        pass  # refused by the host, for nobody listens: the firewall would have kept silent


def test_new_time_zone(host):
    assert host.run("date +%Z").stdout.strip() in {"WET", "WEST"}


def test_database_accepts_the_new_number_of_connections(host):
    shown = host.run("sudo -u postgres psql --tuples-only --no-align --command 'show max_connections'").stdout
    assert int(shown) >= (8 if host.ansible.get_variables()["guestbook_pool"] else 3 * 8 * 2)


def run_in_ledger(visitor, code):
    """Have the app ledger run code of Python's."""
    return visitor.ask("https://ledger.test/run", "POST", body=code)


def sql_in_ledger(visitor, *statements):
    """Have the app ledger run statements of SQL, in one transaction."""
    lines = [
        "import sqlalchemy",
        "engine = sqlalchemy.create_engine(os.environ['SQLALCHEMY_DATABASE_URI'], poolclass=sqlalchemy.pool.NullPool)",
        "with engine.begin() as connection:",
        *(f"    connection.execute(sqlalchemy.text({statement!r}))" for statement in statements),
    ]
    return run_in_ledger(visitor, "\n".join(lines))


def test_tables_that_an_app_has_made_are_handed_over_to_the_owner(host, visitor):
    """tests/converged has made the table, with database_owner."""
    sql = "select tableowner from pg_tables where tablename = 'page'"
    assert host.run(f'sudo -u postgres psql -d ledger -tAc "{sql}"').stdout.strip() == "ledger-owner"
    answer = sql_in_ledger(visitor, "insert into page values ('Two')", "delete from page")
    assert answer.status == 200, answer.body
    for statement in ("create table other (x int)", "drop table page"):
        answer = sql_in_ledger(visitor, statement)
        assert answer.status == 500
        assert "InsufficientPrivilege" in answer.body


def test_driver_is_the_installed_one_where_none_is_named(visitor):
    """tests/converged has named it."""
    answer = run_in_ledger(visitor, "print(os.environ['SQLALCHEMY_DATABASE_URI'])")
    assert answer.body.startswith("postgresql+psycopg2://ledger@/ledger?"), answer.body


def test_extension_that_is_no_longer_named_stays_with_its_data(host):
    sql = "select count(*) from pg_extension where extname = 'citext'"
    assert host.run(f'sudo -u postgres psql -d ledger -tAc "{sql}"').stdout.strip() == "1"


def test_persistent_folder_has_outlived_the_release(visitor):
    answer = run_in_ledger(visitor, "print(open('drafts/kept').read())")
    assert (answer.status, answer.body) == (200, "a draft\n")


def test_without_its_build_command_the_code_is_as_it_was_and_packages_stay(host):
    assert not host.file("/srv/ledger/current/app/built.txt").exists
    assert host.package("bc").is_installed


def test_options_that_were_taken_out_are_at_their_defaults(host, visitor):
    answer = visitor.ask("https://ledger.test/")
    assert answer.headers["content-security-policy"] == "base-uri 'self'; frame-ancestors 'self'"
    assert "cross-origin-opener-policy" in answer.headers
    assert "x-robots-tag" not in answer.headers
    assert visitor.ask("https://ledger.test/files/notice.txt").status == 404
    assert visitor.ask("https://ledger.test/static/plain.txt").status == 200
    assert run_in_ledger(visitor, "print(os.environ['FLASK_CONFIG'])").body == "production\n"
    answer = sql_in_ledger(visitor, "select pg_sleep(3)")
    assert answer.status == 200, answer.body


def test_app_without_the_option_runs_with_the_distributions_python_again(host):
    python = host.check_output("readlink --canonicalize /srv/ledger/current/venv/bin/python")
    assert python.startswith("/usr/bin/python3.")


def test_version_that_an_earlier_release_needs_has_stayed(host):
    """No app asks for it any more, but a rollback would need it."""
    folder = "/opt/flaskhost/python"
    assert host.check_output(f"find {folder} -name 3.\\*") == ""
    links = host.check_output("readlink /srv/ledger/venvs/*/bin/python").split()
    (needed,) = [link for link in links if link.startswith(folder)]
    assert host.run(f"{needed} -I -c 'import ssl'").rc == 0
