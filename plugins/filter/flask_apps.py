"""Filters that turn ``flask_apps`` into the input of the roles, and collect the files of the roles' programs.

The code is in plugins/module_utils/flaskhost.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import ansible.module_utils
import yaml

PROJECT_DIR = Path(__file__).resolve().parents[2]
# On the hosts, Ansible provides plugins/module_utils under this name. On the control node, add the folder to the path.
if str(PROJECT_DIR / "plugins" / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT_DIR / "plugins" / "module_utils"))

from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps import names as shared
from ansible.module_utils.flaskhost.apps import sizing
from ansible.module_utils.flaskhost.apps.record import app_records, for_role, pick, with_server
from ansible.module_utils.flaskhost.deploy import build_room
from ansible.module_utils.flaskhost.programs.installed import program_texts
from ansible.module_utils.flaskhost.requests import clone, drain, freeze, maintenance, restore, selection, status
from ansible.module_utils.flaskhost.settings import backup as backup_settings
from ansible.module_utils.flaskhost.settings.acme import acme_settings
from ansible.module_utils.flaskhost.settings.layout import describe_hosts, layout, peer_certificates, web_hosts
from ansible.module_utils.flaskhost.settings.peers import peer_addresses, peer_networks
from ansible.module_utils.flaskhost.settings.reboots import reboot_time
from ansible.module_utils.flaskhost.settings.shared_address import shared_address

#: The same result as yaml.SafeLoader, ten times as fast. It needs libyaml, which PyYAML's own packages contain.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load(path: Path) -> Any:
    """Load one of the project's own YAML files."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506  # a safe loader


def flask_app_sizes(
    apps: dict[str, Any],
    memory_mb: int,
    cpus: int,
    database: bool = True,
    app_hosts: int = 1,
    *,
    apps_here: bool = True,
    others: Any = (),
) -> dict[str, Any]:
    """Compute the host's sizing budget; see :func:`sizing.size_host`.

    Args:
        others: the facts of the other hosts that run the apps; empty for hosts whose facts were not gathered.
    """
    known = [
        (int(facts["memtotal_mb"]), int(facts["processor_vcpus"]))
        for facts in others
        if facts and "memtotal_mb" in facts and "processor_vcpus" in facts
    ]
    return sizing.size_host(int(memory_mb), int(cpus), apps, database, app_hosts, apps_here=apps_here, elsewhere=known)


def flask_app_records(apps: dict[str, Any], sizes: dict[str, Any], acme_email: str = "") -> list[dict[str, Any]]:
    """Turn ``flask_apps`` into complete records; see :func:`apps.record.app_records`."""
    records = app_records(apps, sizes.get("apps"), str(PROJECT_DIR), email=acme_email)
    return [with_server(record, _server(record["server"])) for record in records]


@functools.cache
def _server(name: str) -> dict[str, str]:
    """Return what the role of an application server says of it: its start command, its pinned package and so on."""
    role = PROJECT_DIR / "roles" / name
    said: dict[str, str] = _load(role / "meta" / "server.yml")
    wanted = (role / "files" / "server.in").read_text(encoding="utf-8").splitlines()
    return {
        **said,
        "package": next(line.strip() for line in wanted if line.strip() and not line.startswith("#")),
        "lock": (role / "files" / "server.txt").read_text(encoding="utf-8").rstrip(),
    }


def flask_app_accounts(apps: Any) -> list[str]:
    """Return the accounts of the apps on their hosts: the system user and the build account of each."""
    return sorted({account for name in apps for account in (str(name), build_room.build_account(str(name)))})


def flask_constant(name: str) -> Any:
    """Return a constant of :mod:`apps.names`, so that roles and group_vars do not repeat it."""
    if not name.isupper():
        raise ValueError(f"{name} is not a constant; their names are in capitals")
    return getattr(shared, name)


def flask_acme_settings(acme: dict[str, Any] | None, acme_email: str = "") -> dict[str, Any]:
    """Complete the site's settings ``acme`` and ``acme_email``; see :mod:`settings.acme`."""
    return acme_settings(acme, acme_email)


