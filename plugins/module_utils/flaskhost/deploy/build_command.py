"""The build command of an app: it completes the code of a release before it is sealed, with assets for example.

It runs as the app's build account, in the sandbox in which packages are built. For that time, the code belongs to this
account. What it leaves there is as little trusted as the content of an archive.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path

from ansible.module_utils.flaskhost.apps import placeholders
from ansible.module_utils.flaskhost.apps.names import DATABASE_VARIABLES
from ansible.module_utils.flaskhost.deploy import environment
from ansible.module_utils.flaskhost.deploy.hints import hint
from ansible.module_utils.flaskhost.deploy.virtualenv import Builder
from ansible.module_utils.flaskhost.host import atomic
from ansible.module_utils.flaskhost.host.runner import STILL, ReleaseError, cure_for, excerpt, how_ended, sandboxed

STEP = "Run the build command"
#: Variables that the command does not get, even if they come from ``env``, which is public.
_HIDDEN = frozenset({*DATABASE_VARIABLES, "SECRET_KEY", "SECRET_KEY_FALLBACKS"})
#: Placeholders whose values it does not get.
_SECRET = frozenset({*placeholders.DATABASE, placeholders.KEY})


def variables(
    public: Mapping[str, str], secrets: Collection[str], places: Mapping[str, str], release: str
) -> dict[str, str]:
    """Return the variables of the command: the app's own, without its secrets, its key and its database.

    Args:
        public: the app's variables that are not secret, with placeholders.
        secrets: the names of its secret variables.
        places: the values of the placeholders that are no secrets.
        release: the name of the release.
    """
    left = {
        name: value
        for name, value in public.items()
        if name not in _HIDDEN and name not in secrets and not placeholders.used(value) & _SECRET
    }
    own = {"FLASKHOST_RELEASE": release, "FLASKHOST_RELEASE_DIR": places["release_dir"]}
    return {**placeholders.fill_variables(left, places), **own}


def run(
    builder: Builder,
    command: str,
    *,
    app_dir: Path,
    venv: Path,
    variables: Mapping[str, str],
    environment_file: Path,
    group: int,
    timeout: int,
) -> None:
    """Run the command, and give the code back to root.

    Args:
        builder: builds the app's virtual environments; its code is the code of the release, which is sealed.
        command: the command, for a shell.
        app_dir: the app's folder in the code.
        venv: the virtual environment of the release.
        variables: its variables, without secrets.
        environment_file: the file for them, in a folder of root.
        group: the ID of the app's group.
        timeout: time limit in seconds.

    Raises:
        ReleaseError: it failed, took too long, or left behind what cannot be released. The release must be removed.
    """
    builder.make_room()
    atomic.write(environment_file, environment.render(variables))
    builder.lend_code()
    arguments = sandboxed(
        ["/bin/sh", "-c", command],
        user=builder.user,
        root=str(builder.folder.parent),
        directory=str(app_dir),
        writable=[str(builder.code)],
        environment={
            "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin",
            # A folder of this command only, which is removed afterwards.
            "HOME": "/tmp",  # noqa: S108
            "PYTHONPATH": f"{app_dir}:{app_dir}/src",
        },
        # Not as arguments, so that they do not show in the process list.
        environment_files=[str(environment_file)],
        timeout=timeout,
        outbound=not builder.wheelhouse,
        builder=builder.account,
        properties=builder.reach([venv], [builder.code]),
    )
    began = time.monotonic()
    status, out, err = builder.run(arguments)
    if status:
        how = how_ended(status, time.monotonic() - began, timeout, "build_timeout")
        cure = f"Correct the build command or the code, and run the same command again. {STILL}{hint(out + err)}"
        raise ReleaseError(STEP, f"'{command}' {how}:\n{excerpt(out + err)}", cure_for(out + err, cure))
    environment_file.unlink()
    builder.remove_room()
    builder.take_back_code(group, STEP, "the build command")
