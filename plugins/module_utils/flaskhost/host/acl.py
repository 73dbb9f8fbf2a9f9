"""POSIX ACLs of open files and folders (acl(5)), in the form in which Linux keeps them in extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass, field, replace

READ, ENTER = 4, 1

_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_VERSION = 2
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
#: The ID in an entry that names nobody.
_NOBODY = 0xFFFFFFFF
#: Errors of a file that has no ACL, or of a file system without ACLs.
_NONE = (errno.ENODATA, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Acl:
    """An ACL. Rights are sums of 4 (read), 2 (write) and 1 (execute, or enter a folder).

    Attributes:
        owner: the rights of the owner.
        group: those of the owning group.
        other: those of all others.
        users: those of further users, by their ID.
        groups: those of further groups, by their ID.
        mask: the most that groups and further users have; None if it is not set.
    """

    owner: int = 7
    group: int = 0
    other: int = 0
    users: dict[int, int] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)
    mask: int | None = None

    def rights(self, user: int) -> int | None:
        """Return the rights of a further user; None if the ACL does not name the user."""
        if user not in self.users:
            return None
        return self.users[user] & (7 if self.mask is None else self.mask)

    def with_user(self, user: int, rights: int) -> Acl:
        """Return the ACL with other rights of a further user, and a mask that lets them through."""
        mask = self.group if self.mask is None else self.mask
        return replace(self, users={**self.users, user: rights}, mask=mask | rights)

    def without_user(self, user: int) -> Acl:
        """Return the ACL without a further user."""
        return replace(self, users={key: rights for key, rights in self.users.items() if key != user})


def read(descriptor: int) -> Acl:
    """Return the ACL of an open file or folder. Without one, it says the same as the mode."""
    if found := _read(descriptor, _ACCESS):
        return found
    mode = os.fstat(descriptor).st_mode
    return Acl(mode >> 6 & 7, mode >> 3 & 7, mode & 7)


def read_default(descriptor: int) -> Acl | None:
    """Return the ACL that new files in an open folder get; None if there is none."""
    return _read(descriptor, _DEFAULT)


def _read(descriptor: int, name: str) -> Acl | None:
    try:
        data = os.getxattr(descriptor, name)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    rights: dict[int, int] = {}
    users: dict[int, int] = {}
    groups: dict[int, int] = {}
    for tag, allowed, number in _ENTRY.iter_unpack(data[_HEADER.size :]):
        {_USER: users, _NAMED_GROUP: groups}.get(tag, rights)[number if tag in (_USER, _NAMED_GROUP) else tag] = allowed
    return Acl(rights[_OWNER], rights[_GROUP], rights[_OTHER], users, groups, rights.get(_MASK))


def write(descriptor: int, acl: Acl) -> None:
    """Set the ACL of an open file or folder. An ACL that names nobody becomes the mode.

    Raises:
        OSError: the file system has no ACLs, for example.
    """
    if acl.users or acl.groups:
        os.setxattr(descriptor, _ACCESS, _packed(acl))
        return
    _remove(descriptor, _ACCESS)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode) & ~0o777
    os.fchmod(descriptor, mode | acl.owner << 6 | acl.group << 3 | acl.other)


def write_default(descriptor: int, acl: Acl | None) -> None:
    """Set the ACL that new files in an open folder get, or remove it."""
    if acl:
        os.setxattr(descriptor, _DEFAULT, _packed(acl))
    else:
        _remove(descriptor, _DEFAULT)


def _remove(descriptor: int, name: str) -> None:
    try:
        os.removexattr(descriptor, name)
    except OSError as error:
        if error.errno not in _NONE:
            raise


def _packed(acl: Acl) -> bytes:
    """Return an ACL as the kernel takes it, its entries in order."""
    entries = [
        (_OWNER, acl.owner, _NOBODY),
        *((_USER, rights, user) for user, rights in sorted(acl.users.items())),
        (_GROUP, acl.group, _NOBODY),
        *((_NAMED_GROUP, rights, group) for group, rights in sorted(acl.groups.items())),
        *([] if acl.mask is None else [(_MASK, acl.mask, _NOBODY)]),
        (_OTHER, acl.other, _NOBODY),
    ]
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)
