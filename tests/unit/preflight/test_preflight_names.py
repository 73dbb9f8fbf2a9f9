"""Preflight: names of variables that look like settings and are none."""

from __future__ import annotations

import pytest
import yaml
from ansible.module_utils.flaskhost.preflight import names, role_options
from loading import ROOT
from preflight_cases import SPECS
from rendering import load_filters


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("flask_appz", "flask_apps"),
        ("firewal_allow", "firewall_allow"),
        ("time_zone", "timezone"),
        ("postgres_extra_setting", "postgres_extra_settings"),
        ("hardening_sysctls", "hardening_sysctl"),
        ("nginx_tls_polic", "nginx_tls_policy"),
        ("backups", "backup"),
    ],
)
def test_a_misspelt_variable_is_warned_about(name: str, near: str) -> None:
    site = ["flask_apps", "firewall_allow", "timezone", "postgres_extra_settings", "backup"]
    (warning,) = load_filters()["flask_setting_warnings"]([name], site)
    assert f"The variable {name} " in warning
    assert warning.endswith(f"Did you mean {near}?")


def test_a_variable_that_begins_like_an_option_is_warned_about() -> None:
    (warning,) = names.warnings(["nginx_fancy"], ["nginx_http3"], [], ["nginx_"])
    assert "the role nginx, which has no such option" in warning


@pytest.mark.parametrize(("former", "present"), role_options.FORMER.items())
def test_a_former_name_works_and_is_warned_about(former: str, present: str) -> None:
    filters = load_filters()
    (warning,) = filters["flask_setting_warnings"]([former], ["flask_apps"])
    assert warning.startswith(f"The variable {former} is now {present}. The former name still works.")
    assert former not in SPECS
    # The value is checked under the present name, which always has one.
    assert filters["flask_role_options"]([former, present], []) == [present]
    wiring = yaml.safe_load((ROOT / f"group_vars/all/{present.partition('_')[0]}.yml").read_text())
    assert wiring[present] == f"{{{{ {former} | default('{SPECS[present]['default']}') }}}}"


def test_variables_of_ones_own_are_not_warned_about() -> None:
    own = ["vault_flask_appz", "my_own", "app", "version", "domain", "shop_secret", "ansible_user", "__nginx_x", "vars"]
    known = {**SPECS, "flask_apps": 1, "backup": 1, "acme": 1, "timezone": 1}
    assert names.warnings([*own, *known, "nginx_sites"], known, ["nginx_sites"], ["nginx_"]) == []


def test_the_demo_and_the_shipped_inventories_get_no_warning() -> None:
    filters = load_filters()
    wiring = [name for path in (ROOT / "group_vars/all").glob("*.yml") for name in yaml.safe_load(path.read_text())]
    settings = yaml.safe_load((ROOT / "group_vars/all/preflight.yml").read_text())["preflight_settings_variables"]
    for folder in ("demo", "staging", "production"):
        files = sorted((ROOT / "inventories" / folder / "group_vars/all").glob("[a-z]*.yml"))
        given = [name for path in files for name in yaml.safe_load(path.read_text()) or {}]
        assert filters["flask_setting_warnings"]([*wiring, *given], ["flask_apps", *settings]) == []


def test_an_option_is_checked_once_and_wiring_is_not_the_users() -> None:
    given = ["hardening_sysctl", "firewall_allow", "firewall_ssh_ports", "mine", "preflight_web"]
    assert load_filters()["flask_role_options"](given, ["firewall_allow"]) == ["hardening_sysctl"]
