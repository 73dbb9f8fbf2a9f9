"""Check the request of playbooks/drain.yml: which app host leaves the rotation of the web hosts, or comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import given as read
from .freeze import operator
from .given import Refused

PLAYBOOK = "ansible-playbook playbooks/drain.yml"


def request(given: Mapping[str, Any], hosts: list[str], private: bool) -> dict[str, Any]:
    """Parse an operator's request.

    Args:
        given: the variables ``host``, ``drain`` and ``force``; unset variables are empty. Also ``_raw_params``, the
            words of ``-e`` that belong to no variable.
        hosts: the app hosts.
        private: whether web hosts forward visitors to them.

    Returns:
        ``problem`` (empty if there is none), ``host``, ``state`` (present or absent), ``force`` and ``by``.
    """
    try:
        read.require_all_words(given, "host")
        if not private:
            raise Refused(
                "No web host forwards visitors to other hosts here: each host serves its own apps, and there is "
                "nothing to drain. To take an app off the air, use ansible-playbook playbooks/maintenance.yml."
            )
        host = read.text(given, "host")
        if host not in hosts:
            which = f"{host!r} is not in the group app" if host else "name one app host"
            raise Refused(f"host: {which}: {PLAYBOOK} -e host=NAME. Available: {', '.join(hosts)}.")
        is_on, force = read.switch(given, "drain", True), read.switch(given, "force", False)
    except Refused as error:
        return {"problem": str(error), "host": "", "state": "present", "force": False, "by": ""}
    return {
        "problem": "",
        "host": host,
        "state": "present" if is_on else "absent",
        "force": force,
        "by": operator(),
    }


def refusal(wanted: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return why a host cannot be drained or come back now; empty if it can.

    Args:
        wanted: the result of :func:`request`.
        results: for each app host, the result of the module flask_drain; that of a host that is down has no
            ``releases``.
    """
    host = wanted["host"]
    known = {name: result for name, result in results.items() if isinstance(result, Mapping) and "releases" in result}
    if host not in known:
        return f"{host} cannot be reached. The web hosts send it no visitors while it is down."
    is_drained = known[host]["drained"]
    # It already is as requested, or the operator insists.
    if wanted["force"] or is_drained == (wanted["state"] == "present"):
        return ""
    others = [name for name in known if name != host and not known[name]["drained"]]
    force = f"To do it anyway: {PLAYBOOK} -e host={host} -e force=true"
    if not is_drained:
        last = f"{host} is the last app host that serves visitors: they would all get an error. {force}"
        return "" if others else last
    for app, release in sorted(known[host]["releases"].items()):
        serving = sorted({known[name]["releases"].get(app, "") for name in others} - {""})
        if serving and release not in serving:
            has = release or "no release"
            return (
                f"{host} has {has} of {app}, and the other app hosts serve {', '.join(serving)}. Deploy it first: "
                f"ansible-playbook playbooks/deploy.yml -e app={app}. {force} -e drain=off"
            )
    return ""
