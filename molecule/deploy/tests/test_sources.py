"""Where code comes from: private repositories, archives, and packages without any network."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from playbook import PROJECT, deploy, leftovers, run, serving, with_app

# On one host: git, tar and uv do the same on both, and each test is one deploy or more.
testinfra_hosts = ["ansible://fh-deploy-bookworm"]

KEY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "deploy_key"
PRIVATE = {"repo": "ssh://git@127.0.0.1/home/git/hello.git", "version": "main", "subdir": "apps/hello"}
HELLO = PROJECT / "tests/apps/hello"
REFUSED = "Permission denied (publickey"


@pytest.fixture(autouse=True, scope="module")
def as_before(host):
    """The host serves what the scenario says, before and after."""
    deploy(host, "main")
    yield
    deploy(host, "main")


@pytest.fixture(autouse=True)
def no_agent(monkeypatch):
    """Whatever who runs the tests has: no agent comes along unless a test brings it."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def from_source(host, tag="", packages="", **source):
    """Deploy hello from another source; return the run's status and what it printed."""
    options = {"source": source, **({"wheelhouse": packages} if packages else {})}
    more = {"version": tag} if tag else {}
    return run("deploy", host, app="hello", **more, **with_app("hello", **options))


def version_served(visitor):
    return visitor.ask("https://hello.test/whoami").json["version"]


def test_private_repository_is_read_with_its_deploy_key(host, visitor):
    key = KEY.read_text()
    status, output = from_source(host, "n11", **PRIVATE, key=key)
    assert status == 0, output
    assert version_served(visitor) == "n11"
    assert key.splitlines()[1] not in output
    kept = host.file("/etc/flaskhost/hello/deploy_key")
    assert (kept.user, kept.group, kept.mode) == ("root", "root", 0o600)
    # The server was trusted on first use, and is known from now on.
    host.run_expect([0], "ssh-keygen -F 127.0.0.1 -f /etc/flaskhost/hello/known_hosts")
    status, output = from_source(host, "n11", **PRIVATE, key=key)
    assert status == 0, output
    assert "changed=0" in output


@pytest.mark.nightly
def test_private_repository_is_read_in_check_mode_without_a_trace(host, visitor):
    secrets = "find /etc/flaskhost/hello /root/.ssh -printf '%p %T@ %s\\n' | sort"
    before, files = serving(host), host.run(secrets).stdout
    variables = with_app("hello", source={**PRIVATE, "key": KEY.read_text()})
    status, output = run("deploy", host, "--check", app="hello", version="n12", **variables)
    assert status == 0, output
    assert serving(host) == before
    assert host.run(secrets).stdout == files


@pytest.mark.nightly
def test_key_of_the_server_that_is_named_is_the_one_it_must_have(host, visitor):
    shown = host.run_expect([0], "ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null").stdout
    status, output = from_source(host, "n13", **PRIVATE, key=KEY.read_text(), known_hosts=shown)
    assert status == 0, output
    assert version_served(visitor) == "n13"
    before = serving(host)
    another = f"127.0.0.1 {' '.join(KEY.with_suffix('.pub').read_text().split()[:2])}\n"
    status, output = from_source(host, "n14", **PRIVATE, key=KEY.read_text(), known_hosts=another)
    assert status != 0, output
    assert "hello was not released. Read the repository" in output
    assert "source.known_hosts" in output
    assert serving(host) == before
    assert leftovers(host) == []
    # For the tests to come: the server's own key again.
    host.run_expect([0], "rm /etc/flaskhost/hello/known_hosts")


def test_private_repository_without_a_key_is_refused_with_the_cure(host):
    before = serving(host)
    status, output = from_source(host, "n15", **PRIVATE)
    assert status != 0, output
    assert "hello was not released. Read the repository" in output
    assert REFUSED in output
    assert "source.key" in output
    assert "ForwardAgent=yes" in output
    assert serving(host) == before
    assert leftovers(host) == []
    # One that was taken out of the inventory is not left on the host.
    assert not host.file("/etc/flaskhost/hello/deploy_key").exists


def test_private_repository_is_read_with_a_forwarded_agent(host, visitor, monkeypatch):
    # The path of a socket may have 108 characters, which pytest's own folders come near to.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{folder}/agent")
        # A connection of its own: one that is kept open was made without an agent, and has none to pass on.
        monkeypatch.setenv("ANSIBLE_SSH_ARGS", "-o ControlMaster=no")
        monkeypatch.setenv("ANSIBLE_SSH_EXTRA_ARGS", "-o ForwardAgent=yes")
        command = ["ssh-agent", "-D", "-a", f"{folder}/agent"]
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            # What it says first, it says when it listens.
            assert agent.stdout.readline()
            subprocess.run(["ssh-add", "-q", str(KEY)], check=True, timeout=30)
            status, output = from_source(host, "n16", **PRIVATE)
        finally:
            agent.terminate()
            agent.communicate(timeout=30)
    assert status == 0, output
    assert version_served(visitor) == "n16"
    assert not host.file("/etc/flaskhost/hello/deploy_key").exists


