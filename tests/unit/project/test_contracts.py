"""What a role, a module and a guide promise, against what they hold.

Each rule is a function that yields the faults of one role. Every rule is tried on every role, and on a small role that
breaks it, so that a rule that finds nothing any more is found out.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.flaskhost import preflight
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.playbook.block import Block
from ansible.playbook.task import Task

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
KEYWORDS = {*Task.fattributes, *Block.fattributes, "action", "local_action"}
SECTIONS = ["Requirements", "Example", "Options", "What a second run does not change", "How to undo"]
#: Mappings with keys that only the user knows.
FREE_MAPPINGS = {
    "app_apps[].environment",
    "app_apps[].processes",
    "app_apps[].secrets",
    "app_apps[].timers",
    "backup_assertions",
    "backup_second.environment",
    "certbot_dns.credentials",
    "hardening_sysctl",
    "nginx_sites[].basic_auth",
    "nginx_sites[].headers",
    "postgres_databases[].owner_variables",
    "postgres_extra_settings",
    "postgres_logins",
    "postgres_settings",
}
#: Settings of the site that have the name of a role's option, and are named by another role.
SITE_SETTINGS = {
    "firewall_allow",
    "fail2ban_ignore",
    "postgres_version",
    "postgres_extra_settings",
    "postgres_logins",
}
#: What pip's lists of packages ask about the interpreter, which has the name of a role.
PIP_MARKERS = {"python_full_version", "python_version"}
#: Arguments of the kernel that begin with the name of a role.
KERNEL_ARGUMENTS = {"audit_backlog_limit"}
#: Modules that leave a file behind.
WRITERS = re.compile(r"ansible\.builtin\.(assemble|blockinfile|copy|file|get_url|lineinfile|template)")


@dataclass(frozen=True)
class Role:
    """One role as it is on the disk.

    Attributes:
        path: its folder.
        others: the names of the other roles.
        own_modules: the modules that have no collection before their name.
    """

    path: Path
    others: frozenset[str]
    own_modules: frozenset[str]

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def options(self) -> dict[str, Any]:
        specs = yaml.safe_load((self.path / "meta" / "argument_specs.yml").read_text())
        return specs["argument_specs"]["main"].get("options") or {}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        path = self.path / "defaults" / "main.yml"
        return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}

    @cached_property
    def readme(self) -> str:
        path = self.path / "README.md"
        return path.read_text() if path.exists() else ""

    def files(self, *folders: str) -> list[Path]:
        """The files of the role, or of some of its folders; not the README, which is for people."""
        places = [self.path / folder for folder in folders] if folders else [self.path]
        found = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
        return [path for path in found if path.name != "README.md" and path.suffix not in (".pyc",)]

    def tasks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every task and block, with the name of its file."""
        for path in self.files("tasks", "handlers"):
            queue = list(yaml.safe_load(path.read_text()) or [])
            while queue:
                task = queue.pop(0)
                yield f"{path.parent.name}/{path.name}: {task.get('name', 'without a name')}", task
                queue += [inner for key in ("block", "rescue", "always") for inner in task.get(key, [])]

    def all_options(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Every option, those inside of others too: its place, its name, and what is said of it."""
        yield from nested_options(self.options)

    def problems(self, values: dict[str, Any]) -> list[str]:
        """What Ansible says of values for the role's options."""
        # Ansible works a default that is a template out before it looks at its type.
        options = {
            name: {key: value for key, value in option.items() if key != "default" or "{{" not in str(value)}
            for name, option in self.options.items()
        }
        return ArgumentSpecValidator(options).validate(values, validate_role_argument_spec=True).error_messages


def nested_options(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, option in options.items():
        place = prefix + name
        yield place, name, option
        inside = f"{place}[]." if option.get("type") == "list" else f"{place}."
        yield from nested_options(option.get("options") or {}, inside)


def module_of(task: dict[str, Any]) -> str:
    """The module that a task runs; empty for a block."""
    return next((key for key in task if key not in KEYWORDS and not key.startswith("with_")), "")


# --- The face --------------------------------------------------------------------------------------------------------


def defaults_are_those_of_the_specs(role: Role) -> Iterator[str]:
    optional = {name for name, option in role.options.items() if not option.get("required")}
    for name in sorted(optional ^ set(role.defaults)):
        yield f"{name} is only in {'argument_specs' if name in optional else 'defaults'}"
    for name in sorted(optional & set(role.defaults)):
        documented, given = role.options[name].get("default"), role.defaults[name]
        if (documented, type(documented)) != (given, type(given)):
            yield f"{name} is {given!r} in defaults and {documented!r} in argument_specs"


def options_are_described(role: Role) -> Iterator[str]:
    for place, _name, option in role.all_options():
        if not option.get("description") or not option.get("type"):
            yield f"{place} has no description or no type"
        text = option.get("description") or ""
        if not (" ".join(text) if isinstance(text, list) else text).endswith("."):
            yield f"the description of {place} is not a sentence"
        if option.get("type") == "list" and not option.get("elements"):
            yield f"{place} does not say what its elements are"
        is_mapping = option.get("type") == "dict" or option.get("elements") == "dict"
        if is_mapping and not option.get("options") and place not in FREE_MAPPINGS:
            yield f"{place} does not say which keys it has"
        if not option.get("required") and "default" not in option:
            yield f"{place} is not required and has no default"


def secrets_are_hidden(role: Role) -> Iterator[str]:
    secret = re.compile(r"(.*_)?(secrets?|passwords?|passphrase|tokens?|private_key|credentials)")
    for place, name, option in role.all_options():
        if secret.fullmatch(name) and option.get("no_log") is not True:
            yield f"{place} is a secret without no_log"


def empty_lists_have_a_sample(role: Role) -> Iterator[str]:
    """A sample, and one that works when its comment signs are taken away."""
    text = (role.path / "defaults" / "main.yml").read_text() if role.defaults else ""
    for name in (name for name, value in role.defaults.items() if value == []):
        sample = re.search(rf"^{name}: \[\]\n((?:#  .*\n)+)", text, re.MULTILINE)
        if not sample or not sample[1].startswith("#  - "):
            yield f"{name} has no sample below it"
            continue
        value = yaml.safe_load(re.sub("^#", "", sample[1], flags=re.MULTILINE))
        required = {key: "x" for key, option in role.options.items() if option.get("required")}
        yield from (f"the sample of {name}: {fault}" for fault in role.problems({**required, name: value}))


def names_have_the_roles_prefix(role: Role) -> Iterator[str]:
    public, internal = re.compile(rf"{role.name}_[a-z]\w*"), re.compile(rf"__{role.name}_[a-z]\w*")
    for name in {**role.options, **role.defaults}:
        if not public.fullmatch(name):
            yield f"the option {name} does not begin with {role.name}_"
    inside = [(path.name, name) for path in role.files("vars") for name in yaml.safe_load(path.read_text()) or {}]
    for where, task in role.tasks():
        control = task.get("loop_control") or {}
        names = [task.get("register"), control.get("loop_var"), control.get("index_var"), *task.get("vars", {})]
        names += task.get("ansible.builtin.set_fact") or []
        inside += [(where, name) for name in names if name and not str(name).startswith("ansible_")]
    for where, name in inside:
        if name != "cacheable" and not internal.fullmatch(name):
            yield f"{where}: {name} does not begin with __{role.name}_"


def every_option_is_read(role: Role) -> Iterator[str]:
    text = "\n".join(path.read_text() for path in role.files("tasks", "templates", "vars", "handlers"))
    for name in role.options:
        if not re.search(rf"(?<!\w){name}\b", text):
            yield f"{name} is read nowhere in the role"


def optional_parts_have_a_fallback(role: Role) -> Iterator[str]:
    """Ansible does not fill in the defaults of what is inside of an option: whoever reads it has to."""
    code = [(path, line) for path in role.files("tasks", "templates", "vars") for line in path.read_text().splitlines()]
    for place, name, option in role.all_options():
        if "[]." not in place or option.get("required"):
            continue
        read = re.compile(rf"\b(?!ansible)\w+(?:\.{name}\b|\['{name}'\])(?!\s*\|\s*default)")
        for path, line in code:
            inside = "".join(re.findall(r"{[{%].*?[%}]}|^\s*when:.*", line))
            if read.search(inside):
                yield f"{path.name} reads {place}, which may be left out, without a default: {line.strip()}"


def options_of_yes_or_no_are_read_as_such(role: Role) -> Iterator[str]:
    """The word "false", as -e option=false hands it over, is true to a template and no condition to a task."""
    names = "|".join(name for name, option in role.options.items() if option["type"] == "bool")
    read = re.compile(rf"(?<!\w)({names})\b(?!\s*\|\s*bool\b)")
    for path in role.files("tasks", "templates", "vars", "handlers") if names else []:
        for line in path.read_text().splitlines():
            if (found := read.search(line)) and not line.lstrip().startswith("#"):
                yield f"{path.name} reads {found[1]} without | bool: {line.strip()}"


# --- The tasks -------------------------------------------------------------------------------------------------------


def no_tags_inside(role: Role) -> Iterator[str]:
    yield from (f"{where} has tags" for where, task in role.tasks() if "tags" in task)


def files_are_short(role: Role) -> Iterator[str]:
    for path in role.files("tasks", "handlers"):
        lines = len(path.read_text().splitlines())
        limit = 40 if path.name == "main.yml" else 99
        if lines > limit:
            yield f"{path.parent.name}/{path.name} has {lines} lines, more than {limit}"


def modules_have_their_full_name(role: Role) -> Iterator[str]:
    for where, task in role.tasks():
        module = module_of(task)
        if module and module.count(".") < 2 and module not in role.own_modules:
            yield f"{where} calls {module} without its collection"


def tasks_have_names(role: Role) -> Iterator[str]:
    """A name; in all files but the index it begins with what the file is about."""
    for where, task in role.tasks():
        file, _colon, _rest = where.partition(":")
        if not task.get("name"):
            yield f"{where}: a task has no name"
        elif file.startswith("tasks/") and file != "tasks/main.yml" and " | " not in task["name"]:
            yield f"{where}: the name does not begin with the topic of its file"


def written_files_have_an_owner(role: Role) -> Iterator[str]:
    for where, task in role.tasks():
        module = module_of(task)
        arguments = task.get(module) or {}
        if not WRITERS.fullmatch(module) or arguments.get("state") == "absent":
            continue
        for key in ("owner", "group", "mode"):
            if not isinstance(arguments.get(key), str):
                yield f"{where} has no {key}, or one without quotes"


def errors_are_not_ignored(role: Role) -> Iterator[str]:
    for path in role.files():
        if "ignore_errors" in path.read_text():
            yield f"{path.name} ignores errors"


def it_works_alone(role: Role) -> Iterator[str]:
    meta = role.path / "meta" / "main.yml"
    if meta.exists() and (yaml.safe_load(meta.read_text()) or {}).get("dependencies"):
        yield "meta/main.yml has dependencies"
    for where, task in role.tasks():
        if module_of(task).rpartition(".")[2] in ("include_role", "import_role"):
            yield f"{where} calls a role"


def it_knows_nothing_of_the_whole(role: Role) -> Iterator[str]:
    siblings = "|".join(sorted(role.others)) or "(?!)"
    # Of other hosts a role may read what it has itself registered there, and nothing else.
    others = rf"hostvars\b(?!, \[?'__{role.name}_)"
    whole = re.compile(
        rf"(?<!\w)(?:flask_apps\b|groups\s*[\[.]|group_names\b|{others}|playbook_dir\b|inventory_dir\b"
        rf"|(?:__)?(?:{siblings})_[a-z]\w*)"
    )
    for path in role.files():
        for found in whole.findall(path.read_text()):
            if found not in SITE_SETTINGS | PIP_MARKERS | KERNEL_ARGUMENTS:
                yield f"{path.relative_to(role.path)} mentions {found}"


def it_knows_nothing_of_tests(role: Role) -> Iterator[str]:
    for path in role.files():
        for found in re.findall(r"(?i:molecule|testinfra|docker)|\bCI\b", path.read_text()):
            yield f"{path.relative_to(role.path)} mentions {found}"


def facts_are_read_as_facts(role: Role) -> Iterator[str]:
    """Without injection a variable such as ansible_distribution is not there."""
    # What Ansible itself sets, and is no fact.
    known = {"ansible_facts", "ansible_managed", "ansible_check_mode", "ansible_become"}
    known |= {"ansible_play_hosts", "ansible_play_hosts_all"}
    # Where the connection goes, which a role that moves SSH has to follow.
    known |= {"ansible_port"}
    for path in role.files("tasks", "templates", "vars", "handlers", "defaults"):
        for found in set(re.findall(r"(?<![\w.])ansible_\w+", path.read_text())) - known:
            yield f"{path.name} reads {found}"


def templates_say_whose_they_are(role: Role) -> Iterator[str]:
    texts = {path: path.read_text() for path in role.files("templates")}
    for path, text in texts.items():
        first = "\n".join(text.splitlines()[:3])
        included = any(f"include '{path.name}'" in other for other in texts.values())
        if not included and not ("{{ ansible_managed | comment" in first and f"Role: {role.name}." in first):
            yield f"{path.name} does not begin with ansible_managed and the role's name"


# --- The README ------------------------------------------------------------------------------------------------------


def the_readme_has_its_sections(role: Role) -> Iterator[str]:
    if not role.readme.startswith(f"# {role.name}\n"):
        yield "README.md is missing, or does not begin with the role's name"
    # Preflight needs nothing: it is there to find out what is missing.
    for section in SECTIONS if role.name != "preflight" else SECTIONS[1:]:
        if not re.search(rf"^## {section}", role.readme, re.MULTILINE):
            yield f"README.md has no section {section}"
    if "<!-- options: made by make docs -->" not in role.readme:
        yield "README.md has no place for the table of options"
    facts = {fact for path in role.files() for fact in re.findall(r"ansible_facts\['(\w+)'\]", path.read_text())}
    for fact in sorted(facts):
        if f"`{fact}`" not in role.readme:
            yield f"README.md does not say that the fact {fact} is needed"


def the_readmes_example_works(role: Role) -> Iterator[str]:
    """It calls this role and no other, with options that it has and values that they take."""
    block = re.search(r"^## Example\n.*?^```yaml\n(.*?)^```", role.readme, re.MULTILINE | re.DOTALL)
    plays = yaml.safe_load(block[1]) if block else []
    calls = [
        ({"role": call} if isinstance(call, str) else call, play.get("vars") or {})
        for play in plays
        for call in play.get("roles", [])
    ]
    if [call["role"] for call, _vars in calls] != [role.name]:
        yield "the example does not call this role alone"
    for call, outer in calls:
        values = {**outer, **call.get("vars", {})}
        yield from (f"the example sets {name}, which is no option" for name in values.keys() - role.options.keys())
        yield from (f"the example: {fault}" for fault in role.problems(values))


Rule = Callable[[Role], Iterator[str]]
RULES: list[Rule] = [
    defaults_are_those_of_the_specs,
    options_are_described,
    secrets_are_hidden,
    empty_lists_have_a_sample,
    names_have_the_roles_prefix,
    every_option_is_read,
    optional_parts_have_a_fallback,
    options_of_yes_or_no_are_read_as_such,
    no_tags_inside,
    files_are_short,
    modules_have_their_full_name,
    tasks_have_names,
    written_files_have_an_owner,
    errors_are_not_ignored,
    it_works_alone,
    it_knows_nothing_of_the_whole,
    it_knows_nothing_of_tests,
    facts_are_read_as_facts,
    templates_say_whose_they_are,
    the_readme_has_its_sections,
    the_readmes_example_works,
]


def role_at(path: Path, names: list[str]) -> Role:
    own = {module.stem for module in MODULES} | {plugin.stem for plugin in path.glob("action_plugins/*.py")}
    return Role(path, frozenset(names) - {path.name}, frozenset(own))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_role_keeps_the_rule(rule: Rule, role: str) -> None:
    assert list(rule(role_at(ROOT / "roles" / role, ROLES))) == []


# --- The rules themselves --------------------------------------------------------------------------------------------

GOOD_ROLE = {
    "meta/argument_specs.yml": """
        argument_specs:
          main:
            options:
              shop_goods:
                description: What is sold.
                type: list
                elements: dict
                default: []
                options:
                  name: {description: The name., type: str, required: true}
                  price: {description: The price., type: int, default: 1}
              shop_open: {description: Whether it is open., type: bool, default: true}
        """,
    "defaults/main.yml": """
        # What is sold.
        shop_goods: []
        #  - name: apples
        #    price: 2

        # Whether it is open.
        shop_open: true
        """,
    "vars/main.yml": """
        __shop_door: "{{ 'open' if shop_open | bool else ansible_facts['env'] }}"
        __shop_lists: "{{ ansible_play_hosts | map('extract', hostvars, ['__shop_list', 'dest']) }}"
        """,
    "tasks/main.yml": """
        - name: Configure
          ansible.builtin.import_tasks: configure.yml
        """,
    "tasks/configure.yml": """
        - name: Configure | Write the list
          ansible.builtin.template:
            src: list.j2
            dest: /etc/shop
            owner: root
            group: root
            mode: "0644"
          register: __shop_list
        """,
    "templates/list.j2": """
        {{ ansible_managed | comment }}
        # Role: shop.
        {% for item in shop_goods %}
        {{ item.name }} {{ item.price | default(1) }}
        {% endfor %}
        """,
    "README.md": """
        # shop

        ## Requirements
        The fact `env`.
        ## Example
        ```yaml
        - hosts: all
          roles:
            - role: shop
              vars:
                shop_goods: [{name: pears}]
        ```
        ## Options
        <!-- options: made by make docs -->
        <!-- end of options -->
        ## What a second run does not change
        ## How to undo
        """,
}

#: For each rule: a file of the good role, a text in it, what stands there instead, and a word of what is found.
BREAKS = [
    (defaults_are_those_of_the_specs, "defaults/main.yml", "shop_open: true", "shop_open: false", "shop_open"),
    (defaults_are_those_of_the_specs, "defaults/main.yml", "shop_open: true", "shop_open: 1", "shop_open"),
    (defaults_are_those_of_the_specs, "defaults/main.yml", "shop_open: true", "", "only in argument_specs"),
    (defaults_are_those_of_the_specs, "defaults/main.yml", "shop_open:", "shop_x: 1\nshop_open:", "only in defaults"),
    (options_are_described, "meta/argument_specs.yml", "description: The price., ", "", "price"),
    (options_are_described, "meta/argument_specs.yml", "type: bool, ", "", "shop_open"),
    (options_are_described, "meta/argument_specs.yml", "elements: dict", "", "elements"),
    (options_are_described, "meta/argument_specs.yml", "type: int", "type: dict", "keys"),
    (options_are_described, "meta/argument_specs.yml", "The name.", "The name", "sentence"),
    (secrets_are_hidden, "meta/argument_specs.yml", "price:", "db_password:", "db_password"),
    (empty_lists_have_a_sample, "defaults/main.yml", "#  - name: apples\n#    price: 2\n", "", "sample"),
    (empty_lists_have_a_sample, "defaults/main.yml", "#    price", "#    prize", "prize"),
    (names_have_the_roles_prefix, "defaults/main.yml", "shop_open", "open", "open"),
    (names_have_the_roles_prefix, "vars/main.yml", "__shop_door", "shop_door", "shop_door"),
    (names_have_the_roles_prefix, "tasks/configure.yml", "__shop_list", "list", "list"),
    (names_have_the_roles_prefix, "tasks/configure.yml", "register: __shop_list", "vars: {goods: 1}", "goods"),
    (
        names_have_the_roles_prefix,
        "tasks/configure.yml",
        "register: __shop_list",
        "loop_control: {index_var: i}",
        ": i",
    ),
    (names_have_the_roles_prefix, "tasks/main.yml", "import_tasks: configure.yml", "set_fact: {fact: 1}", "fact"),
    (every_option_is_read, "vars/main.yml", "shop_open", "shop_opened", "shop_open"),
    (optional_parts_have_a_fallback, "templates/list.j2", " | default(1)", "", "price"),
    (options_of_yes_or_no_are_read_as_such, "vars/main.yml", "shop_open | bool", "shop_open", "shop_open"),
    (no_tags_inside, "tasks/configure.yml", "register: __shop_list", "tags: shop", "tags"),
    (files_are_short, "tasks/main.yml", "- name: Configure", "#\n" * 40 + "- name: Configure", "than 40"),
    (files_are_short, "tasks/configure.yml", "- name: Configure", "#\n" * 100 + "- name: Configure", "than 99"),
    (modules_have_their_full_name, "tasks/configure.yml", "ansible.builtin.template", "template", "template"),
    (tasks_have_names, "tasks/main.yml", "- name: Configure\n ", "-", "no name"),
    (tasks_have_names, "tasks/configure.yml", "Configure | Write", "Write", "topic"),
    (written_files_have_an_owner, "tasks/configure.yml", '"0644"', "0644", "mode"),
    (written_files_have_an_owner, "tasks/configure.yml", "    owner: root\n", "", "owner"),
    (written_files_have_an_owner, "tasks/configure.yml", "    group: root\n", "", "group"),
    (errors_are_not_ignored, "tasks/configure.yml", "register: __shop_list", "ignore_errors: true", "configure.yml"),
    (it_works_alone, "tasks/main.yml", "import_tasks: configure.yml", "include_role: {name: till}", "calls a role"),
    (it_knows_nothing_of_the_whole, "templates/list.j2", "shop_goods", "flask_apps", "flask_apps"),
    (it_knows_nothing_of_the_whole, "templates/list.j2", "shop_goods", "till_goods", "till_goods"),
    (it_knows_nothing_of_the_whole, "templates/list.j2", "shop_goods", "__till_goods", "__till_goods"),
    (it_knows_nothing_of_the_whole, "templates/list.j2", "shop_goods", "groups['db']", "groups["),
    (it_knows_nothing_of_the_whole, "templates/list.j2", "shop_goods", "playbook_dir", "playbook_dir"),
    (it_knows_nothing_of_the_whole, "vars/main.yml", "['__shop_list', 'dest']", "'door'", "hostvars"),
    (it_knows_nothing_of_the_whole, "templates/list.j2", "shop_goods", "hostvars['a'].door", "hostvars"),
    (it_knows_nothing_of_tests, "tasks/main.yml", "- name", "# for Docker\n- name", "Docker"),
    (it_knows_nothing_of_tests, "tasks/main.yml", "- name", "# in CI\n- name", "CI"),
    (it_knows_nothing_of_tests, "tasks/main.yml", "- name", "# under molecule\n- name", "molecule"),
    (facts_are_read_as_facts, "vars/main.yml", "ansible_facts['env']", "ansible_env", "ansible_env"),
    (templates_say_whose_they_are, "templates/list.j2", "Role: shop.", "", "list.j2"),
    (templates_say_whose_they_are, "templates/list.j2", "{{ ansible_managed | comment }}", "", "list.j2"),
    (the_readme_has_its_sections, "README.md", "## How to undo", "", "How to undo"),
    (the_readme_has_its_sections, "README.md", "<!-- options: made by make docs -->", "", "table"),
    (the_readme_has_its_sections, "README.md", "`env`", "", "env"),
    (the_readmes_example_works, "README.md", "role: shop", "role: till", "alone"),
    (the_readmes_example_works, "README.md", "{name: pears}", "{nam: pears}", "nam"),
    (the_readmes_example_works, "README.md", "shop_goods: ", "shop_gods: ", "shop_gods"),
]


@pytest.fixture
def good_role(tmp_path: Path) -> Role:
    for name, text in GOOD_ROLE.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in text.strip("\n").splitlines()) + "\n")
    return role_at(tmp_path / "shop", ["shop", "till"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_role_keeps_the_rule(rule: Rule, good_role: Role) -> None:
    assert list(rule(good_role)) == []


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: f"{broken[0].__name__}-{broken[4]}")
def test_a_rule_finds_what_breaks_it(broken: tuple[Rule, str, str, str, str], good_role: Role) -> None:
    rule, file, old, new, word = broken
    path = good_role.path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = list(rule(good_role))
    assert any(word in fault for fault in found), found


def test_every_rule_is_broken_once() -> None:
    assert {rule.__name__ for rule, *_rest in BREAKS} == {rule.__name__ for rule in RULES}


# --- Modules ---------------------------------------------------------------------------------------------------------


def specification(option: dict[str, Any], inner: str) -> dict[str, Any]:
    """What documentation and code have to agree on."""
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "default": option.get("default"),
        "required": option.get("required", False),
        "choices": option.get("choices"),
        "options": {name: specification(item, inner) for name, item in (option.get(inner) or {}).items()},
    }


