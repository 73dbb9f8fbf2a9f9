"""How the roles are wired into the whole: what the inventories and group_vars hand to each role.

What the wiring makes of the demo is worked out with Ansible's own templating, without a host, and held against each
role's argument_specs.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.flaskhost.deploy.slots import Slots
from ansible.module_utils.flaskhost.preflight import settings as preflight_settings
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar
from ansible.vars.manager import VariableManager
from loading import ROOT
from rendering import render
from role_rules import ROLES, calls, playbooks, specs

#: Exactly what preflight reads of a host and the wiring and the roles use; see the test of that name.
FACTS = {
    "distribution_major_version": "13",
    "env": {"SSH_CONNECTION": "203.0.113.9 50000 192.0.2.1 2222"},
    "memtotal_mb": 1970,
    "mounts": [{"mount": "/", "options": "rw,prjquota"}],
    "processor_vcpus": 2,
}


#: What an entry point can be handed by its caller, beside what the wiring says.
GIVEN = {"__serve_release": "20261121T101500Z-1a2b3c4", "confirm": "upgrade"}


@pytest.fixture(scope="session")
def variables() -> dict[str, Any]:
    """All variables of the demo's host, not yet worked out, as Ansible puts them together."""
    filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(ROOT / "inventories" / "demo")])
    manager = VariableManager(loader=loader, inventory=inventory)
    manager.set_host_facts("demo", FACTS)
    known = manager.get_vars(host=inventory.get_host("demo"))
    return {**known, "hostvars": {"demo": known}}


def handed(variables: dict[str, Any], role: str, entry_point: str = "", **changes: Any) -> dict[str, Any]:
    """What a role is handed: its defaults, and over them what the wiring and the inventory say, worked out."""
    loader = DataLoader()
    defaults_file = ROOT / "roles" / role / "defaults" / "main.yml"
    defaults = (
        loader.load_from_file(str(defaults_file), trusted_as_template=True) if defaults_file.exists() else {}
    ) or {}
    seen = {**defaults, **variables, **changes}
    templar = Templar(loader=loader, variables=seen)
    return {name: templar.template(seen[name]) for name in specs(role, entry_point) if name in seen}


def app(name: str, **options: Any) -> dict[str, Any]:
    return {"domains": [f"{name}.test"], "source": {"path": "sample_app"}, "wsgi": "app:app", **options}


#: Everything that an app can say.
FULL = app(
    "full",
    domains=["full.test", "www.full.test"],
    source={"repo": "https://git.test/full.git", "version": "v1", "subdir": "web"},
    requirements="requirements/production.txt",
    extra_packages=["psycopg2-binary==2.9.10"],
    persistent=["media"],
    database_driver="psycopg2",
    release_command="flask db upgrade",
    worker_class="sync",
    workers=3,
    timeout=60,
    drain=20,
    config="staging",
    env={"MAIL_FROM": "a@full.test", "MAIL_PORT": 25, "MAIL_TLS": True},
    secrets={"MAIL_PASSWORD": "hunter2"},
    limits={"memory": 300, "body": 5},
    static={"url": "/assets/", "path": "full/assets"},
    health={"path": "/healthz", "status": 204, "probes": 1, "timeout": 9},
    tls={"mode": "files", "certificate": "PEM", "key": "sesame", "hsts": {"max_age": 86400, "subdomains": True}},
    keep_releases=3,
)
SITES: dict[str, dict[str, Any]] = {
    "no app": {},
    "one app": {"shop": app("shop")},
    "two apps": {"shop": app("shop"), "hello": app("hello", database=False)},
    "an app with everything": {"full": FULL},
}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_accepts_what_it_is_handed(role: str, site: str, variables: dict[str, Any]) -> None:
    values = handed(variables, role, flask_apps=SITES[site])
    result = ArgumentSpecValidator(specs(role)).validate(values, validate_role_argument_spec=True)
    assert result.error_messages == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_accepts_what_the_demo_hands_it(role: str, variables: dict[str, Any]) -> None:
    values = handed(variables, role)
    result = ArgumentSpecValidator(specs(role)).validate(values, validate_role_argument_spec=True)
    assert result.error_messages == []


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    "path", [path for path in playbooks("playbooks") if any(calls(path))], ids=lambda path: path.stem
)
def test_an_entry_point_accepts_what_a_playbook_hands_it(path: Path, site: str, variables: dict[str, Any]) -> None:
    """What Ansible itself checks before the entry point runs."""
    plays = DataLoader().load_from_file(str(path), trusted_as_template=True)
    of_plays = {name: value for play in plays for name, value in (play.get("vars") or {}).items() if "hosts" in play}
    for role, entry_point, given in calls(path):
        changes = {**GIVEN, **of_plays, **given, "flask_apps": SITES[site]}
        if path.stem in ("rollback", "restore", "serve_release"):
            # They gather no facts, so that the size of a host is not known.
            changes["ansible_facts"] = {}
        values = handed(variables, role, entry_point, **changes)
        result = ArgumentSpecValidator(specs(role, entry_point)).validate(values, validate_role_argument_spec=True)
        assert (role, entry_point, result.error_messages) == (role, entry_point, [])


