"""The app ledger runs with a version of Python from a mirror, and the others with the distribution's."""

import json

import pytest

FOLDER = "/opt/flaskhost/python"


@pytest.fixture
def wanted(host):
    """The version that the app asks for: the distribution's own, which the mirror has."""
    return host.check_output("/usr/bin/python3 --version").split()[1]


@pytest.fixture
def installed(host, wanted):
    """The folder of that version."""
    return f"{FOLDER}/cpython-{wanted}-linux-{host.check_output('uname -m')}-gnu"


def ask(visitor, code):
    """Have the app run code of Python's; return what it prints."""
    answer = visitor.ask("https://ledger.test/run", "POST", body=code)
    assert answer.status == 200, answer.body
    return answer.body


def test_app_runs_with_the_version_that_it_asks_for(visitor, wanted, installed):
    code = "import ssl, sys, sqlite3\nprint(json.dumps([sys.base_prefix, list(sys.version_info[:3])]))"
    base, version = json.loads(ask(visitor, f"import json\n{code}"))
    assert base == installed
    assert version == [int(number) for number in wanted.split(".")]


def test_packages_with_compiled_code_work_in_it(visitor):
    assert "psycopg2" in ask(visitor, "import psycopg2, sqlalchemy\nprint(psycopg2.__name__)")


def test_other_apps_run_with_the_distributions_python(host):
    for app in ("guestbook", "hello"):
        python = host.check_output(f"readlink --canonicalize /srv/{app}/current/venv/bin/python")
        assert python.startswith("/usr/bin/python3.")


def test_only_root_writes_the_versions_and_everybody_reads_them(host, wanted, installed):
    assert host.check_output(f"find {FOLDER} ! -user root -o ! -type l -perm /022 -o -perm /7000") == ""
    assert host.check_output(f"find {installed} ! -perm -004 ! -type l") == ""
    assert host.file(f"{FOLDER}/.lock").mode == 0o600
    python = f"{installed}/bin/python{wanted.rpartition('.')[0]}"
    assert host.run(f"sudo -u nobody {python} -I -c 'import ssl'").rc == 0


def test_library_is_compiled_so_that_starts_are_fast(host, installed):
    assert host.run(f"ls {installed}/lib/python3.*/__pycache__/os.*.pyc").rc == 0


def test_app_cannot_change_its_python(visitor, installed):
    code = f"try:\n    open('{installed}/x', 'w')\nexcept OSError as error:\n    print(error.strerror)"
    assert "Read-only file system" in ask(visitor, code)


def test_archive_with_another_checksum_is_refused(host):
    """The mirror has the file, and the list of downloads names another checksum."""
    mirror = "file:///opt/python-mirror"
    uv = "/opt/flaskhost/uv/bin/uv python install --no-config --no-bin --no-cache --managed-python"
    options = f"--mirror {mirror} --python-downloads-json-url {mirror}/downloads.json --install-dir /opt/of-a-test"
    result = host.run(f"{uv} {options} 3.98.1")
    assert result.rc != 0
    assert "Hash mismatch" in result.stderr
    assert host.check_output("find /opt/of-a-test -name 'cpython*'") == ""
