"""The maintenance page: what visitors get instead of an app, and who still sees the app itself.

The switch is one file, ``page.html`` in the app's maintenance folder, which nginx looks for at every request: putting
it there and taking it away takes effect at once, and nothing is reloaded. Who is let through (nginx's ``geo``) and what
Retry-After says are settings that nginx reads only when it starts or is reloaded. They are files in the folder
``nginx`` beside the page, are written first, and are tested and loaded before the page is put in place. Settings that
are the usual ones are no files at all, so that a plain on and off never reloads.
"""

from __future__ import annotations

import difflib
import html
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.host import atomic, service_state
from ansible.module_utils.flaskhost.host.runner import ReleaseError, Run, tail

#: What the page says where the operator says nothing.
MESSAGE = "We are working on this site. Please come back in a little while."
#: Seconds of Retry-After where the operator says nothing; the same number is in roles/nginx/templates/site.conf.j2.
RETRY_AFTER = 600
#: The longest Retry-After, in seconds: a year. More digits than that are a slip of the fingers.
LONGEST_RETRY = 365 * 24 * 3600
#: The page itself: its presence is the switch.
PAGE = "page.html"
#: The settings' files by what they hold. Written in this order and removed in the opposite one: nginx accepts the
#: addresses without the line that reads them, and not the other way round.
ALLOW, CLOSED, RETRY = "nginx/allow.conf", "nginx/closed.map", "nginx/retry_after.map"
SETTINGS = (ALLOW, CLOSED, RETRY)

_SAYS_ON = ("on", "true", "yes", "1")
_SAYS_OFF = ("off", "false", "no", "0")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NOTHING_CHANGED = "Nothing has been changed. Correct this, and run the same command again."

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


