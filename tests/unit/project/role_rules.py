"""What a role promises: each rule is a function that yields the faults of one role."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.block import Block
from ansible.playbook.task import Task
from loading import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
KEYWORDS = {*Task.fattributes, *Block.fattributes, "action", "local_action"}
SECTIONS = ["Requirements", "Example", "Options", "What a second run does not change", "How to undo"]
#: Mappings with keys that only the user knows.
FREE_MAPPINGS = {
    "app_apps[].environment",
    "app_apps[].files",
    "app_apps[].processes",
    "app_apps[].secrets",
    "app_apps[].timers",
    "backup_assertions",
    "backup_second.environment",
    "certbot_dns.credentials",
    "hardening_sysctl",
    "identity_peers",
    "nginx_sites[].basic_auth",
    "nginx_sites[].headers",
    "postgres_databases[].owner_variables",
    "postgres_extra_settings",
    "postgres_logins",
    "postgres_settings",
    "preflight_clocks",
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
    def entry_points(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = yaml.safe_load((self.path / "meta" / "argument_specs.yml").read_text())[
            "argument_specs"
        ]
        return found

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of main, and those that only other entry points have."""
        found: dict[str, Any] = {}
        for entry in sorted(self.entry_points, key=lambda name: name != "main"):
            found = (self.entry_points[entry].get("options") or {}) | found
        return found

    @cached_property
    def defaults(self) -> dict[str, Any]:
        path = self.path / "defaults" / "main.yml"
        return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}

    @cached_property
    def readme(self) -> str:
        path = self.path / "README.md"
        return path.read_text() if path.exists() else ""

    @cached_property
    def results(self) -> set[str]:
        """The facts that the role sets for its caller, as its README documents them."""
        section = re.search(r"^## Results\n(.*?)(?=^## |\Z)", self.readme, re.MULTILINE | re.DOTALL)
        return set(re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)) if section else set()

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


def entry_points_are_described(role: Role) -> Iterator[str]:
    """In its spec and in the README, and each is a file of tasks."""
    for name, spec in role.entry_points.items():
        if not spec.get("short_description"):
            yield f"the entry point {name} has no short_description"
        if not (role.path / "tasks" / f"{name}.yml").is_file():
            yield f"there is no tasks/{name}.yml for the entry point {name}"
        if name != "main" and f"`{name}`" not in role.readme:
            yield f"README.md does not name the entry point {name}"


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
        # A fact for the caller is public: the README documents it, and it is no option.
        published = {name for name in role.results - role.options.keys() if public.fullmatch(name)}
        names += [name for name in task.get("ansible.builtin.set_fact") or [] if name not in published]
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


def results_are_set(role: Role) -> Iterator[str]:
    """What the README promises the caller."""
    facts = {name for _where, task in role.tasks() for name in task.get("ansible.builtin.set_fact") or []}
    yield from (f"README.md documents the fact {name}, which no task sets" for name in sorted(role.results - facts))


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
    entry_points_are_described,
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
    results_are_set,
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


def specs(role: str, entry_point: str = "") -> dict[str, Any]:
    """The options of an entry point of a role, or all options of the role."""
    known = role_at(ROOT / "roles" / role, ROLES)
    return (known.entry_points[entry_point].get("options") or {}) if entry_point else known.options


def playbooks(*folders: str) -> list[Path]:
    """All files of playbooks and of tasks below the folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.yml"))


def calls(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every call of a role in a file of playbooks: the role, the entry point and the variables of the call."""
    queue = [DataLoader().load_from_file(str(path), trusted_as_template=True)]
    while queue:
        item = queue.pop()
        if isinstance(item, list):
            queue += item
        elif isinstance(item, dict):
            role_keys = {"ansible.builtin.import_role", "ansible.builtin.include_role"} & item.keys()
            queue += [value for key, value in item.items() if key not in role_keys]
            # Beside the calls themselves: the lists from which a call takes its names.
            for call in [item[key] for key in role_keys] or [item]:
                if call.get("name") in ROLES and (role_keys or "tasks_from" in call):
                    yield call["name"], call.get("tasks_from", "main"), (item.get("vars") or {}) if role_keys else {}