def test_a_rotation_only_restarts(variables: dict[str, Any]) -> None:
    """The role's own default would deploy what the inventory names."""
    options = specs("app", "rotate")
    values = handed(variables, "app", "rotate", flask_apps=SITES["one app"])
    result = ArgumentSpecValidator(options).validate(values, validate_role_argument_spec=True)
    assert "app_verb" in "".join(result.error_messages)


def test_a_wrong_wiring_is_refused(variables: dict[str, Any]) -> None:
    renamed = {**variables["__nginx_renamed"], "bodymb": "limits.body"}
    with pytest.raises(AnsibleError, match="the role takes no bodymb"):
        handed(variables, "nginx", flask_apps=SITES["one app"], __nginx_renamed=renamed)


@pytest.mark.parametrize("site", SITES)
def test_an_app_is_handed_to_every_role_that_has_a_part_in_it(site: str, variables: dict[str, Any]) -> None:
    apps = SITES[site]
    names = sorted(apps)

    def names_in(role: str, option: str, key: str = "name") -> list[str]:
        return [item[key] for item in handed(variables, role, flask_apps=apps)[option]]

    assert names_in("app", "app_apps", "app") == names
    assert names_in("slots", "slots_apps") == names
    assert names_in("gunicorn", "gunicorn_apps") == names
    assert names_in("nginx", "nginx_sites") == names
    assert names_in("certbot", "certbot_certificates") == names
    assert names_in("postgres", "postgres_databases") == [
        name for name in names if apps[name].get("database") is not False
    ]


def test_the_demos_host_is_open_to_visitors(variables: dict[str, Any]) -> None:
    assert handed(variables, "firewall")["firewall_public_ports"] == [80, 443]
    assert handed(variables, "firewall")["firewall_public_udp_ports"] == []
    assert handed(variables, "firewall", http3=True)["firewall_public_udp_ports"] == [443]
    without = handed(variables, "firewall", groups={**variables["groups"], "web": []}, http3=True)
    assert (without["firewall_public_ports"], without["firewall_public_udp_ports"]) == ([], [])


def test_fail2ban_reads_what_the_host_writes(variables: dict[str, Any]) -> None:
    sites = {"shop": app("shop"), "hello": app("hello", database=False)}
    values = handed(variables, "fail2ban", flask_apps=sites)
    assert values["fail2ban_access_logs"] == ["/var/log/nginx/access.log"]
    assert values["fail2ban_error_logs"] == []
    assert [(item["name"], item["access_log"]) for item in values["fail2ban_sites"]] == [
        ("hello", "/var/log/nginx/hello.access.log"),
        ("shop", "/var/log/nginx/shop.access.log"),
    ]
    looked_for = {item["name"]: item["bans"] for item in handed(variables, "nginx", flask_apps=sites)["nginx_sites"]}
    assert {item["name"]: item["bans"] for item in values["fail2ban_sites"]} == looked_for
    folders = [folder for bans in looked_for.values() for folder in bans.values()]
    assert len(set(folders)) == 6
    assert all(folder.startswith("/var/lib/fail2ban/") for folder in folders), "the service writes nowhere else"
    staging = {"shop": app("shop", basic_auth={"ada": "$6$salt$hash"})}
    assert handed(variables, "fail2ban", flask_apps=staging)["fail2ban_error_logs"] == ["/var/log/nginx/error.log"]
    database = handed(variables, "fail2ban", groups={**variables["groups"], "web": [], "app": []}, flask_apps=staging)
    assert database["fail2ban_access_logs"] == database["fail2ban_sites"] == database["fail2ban_error_logs"] == []
    assert handed(variables, "fail2ban", ssh_port=2222)["fail2ban_ssh_ports"] == [2222]


