"""The audit: what scanners that we did not write say of a host, in one form, held against what we waive and why.

Whoever wants one scanner's word, such as a test, reads its output by the function that the report uses:
``audit.parse_lynis(text)`` and the others below. Each gives a :class:`model.Scan`.
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
