"""The place of a build: its account, its folders, the code that it is lent, and what else of the host it can see."""

from __future__ import annotations

import hashlib
import os
import pwd
from pathlib import Path

from ansible.module_utils.flaskhost.deploy import ownership
from ansible.module_utils.flaskhost.deploy.sources import archives
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.runner import BUILD_TEMPORARY, STILL, ReleaseError, Run, tail


def build_account(user: str) -> str:
    """Return the build account of an app. App names have no underscore, so no user or database role has its name.

    Args:
        user: the app's system user.
    """
    name = f"{user}_build"
    # useradd(8): the limit is 32 characters.
    return name if len(name) <= 32 else f"{user[:15]}_{hashlib.sha256(user.encode()).hexdigest()[:10]}_build"


class Room:
    """The place in which packages and code of one app are built.

    Args:
        run: runs a command.
        user: the app's system user. Build scripts of packages run neither as root nor as this user, but as an account
            without data and without a database: see :func:`build_account`.
        code: the code of the release, the only part of the app that a build can read.
        folder: the folder of the environments.
        cache: uv's cache, separate for each app, so that no app can plant a package in another one's environment.
    """

    def __init__(self, run: Run, *, user: str, code: Path, folder: Path, cache: Path) -> None:
        self.run, self.user, self.code, self.folder, self.cache = run, user, code, folder, cache
        self.account = build_account(user)
        #: Whether the code belongs to the build account now, and whether it ever has.
        self.code_lent = self.code_changed = False

    def make_room(self) -> None:
        """Create the build account, and its cache and temporary folder."""
        try:
            account = pwd.getpwnam(self.account)
        except KeyError:
            options = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
            status, out, err = self.run(["useradd", "--system", "--user-group", *options, self.account])
            if status:
                raise ReleaseError(
                    "Build the virtual environment",
                    f"the build account {self.account} could not be created: {tail(out + err, 3)}",
                    "Fix the error of useradd, then run the same command again.",
                ) from None
            account = pwd.getpwnam(self.account)
        if self.cache.exists() and self.cache.stat().st_uid not in (0, account.pw_uid):
            # From an earlier version of Flaskhost, in which the app's own user built.
            tree.remove_path(self.cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        os.chown(self.cache, account.pw_uid, account.pw_gid)
        self.cache.chmod(0o700)
        with tree.folder(self.folder.parent, Path(BUILD_TEMPORARY).parent, make=True) as above:
            # The app's user must not get in, nor must the build account reach temporary files of the app's units.
            os.fchmod(above, 0o700)
            # Remove the leftovers of other builds.
            name = Path(BUILD_TEMPORARY).name
            tree.remove(name, above)
            os.mkdir(name, 0o700, dir_fd=above)
            os.chown(name, account.pw_uid, account.pw_gid, dir_fd=above)

    def remove_room(self) -> None:
        """Remove the temporary folder of a build."""
        with tree.folder(self.folder.parent, Path(BUILD_TEMPORARY).parent) as above:
            tree.remove(Path(BUILD_TEMPORARY).name, above)

    def lend_code(self) -> None:
        """Give the code to the build account, for a step that writes it."""
        ownership.lend(self.code, pwd.getpwnam(self.account).pw_uid, archives.DEEPEST_SOURCE)
        self.code_lent = self.code_changed = True

    def take_back_code(self, group: int, step: str, who: str) -> None:
        """Give the code back to root, and apply the rules for the content of an archive.

        Args:
            group: the ID of the app's group.
            step: the step, as shown to the operator.
            who: what wrote the code, for the message.

        Raises:
            ReleaseError: the code now contains what cannot be released. The release must be removed.
        """
        self.code_lent = False
        try:
            ownership.reclaim(
                self.code,
                pwd.getpwnam(self.account).pw_uid,
                group,
                archives.code_mode,
                deepest=archives.DEEPEST_SOURCE,
                most=archives.MOST_ENTRIES,
                hard_links=True,
            )
            archives.check_tree(self.run, self.code, set())
        except (ownership.Unfit, ReleaseError) as error:
            reason = error.reason if isinstance(error, ReleaseError) else str(error)
            cure = f"Change {who} so that it removes it at its end. {STILL}"
            raise ReleaseError(step, f"{who} left behind what cannot be released: {reason}", cure) from None

    def reach(self, readable: list[Path], writable: list[Path]) -> list[str]:
        """Return the properties of a unit that sees nothing else of the apps' folders, and no secrets."""
        empty = dict.fromkeys((str(self.folder.parent.parent), str(self.cache.parent), "/run"))
        resolver = Path("/etc/resolv.conf").resolve().parent
        return [
            *(f"TemporaryFileSystem={path}:ro" for path in empty),
            *(f"BindReadOnlyPaths={path}" for path in readable),
            *(f"BindPaths={path}" for path in writable),
            *([f"BindReadOnlyPaths=-{resolver}"] if resolver.is_relative_to("/run") else []),
            *(f"InaccessiblePaths=-{path}" for path in ("/etc/flaskhost", "/var/backups", "/var/lib/postgresql")),
        ]