def differences(documented: dict[str, Any], real: dict[str, Any]) -> list[str]:
    found = [f"{name} is only in one of both" for name in sorted(documented.keys() ^ real.keys())]
    for name in sorted(documented.keys() & real.keys()):
        if specification(documented[name], "suboptions") != specification(real[name], "options"):
            found.append(f"{name} is another in the documentation")
        if not documented[name].get("description"):
            found.append(f"{name} has no description")
    return found


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_documented_as_it_is(path: Path) -> None:
    module = load(path)
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == path.stem
    assert differences(documentation["options"], module.ARGUMENT_SPEC) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_examples_of_a_module_work(path: Path) -> None:
    module = load(path)
    for task in yaml.safe_load(module.EXAMPLES):
        result = ArgumentSpecValidator(module.ARGUMENT_SPEC).validate(task[path.stem])
        assert result.error_messages == []


#: Options that are named like a secret and are none.
NO_SECRETS = {
    ("flask_certificates", "key_type"), ("flask_secret_key", "by_host"), ("flask_secret_key", "candidate"),
}  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_hides_its_secrets(path: Path) -> None:
    for name, option in load(path).ARGUMENT_SPEC.items():
        word = re.search(r"secret|passw|passphrase|token|credential|(^|_)keys?(_|$)|login", name)
        if word and option["type"] not in ("bool", "path") and (path.stem, name) not in NO_SECRETS:
            assert option.get("no_log") is True, f"{name} may hold a secret, and would be shown"