def test_three_roles_agree_on_the_protected_folder(variables: dict[str, Any]) -> None:
    files = {"folder": "instance//files/", "url": "/private/"}
    sites = {"shop": app("shop", protected_files=files), "hello": app("hello")}
    hello, shop = handed(variables, "nginx", flask_apps=sites)["nginx_sites"]
    assert (shop["protected_url"], shop["protected_root"]) == ("/private/", "/srv/shop/data/instance/files")
    assert (shop["protected_top"], shop["error_log"]) == ("/srv/shop", "/var/log/nginx/shop.error.log")
    assert (hello["protected_url"], hello["error_log"]) == ("", "")
    for option, role in (("app_apps", "app"), ("backup_apps", "backup")):
        folders = [item["protected_folder"] for item in handed(variables, role, flask_apps=sites)[option]]
        assert folders == ["", "instance/files"]


def test_wrong_passwords_in_a_log_of_the_sites_own_are_read(variables: dict[str, Any]) -> None:
    secret = {"basic_auth": {"ada": "$6$salt$hash"}}
    sites = {"a": app("a", **secret), "b": app("b", **secret, protected_files={"folder": "uploads"})}
    sites["c"] = app("c", protected_files={"folder": "uploads"})
    values = handed(variables, "fail2ban", flask_apps=sites)
    assert [item["auth_log"] for item in values["fail2ban_sites"]] == ["", "/var/log/nginx/b.error.log", ""]
    looked_for = [item["bans"] for item in handed(variables, "nginx", flask_apps=sites)["nginx_sites"]]
    assert [item["bans"] for item in values["fail2ban_sites"]] == looked_for
    assert ["auth" in bans for bans in looked_for] == [False, True, False]


def test_a_site_without_an_authority_signs_its_certificates_itself(variables: dict[str, Any]) -> None:
    values = handed(variables, "certbot", flask_apps=SITES["one app"])
    assert [item["mode"] for item in values["certbot_certificates"]] == ["selfsigned"]
    assert (values["certbot_email"], values["certbot_strict"]) == ("", False)
    assert (values["certbot_external_account"], values["certbot_dns"]) == ({}, {})
    # A variable that is there and empty is not set.
    empty = handed(variables, "certbot", flask_apps=SITES["one app"], acme_email=None, acme=None)
    assert empty["certbot_certificates"] == values["certbot_certificates"]


def test_what_a_site_says_of_its_authority_arrives(variables: dict[str, Any]) -> None:
    site = {
        "acme_email": "ops@shop.test",
        "acme": {
            "directory": "https://ca.test/dir",
            "root": "ROOT",
            "external_account": {"key_id": "kid", "hmac_key": "c2VjcmV0"},
            "key_type": "p384",
            "profile": "shortlived",
            "strict": True,
            "certbot": "package",
            "dns": {"plugin": "rfc2136", "credentials": {"dns_rfc2136_port": 53}},
        },
        "package_index": "https://index.test/",
    }
    values = handed(variables, "certbot", flask_apps=SITES["two apps"] | SITES["an app with everything"], **site)
    assert (
        ArgumentSpecValidator(specs("certbot")).validate(values, validate_role_argument_spec=True).error_messages == []
    )
    certificates = {item["name"]: item for item in values.pop("certbot_certificates")}
    assert {name: item["mode"] for name, item in certificates.items()} == {
        "full": "files",
        "hello": "acme",
        "shop": "acme",
    }
    full = certificates["full"]
    assert (full["own_certificate"], full["own_key"]) == ("PEM", "sesame")
    assert full["hsts"] == {"max_age": 86400, "subdomains": True, "preload": False}
    assert values == {
        "certbot_email": "ops@shop.test",
        "certbot_directory": "https://ca.test/dir",
        "certbot_root": "ROOT",
        "certbot_external_account": {"key_id": "kid", "hmac_key": "c2VjcmV0"},
        "certbot_key_type": "p384",
        "certbot_profile": "shortlived",
        "certbot_strict": True,
        "certbot_dns": {
            "plugin": "rfc2136",
            "credentials": {"dns_rfc2136_port": "53"},
            "propagation": 30,
            "package": "",
        },
        "certbot_webroot": "/var/www/acme",
        "certbot_index_url": "https://index.test/",
    }


