"""The records: what the user leaves out is filled in, what follows from a name is derived, and nothing collides."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.flaskhost.apps.options import APP_OPTIONS
from ansible.module_utils.flaskhost.apps.record import app_record, app_records, for_role, pick, sized, with_server
from ansible.module_utils.flaskhost.apps.schema import Option, plain_copy
from ansible.module_utils.flaskhost.settings.acme import ACME_OPTIONS, acme_settings
from ansible.module_utils.flaskhost.settings.peers import peer_addresses
from loading import ROOT, load_plugin

SIZE = {"workers": 2, "threads": 8, "memory_mb": 464}
SHOP = {"domains": ["shop.localhost"], "source": {"path": "sample_app"}, "wsgi": "shop:create_app()"}


def record(name: str = "shop", **options: Any) -> dict[str, Any]:
    return sized(app_record(name, {**SHOP, **options}, "/project"), SIZE)


def every_option(options: dict[str, Option], place: str = "") -> list[tuple[str, Option]]:
    found = []
    for name, option in options.items():
        found += [(f"{place}{name}", option), *every_option(option.options, f"{place}{name}.")]
    return found


def test_every_option_has_its_default() -> None:
    made = record()
    assert made["database"] is True
    assert made["persistent"] == ["instance", "uploads"]
    assert made["static"] == {"url": "/static/", "path": ""}
    assert made["health"] == {"path": "/", "status": 200, "body": "", "probes": 3, "timeout": 30, "settle": 2}
    assert made["limits"] == {
        "memory": 464,
        "disk": "50%",
        "body": 16,
        "rate": 20,
        "burst": 100,
        "connections": 150,
        "uploads": 8,
    }
    assert (made["basic_auth"], made["allow"], made["noindex"]) == ({}, [], False)
    assert made["source"].pop("path") == "/project/sample_app"
    assert set(made["source"].values()) == {""}
    assert set(APP_OPTIONS) <= set(made)


def test_what_the_user_says_wins() -> None:
    made = record(timeout=120, health={"path": "/readyz"}, limits={"body": 64, "memory": 300}, keep_releases=2)
    assert (made["timeout"], made["keep_releases"]) == (120, 2)
    assert made["health"] == {"path": "/readyz", "status": 200, "body": "", "probes": 3, "timeout": 30, "settle": 2}
    assert (made["limits"]["memory"], made["limits"]["body"], made["limits"]["rate"]) == (300, 64, 20)


def test_the_options_of_each_timer_are_filled_in() -> None:
    given = {"nightly": {"command": "purge", "on_calendar": "daily"}, "hourly": {"command": "poll"}}
    made = record(timers=given)["timers"]
    assert made == {**given, "hourly": {"command": "poll", "on_calendar": None}}
    assert made["nightly"] is not given["nightly"]
    assert record(timers=None)["timers"] == {}


@pytest.mark.parametrize(
    ("given", "noindex"),
    [
        ({}, False),
        ({"noindex": True}, True),
        ({"basic_auth": {"ada": "$6$"}}, True),
        ({"allow": ["203.0.113.0/24"]}, True),
        ({"allow": ["203.0.113.0/24"], "noindex": False}, False),
    ],
)
def test_what_is_for_a_few_is_not_for_search_engines(given: dict[str, Any], noindex: bool) -> None:
    assert record(**given)["noindex"] is noindex


def test_a_limit_may_be_switched_off_and_a_policy_left_out() -> None:
    made = record(limits={"rate": 0, "connections": 0}, login={"rate": 0}, csp="")
    assert (made["limits"]["rate"], made["limits"]["connections"], made["login"]["rate"], made["csp"]) == (0, 0, 0, "")
    assert made["limits"]["burst"] == 100


def test_the_units_of_both_slots_are_known() -> None:
    assert record()["slot_units"] == ["flask-shop@blue.service", "flask-shop@green.service"]


def test_an_empty_value_is_not_set() -> None:
    assert record(static=None, env=None, health={"path": None}) == record()


def test_input_and_schema_are_not_changed() -> None:
    apps = {"shop": {**SHOP, "env": {"A": 1}}, "blog": copy.deepcopy(SHOP)}
    before = copy.deepcopy(apps)
    records = app_records(apps, {"shop": SIZE, "blog": SIZE})
    records[0]["persistent"].append("elsewhere")
    records[0]["env"]["B"] = 2
    records[0]["domains"].append("other.localhost")
    assert apps == before
    assert APP_OPTIONS["persistent"].default == ["instance", "uploads"]
    assert APP_OPTIONS["env"].default == {}


def test_a_record_is_plain_data() -> None:
    """Ansible has to be able to hand it to a module."""
    assert json.loads(json.dumps(record())) == record()


def test_apps_share_nothing() -> None:
    shop, blog = record("shop"), record("blog")
    own = (
        "user root data static_root live_socket slots socket_dir unit secrets_dir certificate certificate_key hsts_map"
    )
    for key in own.split():
        assert shop[key] != blog[key], key
    assert shop["environment"]["DATABASE_URL"] != blog["environment"]["DATABASE_URL"]
    assert not set(shop["unit_files"]) & set(blog["unit_files"])


def test_what_a_server_says_is_filled_in_for_each_app() -> None:
    server = {
        "package": "foo==1",
        "lock": "foo==1 --hash=x",
        "config": "/etc/foo/{app}.ini",
        "command": "{release}/foo ${APP}",
    }
    made = with_server(record("blog"), server)
    assert {key: value for key, value in made.items() if key not in record("blog")} == {
        "server_package": "foo==1",
        "server_lock": "foo==1 --hash=x",
        "server_config": "/etc/foo/blog.ini",
        "server_command": "/srv/blog/slots/%i/foo ${APP}",
    }


def test_each_server_is_a_role_that_says_what_the_others_need() -> None:
    roles = {path.parents[1].name for path in ROOT.glob("roles/*/meta/server.yml")}
    assert roles == set(APP_OPTIONS["server"].choices)
    filters = load_plugin("plugins/filter/flask_apps.py").FilterModule().filters()
    for name in sorted(roles):
        (made,) = filters["flask_app_records"]({"shop": {**SHOP, "server": name}}, {})
        assert made["server"] == name
        assert made["server_package"] in made["server_lock"].split()
        assert made["server_config"].startswith(f"/etc/{name}/shop.")
        assert made["server_command"].startswith("/srv/shop/slots/%i/venv/bin/")
        assert "/srv/shop/slots/%i/server.conf.py" in made["server_command"]
        assert made["server_documentation"].startswith("https://")


def test_records_come_in_the_order_of_names() -> None:
    names = ["web", "api", "shop"]
    records = app_records(dict.fromkeys(names, SHOP), dict.fromkeys(names, SIZE))
    assert [item["name"] for item in records] == ["api", "shop", "web"]


def test_the_first_domain_is_canonical() -> None:
    made = record(domains=["www.shop.localhost", "shop.localhost"])
    assert made["canonical_domain"] == "www.shop.localhost"
    assert made["redirected_domains"] == ["shop.localhost"]
    assert made["domains"] == ["www.shop.localhost", "shop.localhost"]


def test_names_redirect_but_for_wildcards_and_addresses_are_known() -> None:
    names = ["shop.test", "www.shop.test", "*.shop.test", "10.0.0.7", "fd00::7"]
    made = record(domains=names)
    assert made["redirected_domains"] == ["www.shop.test", "10.0.0.7", "fd00::7"]
    assert made["wildcard_domains"] == ["*.shop.test"]
    assert made["addresses"] == ["10.0.0.7", "fd00::7"]
    assert made["domains"] == names


def test_an_address_that_is_canonical_is_as_a_url_has_it() -> None:
    made = record(domains=["fd00::7", "10.0.0.7"])
    assert (made["canonical_domain"], made["addresses"]) == ("[fd00::7]", ["fd00::7", "10.0.0.7"])
    assert record(domains=["10.0.0.7"])["canonical_domain"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("given", "email", "mode"),
    [
        (None, "", "selfsigned"),
        (None, "ops@shop.test", "acme"),
        ("selfsigned", "ops@shop.test", "selfsigned"),
        ("files", "ops@shop.test", "files"),
        ("acme", "", "acme"),
    ],
)
def test_a_certificate_comes_by_acme_where_the_address_is_set(given: str | None, email: str, mode: str) -> None:
    app = {**SHOP, "tls": {"mode": given}}
    (made,) = app_records({"shop": app}, {"shop": SIZE}, email=email)
    assert made["tls"]["mode"] == mode
    assert made["tls"]["hsts"] == {"max_age": 63072000, "subdomains": False, "preload": False}
    assert made["hsts_map"] == "/etc/flaskhost/tls/shop/hsts.map"


def test_the_settings_of_the_authority_have_defaults() -> None:
    made = acme_settings({}, "ops@shop.test")
    assert made == acme_settings(None, "ops@shop.test")
    assert made == {
        "email": "ops@shop.test",
        "directory": "https://acme-v02.api.letsencrypt.org/directory",
        "root": "",
        "external_account": {},
        "key_type": "p256",
        "profile": "",
        "strict": False,
        "certbot": "pinned",
        "dns": {},
    }


def test_the_settings_of_the_authority_are_the_users() -> None:
    credentials = {"dns_rfc2136_server": "10.0.0.53", "dns_rfc2136_port": 53, "dns_rfc2136_sign_query": True}
    given = {
        "strict": True,
        "external_account": {"key_id": "kid", "hmac_key": "c2VjcmV0"},
        "dns": {"plugin": "rfc2136", "credentials": credentials},
    }
    before = copy.deepcopy(given)
    made = acme_settings(given)
    assert (made["strict"], made["external_account"]) == (True, given["external_account"])
    assert made["dns"] == {
        "plugin": "rfc2136",
        "credentials": {
            "dns_rfc2136_server": "10.0.0.53",
            "dns_rfc2136_port": "53",
            "dns_rfc2136_sign_query": "true",
        },
        "propagation": 30,
        "package": "",
    }
    assert given == before


def test_peers_are_the_other_hosts_by_the_address_that_reaches_them() -> None:
    variables = {
        "web1": {"ansible_host": "10.0.0.1"},
        "web2": {"ansible_host": "198.51.100.2", "private_address": "10.0.0.2"},
        "web3": {"ansible_host": "10.0.0.3"},
        "web4": {},
        "web5": {"ansible_host": "127.0.0.1"},
        "web6": {"ansible_host": "::1"},
        "web7": {"ansible_host": "localhost"},
        "web8": {"ansible_host": "10.0.0.3"},
    }
    assert peer_addresses(list(variables), "web1", variables) == ["10.0.0.2", "10.0.0.3", "web4"]
    assert peer_addresses(["web1"], "web1", {}) == []
    assert peer_addresses([], "db1", {}) == []


@pytest.mark.parametrize(("path", "absolute"), [("a/b", "/project/a/b"), ("/srv/code", "/srv/code"), ("", "")])
def test_a_relative_source_begins_in_the_project(path: str, absolute: str) -> None:
    assert record(source={"path": path})["source"]["path"] == absolute


def test_the_database_is_reached_over_the_local_socket_and_without_a_password() -> None:
    environment = record(database_driver="psycopg2")["environment"]
    assert environment["DATABASE_URL"] == "postgresql://shop@/shop?host=/var/run/postgresql"
    assert environment["SQLALCHEMY_DATABASE_URI"] == "postgresql+psycopg2://shop@/shop?host=/var/run/postgresql"
    # Without a name: the build looks for the one that is installed, and the identity of releases stays as it was.
    assert record()["environment"]["SQLALCHEMY_DATABASE_URI"].startswith("postgresql+psycopg://shop@/")
    given = [{}, {"database_driver": "pg8000"}, {"database": False}, {"env": {"DATABASE_URL": "postgresql:///x"}}]
    assert [record(**options)["database_driver"] for options in given] == ["auto", "pg8000", "", ""]


def test_the_release_command_logs_in_as_the_owner() -> None:
    made = record()
    assert made["database_role_owner"] == "shop-owner"
    assert made["release_owner_file"] == made["database_owner_file"] == "/etc/flaskhost/shop/database_owner.env"
    assert made["database_owner_variables"]["DATABASE_URL"] == (
        "postgresql://shop-owner:{password}@/shop?host=/var/run/postgresql"
    )
    assert made["database_owner_variables"].keys() == {"DATABASE_URL", "SQLALCHEMY_DATABASE_URI"}
    assert "password" not in str(made["environment"])


@pytest.mark.parametrize(
    "options",
    [
        {"database_owner": True},
        {"database": False},
        {"env": {"DATABASE_URL": "postgresql://shop@db1/shop"}},
        {"secrets": {"SQLALCHEMY_DATABASE_URI": "postgresql://shop@db1/shop"}},
    ],
)
def test_an_app_with_variables_of_its_own_owns_its_tables(options: dict[str, Any]) -> None:
    made = record(**options)
    assert (made["database_role_owner"], made["release_owner_file"]) == ("shop", "")
    # To be removed where there was one.
    assert made["database_owner_file"] == "/etc/flaskhost/shop/database_owner.env"


@pytest.mark.parametrize(("timeout", "limit"), [(30, 60), (55, 60), (300, 305)])
def test_a_statement_may_take_as_long_as_somebody_waits(timeout: int, limit: int) -> None:
    assert record(timeout=timeout)["database_limits"]["statement_timeout"] == limit
    own = record(timeout=timeout, database_limits={"statement_timeout": 0})
    assert own["database_limits"]["statement_timeout"] == 0


def test_a_pool_is_for_the_app_and_not_for_its_migrations() -> None:
    made = sized(app_record("shop", {**SHOP, "database_pool": True}), {**SIZE, "pool": 8})
    assert made["environment"]["DATABASE_URL"] == "postgresql://shop@/shop?host=/var/run/postgresql&port=6432"
    assert "6432" not in str(made["database_owner_variables"])
    assert made["database_pool_size"] == 8
    assert record()["database_pool_size"] == 0
    limited = {**SHOP, "database_pool": True, "database_limits": {"connections": 12}}
    assert sized(app_record("shop", limited), {**SIZE, "pool": 8})["database_pool_size"] == 12


def test_a_record_without_a_size_lacks_nothing_else() -> None:
    plain, full = app_record("shop", SHOP, "/project"), record("shop")
    sizes = {"workers", "threads", "limits", "database_connections", "database_pool_size", "database_owner_connections"}
    assert {key for key in full if full[key] != plain[key]} <= sizes
    assert plain.keys() == full.keys()
    assert (plain["workers"], plain["limits"]["memory"], plain["database_connections"]) == (None, None, None)
    assert app_records({"shop": SHOP}, project_dir="/project") == [plain]


def test_a_release_can_be_gone_back_to_without_the_hosts_size() -> None:
    """Rollbacks and restores gather no facts: what the module is handed then has to be what it takes."""
    module = load_plugin("plugins/modules/flask_release.py")
    renamed = yaml.safe_load((ROOT / "group_vars/all/app.yml").read_text())["__app_renamed"]
    specs = yaml.safe_load((ROOT / "roles/app/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    taken = specs["options"]["app_apps"]["options"]
    filters = load_plugin("plugins/filter/flask_apps.py").FilterModule().filters()
    (handed,) = for_role(filters["flask_app_records"]({"shop": SHOP}, {}), taken, renamed)
    assert "memory_mb" not in handed
    known = {name: value for name, value in handed.items() if name in module.ARGUMENT_SPEC}
    assert known.keys() > {"app", "user", "unit", "health", "live_socket"}
    result = ArgumentSpecValidator(module.ARGUMENT_SPEC).validate({**known, "verb": "rollback"})
    assert [text for text in result.error_messages if "missing" not in text] == []


def test_without_a_computed_number_connections_have_no_limit() -> None:
    """PostgreSQL's own word for it is -1."""

    def limits(**options: Any) -> tuple[int, int]:
        made = record(**options)
        return made["database_connections"], made["database_owner_connections"]

    assert limits() == (-1, -1)
    assert limits(database_limits={"connections": 12}) == (12, -1)