def test_plugins_know_nothing_of_tests() -> None:
    """As roles: nothing behaves otherwise where it is tested. Reserved names are something else."""
    reserved = {("names.py", "docker"), ("role_options.py", "docker"), ("names.py", "molecule")}
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for found in re.findall(r"(?i:molecule|testinfra|docker)|\bCI\b", path.read_text()):
            assert (path.name, found) in reserved, f"{path.name} mentions {found}"


@pytest.mark.parametrize(
    ("documented", "real"),
    [
        ({"a": {"description": "x", "type": "str"}}, {}),
        ({}, {"a": {"type": "str"}}),
        ({"a": {"description": "x", "type": "str"}}, {"a": {"type": "int"}}),
        ({"a": {"description": "x", "type": "int", "default": 5}}, {"a": {"type": "int", "default": 6}}),
        ({"a": {"description": "x", "type": "str"}}, {"a": {"type": "str", "required": True}}),
        (
            {"a": {"description": "x", "type": "list", "elements": "str"}},
            {"a": {"type": "list", "elements": "path"}},
        ),
        (
            {"a": {"description": "x", "type": "dict"}},
            {"a": {"type": "dict", "options": {"b": {"type": "str"}}}},
        ),
        ({"a": {"type": "str"}}, {"a": {"type": "str"}}),
    ],
)
def test_a_wrong_documentation_is_found(documented: dict[str, Any], real: dict[str, Any]) -> None:
    assert len(differences(documented, real)) == 1