def test_a_sites_names_arrive_by_what_is_done_with_them(variables: dict[str, Any]) -> None:
    names = ["shop.test", "www.shop.test", "*.shop.test", "10.0.0.7"]
    values = handed(
        variables, "nginx", flask_apps={"shop": app("shop", domains=names)}, tls_policy="modern", http3=True
    )
    site = values["nginx_sites"][0]
    assert site["domains"] == names
    assert site["redirects"] == ["www.shop.test", "10.0.0.7"]
    assert (site["wildcards"], site["addresses"]) == (["*.shop.test"], ["10.0.0.7"])
    assert site["hsts_map"] == "/etc/flaskhost/tls/shop/hsts.map"
    assert (values["nginx_tls_policy"], values["nginx_http3"]) == ("modern", True)
    usual = handed(variables, "nginx", tls_policy=None, http3=None)
    assert (usual["nginx_tls_policy"], usual["nginx_http3"]) == ("intermediate", False)


def test_web_hosts_know_each_other(variables: dict[str, Any]) -> None:
    assert handed(variables, "nginx")["nginx_acme_peers"] == []
    hosts = {
        "demo": {"private_address": "10.0.0.1"},
        "web2": {"ansible_host": "198.51.100.2", "private_address": "10.0.0.2"},
        "web3": {"ansible_host": "10.0.0.3"},
    }
    fleet = {"groups": {**variables["groups"], "web": list(hosts)}, "hostvars": hosts}
    assert handed(variables, "nginx", **fleet)["nginx_acme_peers"] == ["10.0.0.2", "10.0.0.3"]
    fleet["groups"] = {**variables["groups"], "web": ["web2"]}
    assert handed(variables, "nginx", **fleet)["nginx_acme_peers"] == ["10.0.0.2"]


def test_hosts_with_the_same_reboot_time_reboot_one_after_the_other(variables: dict[str, Any]) -> None:
    assert handed(variables, "base")["base_reboot_time"] == ""
    hosts = {name: {"reboot_time": "04:30"} for name in ("web1", "demo", "app1")}
    fleet = {"groups": {"all": list(hosts)}, "hostvars": hosts}
    assert handed(variables, "base", **fleet)["base_reboot_time"] == "04:50"
    alone = {"groups": {"all": ["demo"]}, "hostvars": {"demo": {"reboot_time": "04:30"}}}
    assert handed(variables, "base", **alone)["base_reboot_time"] == "04:30"


def test_preflight_compares_the_clocks_of_the_hosts_of_the_run(variables: dict[str, Any]) -> None:
    hosts = {"demo": {"ansible_facts": {"flaskhost_clock": [0.5, 1.5]}}, "web2": {"ansible_facts": {}}, "web3": {}}
    clocks = handed(variables, "preflight", ansible_play_hosts_all=["demo", "web2"], hostvars=hosts)["preflight_clocks"]
    assert clocks == {"demo": [0.5, 1.5], "web2": []}
    call = (ROOT / "roles/preflight/tasks/report.yml").read_text()
    assert re.search(r"flask_app_problems\(.*host=inventory_hostname,\s+clocks=preflight_clocks\)", call, re.DOTALL)


def test_preflight_asks_web_hosts_alone_what_they_can(variables: dict[str, Any]) -> None:
    assert handed(variables, "preflight")["preflight_web"] is True
    without = handed(variables, "preflight", groups={**variables["groups"], "web": []})
    assert without["preflight_web"] is False
    assert set(without["preflight_settings_variables"]) == set(preflight_settings.SETTINGS), "nothing goes unchecked"


def test_app_hosts_behind_a_load_balancer_of_the_sites_own_serve_visitors(variables: dict[str, Any]) -> None:
    hosts = {"demo": {"private_address": "10.0.0.1"}, "app2": {"private_address": "10.0.0.2"}}
    fleet: dict[str, Any] = {"groups": {"all": list(hosts), "app": list(hosts), "web": []}, "hostvars": hosts}
    assert handed(variables, "firewall", **fleet)["firewall_public_ports"] == []
    fleet["trusted_proxies"] = ["203.0.113.0/24"]
    assert handed(variables, "firewall", **fleet)["firewall_public_ports"] == [80, 443]
    assert handed(variables, "nginx", **fleet)["nginx_acme_peers"] == ["10.0.0.2"]
    assert handed(variables, "preflight", **fleet)["preflight_web"] is True
    assert handed(variables, "fail2ban", **fleet)["fail2ban_access_logs"] == ["/var/log/nginx/access.log"]
    assert [(item["name"], item["groups"]) for item in handed(variables, "preflight", **fleet)["preflight_hosts"]] == [
        ("demo", ["app"]),
        ("app2", ["app"]),
    ]


