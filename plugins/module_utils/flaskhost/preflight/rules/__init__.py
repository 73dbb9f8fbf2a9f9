"""Rules about one value: known mistakes with each option, with a hint that the schema cannot give.

Each rule is a function that takes the value, and returns what is wrong with it or None. :data:`RULES` assigns them to
the options. The other public functions are called for mappings, whose keys are values too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..report import Fault, Place
from . import access, certificates, domains, http, packages, processes, source, ssh_keys

#: The rules, by the option's place in the schema.
RULES: dict[Place, Callable[[Any], Fault | None]] = {
    ("domains",): domains.domain,
    ("source", "repo"): source.repo,
    ("source", "key"): ssh_keys.deploy_key,
    ("source", "known_hosts"): ssh_keys.known_hosts,
    ("source", "archive"): source.archive,
    ("source", "checksum"): source.checksum,
    ("source", "subdir"): source.inner_path,
    ("wsgi",): source.wsgi,
    ("python",): source.python,
    ("requirements",): source.inner_path,
    ("wheelhouse",): source.inner_path,
    ("build_packages",): packages.debian_package,
    ("system_packages",): packages.debian_package,
    ("persistent",): source.persistent,
    ("static", "url"): http.static_url,
    ("static", "path"): source.inner_path,
    ("protected_files", "folder"): source.protected_folder,
    ("protected_files", "url"): http.protected_url,
    ("health", "status"): http.health_status,
    ("login", "paths"): http.login_path,
    ("allow",): access.allowed,
    ("methods",): http.method,
    ("csp",): http.csp,
    ("timers", "on_calendar"): processes.on_calendar,
    ("backup", "full"): processes.calendar,
    ("backup", "diff"): processes.calendar,
    ("backup", "drill"): processes.calendar,
    ("tls", "certificate"): certificates.certificate,
    ("tls", "key"): certificates.tls_key,
    ("acme", "directory"): certificates.directory,
    ("acme", "root"): certificates.root,
    ("acme", "external_account", "hmac_key"): certificates.hmac_key,
    ("acme", "dns", "plugin"): certificates.plugin,
    ("acme", "dns", "package"): certificates.plugin_packages,
    ("admin_users", "name"): access.admin_name,
    ("admin_users", "keys"): ssh_keys.ssh_key,
    ("firewall_allow", "from"): access.network,
    ("firewall_egress_allow", "to"): access.target,
    ("fail2ban_ignore",): access.ignored,
    ("trusted_proxies",): access.trusted,
}