def test_the_options_of_an_app_are_those_of_the_module() -> None:
    """The role hands them over as they are, so their types and defaults are the module's."""
    module = load(ROOT / "plugins/modules/flask_release.py").ARGUMENT_SPEC
    role = role_at(ROOT / "roles" / "app", ROLES).options["app_apps"]["options"]
    for name, option in role.items():
        wanted = {**specification(option, "options"), "options": {}}
        assert wanted == {**specification(module[name], "options"), "options": {}}, name
    missing = {name for name, option in module.items() if option.get("required")} - role.keys()
    assert missing == {"uv", "server_lock"}, "what the role has for all apps at once"


# --- Collections -----------------------------------------------------------------------------------------------------


def test_requirements_name_the_collections_that_are_used() -> None:
    named = {item["name"] for item in yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]}
    texts = [path for folder in ("roles", "playbooks", "group_vars", "molecule", ".config")
             for path in (ROOT / folder).rglob("*.yml")]  # fmt: skip
    used = {
        name for path in texts for name in re.findall(r"\b(?:community|ansible)\.[a-z]+(?=\.[a-z])", path.read_text())
    }
    # Molecule's driver for Docker wants its collection, though the scenarios start their containers themselves.
    assert named == used - {"ansible.builtin", "ansible.legacy"} | {"community.docker"}


