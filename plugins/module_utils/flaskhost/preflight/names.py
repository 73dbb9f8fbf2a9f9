"""Find variables that look like settings of Flaskhost but are not: nothing uses them, and nothing else reports them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from .role_options import FORMER

#: Variables of Ansible itself, and names that users give to secrets.
_FOREIGN = re.compile(r"_.*|ansible_.*|vault_.*|molecule_.*")
#: Ansible's own variables without one of these prefixes.
_ANSIBLE = frozenset(
    """
    ansible_facts environment group_names groups hostvars inventory_dir inventory_file inventory_hostname
    inventory_hostname_short omit play_hosts playbook_dir port role_name role_names role_path role_uuid vars
    """.split()
)
#: Minimum similarity that counts as a typing error: flask_appz and flask_apps have 0.9.
_ALIKE = 0.85


def warnings(names: Iterable[str], known: Iterable[str], wired: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """Find variables that were probably meant to be a setting.

    Args:
        names: the host's variables.
        known: the variables that a user can set: the site's settings and the roles' options.
        wired: the variables that the project itself sets.
        prefixes: the prefixes of the roles' options.

    Returns:
        One sentence for each variable, sorted by name.
    """
    known, wired, begins = sorted(set(known)), set(wired), tuple(sorted(set(prefixes)))
    found = []
    for name in sorted({str(name) for name in names} - set(known) - wired - _ANSIBLE):
        if _FOREIGN.fullmatch(name):
            continue
        if name in FORMER:
            found.append(f"The variable {name} is now {FORMER[name]}. The former name still works. Please rename it.")
            continue
        near = next(iter(difflib.get_close_matches(name, known, 1, _ALIKE)), "")
        if near:
            found.append(f"The variable {name} is not a setting, and nothing reads it. Did you mean {near}?")
        elif name.startswith(begins):
            close = next(iter(difflib.get_close_matches(name, known, 1, 0.7)), "")
            hint = f" The most similar option is {close}." if close else ""
            found.append(
                f"The variable {name} starts like an option of the role {name.partition('_')[0]}, which has no such "
                f"option.{hint} If the variable is your own, choose a name with another prefix."
            )
    return found
