"""Let one more user read one folder of an app's data, and nothing else of it.

The user is the web server's, which sends the files of that folder to visitors. Its rights are entries of POSIX ACLs.
The app owns the data and can change them, so root opens everything by descriptor, follows no links, and leaves files
alone that do not belong to the app: a hard link could make a file of another user readable.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath

from ansible.module_utils.flaskhost.host import acl, tree
from ansible.module_utils.flaskhost.host.acl import ENTER, READ, Acl

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: Errors of an entry that is a link or a socket, or is not there any more: the app is running.
_NOT_HERE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
#: Maximum number of nested folders. A descriptor or two are open for each.
DEEPEST = 100


class Reader:
    """A user who reads one folder of an app's data.

    Args:
        user: the user's ID.
        owner: the ID of the app's user. Files of other users are left alone.
        change: whether to change anything.
    """

    def __init__(self, user: int, owner: int, change: bool = True) -> None:
        self.user, self.owner, self.change = user, owner, change
        # New files get these rights whatever the umask is. The owner's group and all others have none.
        self._shared = Acl(users={user: READ | ENTER}, mask=READ | ENTER)
        self._closed = Acl(users={user: 0}, mask=0)

    def settle(self, data: Path, folder: str) -> bool:
        """Give the user the right to read a folder, and take all other rights; without a folder, take all.

        Nothing happens if the rights of the folder itself and of those above are in order. So the files below are
        walked once, and a file that the app closes afterwards stays closed.

        Args:
            data: the app's data folder.
            folder: a folder in it, relative; empty for none.

        Returns:
            Whether anything was, or would be, changed.

        Raises:
            OSError: the folder does not exist, there is a link in its path, folders in it are nested too deeply, or
                the file system has no ACLs.
        """
        with tree.folder(data) as top:
            return self._grant(top, folder) if folder else self._withdraw(top)

    def _grant(self, top: int, folder: str) -> bool:
        names = PurePath(folder).parts
        with ExitStack() as stack:
            places = [top]
            for name in names:
                places.append(os.open(name, _FOLDER, dir_fd=places[-1]))
                stack.callback(os.close, places[-1])
            changed = self._share(places[-1])
            # Inside out: as long as the user cannot enter the data folder, nothing in it is open.
            for place, name in reversed(list(zip(places[:-1], names, strict=True))):
                changed |= self._close_others(place, name)
                changed |= self._let_in(place)
        return changed

    def _share(self, folder: int) -> bool:
        """Let the user read a folder: what is in it now, and what will be."""
        if acl.read(folder).rights(self.user) == READ | ENTER and acl.read_default(folder) == self._shared:
            return False
        if not self.change:
            return True
        # Before its files, so that no new one is missed. The folder's own rights come last: they say that all is done.
        acl.write_default(folder, self._shared)
        for item, is_folder in self._below(folder):
            rights = READ | ENTER if is_folder else READ
            if is_folder:
                acl.write_default(item, self._shared)
            if (acl.read(item).rights(self.user) or 0) & rights != rights:
                acl.write(item, acl.read(item).with_user(self.user, rights))
        acl.write(folder, acl.read(folder).with_user(self.user, READ | ENTER))
        return True

    def _close_others(self, folder: int, name: str) -> bool:
        """Take the user's rights to everything in a folder but one, also those that all users have."""
        changed = False
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == name or (item := self._open(entry.name, folder)) is None:
                    continue
                try:
                    if acl.read(item).users.get(self.user) == 0:
                        continue
                    changed = True
                    if self.change:
                        acl.write(item, acl.read(item).with_user(self.user, 0))
                finally:
                    os.close(item)
        return changed

    def _let_in(self, folder: int) -> bool:
        """Let the user enter a folder, but not read it, and no new file in it."""
        now = acl.read(folder)
        if now.users.get(self.user) == now.rights(self.user) == ENTER and acl.read_default(folder) == self._closed:
            return False
        if self.change:
            acl.write_default(folder, self._closed)
            acl.write(folder, now.with_user(self.user, ENTER))
        return True

    def _withdraw(self, top: int) -> bool:
        if not self._is_named(top):
            return False
        if self.change:
            # This closes everything at once. The entry itself comes last: it says that there is something left to do.
            acl.write(top, acl.read(top).with_user(self.user, 0))
            for item, _is_folder in self._below(top):
                self._remove(item)
            self._remove(top)
        return True

    def _is_named(self, item: int) -> bool:
        default = acl.read_default(item) if stat.S_ISDIR(os.fstat(item).st_mode) else None
        return self.user in acl.read(item).users or bool(default and self.user in default.users)

    def _remove(self, item: int) -> None:
        if not self._is_named(item):
            return
        default = acl.read_default(item) if stat.S_ISDIR(os.fstat(item).st_mode) else None
        if default and self.user in default.users:
            rest = default.without_user(self.user)
            acl.write_default(item, rest if rest.users or rest.groups else None)
        acl.write(item, acl.read(item).without_user(self.user))

    def _below(self, folder: int, deepest: int = DEEPEST) -> Iterator[tuple[int, bool]]:
        """Yield a descriptor of everything below a folder, each folder before its contents, and whether it is one."""
        with os.scandir(folder) as entries:
            for entry in entries:
                item = self._open(entry.name, folder)
                if item is None:
                    continue
                try:
                    is_folder = stat.S_ISDIR(os.fstat(item).st_mode)
                    yield item, is_folder
                    if is_folder and not deepest:
                        raise tree.TooDeep(errno.ELOOP, f"has more than {DEEPEST} nested folders")
                    if is_folder:
                        yield from self._below(item, deepest - 1)
                finally:
                    os.close(item)

    def _open(self, name: str, folder: int) -> int | None:
        """Open a folder, or a file of the app. Return None for everything else."""
        try:
            item = os.open(name, _ANY, dir_fd=folder)
        except OSError as error:
            if error.errno in _NOT_HERE:
                return None
            raise
        status = os.fstat(item)
        if stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_uid == self.owner):
            return item
        os.close(item)
        return None
