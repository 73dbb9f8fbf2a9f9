"""Which certificates have to be signed by the host itself."""

from __future__ import annotations

from typing import Any


def certificates_to_sign(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pick the certificates that are not there, and those of the host's own signing whose names have changed.

    One that an authority has signed is left alone, whatever is in it: it is its owner's to renew.

    Args:
        results: the ``results`` of ``community.crypto.x509_certificate_info``, looped over certificates that have
            ``domains``; a result without ``subject_alt_name`` is a file that is missing or cannot be read.

    Returns:
        The items of the loop that need signing, in their order.
    """

    def needs_signing(result: dict[str, Any]) -> bool:
        if "issuer" not in result:
            return True
        own = result["issuer"] == result["subject"]
        return own and set(result.get("subject_alt_name") or ()) != {
            f"DNS:{name}" for name in result["item"]["domains"]
        }

    return [result["item"] for result in results if needs_signing(result)]


class FilterModule:
    """The filters by their names in a template."""

    def filters(self) -> dict[str, Any]:
        """Return the filters."""
        return {"certificates_to_sign": certificates_to_sign}