CLUSTER: dict[str, dict[str, Any]] = {
    "demo": {"private_address": "10.0.0.1"},
    "app1": {"private_address": "10.0.0.21", "identity_certificate": "PEM"},
    "app2": {"private_address": "10.0.0.22"},
}


def test_a_web_host_without_apps_forwards_to_the_app_hosts(variables: dict[str, Any]) -> None:
    fleet = {"groups": {"all": list(CLUSTER), "web": ["demo"], "app": ["app1", "app2"]}, "hostvars": CLUSTER}
    nginx = handed(variables, "nginx", flask_apps=SITES["one app"], **fleet)
    assert nginx["nginx_backends"] == ["10.0.0.21", "10.0.0.22"]
    assert (nginx["nginx_private_address"], nginx["nginx_private_clients"]) == ("", [])
    firewall = handed(variables, "firewall", **fleet)
    assert (firewall["firewall_public_ports"], firewall["firewall_peers"]) == ([80, 443], [])
    identity = handed(variables, "identity", **fleet)
    assert identity["identity_peers"] == {"app1": "PEM", "app2": ""}
    assert nginx["nginx_peer_name"] == identity["identity_dns_name"]
    assert handed(variables, "hardening", **fleet)["hardening_tcp_retries"] == 5
    for name, file in (("certificate", "own.crt"), ("key", "own.key"), ("trusted", "trusted.pem")):
        assert nginx[f"nginx_peer_{name}"] == f"{identity['identity_folder']}/{file}"


def test_an_app_host_behind_web_hosts_serves_only_them(variables: dict[str, Any]) -> None:
    fleet = {"groups": {"all": list(CLUSTER), "web": ["app1", "app2"], "app": ["demo"]}, "hostvars": CLUSTER}
    nginx = handed(variables, "nginx", flask_apps=SITES["one app"], **fleet)
    assert (nginx["nginx_private_address"], nginx["nginx_backends"]) == ("10.0.0.1", [])
    assert nginx["nginx_private_clients"] == ["10.0.0.21", "10.0.0.22"]
    firewall = handed(variables, "firewall", **fleet)
    assert firewall["firewall_public_ports"] == []
    assert firewall["firewall_peers"] == [{"port": nginx["nginx_peer_port"], "from": ["10.0.0.21/32", "10.0.0.22/32"]}]
    assert handed(variables, "identity", **fleet)["identity_peers"] == {"app1": "PEM", "app2": ""}
    assert handed(variables, "fail2ban", **fleet)["fail2ban_access_logs"] == []
    assert handed(variables, "hardening", **fleet)["hardening_tcp_retries"] == 0


def test_web_hosts_share_an_address(variables: dict[str, Any]) -> None:
    hosts = {name: {"private_address": f"10.0.0.{number}"} for number, name in enumerate(("web0", "demo", "app1"), 1)}
    fleet: dict[str, Any] = {"groups": {"all": list(hosts), "web": ["web0", "demo"], "app": ["app1"]}}
    facts = {**FACTS, "flaskhost_interfaces": {"eth1": ["10.0.0.2/24"]}}
    fleet |= {"hostvars": hosts, "ansible_facts": facts, "web_address": "10.0.0.10"}
    keepalived, nginx = (handed(variables, role, **fleet) for role in ("keepalived", "nginx"))
    assert keepalived == {
        "keepalived_address": "10.0.0.10",
        "keepalived_interface": "eth1",
        "keepalived_own_address": "10.0.0.2",
        "keepalived_peers": ["10.0.0.1"],
        "keepalived_priority": 199,
        "keepalived_probe": nginx["nginx_probe"],
    }
    assert handed(variables, "firewall", **fleet)["firewall_vrrp_peers"] == ["10.0.0.1/32"]
    # An app host that has the same variable, because it is set for all.
    fleet["groups"] = {**fleet["groups"], "web": ["web0", "app1"], "app": ["demo"]}
    assert handed(variables, "keepalived", **fleet)["keepalived_address"] == ""
    assert handed(variables, "nginx", **fleet)["nginx_probe"] == ""


