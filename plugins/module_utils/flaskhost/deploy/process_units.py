"""The unit files of an app's processes and timers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.deploy.procfile import TIMER_PREFIX
from ansible.module_utils.flaskhost.host.runner import SANDBOX, network, temporary

_UMASK = "UMask=0077"
_HEAD = "# Written by Flaskhost with each release; a change by hand is lost."
_PROCESS = {"Type": "exec", "Restart": "always", "RestartSec": 2}
_PROCESS_INSTALL = "\n[Install]\nWantedBy=multi-user.target\n"
_JOB = {"Type": "oneshot"}
_SERVICE = """\
{head}
[Unit]
Description=Flask app {user}, {kind} %i
After=network.target postgresql.service
StartLimitIntervalSec=0

[Service]
{service}
User={user}
Group={user}
WorkingDirectory={current}/app
Environment=PATH={current}/venv/bin:/usr/local/bin:/usr/bin:/bin
Environment=PYTHONPATH={current}/app:{current}/app/src
Environment=HOME={data}
# The release's own file last: what it says wins.
EnvironmentFile=-{secret_env}
EnvironmentFile={current}/env
ExecStart=/bin/sh {current}/processes/{file}
KillMode=mixed
TimeoutStopSec={stop}

MemoryMax={memory_mb}M
MemorySwapMax={swap_mb}M
OOMPolicy=continue

ReadWritePaths={data}
{sandbox}
{install}"""
_TIMER = """\
{head}
[Unit]
Description=Flask app {user}, schedule of {name}
StartLimitIntervalSec=0

[Timer]
OnCalendar={on_calendar}
# What was missed while the host was off is made up for.
Persistent=true
RandomizedDelaySec=0
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def process_service(**settings: Any) -> str:
    """Return the template unit of an app's processes.

    Args:
        settings: as in :func:`_service`.
    """
    return _service("process", "%i", _PROCESS, _PROCESS_INSTALL, **settings)


def timer_service(**settings: Any) -> str:
    """Return the template unit of the commands that an app's timers start.

    Args:
        settings: as in :func:`_service`.
    """
    return _service("timer", f"{TIMER_PREFIX}%i", _JOB, "", **settings)


def timer(user: str, name: str, on_calendar: str) -> str:
    """Return the unit of a timer.

    Args:
        user: the app's system user.
        name: the name of the timer.
        on_calendar: its schedule, in the format of systemd.time(7).
    """
    return _TIMER.format(head=_HEAD, user=user, name=name, on_calendar=on_calendar)


def _service(
    kind: str,
    file: str,
    lines: Mapping[str, Any],
    install: str,
    *,
    unit: str,
    user: str,
    root: Path,
    data: Path,
    secret_env: Path,
    memory_mb: int,
    drain: int,
    outbound: bool,
) -> str:
    """Return a template unit of the app's services.

    Args:
        kind: process or timer, for the description.
        file: the name of the script in the release's folder ``processes``.
        lines: the settings that processes and timers do not share.
        install: the section ``[Install]``.
        unit: the unit's name before the ``@`` of the slots.
        user: the app's system user and group.
        root: the app's folder under /srv.
        data: the only folder that the app can write.
        secret_env: an optional environment file, read before the release's own.
        memory_mb: memory limit of each process, in MB.
        drain: seconds that a process has to finish its current work.
        outbound: whether the app can connect to other hosts.
    """
    current = root / "current"
    service = "\n".join(f"{key}={value}" for key, value in lines.items())
    return _SERVICE.format(
        head=_HEAD,
        user=user,
        kind=kind,
        file=file,
        current=current,
        service=service,
        data=data,
        secret_env=secret_env,
        stop=drain + 10,
        memory_mb=memory_mb,
        swap_mb=memory_mb // 2,
        sandbox="\n".join(
            [
                *SANDBOX,
                *temporary(str(root), "%N", user),
                f"LogNamespace={unit}",
                f"AppArmorProfile=-{unit}",
                *network(outbound=outbound),
                _UMASK,
            ]
        ),
        install=install,
    )
