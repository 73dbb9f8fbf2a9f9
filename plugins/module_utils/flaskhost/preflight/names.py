"""Names of variables that look like settings of ours and are none: nothing reads them, and nothing else says so."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Names that Ansible itself sets, or that a user gives to secrets.
_FOREIGN = re.compile(r"_.*|ansible_.*|vault_.*|molecule_.*")
#: Names of Ansible's own that begin with none of these words.
_ANSIBLE = frozenset(
    """
    ansible_facts environment group_names groups hostvars inventory_dir inventory_file inventory_hostname
    inventory_hostname_short omit play_hosts playbook_dir port role_name role_names role_path role_uuid vars
    """.split()
)
#: How alike a name has to be to be taken for a typing error: flask_appz is 0.9 like flask_apps.
_ALIKE = 0.85


def warnings(names: Iterable[str], known: Iterable[str], wired: Iterable[str], prefixes: Iterable[str]) -> list[str]:
    """Find variables that were probably meant to be a setting.

    Args:
        names: the variables that the host has.
        known: what a user can set: the site's settings and the roles' options.
        wired: what the project itself sets.
        prefixes: how the names of the roles' options begin.

    Returns:
        One sentence for each variable, in the order of the names.
    """
    known, wired, begins = sorted(set(known)), set(wired), tuple(sorted(set(prefixes)))
    found = []
    for name in sorted({str(name) for name in names} - set(known) - wired - _ANSIBLE):
        if _FOREIGN.fullmatch(name):
            continue
        near = next(iter(difflib.get_close_matches(name, known, 1, _ALIKE)), "")
        if near:
            found.append(f"The variable {name} is not a setting, and nothing reads it. Did you mean {near}?")
        elif name.startswith(begins):
            close = next(iter(difflib.get_close_matches(name, known, 1, 0.7)), "")
            hint = f" The most similar one is {close}." if close else ""
            found.append(
                f"The variable {name} begins like an option of the role {name.partition('_')[0]}, which has no such "
                f"option.{hint} If the variable is your own, choose a name with another beginning."
            )
    return found