# --- What the operator asks for --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """An app that nginx serves.

    Attributes:
        name: the app's name.
        folder: the folder of its maintenance page.
    """

    name: str
    folder: Path


@dataclass(frozen=True)
class Request:
    """What the operator asks for, found valid.

    Attributes:
        on: whether the page is to be shown.
        sites: the apps, in the order of their names.
        message: what the page says, not yet escaped.
        retry_after: seconds that Retry-After names.
        allow: the networks that see the app all the same, sorted and each once.
    """

    on: bool
    sites: tuple[Site, ...]
    message: str = MESSAGE
    retry_after: int = RETRY_AFTER
    allow: tuple[str, ...] = ()


def read_request(values: Mapping[str, Any], sites: list[Site]) -> Request:
    """Make sense of the variables of a command line, which are text there and may be anything in JSON.

    Args:
        values: ``maintenance``, ``app``, ``message``, ``retry_after`` and ``allow``; one that is missing, ``None`` or
            empty was not given.
        sites: all apps.

    Raises:
        ReleaseError: something is wrong; all of it is told at once, each with the variable's name and what works.
    """
    problems: list[str] = []
    on = _read_switch(values.get("maintenance"), problems)
    chosen = _read_app(values.get("app"), sites, problems)
    message = _read_message(values.get("message"), problems)
    retry_after = _read_retry_after(values.get("retry_after"), problems)
    allow = _read_allow(values.get("allow"), problems)
    if problems:
        raise ReleaseError("Read the variables", "\n".join(problems), _NOTHING_CHANGED)
    return Request(on, chosen, message, retry_after, allow)


def _read_switch(value: Any, problems: list[str]) -> bool:
    if isinstance(value, str) and not value.strip():
        value = None
    if value is None:
        problems.append("maintenance is missing. Say on or off: -e maintenance=on")
        return False
    # YAML's on is true, and so is JSON's true; on a command line all of them are text.
    word = str(value).strip().lower()
    if word not in _SAYS_ON + _SAYS_OFF:
        problems.append(f"maintenance is {_shown(value)}, neither on nor off. Say one of both: -e maintenance=on")
    return word in _SAYS_ON


def _read_app(value: Any, sites: list[Site], problems: list[str]) -> tuple[Site, ...]:
    ordered = tuple(sorted(sites, key=lambda site: site.name))
    names = [site.name for site in ordered]
    if not names:
        problems.append("flask_apps names no app, so there is none to show a page for.")
        return ()
    if value is None or value == "":
        if len(names) > 1:
            problems.append(
                f"app is missing, and there are several: {', '.join(names)}. Name one: -e app={names[0]} "
                "(or all of them: -e app=all)"
            )
        return ordered
    if isinstance(value, str) and value in names:
        return tuple(site for site in ordered if site.name == value)
    if value == "all":
        return ordered
    like = difflib.get_close_matches(str(value), names, 1, 0.6)
    problems.append(
        f"app is {_shown(value)}, and no app has that name; there are: {', '.join(names)}. "
        f"Name one: -e app={(like or names)[0]}"
    )
    return ()


def _read_message(value: Any, problems: list[str]) -> str:
    if isinstance(value, (list, tuple, dict, set)):
        problems.append('message is not a text. Write one: -e message="Back at 9"')
        return MESSAGE
    # A text may come with bytes that are no UTF-8, and with what moves a terminal's cursor; a page has neither.
    text = "" if value is None else str(value).replace("\r\n", "\n").encode("utf-8", "replace").decode()
    return _CONTROL.sub("", text).strip() or MESSAGE


def _read_retry_after(value: Any, problems: list[str]) -> int:
    if value is None or value == "":
        return RETRY_AFTER
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,9}", text) and 0 < int(text) <= LONGEST_RETRY:
        return int(text)
    problems.append(
        f"retry_after is {_shown(value)}, not a whole number of seconds from 1 to {LONGEST_RETRY}. "
        "Write for ten minutes: -e retry_after=600"
    )
    return RETRY_AFTER


def _read_allow(value: Any, problems: list[str]) -> tuple[str, ...]:
    # -e allow=203.0.113.7,198.51.100.0/24 is what one types; a list needs JSON.
    items = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
    if items in (None, [], [""], ()):
        return ()
    if not isinstance(items, (list, tuple)):
        items = [items]
    networks = set()
    for item in items:
        network = _network(item)
        if network is None:
            problems.append(
                f"allow holds {_shown(item)}, which is no address and no network. "
                """Write for instance: -e '{"allow": ["203.0.113.7", "2001:db8::/32"]}'"""
            )
        elif network.prefixlen == 0:
            problems.append(
                f"allow holds {_shown(item)}, which is everybody: nobody would get the page. "
                "Name the testers' addresses, or leave the page off."
            )
        else:
            networks.add(network)
    ordered = sorted(networks, key=lambda network: (network.version, network))
    return tuple(str(network) if network.num_addresses > 1 else str(network[0]) for network in ordered)


def _network(item: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that a text means; bits of the host in it are left out. A zone (%eth0) is nothing for nginx."""
    if not isinstance(item, str) or "%" in item:
        return None
    try:
        return ipaddress.ip_network(item.strip(), strict=False)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    """A value in a message: short, and without what moves a terminal's cursor."""
    text = _CONTROL.sub("?", str(value).replace("\n", " ").encode("utf-8", "replace").decode())
    return f'"{text if len(text) <= 60 else text[:57] + "..."}"'


# --- What there has to be on the disk --------------------------------------------------------------------------------


def page(message: str) -> str:
    """Write the page: one file that asks for nothing else, with the message as text and not as HTML.

    Args:
        message: what it says; line ends are kept.
    """
    return _PAGE.format(message=html.escape(message))


def settings(request: Request, name: str) -> dict[str, str | None]:
    """Write nginx's settings of one app's page.

    Args:
        request: what is asked for.
        name: the app's name.

    Returns:
        The text of each of :data:`SETTINGS`; ``None`` for one that is not to be there.
    """
    # As roles/nginx/templates/site.conf.j2 names them: a variable of nginx has no hyphen.
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
    """What was done, or in check mode what would be.

    Attributes:
        changed: whether anything was.
        reloaded: whether nginx was reloaded.
        apps: the names of the apps whose files were changed.
        diff: the files that were changed, as Ansible shows them.
    """

    changed: bool = False
    reloaded: bool = False
    apps: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


