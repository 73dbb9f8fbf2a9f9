"""The hook ``backup.hook``, which is called when a scheduled run has problems."""

from __future__ import annotations

import json

from flaskhost_backup import tools
from flaskhost_backup.config import Config
from flaskhost_backup.result import Result

#: Timeout of the hook, in seconds.
HOOK_SECONDS = 60.0


def call_hook(config: Config, verb: str, result: Result) -> str:
    """Call the hook, if the run has problems.

    Args:
        config: the configuration.
        verb: the verb of the run.
        result: the result of the run.

    Returns:
        The problem with the hook itself; empty if it succeeded or was not called.
    """
    if not config.hook or not result.problems:
        return ""
    event = {"host": config.host, "verb": verb, "problems": result.problems}
    variables = {
        "FLASKHOST_HOST": config.host,
        "FLASKHOST_VERB": verb,
        "FLASKHOST_PROBLEM": result.problems[0][:2000],
    }
    done = tools.run(config.hook, env=variables, data=json.dumps(event) + "\n", timeout=HOOK_SECONDS)
    if done.status:
        return f"The hook {config.hook[0]} failed: {done.last} Check backup.hook."
    return ""