def test_a_single_server_has_none_of_this(variables: dict[str, Any]) -> None:
    nginx = handed(variables, "nginx")
    assert (nginx["nginx_backends"], nginx["nginx_private_address"], nginx["nginx_private_clients"]) == ([], "", [])
    assert handed(variables, "identity")["identity_peers"] == {}
    assert handed(variables, "hardening")["hardening_tcp_retries"] == 0
    assert handed(variables, "keepalived")["keepalived_address"] == nginx["nginx_probe"] == ""
    assert handed(variables, "firewall")["firewall_vrrp_peers"] == []
    assert handed(variables, "firewall")["firewall_peers"] == [{"port": 5432, "from": []}]


def test_what_an_app_says_arrives(variables: dict[str, Any]) -> None:
    """One example of each kind: copied, computed, renamed, turned into text."""
    apps = {"full": FULL}
    release = handed(variables, "app", flask_apps=apps, package_index="https://index.test/")
    assert release["app_index_url"] == "https://index.test/"
    record = release["app_apps"][0]
    assert (record["source_repo"], record["source_subdir"]) == ("https://git.test/full.git", "web")
    assert record["host"] == "full.test"
    assert record["environment"]["MAIL_PORT"] == "25"
    assert record["environment"]["MAIL_TLS"] == "true"
    assert record["environment"]["MAX_CONTENT_LENGTH"] == str(5 * 1024 * 1024)
    assert record["environment"]["SQLALCHEMY_DATABASE_URI"].startswith("postgresql+psycopg2://full@/full?")
    assert record["secrets"] == {"MAIL_PASSWORD": "hunter2"}
    assert "MAIL_PASSWORD" not in record["environment"]
    server = handed(variables, "gunicorn", flask_apps=apps)["gunicorn_apps"][0]
    assert (server["worker_class"], server["workers"], server["threads"]) == ("sync", 3, 1)
    assert handed(variables, "slots", flask_apps=apps)["slots_apps"][0]["memory_mb"] == 300
    site = handed(variables, "nginx", flask_apps=apps)["nginx_sites"][0]
    assert (site["static_url"], site["body_mb"], site["timeout"]) == ("/assets/", 5, 60)
    assert site["domains"] == ["full.test", "www.full.test"]


@pytest.mark.parametrize(
    ("options", "there"),
    [
        ({}, True),
        ({"database": False}, False),
        ({"database": False, "secrets": {"DATABASE_URL": "postgresql://shop:sesame@db.test/shop"}}, True),
        ({"database": False, "env": {"DATABASE_URL": "postgresql+psycopg://db.test/shop"}}, True),
        ({"database": False, "env": {"DATABASE_URL": "mysql://db.test/shop"}}, False),
    ],
)
def test_postgresqls_client_is_there_for_each_app_that_has_one(
    variables: dict[str, Any], options: dict[str, Any], there: bool
) -> None:
    """Deploys ask it for the lock, the schema and the time, wherever the database is."""
    loader = DataLoader()
    role = loader.load_from_file(str(ROOT / "roles" / "app" / "vars" / "main.yml"), trusted_as_template=True)
    given = handed(variables, "app", flask_apps={"blog": app("blog", database=False), "shop": app("shop", **options)})
    packages = Templar(loader=loader, variables={**role, **given}).template(role["__app_packages"])
    assert packages == ["git", "python3-brotli", *(["postgresql-client"] if there else [])]


