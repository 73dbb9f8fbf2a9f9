"""What each role promises, against what it holds.

Every rule is tried on every role, and on a small role that breaks it, so that a rule that finds nothing any more is
found out.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import ROOT
from role_rules import (
    ROLES,
    RULES,
    Role,
    Rule,
    defaults_are_those_of_the_specs,
    empty_lists_have_a_sample,
    entry_points_are_described,
    errors_are_not_ignored,
    every_option_is_read,
    facts_are_read_as_facts,
    files_are_short,
    it_knows_nothing_of_tests,
    it_knows_nothing_of_the_whole,
    it_works_alone,
    modules_have_their_full_name,
    names_have_the_roles_prefix,
    no_tags_inside,
    optional_parts_have_a_fallback,
    options_are_described,
    options_of_yes_or_no_are_read_as_such,
    results_are_set,
    role_at,
    secrets_are_hidden,
    tasks_have_names,
    templates_say_whose_they_are,
    the_readme_has_its_sections,
    the_readmes_example_works,
    written_files_have_an_owner,
)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_role_keeps_the_rule(rule: Rule, role: str) -> None:
    assert list(rule(role_at(ROOT / "roles" / role, ROLES))) == []


GOOD_ROLE = {
    "meta/argument_specs.yml": """
        argument_specs:
          main:
            short_description: Sell goods
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
          count:
            short_description: Count the goods
            options:
              shop_till: {description: Name of the till., type: str, default: front}
        """,
    "defaults/main.yml": """
        # What is sold.
        shop_goods: []
        #  - name: apples
        #    price: 2

        # Whether it is open.
        shop_open: true
        # For the entry point count: name of the till.
        shop_till: front
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
    "tasks/count.yml": """
        - name: Count | Record the number of goods for the caller
          ansible.builtin.set_fact:
            shop_count: "{{ shop_till ~ shop_goods | length }}"
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

        The entry point `count` counts the goods.
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
        ## Results
        | fact | type | meaning |
        |---|---|---|
        | `shop_count` | str | Number of goods. |
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
    (options_are_described, "meta/argument_specs.yml", "Name of the till.", "Name of the till", "shop_till"),
    (entry_points_are_described, "meta/argument_specs.yml", "short_description: Count the goods\n", "\n", "count"),
    (entry_points_are_described, "meta/argument_specs.yml", "  count:", "  weigh:", "tasks/weigh.yml"),
    (entry_points_are_described, "README.md", "entry point `count`", "role", "does not name the entry point count"),
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
    (names_have_the_roles_prefix, "tasks/count.yml", "shop_count", "shop_sum", "shop_sum"),
    (names_have_the_roles_prefix, "README.md", "| `shop_count`", "| shop_count", "shop_count"),
    (names_have_the_roles_prefix, "tasks/configure.yml", "register: __shop_list", "register: shop_count", "shop_count"),
    (results_are_set, "README.md", "| `shop_count`", "| `shop_sum`", "shop_sum"),
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
