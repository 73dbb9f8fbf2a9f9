"""The roles' templates and the project's filters, as Ansible has them."""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template
from loading import ROOT, load_plugin

ROLES = ROOT / "roles"
# Vars and templates of roles use the project's filters.
filter_loader.add_directory(str(ROOT / "plugins" / "filter"))


def render(role: str, template: str, facts: dict[str, Any] | None = None, **variables: Any) -> str:
    """Render a template of a role with its defaults and vars, and with the options that the template module has."""
    loader = DataLoader()
    known: dict[str, Any] = {"ansible_managed": "Ansible managed", "ansible_facts": facts or {}}
    for folder in ("defaults", "vars"):
        path = ROLES / role / folder / "main.yml"
        known |= (loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.exists() else {}
    folder = ROLES / role / "templates"
    templar = Templar(loader=loader).copy_with_new_env(
        searchpath=[str(folder)], available_variables={**known, **variables}
    )
    text = trust_as_template((folder / template).read_text())
    return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True}))


def load_filters() -> dict[str, Any]:
    """The filters by their names."""
    return load_plugin("plugins/filter/flask_apps.py").FilterModule().filters()