def flask_backup_settings(settings: dict[str, Any] | None) -> dict[str, Any]:
    """Complete the site's setting ``backup``; see :func:`backup_settings.settings`."""
    return backup_settings.settings(settings)


def flask_restore_request(given: dict[str, Any], apps: Any, hosts: list[str], time: str = "") -> dict[str, Any]:
    """Parse the request of playbooks/restore.yml; see :func:`requests.restore.request`."""
    return restore.request(given, apps or {}, hosts, time)


def flask_clone_problem(given: dict[str, Any], apps: Any, inventory: str, allowed: Any) -> str:
    """Find the first problem with the request of playbooks/clone.yml; see :func:`requests.clone.problem`."""
    return clone.problem(given, apps or {}, inventory, allowed)


def flask_clone_source(text: str) -> dict[str, Any]:
    """Find the host that has the data to clone; see :func:`requests.clone.source`."""
    return clone.source(text)


def flask_peers(hosts: list[str], host: str, variables: Any) -> list[str]:
    """Return the addresses of the other hosts of a group; see :func:`settings.peers.peer_addresses`.

    Args:
        hosts: the hosts of the group.
        host: the host's own name.
        variables: Ansible's ``hostvars``; only the needed variables of the other hosts are evaluated.
    """
    return peer_addresses(hosts, host, variables)


def flask_peer_networks(hosts: list[str], host: str, variables: Any) -> list[str]:
    """Return the networks of the other hosts of a group; see :func:`settings.peers.peer_networks`."""
    return peer_networks(hosts, host, variables)


def flask_reboot_time(hosts: list[str], host: str, variables: Any) -> str:
    """Return when a host can reboot by itself; see :func:`settings.reboots.reboot_time`."""
    return reboot_time(hosts, host, variables)


def flask_web_hosts(groups: Any, trusted_proxies: Any = ()) -> list[str]:
    """Return the hosts whose nginx serves visitors; see :func:`settings.layout.web_hosts`."""
    return web_hosts(groups, trusted_proxies)


def flask_layout(groups: Any, host: str, variables: Any, trusted_proxies: Any = ()) -> dict[str, Any]:
    """Return how a host takes part in serving visitors; see :func:`settings.layout.layout`."""
    return layout(groups, host, variables, trusted_proxies)


def flask_shared_address(groups: Any, host: str, variables: Any, address: Any, interfaces: Any) -> dict[str, Any]:
    """Return a host's part in the web hosts' address; see :func:`settings.shared_address.shared_address`."""
    return shared_address(groups, host, variables, address, interfaces)


def flask_peer_certificates(peers: list[str], variables: Any) -> dict[str, str]:
    """Return the certificates of other hosts; see :func:`settings.layout.peer_certificates`."""
    return peer_certificates(peers, variables)


def flask_described_hosts(groups: Any, variables: Any) -> list[dict[str, Any]]:
    """Return what preflight checks about all hosts together; see :func:`settings.layout.describe_hosts`."""
    return describe_hosts(groups, variables)


def flask_hosts_with_repository(hosts: list[str], host: str, variables: Any) -> list[str]:
    """Return the other hosts with the same second repository; see :func:`preflight.hosts_with_repository`."""
    return preflight.hosts_with_repository(hosts, host, variables)


def flask_app_problems(
    values: Any,
    names: list[str],
    facts: Any = None,
    web: bool = True,
    database: bool = True,
    *,
    runs_apps: bool = True,
    same_repository: list[str] | None = None,
    hosts: Any = (),
    options: Any = (),
    option_names: list[str] | None = None,
    attempts: Any = (),
    host: str = "",
    clocks: Any = None,
) -> list[preflight.Problem]:
    """Find all problems of the apps, the settings and the host; see :func:`preflight.find_problems`.

    Args:
        values: the variables' values from ``query('ansible.builtin.vars', ...)``. They are evaluated only when they are
            read, so that a failing template becomes one problem among others instead of ending the run.
        names: the variables' names in the same order; the first one contains the apps, the others are settings.
        facts: the host's facts.
        web: whether the host serves visitors.
        database: whether the apps find PostgreSQL on the host itself, or do not run there.
        runs_apps: whether the apps run on the host.
        same_repository: the other hosts whose backups would go to the same second repository.
        hosts: all hosts, as returned by :func:`flask_described_hosts`.
        options: the values of the role options that the site sets directly, also evaluated when they are read.
        option_names: their names in the same order.
        attempts: the results of the action ``preflight_attempt``; the last one can contain the host's answers.
        host: the host's name.
        clocks: how far the clocks of all hosts of the run are ahead.
    """
    apps, site = _apps_and_settings(values, names)
    return preflight.find_problems(
        apps,
        site,
        facts,
        PROJECT_DIR,
        names[0],
        web=web,
        database=database,
        runs_apps=runs_apps,
        same_repository=same_repository or [],
        hosts=hosts,
        options={name: preflight.read_item(options, index) for index, name in enumerate(option_names or [])},
        specs=_role_options(),
        answers=next((item["answers"] for item in attempts if isinstance(item, dict) and item.get("answers")), {}),
        host=host,
        clocks=clocks,
    )


