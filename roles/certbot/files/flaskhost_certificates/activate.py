"""Make nginx serve the installed certificates, verify that it does, call the hooks, and set the HSTS header."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flaskhost_certificates import hsts, lineages, serving
from flaskhost_certificates.config import Certificate, CertificateError
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.work import Work, installed, store_of


def activate(work: Work) -> None:
    """Reload nginx if it serves an old certificate, verify the new one, call the hooks, and update the HSTS header."""
    if work.dry:
        return
    if not serving.is_running(work.run):
        for outcome in work.outcomes.values():
            if outcome.changed:
                outcome.notes.append("nginx is not running. It loads the certificate when it starts.")
        return
    stale: list[Certificate] = []
    proven: dict[str, Pair] = {}
    for item in work.config.certificates:
        with work.failures_of(item.name):
            pair = installed(item)[0]
            shown = serving.served(item.domains[0]) if pair else None
            if pair and shown == serving.der(pair):
                proven[item.name] = pair
            elif pair and (shown is not None or work.outcomes[item.name].changed):
                # Not loaded yet: this run changed it, or a run that was killed before it reloaded nginx.
                stale.append(item)
    if stale and _reload(work, stale):
        for item in stale:
            with work.failures_of(item.name):
                pair = installed(item)[0]
                if pair:
                    serving.prove(item.domains, pair)
                    proven[item.name] = pair
    _call_hooks(work, proven)
    _update_hsts(work, proven)


def _reload(work: Work, stale: Sequence[Certificate]) -> bool:
    """Reload nginx; if it refuses, restore the pairs that were installed before."""
    try:
        serving.reload(work.run)
    except CertificateError as error:
        for item in stale:
            with work.failures_of(item.name):
                _restore_previous(work, item, str(error))
        # If only the configuration test failed, nginx was not touched and has nothing to load. If the reload itself
        # failed, nginx may have loaded a part.
        with contextlib.suppress(CertificateError):
            serving.reload(work.run)
        return False
    work.reloaded = True
    return True


def _restore_previous(work: Work, item: Certificate, why: str) -> None:
    """Restore the pair that was installed before this run."""
    outcome, (pair, known) = work.outcomes[item.name], work.before[item.name]
    if not pair or installed(item)[0] == pair:
        outcome.problems.append(why)
        return
    store_of(item).install(pair)
    work.remember(item, source=known.source)
    outcome.changed = False
    outcome.notes.clear()
    outcome.problems.append(f"{why} The previous certificate is back in place.")


def _call_hooks(work: Work, proven: Mapping[str, Pair]) -> None:
    """Call the hooks for each new certificate. If a hook fails, the next run calls all of them again."""
    for item in work.config.certificates:
        pair = proven.get(item.name)
        if not pair or work.recall(item).announced == pair.fingerprint:
            continue
        with work.failures_of(item.name):
            # A list, not a generator: a hook that fails must not stop the others.
            succeeded = [_call_hook(work, item, hook) for hook in _hooks(work.config.hooks)]
            if all(succeeded):
                work.remember(item, announced=pair.fingerprint)


def _call_hook(work: Work, item: Certificate, hook: Path) -> bool:
    """Call one hook for one certificate; return whether it succeeded."""
    env = {
        "FLASKHOST_APP": item.name,
        "FLASKHOST_CERTIFICATE": str(item.certificate),
        "FLASKHOST_KEY": str(item.key),
    }
    code, out, err = work.run([str(hook)], env=env)
    if code:
        said = lineages.last_line(err) or lineages.last_line(out) or f"status {code}"
        work.outcomes[item.name].problems.append(
            f"The hook {hook} failed for the new certificate: {said}. The next run calls it again."
        )
    return code == 0


def _hooks(folder: Path) -> list[Path]:
    """List the executable files in a folder, in order, without hidden files and editors' backups."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and os.access(path, os.X_OK) and not path.name.startswith(".") and not path.name.endswith("~")
    )


def _update_hsts(work: Work, proven: Mapping[str, Pair]) -> None:
    """Raise each site's HSTS max-age with the time for which it has served a trusted certificate.

    A certificate that was not verified is skipped and leaves its header unchanged. Otherwise the ramp would restart.
    """
    changed = []
    for item in work.config.certificates:
        pair = proven.get(item.name)
        if not pair:
            continue
        with work.failures_of(item.name):
            trusted = not pair.self_signed and serving.trusted(item.domains[0], work.config.root)
            since = work.recall(item).trusted_since
            since = (since or int(work.now)) if trusted else 0
            work.remember(item, trusted_since=since)
            value = hsts.value(item.hsts, since, work.now)
            if hsts.write(item.certificate.parent / "hsts.map", hsts.map_text(value)):
                outcome = work.outcomes[item.name]
                outcome.changed = True
                outcome.notes.append(f"Strict-Transport-Security is now {value or 'not sent'}.")
                changed.append(item)
    if changed:
        try:
            serving.reload(work.run)
            work.reloaded = True
        except CertificateError as error:
            for item in changed:
                work.outcomes[item.name].problems.append(str(error))
