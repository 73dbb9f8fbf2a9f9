"""The maintenance page: what visitors get instead of an app, and which clients still reach the app itself.

The switch is one file, ``page.html`` in the app's maintenance folder, which nginx checks for every request: creating
and removing it takes effect immediately, without a reload. The allowed clients (nginx's ``geo``) and Retry-After are
settings, which nginx reads only at a start or reload. They are files in the folder ``nginx`` next to the page, and are
written, tested and loaded before the page is put in place. Default settings need no files, so that a plain on and off
never reloads nginx.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.flaskhost.host import atomic, service_state
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, tail

#: Default message of the page.
MESSAGE = "We are working on this site. Please come back in a little while."
#: Default Retry-After in seconds; roles/nginx/templates/site.conf.j2 has the same number.
RETRY_AFTER = 600
#: The page itself, whose existence is the switch.
PAGE = "page.html"
#: The settings' files. Written in this order and removed in reverse: nginx accepts the addresses without the line that
#: uses them, but not the line without the addresses.
ALLOW, CLOSED, RETRY = "nginx/allow.conf", "nginx/closed.map", "nginx/retry_after.map"
SETTINGS = (ALLOW, CLOSED, RETRY)

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Down for maintenance</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1.125rem/1.6 system-ui, sans-serif; }}
main {{ box-sizing: border-box; width: 100%; max-width: 36rem; padding: 2rem 1.5rem; text-align: center; }}
h1 {{ font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem; }}
p {{ margin: 0; white-space: pre-line; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<h1>Down for maintenance</h1>
<p>{message}</p>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Site:
    """An app's site in nginx.

    Attributes:
        name: the app's name.
        folder: the folder of its maintenance page.
    """

    name: str
    folder: Path


@dataclass(frozen=True)
class Request:
    """What to switch. :mod:`requests.maintenance` reads it from the operator's variables.

    Attributes:
        on: whether to show the page.
        sites: the apps, sorted by name.
        message: the text of the page, not yet escaped.
        retry_after: Retry-After in seconds.
        allow: the networks that still reach the app, sorted and without duplicates.
    """

    on: bool
    sites: tuple[Site, ...]
    message: str = MESSAGE
    retry_after: int = RETRY_AFTER
    allow: tuple[str, ...] = ()


# --- The page and its settings ---------------------------------------------------------------------------------------


def page(message: str) -> str:
    """Return the page: one file without external resources, with the message as text instead of HTML.

    Args:
        message: the text of the page; line breaks are kept.
    """
    return _PAGE.format(message=html.escape(message))


def settings(request: Request, name: str) -> dict[str, str | None]:
    """Return nginx's settings for one app's page.

    Args:
        request: the request.
        name: the app's name.

    Returns:
        The text of each of :data:`SETTINGS`; ``None`` for a file that should not exist.
    """
    # The same name as in roles/nginx/templates/site.conf.j2: nginx variables cannot contain hyphens.
    variable = f"$flaskhost_{name.replace('-', '_')}_closed_to_address"
    texts: dict[str, str | None] = dict.fromkeys(SETTINGS)
    if request.allow:
        lines = "".join(f"    {network} 0;\n" for network in request.allow)
        texts[ALLOW] = f"geo {variable} {{\n    default 1;\n{lines}}}\n"
        texts[CLOSED] = f"on {variable};\n"
    if request.retry_after != RETRY_AFTER:
        texts[RETRY] = f"on {request.retry_after};\n"
    return texts


@dataclass
class Outcome:
    """The changes, or in check mode the changes that would be made.

    Attributes:
        changed: whether anything changed.
        reloaded: whether nginx was reloaded.
        apps: the names of the apps whose files changed.
        diff: the changed files, in Ansible's format.
    """

    changed: bool = False
    reloaded: bool = False
    apps: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


class Maintenance:
    """Switches the pages of one host on and off.

    Args:
        run: runs a command.
        check_freeze: raises a :class:`ReleaseError` if an app is frozen.
        check: whether only to report what would be done.
        nginx_conf: nginx's configuration.
    """

    def __init__(
        self,
        run: Run,
        check_freeze: Callable[[str], None],
        check: bool = False,
        nginx_conf: Path = Path("/etc/nginx/nginx.conf"),
    ) -> None:
        self.run, self.check_freeze, self.check, self.nginx_conf = run, check_freeze, check, nginx_conf
        self.outcome = Outcome()

    def switch(self, request: Request) -> Outcome:
        """Bring the pages into the requested state. Do nothing if they already are.

        Raises:
            ReleaseError: an app is frozen, nginx is not configured for its page, or rejects the files on the disk. In
                each case, nothing changes for visitors.
        """
        for site in request.sites:
            self.check_freeze(site.name)
        if request.on:
            for site in request.sites:
                self._look_for_the_site(site)
            self._load_settings(request)
        for site in request.sites:
            self._put(site, PAGE, page(request.message) if request.on else None)
        return self.outcome

    def _look_for_the_site(self, site: Site) -> None:
        """Check that nginx is configured for the page. Without that, the page would have no effect."""
        known = self.nginx_conf.read_text(encoding="utf-8") if self.nginx_conf.is_file() else ""
        if f"{site.folder}/{PAGE}" not in known:
            raise ReleaseError(
                "Check nginx's configuration",
                f"nginx on this host is not configured for the maintenance page of {site.name}.",
                "Update its configuration first: ansible-playbook site.yml --tags nginx",
            )

    def _load_settings(self, request: Request) -> None:
        """Write nginx's settings and load them before any visitor gets the page."""
        before = {site: {name: _read(site.folder / name) for name in SETTINGS} for site in request.sites}
        for site in request.sites:
            self._put_settings(site, settings(request, site.name))
        if not self._reload_is_needed(request):
            return
        self.outcome.changed = self.outcome.reloaded = True
        if self.check:
            return
        service_state.settle(self._loaded_files(request))
        test = ["/usr/sbin/nginx", "-t", "-q"]
        status, out, err = self.run(test)
        if status:
            # Put the old settings back. With the rejected ones, the next start of nginx would fail.
            for site, texts in before.items():
                self._put_settings(site, texts)
            raise ReleaseError(
                "Test nginx's settings",
                f"{' '.join(test)} failed:\n{tail(out + err)}",
                "Nothing has changed for visitors. Correct the named file, and run the same command again.",
            )
        status, out, err = self.run(["systemctl", "reload", "nginx.service"])
        if status:
            # A failed reload also counts as a state change, so make the files newer: the next run must repeat it.
            service_state.make_younger(self._loaded_files(request))
            raise ReleaseError(
                "Reload nginx",
                f"systemctl reload nginx.service failed: {tail(out + err, 3)}",
                "Nothing has changed for visitors. Read the log on the host (sudo journalctl -u nginx.service), and "
                "run the same command again.",
            )

    def _reload_is_needed(self, request: Request) -> bool:
        """Check in systemd whether nginx has loaded the files on the disk, which a killed run does not ensure."""
        if self.check and self.outcome.changed:
            return True
        show = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(service_state.PROPERTIES)}"]
        properties = service_state.parse_show(self.run([*show, "nginx.service"], check_rc=True)[1])
        return "reload" in service_state.steps(properties, False, self._loaded_files(request), [])

    def _loaded_files(self, request: Request) -> list[str]:
        # A separate folder, so that switching the page does not change its time.
        return [str(self.nginx_conf), *(str(site.folder / "nginx") for site in request.sites)]

    def _put_settings(self, site: Site, texts: Mapping[str, str | None]) -> None:
        # First the files to write, in their order; then the files to remove, in reverse order.
        for name in [name for name in SETTINGS if texts[name] is not None] + [
            name for name in reversed(SETTINGS) if texts[name] is None
        ]:
            self._put(site, name, texts[name])

    def _put(self, site: Site, name: str, text: str | None) -> None:
        """Write a file, or remove it if the text is ``None``, with a rename, so that no reader sees a partial file."""
        path = site.folder / name
        before = _read(path)
        # A link is the page of a run (run_page.py): replace it, because the operator's page must outlast the run.
        if before == text and not (path.is_symlink() and text is not None):
            return
        self._note(site, path, before=before or "", after=text or "")
        if self.check:
            return
        if text is None:
            path.unlink()
            return
        put_text(path, text)

    def _note(self, site: Site, path: Path, *, before: str, after: str) -> None:
        self.outcome.changed = True
        if site.name not in self.outcome.apps:
            self.outcome.apps.append(site.name)
        self.outcome.diff.append(
            {"before": before, "after": after, "before_header": str(path), "after_header": str(path)}
        )


def put_text(path: Path, text: str) -> None:
    """Write a file that nginx's workers can read, with a rename, so that no reader sees a partial file.

    Args:
        path: the file.
        text: the content.
    """
    make_folder(path.parent)
    atomic.write(path, text, mode=0o644)


def make_folder(path: Path) -> None:
    """Create a folder that nginx's workers can enter, independent of root's umask."""
    for folder in [*reversed(path.parents), path]:
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)


def _read(path: Path) -> str | None:
    """Read a file; ``None`` if it does not exist. With invalid bytes replaced, it differs from any text of ours."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