def flask_host_questions(
    values: Any, names: list[str], runs_apps: bool = True, has_databases: bool = True
) -> dict[str, Any]:
    """Return the queries for the host; see :func:`preflight.host_questions` and :func:`flask_app_problems`."""
    apps, site = _apps_and_settings(values, names)
    return preflight.host_questions(apps, site, runs_apps=runs_apps, has_databases=has_databases)


def flask_role_options(names: list[str], settings: list[str]) -> list[str]:
    """Select the variables that are role options and that the site sets directly.

    Args:
        names: the names of all variables.
        settings: the names that are checked as settings of the site.
    """
    # The wiring sets options that have a former name, from that name.
    wired = _wired() - set(preflight.FORMER.values())
    return sorted((set(names) & _role_options().keys()) - wired - set(settings))


def flask_setting_warnings(names: list[str], settings: list[str]) -> list[str]:
    """Find variables that were probably meant to be settings; see :func:`preflight.warnings`.

    Args:
        names: the names of all variables.
        settings: the site's settings and the variable of the apps.
    """
    options = _role_options().keys()
    roles = {path.parents[1].name for path in _specs()}
    return preflight.warnings(names, {*settings, *options}, _wired(), {f"{role}_" for role in roles})


def flask_disk_warnings(facts: Any, host: str, runs_apps: bool, runs_database: bool) -> list[str]:
    """Warn if ``limits.disk`` has no effect; see :func:`preflight.disk.disk_warnings`."""
    return preflight.disk_warnings(facts, host, runs_apps=runs_apps, runs_database=runs_database)


def flask_host_warnings(attempt: Any, host: str) -> list[str]:
    """Return warnings about unfinished restores on a host, and about running apps that are not in the inventory.

    Args:
        attempt: the result of the action ``preflight_attempt`` that queried the host.
        host: its name.
    """
    answers = attempt.get("answers") if isinstance(attempt, dict) else None
    lists = [answers.get(key) for key in ("restores", "others")] if isinstance(answers, dict) else []
    texts = [text for found in lists if isinstance(found, list) for text in found]
    return [f"{host}: {text}" for text in texts if isinstance(text, str)]


def flask_archive_warnings(values: Any, names: list[str], attempt: Any, host: str) -> list[str]:
    """Warn if a run restarts PostgreSQL because backups are switched on or off.

    Args:
        values: the values of the variables.
        names: their names, the apps' variable first.
        attempt: the result of the action ``preflight_attempt`` that queried the host.
        host: its name.
    """
    answers = attempt.get("answers") if isinstance(attempt, dict) else None
    archives = answers.get("archives") if isinstance(answers, dict) else None
    _apps, settings = _apps_and_settings(values, names)
    site = settings.get("backup")
    passphrase = preflight.read_item(site, "passphrase") if isinstance(site, dict) and "passphrase" in site else ""
    # A passphrase that cannot be evaluated is reported elsewhere.
    if archives is None or isinstance(passphrase, preflight.Unreadable) or bool(passphrase) == archives:
        return []
    turned = "off" if archives else "on"
    return [
        f"{host}: this run turns backups {turned}, and restarts PostgreSQL once for that (archive_mode). All "
        "connections end, and requests that need the database wait or fail for some seconds."
    ]


