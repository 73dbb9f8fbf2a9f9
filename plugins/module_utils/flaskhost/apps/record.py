"""The record of an app: its options with their defaults, and the paths, units and URLs derived from its name.

The functions are pure: they read no files and no hosts, and do not need Ansible.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from . import instances, placeholders
from .names import (
    DATABASE_VARIABLES,
    GATE_ADDRESS,
    POOL_PORT,
    SLOTS,
    is_address,
    is_wildcard,
)
from .options import APP_OPTIONS
from .schema import as_text, with_defaults


def app_record(name: str, app: dict[str, Any], project_dir: str = "", *, email: str = "") -> dict[str, Any]:
    """Turn one entry of ``flask_apps`` into the record that the roles read, without the parts that need host facts.

    Args:
        name: the app's name, which is also the name of the system user, the folders, the units and the database.
        app: the user's options, already validated by :mod:`preflight`.
        project_dir: the base folder for a relative ``source.path`` or ``source.archive``.
        email: the site's ``acme_email``. If set, certificates come from ACME unless the app's options differ.

    Returns:
        The user's options with their defaults, and the values derived from the name: paths, user, sockets, units, URLs.
        ``redirected_domains`` redirect to ``canonical_domain`` (in URL form: an IPv6 address is in brackets), the app
        itself serves ``wildcard_domains``, and ``addresses`` are all domains that are IP addresses. Values that depend
        on the host's size are None; see :func:`sized`.
    """
    record = with_defaults(app, APP_OPTIONS)
    first, *others = (str(domain) for domain in record["domains"])
    record["tls"]["mode"] = record["tls"]["mode"] or ("acme" if email else "selfsigned")
    root, unit = f"/srv/{name}", f"flask-{name}"
    # RFC 3986, 3.2.2: without brackets, the last group of an IPv6 address would be parsed as a port.
    canonical = f"[{first}]" if ":" in first else first
    for place in ("path", "archive"):
        record["source"][place] = _absolute(record["source"][place], project_dir)
    limits = record["database_limits"]
    if limits["statement_timeout"] is None:
        # nginx gives up on a request 5 s after the app's own timeout, so nobody waits for the response any longer.
        limits["statement_timeout"] = max(60, record["timeout"] + 5)
    own = placeholders.own_database({**record["env"], **record["secrets"]})
    own_instances = instances.of_app(name, record)
    # If the user's own variable holds the database URL, the migrations use that URL too.
    apart = record["database"] and not record["database_owner"] and not own
    # Only the host knows which drivers are installed. A URL of the user's own stays as it is.
    record["database_driver"] = (record["database_driver"] or "auto") if record["database"] and not own else ""
    files = _protected_files(name, root, record["protected_files"])
    jails = ["login", "missing", "probes"] + (["auth"] if record["basic_auth"] and files["error_log"] else [])
    if record["noindex"] is None:
        record["noindex"] = bool(record["basic_auth"] or record["allow"])
    record.update(
        name=name,
        variable=f"flask_apps.{name}",
        user=name,
        canonical_domain=canonical,
        redirected_domains=[domain for domain in others if not is_wildcard(domain)],
        wildcard_domains=[domain for domain in others if is_wildcard(domain)],
        addresses=[domain for domain in (first, *others) if is_address(domain)],
        root=root,
        data=f"{root}/data",
        static_root=f"{root}/current/static",
        live_socket=f"{root}/live.sock",
        gate_address=GATE_ADDRESS,
        gate_socket=f"{root}/gate.sock",
        access_log=f"/var/log/nginx/{name}.access.log",
        **files,
        # If the app can forge lines of the log, they ban from its own site only.
        auth_log=files["error_log"] if record["basic_auth"] else "",
        maintenance=f"{root}/maintenance",
        bans={jail: f"/var/lib/fail2ban/sites/{name}/{jail}" for jail in jails},
        slots=f"{root}/slots",
        socket_dir=f"/run/{unit}",
        unit=unit,
        memory_follows_host=not record["limits"]["memory"],
        slot_units=[f"{unit}@{slot}.service" for slot in SLOTS],
        unit_files=[
            f"/etc/systemd/system/{unit}@.service",
            f"/etc/systemd/system/{unit}@.socket",
            f"/etc/apparmor.d/{unit}",
        ],
        # Everything that can write the app's data, as systemctl patterns; also timers, which would restart a service.
        all_units=[f"{unit}@*", f"{unit}_process@*", f"{unit}_timer@*"],
        lock=f"{root}/.lock",
        secrets_dir=f"/etc/flaskhost/{name}",
        # On the local socket, each host has its own database, so the migrations run on each host.
        database_per_host=record["database"] and "DATABASE_URL" not in own,
        database_role_owner=f"{name}-owner" if apart else name,
        database_owner_file=f"/etc/flaskhost/{name}/database_owner.env",
        database_owner_variables=_owner_variables(name, record, placeholders.places(root, canonical)) if apart else {},
        database_connections=None,
        database_pool_size=None,
        database_owner_connections=None,
        release_owner_file=f"/etc/flaskhost/{name}/database_owner.env" if apart else "",
        secret_key_file=f"/etc/flaskhost/{name}/secret_key.env",
        certificate=f"/etc/flaskhost/tls/{name}/fullchain.pem",
        certificate_key=f"/etc/flaskhost/tls/{name}/privkey.pem",
        hsts_map=f"/etc/flaskhost/tls/{name}/hsts.map",
        environment=_environment(name, record, instances.variables(own_instances)),
        # Instead of the engine that the user chose, which is in it.
        **own_instances,
        instances=[found for found in own_instances.values() if found],
        instance_states=[found["state"] for found in own_instances.values() if found.get("state")],
        instance_folders=[found["folder"] for found in own_instances.values() if found],
    )
    return record


def _protected_files(name: str, root: str, files: dict[str, Any]) -> dict[str, str]:
    """Return where the files are that nginx sends if the app allows it; empty strings if there are none.

    Args:
        name: the app's name.
        root: the app's folder.
        files: the option ``protected_files``.
    """
    if not files["folder"]:
        return dict.fromkeys(("protected_folder", "protected_url", "protected_root", "error_log"), "")
    folder = str(PurePosixPath(files["folder"]))
    return {
        "protected_folder": folder,
        "protected_url": files["url"],
        "protected_root": f"{root}/data/{folder}",
        # Names that the app chooses can be in it.
        "error_log": f"/var/log/nginx/{name}.error.log",
    }


def with_server(record: dict[str, Any], server: dict[str, str]) -> dict[str, Any]:
    """Add what an app's roles have to know of its application server to a record.

    Args:
        record: the result of :func:`app_record` or :func:`sized`; not changed.
        server: ``package`` and ``lock`` (the package pinned, and with its dependencies and all hashes),
            ``documentation`` (a URL), ``config`` (the path of the settings) and ``command`` (the start command).

    Returns:
        The record with these values, each with the prefix ``server_``. Their placeholders are filled: ``{app}``, and
        ``{release}``, the folder of the release in a slot, in which systemd replaces ``%i``.
    """
    name, release = record["name"], f"{record['slots']}/%i"
    filled = {key: text.replace("{app}", name).replace("{release}", release) for key, text in server.items()}
    return {**record, **{f"server_{key}": text for key, text in filled.items()}}


def sized(record: dict[str, Any], size: dict[str, int]) -> dict[str, Any]:
    """Add the values that depend on the host's size to a record.

    Args:
        record: the result of :func:`app_record`; not changed.
        size: ``workers``, ``threads``, ``memory_mb``, ``connections`` and ``owner_connections``, from
            :func:`sizing.size_host`.

    Returns:
        The record with ``workers``, ``threads``, ``limits.memory`` in MB, and the database connections.
    """
    limits, apart = record["database_limits"], bool(record["release_owner_file"])
    own = placeholders.own_database({**record["env"], **record["secrets"]})
    pooled = record["database"] and record["database_pool"] and not own
    # If the connections were not computed, there is no limit.
    connections, owner_connections = limits["connections"] or size.get("connections", -1), -1
    if "owner_connections" in size:
        owner_connections = size["owner_connections"]
        # Without a separate owner role, the release command connects as the app's role.
        connections += 0 if apart else owner_connections
    return {
        **record,
        "workers": size["workers"],
        "threads": size["threads"],
        "limits": {**record["limits"], "memory": record["limits"]["memory"] or size["memory_mb"]},
        "database_connections": connections,
        "database_pool_size": (limits["connections"] or size.get("pool", 0)) if pooled else 0,
        "database_owner_connections": owner_connections,
    }


def app_records(
    apps: dict[str, dict[str, Any]],
    sizes: dict[str, dict[str, int]] | None = None,
    project_dir: str = "",
    *,
    email: str = "",
) -> list[dict[str, Any]]:
    """Turn ``flask_apps`` into records, sorted by name.

    Args:
        apps: the user's ``flask_apps``.
        sizes: the ``apps`` of :func:`sizing.size_host`, by name; None if the host's facts are unknown.
        project_dir: the base folder for a relative ``source.path``.
        email: the site's ``acme_email``.

    Returns:
        One record for each app, as returned by :func:`app_record`, with its size if that is known.
    """
    records = [app_record(name, apps[name], project_dir, email=email) for name in sorted(apps)]
    return records if sizes is None else [sized(record, sizes[record["name"]]) for record in records]


def pick(records: list[dict[str, Any]], fields: dict[str, str]) -> list[dict[str, Any]]:
    """Select fields of the records, under other names.

    Args:
        records: the result of :func:`app_records`.
        fields: for each name, the dotted path in the record.

    Returns:
        One mapping for each record, with the names of ``fields``. Values that are None because the host's size is
        unknown are left out: roles either require them or have a default.

    Raises:
        KeyError: a record has no such path: a bug in the wiring, not a user error.
    """
    picked = [{name: _value(record, place) for name, place in fields.items()} for record in records]
    return [{name: item for name, item in parts.items() if item is not None} for parts in picked]


def for_role(
    records: list[dict[str, Any]], spec: dict[str, dict[str, Any]], renamed: dict[str, str]
) -> list[dict[str, Any]]:
    """Select what a role takes for each app. A field has the same name in the record, if the wiring gives no other.

    Args:
        records: the result of :func:`app_records`.
        spec: the role's fields by name, from its argument_specs.
        renamed: the fields whose name in the record differs, with their dotted path there.

    Returns:
        One mapping for each record, as :func:`pick` returns it. Optional fields that the records do not have are left
        out, so the role's default applies.

    Raises:
        KeyError: a record does not have a required field or a renamed one, or the role does not have a renamed one: a
            bug in the wiring, not a user error.
    """
    if unknown := renamed.keys() - spec.keys():
        raise KeyError(f"the role takes no {', '.join(sorted(unknown))}")
    known = records[0] if records else {}
    same = {name: name for name, field in spec.items() if name in known or field.get("required")}
    return pick(records, {**same, **renamed})


def _value(record: dict[str, Any], place: str) -> Any:
    for step in place.split("."):
        record = record[step]
    return record


def _absolute(path: str, project_dir: str) -> str:
    if not path or path.startswith(("/", "http://", "https://")):
        return path
    return f"{project_dir.rstrip('/')}/{path}"


def _environment(name: str, record: dict[str, Any], addresses: dict[str, str]) -> dict[str, str]:
    """Return the app's variables that are not secret. The user's values override derived values.

    Args:
        name: the app's name.
        record: the app's record.
        addresses: the variables of its cache and queue.
    """
    derived = {
        "FLASK_APP": record["wsgi"],
        "FLASK_CONFIG": record["config"],
        "FLASK_DEBUG": "0",
        "PYTHONUNBUFFERED": "1",
        # Python needs both: a unit starts without a locale, and with a home folder that it cannot write.
        "LANG": "C.UTF-8",
        "MAX_CONTENT_LENGTH": str(record["limits"]["body"] * 1024 * 1024),
    }
    if record["database"]:
        # Peer authentication on the local socket: the database role has the system user's name and no password.
        derived |= _database_variables(name, record, name, POOL_PORT if record["database_pool"] else 0)
    given = {key: as_text(value) for key, value in record["env"].items()}
    return {**derived, **addresses, **given}


def _owner_variables(name: str, record: dict[str, Any], places: dict[str, str]) -> dict[str, str]:
    """Return the variables with the login of the tables' owner, also under the names that the user chose.

    Args:
        name: the app's name.
        record: the app's record.
        places: the values of the other placeholders.
    """
    variables = _database_variables(name, record, f"{name}-owner:{{password}}")
    given = {key: as_text(value) for key, value in {**record["env"], **record["secrets"]}.items()}
    if placeholders.has_driver(given):
        variables["DATABASE_URL"] = variables["SQLALCHEMY_DATABASE_URI"]
    values = {key.lower(): url for key, url in variables.items()} | places
    further = {key: value for key, value in given.items() if placeholders.used(value) & {*placeholders.DATABASE}}
    return variables | {key: placeholders.fill(value, values) for key, value in further.items()}


def _database_variables(name: str, record: dict[str, Any], who: str, port: int = 0) -> dict[str, str]:
    """Return the variables that hold the URL of the app's database on the local socket.

    Args:
        name: the app's name.
        record: the app's record.
        who: the role; if it needs a password, followed by a colon and the password.
        port: the port in the socket's name; 0 for PostgreSQL's default.
    """
    location = f"{who}@/{name}?host=/var/run/postgresql" + (f"&port={port}" if port else "")
    driver = record["database_driver"]
    # The build replaces it by the driver that is installed. Without this default here, Flaskhost's update would make a
    # new release of each app.
    schemes = ("postgresql", f"postgresql+{driver if driver not in ('', 'auto') else 'psycopg'}")
    return {key: f"{scheme}://{location}" for key, scheme in zip(DATABASE_VARIABLES, schemes, strict=True)}
