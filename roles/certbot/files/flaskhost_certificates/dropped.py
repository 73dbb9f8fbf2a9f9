"""Delete the lineages, folders and states of certificates that are not configured any more."""

from __future__ import annotations

from pathlib import Path

from flaskhost_certificates import lineages, state
from flaskhost_certificates.config import PREFIX
from flaskhost_certificates.state import State
from flaskhost_certificates.store import Store
from flaskhost_certificates.work import Work


def delete_dropped(work: Work) -> None:
    """Delete the lineages and folders of certificates that are not configured any more."""
    wanted = {item.name: item for item in work.config.certificates}
    for name in state.names(work.config.state):
        item, known = wanted.get(name), state.load(work.config.state, name)
        with work.failures_of(name):
            # The program deletes only what it has ordered itself, and not while nginx serves it.
            lineage = f"{PREFIX}{name}"
            unused = item is None or (item.mode != "acme" and known.source != "acme")
            if unused and known.asked and lineages.exists(work.config, lineage):
                if not work.dry:
                    lineages.delete(work.run, work.config, lineage)
                work.deleted.append(name)
            if unused and item is not None and known.asked:
                work.remember(item, asked=(), directory="", error="", error_at=0, not_before=0)
            elif item is None and _is_unused_by_nginx(work, name, known):
                _remove(work, name, known)
    for name in [name for name in work.outcomes if name not in wanted]:
        if not (work.outcomes[name].problems or work.outcomes[name].notes):
            del work.outcomes[name]


def _is_unused_by_nginx(work: Work, name: str, known: State) -> bool:
    """Return whether nginx's configuration names nothing in a dropped site's folder."""
    if not known.folder or not Path(known.folder).exists():
        return True
    code, out, _ = work.once("nginx", lambda: work.run(["/usr/sbin/nginx", "-T"]))
    outcome = work.outcomes[name]
    if code and code != 127:
        outcome.notes.append(
            f"{known.folder} is kept, because nginx cannot report whether it uses the folder (nginx -T)."
        )
        return False
    if code == 0 and f"{known.folder}/" in out:
        outcome.notes.append(f"{known.folder} is kept, because nginx's configuration still names it.")
        return False
    return True


def _remove(work: Work, name: str, known: State) -> None:
    """Remove a dropped site's folder and state. A foreign pair stays: it may be the only copy of its key."""
    folder = Path(known.folder) if known.folder else None
    if folder and folder.is_dir() and known.source == "foreign":
        work.outcomes[name].notes.append(f"{folder} is kept, because its certificate was installed by hand.")
    elif folder and folder.name == name and folder.is_dir():
        if name not in work.deleted:
            work.deleted.append(name)
        if not work.dry:
            Store(folder / "fullchain.pem", folder / "privkey.pem").remove()
    if not work.dry:
        state.remove(work.config.state, name)