# --- Guides ----------------------------------------------------------------------------------------------------------


def run_docs(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "docs.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_tables_of_options_are_up_to_date() -> None:
    result = run_docs(ROOT, "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("guide", ["roles/nginx/README.md", "docs/apps.md"])
def test_a_table_that_is_out_of_date_is_named(guide: str, tmp_path: Path) -> None:
    for name in ("scripts", "docs", "plugins/module_utils/flaskhost", "roles/nginx"):
        shutil.copytree(ROOT / name, tmp_path / name)
    assert run_docs(tmp_path, "--check").returncode == 0
    path = tmp_path / guide
    good = path.read_text()
    path.write_text(good.replace("| int |", "| str |", 1))
    stale = run_docs(tmp_path, "--check")
    assert stale.returncode == 1
    assert guide in stale.stderr
    assert path.read_text() != good
    assert run_docs(tmp_path).returncode == 0
    assert path.read_text() == good


def examples(guide: str) -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / guide).read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in map(yaml.safe_load, blocks) if "flask_apps" in block]


@pytest.mark.parametrize("example", examples("docs/apps.md"), ids=lambda example: ",".join(example["flask_apps"]))
def test_an_example_of_the_guide_would_pass_preflight(example: dict[str, Any]) -> None:
    # What the vault holds: preflight looks at the key itself.
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{'A' * 64}\n-----END RSA PRIVATE KEY-----"
    apps = json.loads(json.dumps(example["flask_apps"]).replace("{{ vault_shop_deploy_key }}", json.dumps(key)[1:-1]))
    problems = preflight.find_problems(apps, {}, {}, ROOT)
    assert [f"{problem['path']}: {problem['problem']}" for problem in problems] == []