def pack(archive, version, compression="gz"):
    """Make an archive of hello, as a release on a web site is one; return what a user writes of it."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "hello-1.0"
        shutil.copytree(HELLO, code, ignore=shutil.ignore_patterns("__pycache__"))
        main = code / "app.py"
        main.write_text(main.read_text().replace('VERSION = "main"', f'VERSION = "{version}"'))
        with tarfile.open(archive, f"w:{compression}") as tar:
            tar.add(code, code.name)
    return {"archive": str(archive), "checksum": f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"}


@pytest.mark.parametrize("compression", ["gz", pytest.param("xz", marks=pytest.mark.nightly)])
def test_archive_of_the_controller_is_deployed(host, visitor, tmp_path, compression):
    source = pack(tmp_path / f"hello.tar.{compression}", f"packed by {compression}", compression)
    status, output = from_source(host, **source)
    assert status == 0, output
    assert version_served(visitor) == f"packed by {compression}"
    # Without the folder at its top.
    assert host.file("/srv/hello/current/src/app.py").exists
    assert Path(host.file("/srv/hello/current").linked_to).name.endswith(f"-{source['checksum'][7:14]}")
    assert leftovers(host) == []
    status, output = from_source(host, **source)
    assert status == 0, output
    assert "changed=0" in output


@pytest.fixture
def web_site(host, tmp_path):
    """A server of files on the host: what makes an archive there, and its URL."""
    host.run_expect(
        [0],
        "mkdir /run/flaskhost-site && systemd-run --quiet --collect --unit=flaskhost-test-site"
        " python3 -m http.server 8099 --bind 127.0.0.1 --directory /run/flaskhost-site",
    )

    def publish(version):
        source = pack(tmp_path / "hello.tar.gz", version)
        text = (tmp_path / "hello.tar.gz").read_bytes().hex()
        script = "import sys; open('/run/flaskhost-site/hello.tar.gz', 'wb').write(bytes.fromhex(sys.argv[1]))"
        host.run_expect([0], f'python3 -c "{script}" {text}')
        return {**source, "archive": "http://127.0.0.1:8099/hello.tar.gz"}

    yield publish
    host.run_expect([0], "systemctl stop flaskhost-test-site.service; rm -r /run/flaskhost-site")


@pytest.mark.nightly
def test_archive_of_a_web_site_is_fetched_by_the_host(host, visitor, web_site):
    source = web_site("fetched")
    status, output = from_source(host, **source)
    assert status == 0, output
    assert version_served(visitor) == "fetched"
    assert leftovers(host) == []
    before = serving(host)
    other = {**source, "checksum": f"sha256:{'0' * 64}"}
    status, output = from_source(host, **other)
    assert status != 0, output
    assert other["checksum"] in output
    assert source["checksum"] in output
    status, missing = from_source(host, **{**other, "archive": source["archive"].replace("hello", "goodbye")})
    assert status != 0, missing
    assert "the server returned 404" in missing
    assert serving(host) == before
    assert leftovers(host) == []


def download(host, folder):
    """Fetch the packages that hello needs on this host, and the application server."""
    python = host.run_expect([0], "python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").stdout.strip()
    machine = host.run_expect([0], "uname --machine").stdout.strip()
    kind = [f"--platform=manylinux{item}_{machine}" for item in ("2014", "_2_17", "_2_28")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", python]
    packages = ["--requirement", str(HELLO / "requirements.txt"), "gunicorn==27.0.1"]
    subprocess.run([*command, *kind, "--dest", str(folder), *packages], check=True, timeout=300)


@pytest.mark.nightly
def test_environment_is_built_offline_from_a_wheelhouse_or_not_at_all(host, visitor, tmp_path):
    code = tmp_path / "hello"
    shutil.copytree(HELLO, code, ignore=shutil.ignore_patterns("__pycache__"))
    download(host, code / "vendor/wheels")
    # Not what an earlier environment has left behind.
    host.run_expect([0], "rm --recursive --force /var/cache/flaskhost/hello")
    status, output = from_source(host, packages="vendor/wheels", path=str(code))
    assert status == 0, output
    assert version_served(visitor) == "main"
    before = serving(host)
    next((code / "vendor/wheels").glob("gunicorn-*")).unlink()
    status, output = from_source(host, packages="vendor/wheels", path=str(code))
    assert status != 0, output
    assert "hello was not released. Build the virtual environment" in output
    assert "gunicorn" in output
    assert "wheelhouse" in output
    assert serving(host) == before
    assert leftovers(host) == []
