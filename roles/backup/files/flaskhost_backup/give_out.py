"""The verb ``give-out``: dump a database for another host, which imports it with ``take-in``."""

from __future__ import annotations

from typing import IO

from flaskhost_backup import dumps
from flaskhost_backup.cluster import Server
from flaskhost_backup.config import Config
from flaskhost_backup.result import Result


def give_out(config: Config, name: str, stream: IO[bytes]) -> Result:
    """Dump a database of the live cluster, with the rights of its owner.

    Args:
        config: the configuration.
        name: the database.
        stream: where the dump is written: an open file or pipe.

    Returns:
        A result without lines, because standard output can be the stream.

    Raises:
        BackupError: PostgreSQL does not run, the database does not exist, or the dump failed. The stream can then hold
            the beginning of a dump.
    """
    server = Server(config.need_cluster())
    with server.tenant(name) as login:
        dumps.dump(login, stream)
    return Result(changed=False)
