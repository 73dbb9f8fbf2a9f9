"""An app that writes until nothing goes stops itself alone: its own share of the disk is full, and nobody else's.

A machine, since a container has no file system of its own. Each test leaves the disk as it was.
"""

import textwrap
import time

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


def as_postgres(host, sql):
    """Run SQL as PostgreSQL's superuser."""
    return host.check_output("runuser -u postgres -- psql -At --set=ON_ERROR_STOP=1 --command=%s", sql)


def write_rows(host):
    """Have PostgreSQL write what did not fit before."""
    as_postgres(host, "CREATE TABLE reserve AS SELECT generate_series(1, 200000) AS number")
    as_postgres(host, "CHECKPOINT")
    as_postgres(host, "DROP TABLE reserve")


def wait_for(host, command, seconds=300):
    """Wait until a command succeeds."""
    end = time.monotonic() + seconds
    while (done := host.run(command)).rc:
        assert time.monotonic() < end, f"{command}: {done.stdout}{done.stderr}"
        time.sleep(1)


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


def rows(host, sql):
    """Run SQL as the hostile app."""
    return host.run("runuser -u mallory -- psql --dbname=mallory --set=ON_ERROR_STOP=1 -At --command=%s", sql)


def fill_table(host, name, megabytes):
    """Write rows, four to a page of 8 kB: short enough for PostgreSQL not to compress them."""
    assert rows(host, f"CREATE TABLE {name} (line text)").rc == 0
    return rows(host, f"INSERT INTO {name} SELECT repeat('x', 1900) FROM generate_series(1, {megabytes * 512})")


def test_rows_without_end_stop_their_database_alone(host, others):
    try:
        done = fill_table(host, "fill", 400)
        assert done.rc != 0
        assert "Disk quota exceeded" in done.stderr
        size = int(as_postgres(host, "SELECT pg_database_size('mallory')"))
        assert LIMIT / 2 < size < LIMIT
    finally:
        assert rows(host, "DROP TABLE IF EXISTS fill").rc == 0
    # And it gets up by itself when there is room again.
    assert fill_table(host, "fill", 100).rc == 0
    assert rows(host, "DROP TABLE fill").rc == 0


def test_temporary_files_of_queries_are_bounded_by_role(host, others):
    limit = rows(host, "SHOW temp_file_limit").stdout.strip()
    assert limit.endswith("MB")
    assert 16 <= int(limit.removesuffix("MB")) <= LIMIT / 1024**2 / 4
    lines = "SELECT repeat('x', 1900) || n FROM generate_series(1, 300000) AS n ORDER BY 1"
    assert "temporary file size exceeds" in rows(host, f"SELECT count(*) FROM ({lines} LIMIT 299999) AS sorted").stderr
    assert "permission denied" in rows(host, "SET temp_file_limit = -1").stderr
    assert "permission denied" in rows(host, "ALTER ROLE mallory SET temp_file_limit = -1").stderr


def test_what_an_app_has_dropped_does_not_keep_postgresql_from_recovering(host, others):
    """A recovery writes what was dropped since the last checkpoint beside what is there now: more than the bound."""
    version = host.check_output("ls /etc/postgresql").strip()
    checkpoint = "SELECT redo_lsn FROM pg_control_checkpoint()"
    as_postgres(host, "CHECKPOINT")
    redo, began = as_postgres(host, checkpoint), host.check_output("date +@%s")
    try:
        assert fill_table(host, "first", 150).rc == 0
        assert rows(host, "DROP TABLE first").rc == 0
        assert fill_table(host, "second", 150).rc == 0
        assert as_postgres(host, checkpoint) == redo, "a checkpoint meanwhile leaves nothing to recover"
        # As the kernel does when memory runs out: PostgreSQL ends all connections and recovers.
        victim = as_postgres(host, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        host.check_output("kill -9 %s", victim)
        # PostgreSQL 15 has written half of a block first, and says so instead of the kernel's reason.
        refused = "(FATAL|ERROR): .*could not extend file"
        wait_for(host, f"journalctl --identifier=postgres --since={began} | grep -Eq '{refused}'")
        wait_for(host, "runuser -u postgres -- psql -Atc 'SELECT 1'")
        assert host.check_output(f"systemctl show --value -p NRestarts postgresql@{version}-main") != "0"
        # The bounds are back.
        wait_for(host, "repquota -P -n -v -O csv / | grep -q ',0,307200,'")
        assert "Disk quota exceeded" in fill_table(host, "third", 300).stderr
    finally:
        rows(host, "DROP TABLE IF EXISTS first, second, third")


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
