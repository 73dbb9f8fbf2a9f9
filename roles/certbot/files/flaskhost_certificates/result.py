"""The result of a run: what happened to each certificate, as an object for Ansible and as problems for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """What a run did to one certificate.

    Attributes:
        name: the name of the certificate.
        source: origin of the installed pair: acme, files, selfsigned, or foreign (somebody else installed it); empty
            if no pair is installed.
        changed: whether the run changed anything about the certificate, or would.
        serial: serial number of the installed certificate, as ``openssl x509 -serial`` prints it; empty for none.
        not_after: expiry of the installed certificate, in seconds since 1970; 0 for none.
        notes: information that is not a problem.
        problems: what is wrong, each with its cure.
    """

    name: str
    source: str = ""
    changed: bool = False
    serial: str = ""
    not_after: int = 0
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class Result:
    """What a run did to all certificates.

    Attributes:
        certificates: each configured certificate, and each other one that has a note or a problem.
        deleted: names of the sites whose lineage or pair was deleted.
        reloaded: whether nginx was reloaded.
        made: the folders that were created.
    """

    certificates: list[Outcome] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    reloaded: bool = False
    made: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the run changed anything, or would."""
        return bool(self.made or self.deleted or self.reloaded or any(item.changed for item in self.certificates))

    @property
    def problems(self) -> list[str]:
        """All problems, each with the name of its certificate."""
        return [f"{item.name}: {problem}" for item in self.certificates for problem in item.problems]

    def as_json(self) -> dict[str, Any]:
        """Return the result as an object that JSON can hold."""
        return {
            "changed": self.changed,
            "certificates": [dict(vars(item)) for item in self.certificates],
            "deleted": self.deleted,
            "reloaded": self.reloaded,
            "made": self.made,
        }