def flask_release_warnings(values: Any, names: list[str], facts: Any = None, host: str = "") -> list[str]:
    """Warn about commands that probably delete data, misspelled placeholders, code that may not parse, and memory.

    See :func:`preflight.release_warnings`, :func:`preflight.placeholder_warnings`, :func:`preflight.wsgi_warnings` and
    :func:`preflight.memory_warnings`.
    """
    apps, _settings = _apps_and_settings(values, names)
    found = preflight.release_warnings(apps, PROJECT_DIR) + preflight.placeholder_warnings(apps)
    return found + preflight.wsgi_warnings(apps, PROJECT_DIR, facts) + preflight.memory_warnings(apps, facts, host)


def flask_layout_warnings(values: Any, names: list[str], hosts: Any) -> list[str]:
    """Warn about what each app host keeps for itself; see :func:`preflight.layout_warnings`."""
    apps, _settings = _apps_and_settings(values, names)
    return preflight.layout_warnings(apps, hosts)


def flask_certbot_warnings(values: Any, names: list[str]) -> list[str]:
    """Warn about an option of ``acme`` that no longer has an effect; see :func:`preflight.certbot_warnings`."""
    _apps, settings = _apps_and_settings(values, names)
    return preflight.certbot_warnings(settings.get("acme"))


def _apps_and_settings(values: Any, names: list[str]) -> tuple[Any, dict[str, Any]]:
    apps, *settings = (preflight.read_item(values, index) for index in range(len(names)))
    return apps, dict(zip(names[1:], settings, strict=True))


def _specs() -> list[Path]:
    return sorted((PROJECT_DIR / "roles").glob("*/meta/argument_specs.yml"))


@functools.cache
def _role_options() -> dict[str, dict[str, Any]]:
    """Return the roles' argument_specs by option, without those of the role preflight."""
    found: dict[str, dict[str, Any]] = {}
    for path in _specs():
        for entry in _load(path)["argument_specs"].values():
            # main comes first. Other entry points can restrict its options further.
            found = (entry.get("options") or {}) | found
    return {name: spec for name, spec in found.items() if not name.startswith("preflight_")}


@functools.cache
def _wired() -> frozenset[str]:
    """Return the names of all variables that group_vars/all sets for the roles."""
    files = sorted((PROJECT_DIR / "group_vars" / "all").glob("*.yml"))
    return frozenset(name for path in files for name in _load(path) or {})


def flask_app_access_problems(attempts: Any, host: str) -> list[preflight.Problem]:
    """Explain why a host cannot be reached, or why root access fails; see :func:`preflight.find_access_problems`."""
    return preflight.find_access_problems(attempts, host)


def flask_app_problem_report(problems: list[preflight.Problem], host: str) -> str:
    """Format the message for the operator; see :func:`preflight.render`."""
    return preflight.render(problems, host)


def flask_app_pick(records: list[dict[str, Any]], fields: dict[str, str]) -> list[dict[str, Any]]:
    """Select a role's part of the records; see :func:`apps.record.pick`."""
    return pick(records, fields)


