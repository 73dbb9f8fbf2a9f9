"""Which certificates the host signs itself."""

import importlib.util
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "plugins" / "filter" / "certificates.py"
specification = importlib.util.spec_from_file_location("certificates", PLUGIN)
certificates = importlib.util.module_from_spec(specification)
specification.loader.exec_module(certificates)


def result(names=None, issuer="shop.test", domains=("shop.test", "www.shop.test")):
    """A result for the item shop: of a certificate with these names, or of a missing file."""
    item = {"name": "shop", "domains": list(domains)}
    if names is None:
        return {"item": item, "failed": False, "msg": "No such file or directory"}
    names = [f"DNS:{name}" for name in names]
    return {
        "item": item,
        "subject": {"commonName": "shop.test"},
        "issuer": {"commonName": issuer},
        "subject_alt_name": names,
    }


def signed(*results):
    return [item["name"] for item in certificates.certificates_to_sign(list(results))]


def test_missing_one_is_signed():
    assert signed(result()) == ["shop"]


def test_own_one_with_the_same_names_in_any_order_is_left():
    assert signed(result(["www.shop.test", "shop.test"])) == []


def test_own_one_with_other_names_is_signed_anew():
    assert signed(result(["shop.test"])) == ["shop"]
    assert signed(result(["shop.test", "www.shop.test", "old.shop.test"])) == ["shop"]
    assert signed(result([])) == ["shop"]


def test_one_of_an_authority_is_left_whatever_its_names():
    assert signed(result(["shop.test"], issuer="An Authority")) == []
