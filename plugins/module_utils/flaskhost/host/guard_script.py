"""The script that reverts a guarded change, and the unit that runs it early at boot."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

#: The folder of all guards.
STATE = Path("/var/lib/flaskhost/guard")

#: Runs at every boot. It does nothing unless the host was booted within the minute of a guarded change.
BOOT_UNIT = f"""\
# Written by the module guarded_change of flaskhost. Reverts a change to SSH or the firewall if the host booted before
# the change was confirmed. The timer that would have reverted it does not survive a boot.
[Unit]
Description=Revert changes that were not confirmed before the boot
DefaultDependencies=no
ConditionPathExistsGlob={STATE}/*/put-back
After=local-fs.target
Wants=network-pre.target
Before=network-pre.target sysinit.target flaskhost-firewall.service ssh.service ssh.socket shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for script in {STATE}/*/put-back; do /bin/sh "$$script" boot; done'

[Install]
WantedBy=sysinit.target
"""
_SCRIPT = """\
#!/bin/sh
# Reverts the guarded change "{name}". Run by a timer, by the next run of the playbook, or early at boot. At boot, $1 is
# "boot", because the services start by themselves with the old files. It can be killed and run again.
cd {folder} || exit 1
# A full disk allows no link: only a confirmed change stops the script.
ln -sT put-back decision 2>/dev/null || [ "$(readlink decision)" != confirmed ] || exit 0
exec 9<nonce && flock 9
[ -e outcome ] && exit 0
failed=
try() {{ "$@" || failed="$failed$*; "; }}
restore() {{ cp -dp -T "$1" "$2.flaskhost-guard" && mv -fT "$2.flaskhost-guard" "$2"; }}
running() {{ [ "$boot" != boot ]; }}
boot=${{1-}}
{body}
sync
printf '%s\\n' "${{failed:-ok}}" > outcome.new && mv -fT outcome.new outcome
"""


def script(name: str, folder: Path, body: Iterable[str]) -> str:
    """Return the script of a guard.

    Args:
        name: the name of the guarded change.
        folder: the folder of the guard.
        body: the lines that revert the change. They can use ``try``, ``restore`` and ``running``.
    """
    return _SCRIPT.format(name=name, folder=shlex.quote(str(folder)), body="\n".join(body))