def test_one_role_has_the_connections_of_both() -> None:
    size = {**SIZE, "connections": 35, "owner_connections": 5}
    numbers = [
        sized(app_record("shop", {**SHOP, "database_owner": shared}), size)["database_connections"]
        for shared in (False, True)
    ]
    assert numbers == [35, 40]


def test_no_database_no_url() -> None:
    assert not {"DATABASE_URL", "SQLALCHEMY_DATABASE_URI"} & set(record(database=False)["environment"])


def test_the_environment_is_text_and_the_users_values_win() -> None:
    env = {"DEBUG_SQL": True, "PAGES": 20, "DATABASE_URL": "sqlite:///x"}
    environment = record(env=env, limits={"body": 2})["environment"]
    assert {key: environment[key] for key in env} == {"DEBUG_SQL": "true", "PAGES": "20", "DATABASE_URL": "sqlite:///x"}
    assert environment["FLASK_DEBUG"] == "0"
    assert environment["MAX_CONTENT_LENGTH"] == str(2 * 1024 * 1024)
    assert all(isinstance(value, str) for value in environment.values())


def test_secrets_stay_out_of_the_environment() -> None:
    made = record(secrets={"MAIL_PASSWORD": "sesame"})
    assert made["secrets"] == {"MAIL_PASSWORD": "sesame"}
    assert "sesame" not in json.dumps({key: value for key, value in made.items() if key != "secrets"})


