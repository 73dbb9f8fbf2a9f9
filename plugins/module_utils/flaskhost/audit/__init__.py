"""The audit: the results of third-party scanners for a host, in one format, compared with the waivers.

To get the result of a single scanner, in a test for example, parse its output with the same function as the report:
``audit.parse_lynis(text)`` and the others below. Each returns a :class:`model.Scan`.
"""

from __future__ import annotations

from ansible.module_utils.flaskhost.audit.certificates import parse as parse_certificates
from ansible.module_utils.flaskhost.audit.exposure import parse as parse_exposure
from ansible.module_utils.flaskhost.audit.gixy import parse as parse_gixy
from ansible.module_utils.flaskhost.audit.listeners import parse as parse_listeners
from ansible.module_utils.flaskhost.audit.lynis import parse as parse_lynis
from ansible.module_utils.flaskhost.audit.openscap import parse as parse_openscap
from ansible.module_utils.flaskhost.audit.ports import scan as scan_ports
from ansible.module_utils.flaskhost.audit.ssh_audit import parse as parse_ssh_audit
from ansible.module_utils.flaskhost.audit.testssl import parse as parse_testssl
from ansible.module_utils.flaskhost.audit.updates import parse as parse_updates

__all__ = [
    "parse_certificates",
    "parse_exposure",
    "parse_gixy",
    "parse_listeners",
    "parse_lynis",
    "parse_openscap",
    "parse_ssh_audit",
    "parse_testssl",
    "parse_updates",
    "scan_ports",
]
