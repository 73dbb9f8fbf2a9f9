"""Names and addresses that several parts of Flaskhost share: slots, reserved names, ports, versions, domains.

This file is small and does not import the schema, because modules that run on the hosts import it.
"""

from __future__ import annotations

import ipaddress

#: The two slots of an app. One is live; the next release starts in the other.
SLOTS = ("blue", "green")

#: The environment variables that hold the URL of the app's database.
DATABASE_VARIABLES = ("DATABASE_URL", "SQLALCHEMY_DATABASE_URI")

#: The port in the name of PgBouncer's local socket.
POOL_PORT = 6432

#: The port on which app hosts serve web hosts, and the name in the app hosts' certificates.
PEER_PORT = 7443
PEER_NAME = "app.flaskhost.internal"

#: The file that keeps an app host out of the rotation of the web hosts.
DRAINED = "/etc/flaskhost/drained"

#: The PostgreSQL version of each Debian release.
POSTGRES_VERSIONS = {"12": "15", "13": "17"}

#: The socket on which nginx sends health checks to the slot that is not live yet. Its folder belongs to root and is
#: closed: on a loopback port, any app could send requests to any other app, past its password and its limits.
GATE_ADDRESS = "unix:/var/lib/nginx/gate/gate.sock"

#: The loopback address on which nginx tells keepalived that it answers.
PROBE_ADDRESS = "127.0.0.1:7444"

#: The default users of cloud images. They can become root, and can be administrators.
CLOUD_USERS = frozenset("admin azureuser cloud-user debian ec2-user ubuntu vagrant".split())

#: Names that an app cannot have, because its name is also the name of a system user, a database and folders: the users
#: and groups of Debian's base-passwd and systemd, those of the packages that the roles install, groups that are
#: equivalent to root, PostgreSQL's own databases and reserved role names, ``tls`` (the certificates' folder next to the
#: apps' folders in /etc/flaskhost), and ``all`` (in ``-e app=all``). Preflight looks up all other names on the host.
RESERVED_NAMES = CLOUD_USERS.union(
    """
    adm admin audio avahi backup bin bluetooth cdrom clock crontab daemon dialout dip disk fax floppy games gnats input
    irc kmem kvm list lp mail man messagebus netdev news nginx nobody nogroup none operator plugdev polkitd postgres
    proxy redis render root sasl sgx shadow src ssh sshd ssl-cert staff sudo sync sys syslog systemd systemd-journal
    systemd-network systemd-resolve systemd-timesync tape tcpdump template0 template1 tls tty users utmp uucp uuidd
    video voice www-data public all flaskhost-owner pgbouncer
    docker incus-admin libvirt lxd wheel
    """.split()
)

#: A DNS name (RFC 1123, 2.1) in lower case, with at least two labels. The last label is not a number.
DOMAIN_NAME = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"

#: Variables that Flaskhost sets itself. An app's ``env`` and ``secrets`` cannot set them.
OWN_VARIABLES = frozenset({"FLASK_APP", "FLASK_CONFIG", "FLASK_DEBUG", "FLASKHOST_RELEASE", "FLASKHOST_RELEASE_DIR"})


def is_address(name: str) -> bool:
    """Check whether a name is an IP address in any text form that Python accepts, without a zone ID (%eth0).

    Python accepts any text as the zone ID, and configuration files would parse that text as further settings.
    """
    if "%" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_wildcard(name: str) -> bool:
    """Check whether a name is a wildcard for all names one label below a domain."""
    return name.startswith("*.")
