"""The folder of an app's data whose files the web server sends, if the app allows it: the option protected_files."""

from __future__ import annotations

import errno
import os
import pwd

from ansible.module_utils.flaskhost.deploy.app import App
from ansible.module_utils.flaskhost.host import tree
from ansible.module_utils.flaskhost.host.reader import Reader
from ansible.module_utils.flaskhost.host.runner import ReleaseError, sandboxed, tail

STEP = "Let the web server read the protected files"


def settle(app: App) -> bool:
    """Let the web server's user read the folder, and nothing else of the app's data; nothing at all without the option.

    Args:
        app: the app. In check mode, nothing is changed.

    Returns:
        Whether anything was, or would be, changed.

    Raises:
        ReleaseError: the folder cannot be created, or is behind a link, or the file system has no ACLs.
    """
    folder, user = app.options["protected_folder"], app.options["web_user"]
    try:
        reader, owner = pwd.getpwnam(user).pw_uid, pwd.getpwnam(app.user).pw_uid
    except KeyError:
        if not folder or app.check:
            return bool(folder)
        reason = f"this host has no user {user}, who would send the files of {folder}."
        raise ReleaseError(STEP, reason, "Run site.yml first: ansible-playbook site.yml") from None
    try:
        made = bool(folder) and _make(app, folder)
        if made and app.check:
            return True
        return Reader(reader, owner, not app.check).settle(app.data, folder) or made
    except OSError as error:
        if not folder and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            # No data yet, or a link of the operator, behind which the web server was never allowed to read.
            return False
        if app.check and error.errno == errno.ENOENT:
            return True
        raise _explained(app, folder, error) from None


def _make(app: App, folder: str) -> bool:
    """Create the folder if it does not exist, as the app's user. Return whether it was missing."""
    try:
        with tree.folder(app.data, folder):
            return False
    except FileNotFoundError:
        pass
    if not app.check:
        command = ["mkdir", "--parents", str(app.data / folder)]
        wrapped = sandboxed(command, user=app.user, root=str(app.root), directory="/", writable=[str(app.data)])
        status, _out, err = app.run(wrapped)
        if status:
            raise ReleaseError(STEP, tail(err, 5), f"Check {app.data / folder} and the free disk space.")
    return True


def _explained(app: App, folder: str, error: OSError) -> ReleaseError:
    place = app.data / folder
    if isinstance(error, tree.TooDeep):
        cure = f"Remove the folders: find {place} -mindepth 100. {app.still}"
        return ReleaseError(STEP, f"a folder in {place} {error.strerror}.", cure)
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        reason = f"a link or a file is in the path {place}. nginx follows no links to protected files."
        cure = f"Put a folder in its place. For another disk, use a mount (mount --bind) and not a link. {app.still}"
        return ReleaseError(STEP, reason, cure)
    if error.errno == errno.EOPNOTSUPP:
        reason = f"the file system of {app.data} has no ACLs."
        cure = f"Mount it with the option acl, or remove protected_files. {app.still}"
        return ReleaseError(STEP, reason, cure)
    return app.os_error(OSError(error.errno, os.strerror(error.errno or 0), str(place)))