def flask_apps_for(
    records: list[dict[str, Any]], option: str, renamed: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Select what a role takes for each app; see :func:`apps.record.for_role`.

    Args:
        records: the apps' records.
        option: the role's option, such as ``nginx_sites``. The fields are read from the role's argument_specs.
        renamed: the fields that have another name in the record.
    """
    return for_role(records, _fields(option), renamed or {})


@functools.cache
def _fields(option: str) -> dict[str, Any]:
    """Return the fields of a role's list option, from its argument_specs."""
    path = PROJECT_DIR / "roles" / option.partition("_")[0] / "meta" / "argument_specs.yml"
    specs = _load(path)["argument_specs"]["main"]["options"]
    fields: dict[str, Any] = specs[option]["options"]
    return fields


def flask_freeze_request(given: dict[str, Any], apps: Any) -> dict[str, Any]:
    """Parse the request of playbooks/freeze.yml; see :func:`requests.freeze.request`."""
    return freeze.request(given, apps or {}, time.time())


def flask_maintenance_request(given: dict[str, Any], sites: list[dict[str, Any]]) -> dict[str, Any]:
    """Parse the request of playbooks/maintenance.yml; see :func:`requests.maintenance.request`."""
    return maintenance.request(given, sites)


def flask_drain_request(given: dict[str, Any], hosts: list[str], private: bool) -> dict[str, Any]:
    """Parse the request of playbooks/drain.yml; see :func:`requests.drain.request`."""
    return drain.request(given, hosts, private)


def flask_drain_refusal(wanted: dict[str, Any], results: Any) -> str:
    """Return why a host cannot be drained or come back now; see :func:`requests.drain.refusal`."""
    return drain.refusal(wanted, results)


def flask_status_apps(apps: Any, app: str = "") -> list[dict[str, Any]]:
    """Return what a host needs to report the status of the apps; see :func:`requests.status.apps_to_ask`."""
    return status.apps_to_ask(apps, app)


def flask_status_report(results: Any) -> dict[str, Any]:
    """Build the report of all hosts for scripts; see :func:`requests.status.report`."""
    return status.report(status.rows(results), time.time())


def flask_status_table(results: Any) -> str:
    """Format the table of playbooks/status.yml; see :func:`requests.status.rows` and :func:`requests.status.table`."""
    return status.table(status.rows(results))


def flask_verb_problem(given: dict[str, Any], apps: Any, verb: str) -> str:
    """Find the first problem with the variables of a playbook; see :func:`requests.selection.problem`."""
    return selection.problem(given, apps, verb)


def flask_app_select(records: list[dict[str, Any]], app: str = "", version: str = "") -> list[dict[str, Any]]:
    """Select the records that a playbook acts on; see :func:`requests.selection.select`."""
    return selection.select(records, app, version)


def host_program(files: str, program: str) -> dict[str, str]:
    """Return the texts of a program's files by their paths on the host; see :func:`programs.installed.program_texts`.

    Args:
        files: the role's folder of files.
        program: the name of the program.
    """
    return program_texts(Path(files), program)


class FilterModule:
    """The filters by their names in templates."""

    def filters(self) -> dict[str, Any]:
        """Return the filters."""
        return {
            "flask_acme_settings": flask_acme_settings,
            "flask_app_accounts": flask_app_accounts,
            "flask_app_access_problems": flask_app_access_problems,
            "flask_apps_for": flask_apps_for,
            "flask_app_pick": flask_app_pick,
            "flask_app_problem_report": flask_app_problem_report,
            "flask_app_problems": flask_app_problems,
            "flask_app_records": flask_app_records,
            "flask_app_select": flask_app_select,
            "flask_app_sizes": flask_app_sizes,
            "flask_backup_settings": flask_backup_settings,
            "flask_certbot_warnings": flask_certbot_warnings,
            "flask_reboot_time": flask_reboot_time,
            "flask_release_warnings": flask_release_warnings,
            "flask_clone_problem": flask_clone_problem,
            "flask_clone_source": flask_clone_source,
            "flask_constant": flask_constant,
            "flask_drain_refusal": flask_drain_refusal,
            "flask_drain_request": flask_drain_request,
            "flask_described_hosts": flask_described_hosts,
            "flask_restore_request": flask_restore_request,
            "flask_freeze_request": flask_freeze_request,
            "flask_host_questions": flask_host_questions,
            "flask_hosts_with_repository": flask_hosts_with_repository,
            "flask_layout": flask_layout,
            "flask_layout_warnings": flask_layout_warnings,
            "flask_maintenance_request": flask_maintenance_request,
            "flask_peer_certificates": flask_peer_certificates,
            "flask_peer_networks": flask_peer_networks,
            "flask_disk_warnings": flask_disk_warnings,
            "flask_host_warnings": flask_host_warnings,
            "flask_archive_warnings": flask_archive_warnings,
            "flask_peers": flask_peers,
            "flask_role_options": flask_role_options,
            "flask_setting_warnings": flask_setting_warnings,
            "flask_status_apps": flask_status_apps,
            "flask_status_report": flask_status_report,
            "flask_status_table": flask_status_table,
            "flask_shared_address": flask_shared_address,
            "flask_verb_problem": flask_verb_problem,
            "flask_web_hosts": flask_web_hosts,
            "host_program": host_program,
        }
