"""The phase prepare: find the requested release among those on the host, or build it."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.deploy import environment, freeze, processes, server
from ansible.module_utils.flaskhost.deploy.app import SERVER_PART, App, digest
from ansible.module_utils.flaskhost.deploy.build import Build
from ansible.module_utils.flaskhost.deploy.records import Record
from ansible.module_utils.flaskhost.deploy.repair import Repair
from ansible.module_utils.flaskhost.deploy.selection import Selection
from ansible.module_utils.flaskhost.deploy.sources import archives, git
from ansible.module_utils.flaskhost.host import pythons
from ansible.module_utils.flaskhost.host.journal import require_journal
from ansible.module_utils.flaskhost.host.runner import ReleaseError


class Preparation:
    """Finds or builds the release for a deploy or a restart.

    Args:
        app: the app.
        repair: repairs the live release.
    """

    def __init__(self, app: App, repair: Repair) -> None:
        self.app, self._repair = app, repair

    def folders(self) -> None:
        """Create the app's folders, each with the owner that isolates the apps from each other."""
        try:
            uid, gid = pwd.getpwnam(self.app.user).pw_uid, grp.getgrnam(self.app.user).gr_gid
        except KeyError:
            raise ReleaseError(
                "Find the app",
                f"this host has no user {self.app.user!r}, because the app is not set up here.",
                "Run site.yml first: ansible-playbook site.yml",
            ) from None
        if self.app.options["verb"] == "deploy":
            require_journal(self.app.options["unit"], "Find the app")
        wanted = [
            (self.app.root, 0, 0, 0o755),
            (self.app.store.releases, 0, 0, 0o755),
            (self.app.store.venvs, 0, gid, 0o750),
            (self.app.data, uid, gid, 0o700),
            (self.app.secrets_dir.parent, 0, 0, 0o755),
            (self.app.secrets_dir, 0, 0, 0o700),
        ]
        for path, owner, group, mode in wanted:
            if not path.is_dir():
                path.mkdir(parents=True, mode=0o700)
                self.app.outcome.changed = True
            status = path.stat()
            # If the web server can enter the data folder (protected_files), its mode shows the mask of the ACL.
            masked = 0o010 if path == self.app.data and self.app.options["protected_folder"] else 0
            if (status.st_uid, status.st_gid, status.st_mode & 0o7777 & ~masked) != (owner, group, mode):
                os.chown(path, owner, group)
                path.chmod(mode)
                self.app.outcome.changed = True

    def revision(self) -> str:
        options = self.app.options
        if options["source_digest"]:
            return options["source_digest"]
        if options["source_archive"]:
            return archives.checksum_digest(options["source_checksum"])
        if not shutil.which("git") and self.app.check:
            # In check mode on a bare host, the roles have not installed git.
            return options["source_version"]
        with git.access(
            self.app.secrets_dir, options["source_key"], options["source_known_hosts"], check=self.app.check
        ) as access:
            return git.resolve_commit(
                self.app.run,
                self.app.root / "repository.git",
                options["source_repo"],
                options["source_version"],
                access,
            )

    def parts(self, revision: str) -> dict[str, str]:
        """Return a digest of each part that decides how the release behaves, by the name that messages show."""
        options, interpreter = self.app.options, self.interpreter()
        parts: dict[str, Any] = {
            "code": [revision, options["source_subdir"]],
            "variables": self._with_host(environment.render(self.app.given())),
            "keys": self.app.signing_keys(),
            # Includes Python's minor version: after a distribution upgrade, no virtual environment works.
            "packages": [
                *sys.version_info[:2],
                *(options[name] for name in ("requirements", "extra_packages", "server_package", "python")),
                options["wheelhouse"],
                # Releases of earlier versions of Flaskhost, which had no such option, stay the same.
                *([options["install"]] if Selection.from_options(options["install"]) else []),
                # With the patch level: a release keeps the version that it was tested with.
                *(["python", interpreter.version] if interpreter.version else []),
            ],
            SERVER_PART: server.without_figures(self.app.server_files()),
            "settings": [options[name] for name in ("wsgi", "persistent", "static_path")],
            "commands": [options[name] for name in ("release_command", "processes", "timers")],
        }
        if options["files"]:
            parts["files"] = self._with_host(json.dumps(options["files"], sort_keys=True))
        if options["build_command"]:
            parts["build command"] = options["build_command"]
        if options["system_packages"]:
            # A process finds a library of the host when it starts.
            parts["system packages"] = sorted(options["system_packages"])
        return {name: digest(value) for name, value in parts.items()}

    def interpreter(self) -> pythons.Interpreter:
        """Return the Python interpreter of the app.

        Raises:
            ReleaseError: the version that the app asks for is not installed on this host.
        """
        options = self.app.options
        wanted = options["interpreter_version"]
        try:
            return pythons.choose(self.app.run, wanted, options["python"], Path(options["pythons"]))
        except pythons.Unavailable as reason:
            if self.app.check:
                # In check mode, the role has not installed it.
                return pythons.Interpreter(options["python"], wanted)
            raise ReleaseError(
                "Find the Python version",
                str(reason),
                "Run site.yml first, which installs it: ansible-playbook site.yml",
            ) from None

    def _with_host(self, text: str) -> str:
        """Add the value of ``{host}`` to a text that uses it. All other placeholders follow from other parts."""
        return text + self.app.options["host"] if "host" in placeholders.used(text) else text

    def find(self) -> Record | None:
        """Find or build the requested release; None if it is already live, or if its code is not on the host yet.

        The live release is returned if only the figures that follow the host's size changed: it restarts with them in
        the other slot.
        """
        options = self.app.options
        if self.app.check or not options["interpreter_version"]:
            return self._find()
        with pythons.in_use(Path(options["pythons"])):
            return self._find()

    def _find(self) -> Record | None:
        self.app.note("Find the release")
        live, serving = self.app.slots.live(), self.app.serving()
        revision = self.revision()
        parts = self.parts(revision)
        identity = digest(parts)
        # From the link, not from the record: a rollback can use the live release even if its record is damaged.
        self.app.outcome.previous = self.app.slots.release(live)
        if serving and serving.identity == identity and self.app.store.has_environment(serving):
            self._repair.repair(live, serving)
            if self.app.is_sized(serving):
                return None
            freeze.check(self.app.options["app"])
            return serving
        freeze.check(self.app.options["app"])
        processes.check_timers(self.app.run, self.app.options["timers"], self.app.options["app"])
        built = self.whole(identity)
        if built:
            return built
        options = self.app.options
        if not options["source_digest"] or options["archive"]:
            return self._build(identity, parts, revision)
        if not options["source_data"]:
            self.app.outcome.changed = self.app.outcome.needs_source = True
            self.app.outcome.revision = revision
            return None
        with tempfile.TemporaryDirectory(prefix="flaskhost-") as folder:
            archive = Path(folder) / "source.tar.gz"
            archive.write_bytes(base64.b64decode(options["source_data"]))
            options["archive"] = str(archive)
            return self._build(identity, parts, revision)

    def _build(self, identity: str, parts: dict[str, str], revision: str) -> Record:
        build = Build(self.app.run, self.app.options, self.app.store, self.app.note, self.interpreter())
        record = build.make(identity, parts, revision, self.app.given())
        self.app.outcome.warnings += build.warnings
        self.app.outcome.new_folders = build.new_folders
        return record

    def whole(self, identity: str) -> Record | None:
        """Return a complete release with this identity that is not live, left by a run that was killed or failed."""
        found = (
            item
            for item in self.app.store.all_records()
            if item.identity == identity and self.app.store.has_environment(item)
        )
        return next(found, None)

    def named(self, release: str) -> Record:
        record = self.app.store.record(release)
        if not record or not self.app.store.has_environment(record):
            raise ReleaseError(
                "Find the release",
                f"{release or 'the release'} is no longer on this host.",
                "Run the same command again.",
            )
        return record

    def serving_release(self) -> Record:
        """Return the live release, to restart it in the other slot.

        Raises:
            ReleaseError: no release is live.
        """
        serving = self.app.serving()
        if not serving:
            raise ReleaseError(
                "Find the release", "no release is live here.", "Deploy one: ansible-playbook playbooks/deploy.yml"
            )
        freeze.check(self.app.options["app"])
        self.app.outcome.previous = serving.id
        return serving