def test_pick_renames_and_reaches_in() -> None:
    assert pick([record()], {"who": "user", "body_mb": "limits.body"}) == [{"who": "shop", "body_mb": 16}]
    with pytest.raises(KeyError):
        pick([record()], {"who": "usr"})


def test_a_role_takes_fields_by_their_own_names_or_by_the_wirings() -> None:
    spec = {"user": {"required": True}, "body_mb": {"required": True}, "compress": {"default": False}}
    renamed = {"body_mb": "limits.body"}
    assert for_role([record()], spec, renamed) == [{"user": "shop", "body_mb": 16}]
    assert for_role([], spec, renamed) == []
    with pytest.raises(KeyError, match="colour"):
        for_role([record()], {**spec, "colour": {"required": True}}, renamed)
    with pytest.raises(KeyError, match="takes no rate"):
        for_role([record()], spec, {**renamed, "rate": "limits.rate"})


@pytest.mark.parametrize(
    ("name", "option"),
    [*every_option(APP_OPTIONS), *every_option(ACME_OPTIONS, "acme.")],
    ids=lambda value: str(value)[:40],
)
def test_defaults_and_examples_keep_to_the_schema(name: str, option: Option) -> None:
    assert option.description.endswith(".")
    for value in (option.default, option.example):
        if value in (None, "") or option.type == "options":
            continue
        types = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict, "mapping": dict}
        assert isinstance(value, types[option.type])
        assert not option.choices or value in option.choices
        assert option.minimum is None or value >= option.minimum
        assert option.maximum is None or value <= option.maximum
        for text in value if isinstance(value, list) else [value]:
            assert not option.pattern or re.fullmatch(option.pattern, text), text


def test_the_users_mappings_are_copied_without_what_ansible_keeps_in_them() -> None:
    """copy.deepcopy also copied Ansible's templating engine with all variables, for each option of each app."""

    class Lazy(dict[str, Any]):
        def __deepcopy__(self, memo: Any) -> None:
            raise AssertionError("the whole engine")

    given = Lazy(domains=["shop.test"], env=Lazy(A=1))
    copied = plain_copy([given, None])
    assert copied == [{"domains": ["shop.test"], "env": {"A": 1}}, None]
    assert [type(item) for item in (copied[0], copied[0]["env"])] == [dict, dict]
    copied[0]["env"]["A"] = 2
    assert given["env"]["A"] == 1
    assert record(env=Lazy(A="1"))["env"] == {"A": "1"}