def test_what_roles_share_is_the_same_for_all(variables: dict[str, Any]) -> None:
    apps = SITES["one app"]
    values = {role: handed(variables, role, flask_apps=apps) for role in ROLES}
    release, slot = values["app"]["app_apps"][0], values["slots"]["slots_apps"][0]
    server = values["gunicorn"]["gunicorn_apps"][0]
    site, certificate = values["nginx"]["nginx_sites"][0], values["certbot"]["certbot_certificates"][0]

    assert release["live_socket"] == site["socket"]
    assert release["socket_dir"] == slot["socket_dir"]
    assert release["server_config"] == server["config"]
    assert (slot["server"], slot["drain"]) == ("gunicorn", server["drain"])
    assert release["unit"] == slot["unit"]
    assert release["user"] == slot["user"]
    assert slot["slots"] == f"{release['root']}/slots"
    assert slot["data"] == f"{release['root']}/data"
    assert site["static_root"] == f"{release['root']}/current/static"
    assert (certificate["certificate"], certificate["key"]) == (site["certificate"], site["key"])
    assert certificate["domains"] == site["domains"]
    assert values["postgres"]["postgres_databases"][0]["name"] == release["user"], "peer authentication"

    loader = DataLoader()
    role = loader.load_from_file(str(ROOT / "roles" / "postgres" / "vars" / "main.yml"), trusted_as_template=True)
    for debian in ("12", "13"):
        known = {**values["postgres"], **role, "ansible_facts": {**FACTS, "distribution_major_version": debian}}
        version = Templar(loader=loader, variables=known).template(role["__postgres_version"])
        assert version == handed(variables, "backup", ansible_facts=known["ansible_facts"])["backup_postgres_version"]
    pooled = handed(variables, "app", flask_apps={"shop": app("shop", database_pool=True)})["app_apps"][0]
    listens = re.findall("^listen_port = (.*)$", render("postgres", "pgbouncer.ini.j2", FACTS), re.MULTILINE)
    assert re.findall("port=(.*)", pooled["environment"]["DATABASE_URL"]) == listens

    assert values["app"]["app_uv"] == f"{values['python']['python_uv_venv']}/bin/uv"
    assert values["app"]["app_python_folder"] == values["python"]["python_folder"]
    assert Path(f"{release['root']}/venvs").match(values["python"]["python_environments"])
    assert values["nginx"]["nginx_acme_root"] == values["certbot"]["certbot_webroot"]


def test_the_versions_of_python_that_apps_ask_for_are_installed_where_they_may_run_them(
    variables: dict[str, Any],
) -> None:
    apps = {
        name: app(name, python=python) for name, python in (("a", "3.12"), ("b", ""), ("c", "3.12"), ("d", "3.13.1"))
    }
    python = handed(variables, "python", flask_apps=apps)
    assert python["python_versions"] == ["3.12", "3.13.1"]
    releases = handed(variables, "app", flask_apps=apps)["app_apps"]
    assert [release["interpreter_version"] for release in releases] == ["3.12", "", "3.12", "3.13.1"]
    profile = (ROOT / "roles/slots/templates/apparmor.j2").read_text()
    top = Path(python["python_folder"]).parts[1]
    assert profile.count(f"  /{top}/** mrix,\n") == 2, "for the slots and for builds"


@pytest.mark.parametrize("value", [r"\b6432\b", r"""['"]12['"]: ['"]15['"]""", r"\bapp\.flaskhost\.internal\b"])
def test_what_several_parts_share_is_written_once(value: str) -> None:
    """In apps/names.py: roles and wiring have it from the filter flask_constant."""
    folders = ("plugins", "group_vars", "playbooks", "roles")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yml", ".j2")]
    code = [path for path in files if path.name != "argument_specs.yml" and re.search(value, path.read_text())]
    assert [str(path.relative_to(ROOT)) for path in code] == ["plugins/module_utils/flaskhost/apps/names.py"]


def test_the_release_finds_what_the_slots_role_writes(variables: dict[str, Any]) -> None:
    """The units' files and the sockets' paths are put together in two places."""
    release = handed(variables, "app", flask_apps=SITES["one app"])["app_apps"][0]
    written = yaml.safe_load((ROOT / "roles/slots/vars/main.yml").read_text())["__slots_templates"]
    units = {path.replace("UNIT", release["unit"]) for path in written}
    # Another size of the journal is no reason for a new release.
    units = {path for path in units if "journald" not in path}
    assert set(release["unit_files"]) == units

    folder, root = Path(release["socket_dir"]), Path(release["root"])
    slots = Slots(
        lambda *_arguments, **_options: (0, "", ""),
        unit=release["unit"],
        root=root,
        socket_dir=folder,
        live_socket=Path(release["live_socket"]),
    )
    socket_unit = (ROOT / "roles/slots/templates/slot.socket.j2").read_text()
    assert "ListenStream={{ item.socket_dir }}/%i.sock\n" in socket_unit
    assert slots.socket("blue") == f"{folder}/blue.sock"