class Maintenance:
    """Switches the pages of one host on and off.

    Args:
        run: runs a command.
        check_freeze: raises a :class:`ReleaseError` where an app is frozen.
        check: only say what would be done.
        nginx_conf: nginx's settings.
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
        """Bring the pages into the state that is asked for. Where it is so already, nothing is done.

        Raises:
            ReleaseError: an app is frozen, nginx does not know its page, or refuses what is on the disk. What visitors
                get is then what it was before.
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
        """See that nginx would find the page; a page that nobody sees is worse than none."""
        known = self.nginx_conf.read_text(encoding="utf-8") if self.nginx_conf.is_file() else ""
        if f"{site.folder}/{PAGE}" not in known:
            raise ReleaseError(
                "Look for the site",
                f"nginx on this host does not know the maintenance page of {site.name}.",
                "Bring its settings up to date first: ansible-playbook site.yml --tags nginx",
            )

    def _load_settings(self, request: Request) -> None:
        """Write nginx's settings, and have them loaded before anybody gets the page."""
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
            # Without it the next start of nginx would fail on settings that nobody needs.
            for site, texts in before.items():
                self._put_settings(site, texts)
            raise ReleaseError(
                "Test nginx's settings",
                f"{' '.join(test)} says\n{tail(out + err)}",
                "Visitors get what they got before. Correct the file that is named, and run the same command again.",
            )
        status, out, err = self.run(["systemctl", "reload", "nginx.service"])
        if status:
            # A reload that fails is a change of state as well: the next run has to see that it is still needed.
            service_state.make_younger(self._loaded_files(request))
            raise ReleaseError(
                "Reload nginx",
                f"systemctl reload nginx.service failed: {tail(out + err, 3)}",
                "Visitors get what they got before. See sudo journalctl -u nginx.service, and run the same command "
                "again.",
            )

    def _reload_is_needed(self, request: Request) -> bool:
        """Ask systemd whether nginx has read what is on the disk: a run that was killed leaves it unread."""
        if self.check and self.outcome.changed:
            return True
        show = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(service_state.PROPERTIES)}"]
        properties = service_state.parse_show(self.run([*show, "nginx.service"], check_rc=True)[1])
        return "reload" in service_state.steps(properties, False, self._loaded_files(request), [])

    def _loaded_files(self, request: Request) -> list[str]:
        # A folder of their own: the page's comings and goings do not make it younger.
        return [str(self.nginx_conf), *(str(site.folder / "nginx") for site in request.sites)]

    def _put_settings(self, site: Site, texts: Mapping[str, str | None]) -> None:
        # Those to write first, in their order; then those to remove, in the opposite one.
        for name in [name for name in SETTINGS if texts[name] is not None] + [
            name for name in reversed(SETTINGS) if texts[name] is None
        ]:
            self._put(site, name, texts[name])

    def _put(self, site: Site, name: str, text: str | None) -> None:
        """Make a file hold the text, or take it away where that is ``None``; by a rename: nobody reads half a file."""
        path = site.folder / name
        before = _read(path)
        # A link is the page of a run (run_page.py): what an operator puts up is to outlast that.
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
    """Write a file that nginx's workers can read, by a rename: nobody reads half of it.

    Args:
        path: the file.
        text: what it holds.
    """
    make_folder(path.parent)
    atomic.write(path, text, mode=0o644)


def make_folder(path: Path) -> None:
    """Make a folder that nginx's workers can look into, whatever root's umask is."""
    for folder in [*reversed(path.parents), path]:
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)


def _read(path: Path) -> str | None:
    """What a file holds; ``None`` where there is none. Bytes that are no text make it another than any of ours."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
