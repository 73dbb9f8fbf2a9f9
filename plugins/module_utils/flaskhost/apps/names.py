"""Names and addresses that several parts of Flaskhost share: slots, reserved names, ports, domains.

Small, and free of the schema, because modules that run on the hosts import it.
"""

from __future__ import annotations

import ipaddress

#: The two slots of an app. One serves, the other is where the next release starts.
SLOTS = ("blue", "green")

#: The application server that every environment gets (gunicorn < 27.0.1 loses requests with ``max_requests``
#: and keep-alive connections: 30 of 1,200 on 23.0.0, none on 27.0.1).
SERVER_PACKAGE = "gunicorn==27.0.1"

#: The variables by which an app is told where its database is.
DATABASE_VARIABLES = ("DATABASE_URL", "SQLALCHEMY_DATABASE_URI")

#: The port after which PgBouncer's local socket is named.
POOL_PORT = 6432

#: Where nginx hands requests to the slot that is being gated. The folder of the socket is root's and closed: on a port
#: of the loopback any app could send requests to any other one, past its password and its limits.
GATE_ADDRESS = "unix:/var/lib/nginx/gate/gate.sock"

#: The first users of cloud images, which may become root. They may well be administrators.
CLOUD_USERS = frozenset("admin azureuser cloud-user debian ec2-user ubuntu vagrant".split())

#: Names that an app may not take, since it names a system user, a database and folders: the users and groups of
#: Debian's base-passwd and systemd, those of the packages that the roles install, some whose group is as good as root,
#: PostgreSQL's own databases and reserved role names, ``tls``, the folder of the certificates beside the apps' own in
#: /etc/flaskhost, and ``all``, by which ``-e app=all`` means every app. Preflight looks up all others on the host.
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

#: A name of the DNS as RFC 1123, 2.1, has it, in lower case and with two labels at least; the last is no number.
DOMAIN_NAME = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"

#: Variables that Flaskhost sets itself; an app's ``env`` and ``secrets`` may not.
OWN_VARIABLES = frozenset({"FLASK_APP", "FLASK_CONFIG", "FLASK_DEBUG", "FLASKHOST_RELEASE"})


def is_address(name: str) -> bool:
    """Whether a name is an IP address, in whatever text form Python knows; one with an interface (%eth0) is not.

    Python takes any text for the interface's name, and files of settings would read that text as more of theirs.
    """
    if "%" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_wildcard(name: str) -> bool:
    """Whether a name stands for all names one step below another one."""
    return name.startswith("*.")