def test_each_app_is_handed_to_the_role_of_its_server(variables: dict[str, Any]) -> None:
    servers = {"one": "gunicorn", "two": "uwsgi", "three": "waitress"}
    apps = {name: app(name, server=server) for name, server in servers.items()}
    for name, server in servers.items():
        (found,) = handed(variables, server, flask_apps=apps)[f"{server}_apps"]
        assert (found["name"], found["config"]) == (name, f"/etc/{server}/{name}.conf.py")
    released = {item["app"]: item for item in handed(variables, "app", flask_apps=apps)["app_apps"]}
    assert released["two"]["server_package"].startswith("pyuwsgi==")
    assert released["three"]["server_lock"].count("--hash=sha256:") > 0


def test_postgresql_takes_every_connection_that_the_apps_can_open(variables: dict[str, Any]) -> None:
    apps = {f"app{index}": app(f"app{index}") for index in range(4)}
    slots = handed(variables, "gunicorn", flask_apps=apps)["gunicorn_apps"]
    at_once = sum(slot["workers"] * slot["threads"] * 2 for slot in slots)
    assert handed(variables, "postgres", flask_apps=apps)["postgres_settings"]["max_connections"] > at_once


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [({"app": ["demo"], "db": ["demo"]}, True), ({"app": ["demo"], "db": ["db1"]}, False), ({"db": ["demo"]}, True)],
)
def test_preflight_knows_where_an_app_has_no_postgresql(
    groups: dict[str, list[str]], wanted: bool, variables: dict[str, Any]
) -> None:
    fleet: dict[str, Any] = {"groups": {"all": ["demo"], **groups}, "hostvars": {"demo": {}, "db1": {}}}
    assert handed(variables, "preflight", **fleet)["preflight_database"] is wanted


def test_postgresql_is_there_for_the_hosts_that_have_none(variables: dict[str, Any]) -> None:
    known = {
        "demo": {**variables, "private_address": "10.0.0.1"},
        "app2": {"ansible_host": "198.51.100.2", "private_address": "10.0.0.2"},
        "app3": {"ansible_host": "2001:db8::3"},
        "app4": {"ansible_host": "app4.example.com"},
    }
    both = {"flask_apps": {"shop": app("shop")}, "hostvars": known, "private_address": "10.0.0.1"}
    for apps, networks in (
        (["demo"], []),
        (["demo", "app2", "app3", "app4"], ["10.0.0.2/32", "2001:db8::3/128"]),
        ([], []),
    ):
        groups = {"app": apps, "db": ["demo"], "web": ["demo"], "all": ["demo", *apps]}
        postgres = handed(variables, "postgres", groups=groups, **both)
        assert postgres["postgres_networks"] == networks
        assert postgres["postgres_listen_addresses"] == (["10.0.0.1"] if networks else [])
        assert handed(variables, "firewall", groups=groups, **both)["firewall_peers"] == [
            {"port": 5432, "from": networks}
        ]
    groups = {"app": ["demo", "app2"], "db": ["demo", "app2"], "all": ["demo", "app2"]}
    assert handed(variables, "postgres", groups=groups, **both)["postgres_networks"] == [], "each has its own"


def test_preflight_reads_every_fact_that_is_used() -> None:
    """Facts are read once, by preflight. One that it does not ask for is not there for anybody."""
    files = [*(ROOT / "group_vars").rglob("*.yml"), *(ROOT / "roles").rglob("*.yml"), *(ROOT / "roles").rglob("*.j2")]
    used = {name for path in files for name in re.findall(r"ansible_facts(?:\['|\.)(\w+)", path.read_text())}
    # The list of packages is in the answer of preflight's other module.
    assert '"packages": have' in (ROOT / "plugins/modules/preflight_host.py").read_text()
    assert 'facts["flaskhost_interfaces"] = ' in (ROOT / "plugins/modules/preflight_host.py").read_text()
    used -= {"packages", "flaskhost_interfaces"}
    assert used == set(FACTS)
    tasks = yaml.safe_load((ROOT / "roles/preflight/tasks/reach.yml").read_text())
    asked = next(task["preflight_attempt"]["arguments"]["filter"] for task in tasks if "preflight_attempt" in task)
    assert [name for name in used if not any(fnmatch.fnmatch(name, pattern) for pattern in asked)] == []
