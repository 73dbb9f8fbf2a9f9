"""Report whether this host has the address that moves between the web hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host.runner import Run

#: keepalived's settings, and the line by which those of the role keepalived are known.
SETTINGS = Path("/etc/keepalived/keepalived.conf")
_OURS = "# Role: keepalived."
_ADDRESS = re.compile(r"virtual_ipaddress \{\s+([0-9.]+)/32 ")


def read(run: Run, settings: Path = SETTINGS) -> dict[str, Any]:
    """Return the ``address``, whether it is ``here``, and whether keepalived ``runs``; empty without our settings.

    Args:
        run: runs a command.
        settings: keepalived's settings.
    """
    try:
        text = settings.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    found = _ADDRESS.search(text)
    if _OURS not in text or not found:
        return {}
    address = found[1]
    status, out, _err = run(["ip", "-oneline", "-4", "address", "show", "to", f"{address}/32"])
    runs = not run(["systemctl", "is-active", "--quiet", "keepalived.service"])[0]
    return {"address": address, "here": status == 0 and bool(out.strip()), "runs": runs}