def test_the_guide_explains_the_demo_as_it_is() -> None:
    demo = yaml.safe_load((ROOT / "inventories/demo/group_vars/all/apps.yml").read_text())
    assert demo in examples("docs/apps.md")


def test_the_guide_knows_every_option() -> None:
    """The text before the table, that is: the table is made by a program."""
    text = (ROOT / "docs" / "apps.md").read_text().partition("## All options")[0]
    assert [name for name in APP_OPTIONS if f"`{name}" not in text] == []


# --- ansible.cfg -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("defaults", "inject_facts_as_vars", "False"),
        ("defaults", "gathering", "explicit"),
        ("defaults", "host_key_checking", "True"),
        ("defaults", "inventory", "inventories/demo"),
        ("defaults", "duplicate_dict_key", "error"),
        ("inventory", "any_unparsed_is_failed", "True"),
        ("ssh_connection", "pipelining", "True"),
    ],
)
def test_ansible_is_set_up(section: str, name: str, value: str) -> None:
    assert settings()[section][name] == value


@pytest.mark.parametrize("name", ["roles_path", "filter_plugins", "library", "module_utils", "action_plugins"])
def test_ansible_finds_our_own_things(name: str) -> None:
    assert (ROOT / settings()["defaults"][name]).is_dir()


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "ansible.cfg")
    return parser


def test_git_ignores_a_linked_cache_as_well(tmp_path: Path) -> None:
    """A worktree may share another's cache by a link; merged, the link would take the place of the real folder."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for name in (".cache", ".venv"):
        (tmp_path / name).symlink_to(tmp_path.parent)
    subprocess.run(["/usr/bin/git", "init", "--quiet", tmp_path], check=True)
    status = ["/usr/bin/git", "-C", str(tmp_path), "status", "--porcelain"]
    done = subprocess.run(status, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["??", ".gitignore"]
