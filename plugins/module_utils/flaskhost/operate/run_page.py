"""The maintenance page of a run: it stays up during the run, and ends on the host itself, without a control node.

``page.html`` of an app is a link into a folder below ``/run`` that systemd creates for a unit, and removes when the
unit ends for any reason. nginx treats a dangling link as no page. So the page always goes away by itself, even if the
control node's process is killed or the host reboots.

The unit runs during a restore on this host, and afterwards for a lease, which each step of the run renews.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, tail
from ansible.module_utils.flaskhost.operate.maintenance import (
    PAGE,
    Maintenance,
    Outcome,
    Request,
    Site,
    make_folder,
    page,
    put_text,
)

#: Prefix of a page's unit and folder, followed by the name of the run.
PREFIX = "flaskhost-page-"
#: The units of restores, see flask_backup.
RESTORES = "flaskhost-restore-*"
#: Seconds that a page stays up after the last step of its run and after the end of a restore, unless a step differs.
LEASE = 120
#: The unit's script; its arguments are the end of the first lease, and LEASE. Times are seconds since boot, as in
#: /proc/uptime, so changes of the clock do not matter.
WAIT = """\
until=$1
while IFS=. read -r now _ </proc/uptime; do
  if [ -r "$RUNTIME_DIRECTORY/until" ]; then
    read -r renewed <"$RUNTIME_DIRECTORY/until"
    if [ "$renewed" != "$seen" ]; then seen=$renewed until=$renewed; fi
  fi
  if [ "$until" -lt $((now + $2)) ] && systemctl is-active --quiet '{restores}'; then until=$((now + $2)); fi
  [ "$now" -lt "$until" ] || exit 0
  sleep 1
done
""".replace("{restores}", RESTORES)

_NAME = re.compile(r"[0-9A-Za-z-]{1,64}")


def run_of(site_folder: Path) -> str:
    """Return the run that a page belongs to.

    Args:
        site_folder: the folder of an app's maintenance page.

    Returns:
        The run's name; empty if there is no page, or if an operator switched it on.
    """
    path = site_folder / PAGE
    if not path.is_symlink() or not path.exists():
        return ""
    return path.readlink().parent.name.removeprefix(PREFIX)


class RunPages(Maintenance):
    """Shows and ends the pages of one run.

    Pages that are already up, of an operator or another run, stay unchanged, also at the end. A freeze is not checked
    here, because the run has checked it at its start.

    Args:
        run: runs a command.
        name: the name of the run.
        check: whether only to report what would be done.
        nginx_conf: nginx's configuration.
        folder: the parent folder of the units' folders.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        check: bool = False,
        nginx_conf: Path = Path("/etc/nginx/nginx.conf"),
        folder: Path = Path("/run"),
    ) -> None:
        super().__init__(run, lambda _app: None, check, nginx_conf)
        if not _NAME.fullmatch(name):
            reason = f"run: {name!r} is not a valid run name."
            raise ReleaseError("Read the variables", reason, "Use letters, digits and hyphens.")
        self.name = name
        self.unit, self.pages = f"{PREFIX}{name}.service", folder / f"{PREFIX}{name}"

    def show(self, request: Request, lease: int = LEASE) -> Outcome:
        """Show the page of each app that has none yet, and renew the lease.

        Args:
            request: the apps, and the text of the page.
            lease: seconds that the pages stay up without a renewal.

        Raises:
            ReleaseError: nginx is not configured for a page, or systemd does not start the unit.
        """
        sites = tuple(site for site in request.sites if not _is_up(site))
        for site in sites:
            self._look_for_the_site(site)
        if not self.check and (sites or any(run_of(site.folder) == self.name for site in request.sites)):
            self._renew(lease)
        if sites:
            self._load_settings(Request(True, sites))
        for site in sites:
            self._link(site, page(request.message))
        return self.outcome

    def end(self, sites: Sequence[Site]) -> Outcome:
        """End the pages of this run and leave the others unchanged.

        Args:
            sites: the apps.
        """
        for site in sites:
            path = site.folder / PAGE
            if path.is_symlink() and path.readlink().parent == self.pages:
                self._note(site, path, before=self.pages.name, after="")
                if not self.check:
                    path.unlink()
        if not self.check:
            self.run(["systemctl", "stop", self.unit])
        return self.outcome

    def _renew(self, lease: int) -> None:
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        until = str(int(uptime) + lease)
        if not self.run(["systemctl", "is-active", "--quiet", self.unit])[0]:
            put_text(self.pages / "until", f"{until}\n")
            return
        status, out, err = self.run(
            [
                "systemd-run", "--quiet", "--collect", f"--unit={self.unit}",
                "--description=Maintenance page of a restore", "--property=Type=exec",
                f"--property=RuntimeDirectory={self.pages.name}", "--property=RuntimeDirectoryMode=0755", "--",
                # systemd would expand the shell's variables itself.
                "/bin/sh", "-c", WAIT.replace("$", "$$"), "sh", until, str(LEASE),
            ],
            expand_user_and_vars=False,
        )  # fmt: skip
        if status:
            raise ReleaseError(
                "Show the page",
                f"systemd did not start {self.unit}: {tail(out + err, 3)}",
                "Nothing has been changed. Run systemctl --failed on the host, then run the same command again.",
            )

    def _link(self, site: Site, text: str) -> None:
        path, there = site.folder / PAGE, self.pages / f"{site.name}.html"
        self._note(site, path, before="", after=text)
        if self.check:
            return
        put_text(there, text)
        make_folder(site.folder)
        atomic.link(path, there)


def _is_up(site: Site) -> bool:
    return (site.folder / PAGE).is_file()
