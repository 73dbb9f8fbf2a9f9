"""A disk that is full: under PostgreSQL's data until it stops, and where a certificate is to be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from faults import APPS, BOTH, journal, name_of, play, postgres, serves, sql, status, until, watched

testinfra_hosts = BOTH
#: The rest of a small disk.
FILL = "fill"


@contextmanager
def small_disk(host: Any, folder: str, spare: int, unit: str = "") -> Iterator[None]:
    """Make a folder the root of a small file system, with all that is in it. What is written there stays afterwards.

    The container's own disk is the machine's and has no limit.

    Args:
        host: the host.
        folder: the folder.
        spare: megabytes that are free in it.
        unit: whose files they are: it is stopped while they move.
    """
    place = "/run/flaskhost-small-disk"
    stop, start = (f"systemctl stop {unit}", f"systemctl start {unit}") if unit else ("true", "true")
    megabytes = int(host.check_output("du --summarize --block-size=1M %s", folder).split()[0]) + spare
    host.run_expect(
        [0],
        f"""set -e; {stop}; mkdir {place}; mount -t tmpfs -o size={megabytes}m tmpfs {place}
        chown --reference={folder} {place}; chmod --reference={folder} {place}
        cp --archive {folder}/. {place}; mount --bind {place} {folder}; {start}""",
    )
    try:
        yield
    finally:
        host.run_expect(
            [0],
            f"""set -e; {stop}; rm -f {folder}/{FILL}; umount --lazy {folder}
            find {folder} -mindepth 1 -delete; cp --archive {place}/. {folder}
            umount --lazy {place}; rmdir {place}; {start}""",
        )


def fill(host: Any, folder: str) -> None:
    """Take all the room there is."""
    host.run(
        f"dd if=/dev/zero of={folder}/{FILL} bs=64k; dd if=/dev/zero bs=1 of={folder}/{FILL} oflag=append conv=notrunc"
    )
    assert host.check_output("df --output=avail %s", folder).split()[-1] == "0"


def test_full_disk_under_postgresql(host, visitor, request):
    data = f"/var/lib/postgresql/{postgres(host)[11:13]}/main"
    unit = postgres(host)
    with small_disk(host, data, 100, unit):
        until(30, lambda: serves(visitor))
        with watched(host, visitor, request, heals=60) as fault:
            fill(host, data)
            # Until it wants another segment of its log, for which there is no room.
            for _segment in range(50):
                if host.run("cd / && runuser -u postgres -- psql -qc 'SELECT pg_switch_wal()'").rc:
                    break
            # It recovers, finds no room for its log again, and ends.
            until(30, lambda: "Failed with result" in journal(host, unit, fault.began))
            assert "No space left on device" in journal(host, unit, fault.began)
            assert "503, not 200" in status(host)
            host.run_expect([0], f"rm {data}/{FILL}")
        assert set(fault.report.reasons) <= {"status 503"}, fault.report.text()
    until(30, lambda: serves(visitor))
    assert sql(host, "SELECT 1") == "1"


def domains(visitor: Any) -> list[str]:
    """The names in the certificate that the site shows."""
    with visitor.handshake("guestbook.test") as connection:
        certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


def test_full_disk_in_a_certificate_write(host, visitor, request):
    folder, name = "/etc/flaskhost/tls", name_of(host)
    more = {"flask_apps": {"guestbook": {**APPS["guestbook"], "domains": ["guestbook.test", "more.test"]}}}
    with small_disk(host, folder, 1), watched(host, visitor, request) as fault:
        fill(host, folder)
        said = play("site", name, "--tags", "certbot,nginx", good=False, **more)
        assert "No space left on device" in said, said
        assert domains(visitor) == ["guestbook.test"]
        host.run_expect([0], f"rm {folder}/{FILL}")
        play("site", name, "--tags", "certbot,nginx", **more)
        assert domains(visitor) == ["guestbook.test", "more.test"]
    assert fault.report.lost == 0, fault.report.text()
    # For the next tests. A self-signed certificate stays as long as it covers all names.
    play("site", name, "--tags", "certbot,nginx")
