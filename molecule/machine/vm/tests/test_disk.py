"""An app that writes until nothing goes stops itself alone: its own share of the disk is full, and nobody else's.

A machine, since a container has no file system of its own. Each test leaves the disk as it was.
"""

import textwrap

import pytest

LIMIT = 300 * 1024**2
#: What the hostile app runs before each attack: writes files of 10 MB until nothing goes, and says how many and why.
FILL = """
def fill(folder):
    for number in range(100):
        try:
            with open(f"{folder}/fill-{number}", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 10 * 1024**2)
        except OSError as error:
            return number, error.strerror
    return number, "it goes on"

def clean():
    for folder in ("/tmp", "/var/tmp", os.environ["HOME"]):
        for name in os.listdir(folder):
            if name.startswith("fill-"):
                os.unlink(f"{folder}/{name}")
"""


@pytest.fixture
def attack(visitor):
    """Run Python code inside the hostile app's slot; what it printed, and how it failed."""

    def run(code):
        return visitor.ask("https://mallory.test/run", "POST", body=FILL + textwrap.dedent(code)).body

    yield run
    assert "Traceback" not in run("clean()")


@pytest.fixture
def others(host, visitor):
    """Afterwards everybody else writes and is served as before."""
    yield
    assert visitor.ask("https://guestbook.test/readyz").status == 200
    assert visitor.ask("https://hello.test/").status == 200
    for user in ("hello", "guestbook"):
        host.check_output(f"runuser -u {user} -- sh -c 'echo it goes > /srv/{user}/data/written'")
    write_rows(host)


def write_rows(host):
    """Have PostgreSQL write what did not fit before."""
    sql = "CREATE TABLE reserve AS SELECT generate_series(1, 200000) AS number; CHECKPOINT; DROP TABLE reserve;"
    host.check_output(f"runuser -u postgres -- psql --dbname=postgres --set=ON_ERROR_STOP=1 --command='{sql}'")


@pytest.mark.parametrize("folder", ["data", "tmp", "var_tmp"])
def test_an_app_that_fills_a_folder_stops_itself_alone(attack, others, folder):
    path = {"data": "os.environ['HOME']", "tmp": "'/tmp'", "var_tmp": "'/var/tmp'"}[folder]
    number, _, why = attack(f"print(*fill({path}), sep=': ')").partition(": ")
    assert why.strip() == "Disk quota exceeded"
    # Its releases and its environment count too.
    assert 10 < int(number) < 30


def test_an_app_that_makes_files_without_end_stops_itself_alone(host, attack, others):
    free = int(host.check_output("df --output=iavail / | tail -n 1"))
    said = attack("""
        import errno, itertools
        for number in itertools.count():
            try:
                os.close(os.open(f"{os.environ['HOME']}/fill-{number}", os.O_CREAT | os.O_WRONLY))
            except OSError as error:
                print(number, errno.errorcode[error.errno])
                break
    """)
    number, why = said.split()
    assert why == "EDQUOT"
    assert int(number) < free / 10


def test_an_app_cannot_leave_its_share(attack):
    said = attack("""
        import array, errno, fcntl
        print(os.getuid())
        for place in (os.environ["HOME"], "/tmp"):
            for project in (0, 1):
                descriptor = os.open(place, os.O_RDONLY)
                words = array.array("I", [0] * 7)
                fcntl.ioctl(descriptor, 0x801C581F, words)
                assert words[3] > 1 << 30, words
                words[3], words[0] = project, 0
                try:
                    fcntl.ioctl(descriptor, 0x401C5820, words)
                    print("it left")
                except OSError as error:
                    print(errno.errorcode[error.errno])
    """)
    assert "Traceback" not in said
    assert set(said.split()[1:]) <= {"EINVAL", "EPERM"}
    assert len(said.split()) == 5


def test_rows_without_end_stop_their_database_alone(host, others):
    def rows(sql):
        return host.run(f'runuser -u mallory -- psql --dbname=mallory --set=ON_ERROR_STOP=1 --command="{sql}"')

    try:
        assert rows("CREATE TABLE fill (line text)").rc == 0
        # A million rows of 1000 bytes, which do not compress: a third of that is more than the limit.
        line = "SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 31)"
        done = rows(f"INSERT INTO fill SELECT ({line} WHERE number > 0) FROM generate_series(1, 1000000) AS number")
        assert done.rc != 0
        assert "Disk quota exceeded" in done.stderr
        size = int(host.check_output("runuser -u postgres -- psql -Atc \"SELECT pg_database_size('mallory')\""))
        assert LIMIT / 2 < size < LIMIT
    finally:
        assert rows("DROP TABLE IF EXISTS fill").rc == 0
    # And it gets up by itself when there is room again.
    assert rows("CREATE TABLE fill AS SELECT 1; DROP TABLE fill").rc == 0


def test_postgresql_goes_on_where_others_have_filled_the_disk(host, visitor):
    """What reserve there is, is for root and PostgreSQL: the last line where nothing bounds who writes."""
    fill = "runuser -u nobody -- sh -c 'i=0; while fallocate -l 64M /var/tmp/fill-$i 2>/dev/null; do i=$((i+1)); done; "
    try:
        host.run(fill + "dd if=/dev/zero of=/var/tmp/fill-rest bs=1M 2>/dev/null'")
        assert host.check_output("df --output=avail / | tail -n 1").strip() == "0"
        assert host.run("runuser -u nobody -- sh -c 'echo more > /var/tmp/fill-more'").rc != 0
        write_rows(host)
        assert visitor.ask("https://guestbook.test/readyz").status == 200
        assert visitor.ask("https://hello.test/").status == 200
    finally:
        host.check_output("rm -f /var/tmp/fill-*")
