"""What the program does: prepare, apply, renew, deployed and check; see the README of the role certbot.

Each certificate is seen to by itself: what goes wrong with one is among its problems, and keeps no other back. Nothing
that serves is taken away before its successor is in place, and each step looks at what is on the disk rather than at
what the step before should have done, so that a run that was killed is made good by the next one.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from flaskhost_certificates import authority, hsts, lineages, pairs, records, serving, state
from flaskhost_certificates.config import PREFIX, Certificate, CertificateError, Config
from flaskhost_certificates.lineages import Lineage, Run
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.state import State
from flaskhost_certificates.store import Store

#: Tells certbot's hook that a run of ours is waiting for it, and holds the lock.
LOCKED = "FLASKHOST_CERTIFICATES_LOCKED"
#: Seconds that certbot gets; an order with DNS records that spread slowly takes minutes.
CERTBOT_SECONDS = 1200
#: Seconds that a program that wants to know of a new certificate gets.
HOOK_SECONDS = 120
#: Seconds to wait where the authority gave something else than it was asked for. It would give the same again, and
#: Let's Encrypt gives a set of names five certificates a week (letsencrypt.org/docs/rate-limits).
ODD_SECONDS = 86400
#: The timer comes round twice a day, with a random delay: one that is about to be renewed raises no alarm (seconds).
GRACE = 18 * 3600


@dataclass
class Outcome:
    """What became of one certificate.

    Attributes:
        name: its name.
        source: where the installed pair is from: acme, files, selfsigned, foreign; empty where there is none.
        changed: whether anything about it was changed, or would be.
        serial: the installed certificate's serial number, as ``openssl x509 -serial`` writes it; empty for none.
        not_after: until when that one is good, in seconds since 1970; 0 for none.
        notes: what is worth knowing.
        problems: what is wrong, and its cure.
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
    """What became of all.

    Attributes:
        certificates: each one that is wanted, and each other one that there is something to say of.
        deleted: the names of the sites whose lineage or pair was deleted.
        reloaded: whether nginx was reloaded.
        made: the folders that were not there.
    """

    certificates: list[Outcome] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    reloaded: bool = False
    made: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or would be."""
        return bool(self.made or self.deleted or self.reloaded or any(item.changed for item in self.certificates))

    @property
    def problems(self) -> list[str]:
        """All that is wrong, each with the name of its certificate."""
        return [f"{item.name}: {problem}" for item in self.certificates for problem in item.problems]

    def as_json(self) -> dict[str, Any]:
        """The result for whoever reads JSON."""
        return {
            "changed": self.changed,
            "certificates": [dict(vars(item)) for item in self.certificates],
            "deleted": self.deleted,
            "reloaded": self.reloaded,
            "made": self.made,
        }


def run_command(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command, in words that do not depend on the host's language.

    Args:
        command: the command; never with a secret.
        env: variables that are added to the environment.

    Returns:
        Its status, output and errors; 127 where it is not there, 124 where it took too long, as the shell has them.
    """
    seconds = CERTBOT_SECONDS if Path(command[0]).name == "certbot" else HOOK_SECONDS
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(  # noqa: S603 - commands of our own
            list(command), env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"{command[0]} was still at work after {seconds} seconds, and was ended."
    except OSError as error:
        return 127, "", f"{command[0]} cannot be run: {error.strerror}."
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


# --- The verbs ---------------------------------------------------------------------------------------------------


def prepare(config: Config, run: Run, own: Mapping[str, Mapping[str, str]], now: float, *, dry: bool = False) -> Result:
    """Put a usable pair at each final path, before nginx is started; no authority is asked.

    Args:
        config: what is wanted.
        run: runs a command.
        own: the own certificates by their sites' names, each a mapping with the PEMs ``certificate`` and ``key``.
        now: seconds since 1970.
        dry: say what would be done, and change nothing.

    Raises:
        CertificateError: an own certificate is no good; it says which and why, and nothing was changed at all.
    """
    work = _Work(config, run, now, dry)
    given = _own_pairs(config, own, now)
    made = _make_folders(config, dry)
    for item in config.certificates:
        with work.kept(item.name):
            work.prepare(item, given.get(item.name))
    return replace(work.result(), made=made)


def apply(config: Config, run: Run, now: float, *, dry: bool = False) -> Result:
    """Ask the authority for what is missing or has other names, delete what was dropped, and see that nginx serves it.

    Args:
        config: what is wanted.
        run: runs a command.
        now: seconds since 1970.
        dry: say what would be done; change nothing, and ask nobody.
    """
    with contextlib.ExitStack() as stack:
        work = _Work(config, run, now, dry, stack)
        work.drop()
        for item in config.certificates:
            with work.kept(item.name):
                work.obtain(item)
        work.serve()
    return work.result()


def renew(config: Config, run: Run, now: float, *, dry: bool = False) -> Result:
    """Renew what is due, those certificates of certbot's too that are not of this playbook; then as :func:`apply`.

    Args:
        config: what is wanted.
        run: runs a command.
        now: seconds since 1970.
        dry: say what :func:`apply` would do; change nothing, and ask nobody.
    """
    with contextlib.ExitStack() as stack:
        work = _Work(config, run, now, dry, stack)
        work.drop()
        for item in config.certificates:
            with work.kept(item.name):
                work.renew(item)
                work.obtain(item)
        work.renew_others()
        work.serve()
    return work.result()


def deployed(config: Config, run: Run, live: str, now: float, *, dry: bool = False, within: bool = False) -> Result:
    """Install what certbot has just had, and see that nginx serves it: certbot's deploy hook.

    Args:
        config: what is wanted.
        run: runs a command.
        live: the lineage's folder, from the environment variable RENEWED_LINEAGE.
        now: seconds since 1970.
        dry: say what would be done, and change nothing.
        within: whether a run of this program waits for certbot: it has nginx loaded anew once, for all certificates,
            since each reload closes the connections that visitors keep.

    Returns:
        One certificate; none where the lineage is not one of ours.

    Raises:
        CertificateError: certbot said nothing.
    """
    if not live:
        reason = "The environment variable RENEWED_LINEAGE is not set."
        raise CertificateError(reason, "certbot calls this verb; by hand, use 'sudo flaskhost-certificates apply'.")
    path = Path(live)
    ours = [
        item
        for item in config.certificates
        if item.mode == "acme" and path.name == item.lineage and path.parent == config.letsencrypt / "live"
    ]
    work = _Work(replace(config, certificates=tuple(ours)), run, now, dry)
    for item in ours:
        with work.kept(item.name):
            lineage = lineages.find(config, item.lineage)
            if lineage.pair is None:
                raise CertificateError(lineage.trouble or f"certbot has no certificate in {live}.")
            work.take(item, lineage.pair)
    if not within:
        work.serve()
    return work.result()


def check(config: Config, run: Run, now: float) -> Result:
    """Look whether each certificate is readable, good for a while, and the one that nginx serves.

    Args:
        config: what is wanted.
        run: runs a command.
        now: seconds since 1970.
    """
    work = _Work(config, run, now, True)
    running = serving.is_running(run)
    for item in config.certificates:
        with work.kept(item.name):
            work.check(item, running)
    return work.result()


def _make_folders(config: Config, dry: bool) -> list[str]:
    """Make the folders that others look into: nginx, certbot in a sandbox that makes none, who wants to be told."""
    challenges = config.webroot / ".well-known" / "acme-challenge"
    made: list[str] = []
    for folder in (challenges, config.letsencrypt, config.hooks):
        missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
        for path in reversed(missing):
            made.append(str(path))
            if not dry:
                path.mkdir(exist_ok=True)
                # The umask of the program is for what it writes into its own.
                path.chmod(0o755)
    return made


def _own_pairs(config: Config, own: Mapping[str, Mapping[str, str]], now: float) -> dict[str, Pair]:
    """Check all own certificates before any is put in place."""
    found: dict[str, Pair] = {}
    wrong: list[str] = []
    for item in config.certificates:
        if item.mode != "files" or item.name not in own:
            continue
        names = _variables(item)
        what = " and ".join(names)
        try:
            pair = pairs.parse(own[item.name]["certificate"], own[item.name]["key"], names)
            wrong += [f"{what}: {problem}" for problem in pairs.problems(pair, item.domains, now)]
            found[item.name] = pair
        except CertificateError as error:
            wrong.append(str(error))
        except (KeyError, TypeError, AttributeError):
            wrong.append(f"{what}: both have to be given, each as a PEM.")
    if wrong:
        raise CertificateError(" ".join(wrong), "Nothing was changed on this host.")
    return found


# --- The work ----------------------------------------------------------------------------------------------------


class _Work:
    """One run of a verb.

    Args:
        config: what is wanted.
        run: runs a command.
        now: seconds since 1970.
        dry: whether nothing may be changed and nobody be asked.
        stack: closes at the end what was opened on the way.
    """

    def __init__(
        self, config: Config, run: Run, now: float, dry: bool, stack: contextlib.ExitStack | None = None
    ) -> None:
        self.config, self.run, self.now, self.dry = config, run, now, dry
        self.stack = stack or contextlib.ExitStack()
        self.outcomes: dict[str, Outcome] = {item.name: Outcome(item.name) for item in config.certificates}
        self.before: dict[str, tuple[Pair | None, State]] = {}
        self.deleted: list[str] = []
        self.reloaded = False
        self.once: dict[str, Any] = {}
        for item in config.certificates:
            self.before[item.name] = (_installed(item)[0], self.recall(item))

    def result(self) -> Result:
        """Say what became of all."""
        for item in self.config.certificates:
            outcome, pair = self.outcomes[item.name], _installed(item)[0]
            outcome.source = self.recall(item).source if pair else ""
            if pair:
                outcome.serial, outcome.not_after = serial(pair), int(pair.not_after)
        return Result(list(self.outcomes.values()), self.deleted, self.reloaded)

    @contextlib.contextmanager
    def kept(self, name: str) -> Iterator[None]:
        """Keep a failure to the certificate that it belongs to."""
        outcome = self.outcomes.setdefault(name, Outcome(name))
        try:
            yield
        except CertificateError as error:
            outcome.problems.append(str(error))
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            outcome.problems.append(f"The disk or the network refused: {error.strerror or error}{where}.")
        except Exception as error:  # one bad certificate keeps no other back; the text of this one may be anything
            outcome.problems.append(defect(error))

    def recall(self, item: Certificate) -> State:
        """What is remembered of a certificate."""
        return state.load(self.config.state, item.name)

    def remember(self, item: Certificate, **changes: Any) -> State:
        """Change what is remembered of a certificate."""
        known = replace(self.recall(item), folder=str(item.certificate.parent), **changes)
        if not self.dry:
            state.save(self.config.state, item.name, known)
        return known

    def install(self, item: Certificate, pair: Pair, source: str, note: str) -> None:
        """Put a pair in place, if it is not there."""
        outcome = self.outcomes[item.name]
        if _installed(item)[0] != pair:
            outcome.changed = True
            outcome.notes.append(note)
            if not self.dry:
                _store(item).install(pair)
        self.remember(item, source=source)

    def told(self, key: str, ask: Callable[[], Any]) -> Any:
        """Ask once what is the same for all certificates; a failure is the same for all too."""
        if key not in self.once:
            try:
                self.once[key] = ask()
            except CertificateError as error:
                self.once[key] = error
        if isinstance(self.once[key], CertificateError):
            raise self.once[key]
        return self.once[key]

    def version(self) -> tuple[int, ...]:
        """certbot's version."""
        return self.told("version", lambda: authority.version(self.run, self.config.certbot))

    # --- Before nginx --------------------------------------------------------------------------------------------

    def prepare(self, item: Certificate, given: Pair | None) -> None:
        """Put a usable pair in place."""
        outcome = self.outcomes[item.name]
        installed, trouble = _installed(item)
        if trouble:
            outcome.notes.append(f"{trouble} It is kept beside its successor.")
        lineage = lineages.find(self.config, item.lineage) if item.mode == "acme" else None
        if given:
            self.install(item, given, "files", "The own certificate is in place.")
            # An authority of one's own need not be trusted here; with a public one an intermediate has been forgotten.
            roots = pairs.trusted_roots(self.config.root)
            outcome.notes += pairs.problems(given, item.domains, self.now, roots)
        elif item.mode == "files" and not (installed and self.recall(item).source == "files"):
            what = " and ".join(_variables(item))
            outcome.problems.append(f"{what} were not handed over. Run site.yml again, which does.")
            self.sign_if(item, installed is None)
        elif lineage and lineage.pair and not pairs.problems(lineage.pair, item.domains, self.now):
            self.install(item, lineage.pair, "acme", "The authority's certificate, which certbot had, is in place.")
            self.remember(item, asked=self.recall(item).asked or item.domains)
        elif item.mode != "files":
            self.sign_if(item, not self.is_kept(item, installed))
        if item.mode == "acme" and not self.dry:
            self.told("bundle", lambda: authority.ca_bundle(self.config))
        # nginx reads it, and would have to be reloaded if it came later.
        path = item.certificate.parent / "hsts.map"
        if not self.dry and not path.exists():
            hsts.write(path, hsts.map_text(""))

    def sign_if(self, item: Certificate, needed: bool) -> None:
        """Sign a certificate ourselves, where one is needed."""
        if needed and self.dry:
            self.outcomes[item.name].changed = True
            self.outcomes[item.name].notes.append("This host would sign a certificate itself.")
        elif needed:
            note = "This host has signed a certificate itself, which browsers do not trust."
            self.install(item, pairs.sign(item.domains, self.now), "selfsigned", note)

    def is_kept(self, item: Certificate, installed: Pair | None) -> bool:
        """Whether what is installed stays, with a note of where it is from."""
        known = self.recall(item).source
        if installed is None:
            return False
        if installed.self_signed and known != "files":
            # Made by an earlier release of the role, where nothing is remembered.
            kept = not pairs.problems(installed, item.domains, self.now)
            if kept:
                self.remember(item, source="selfsigned")
            return kept
        if item.mode == "acme":
            # One that lacks a new name still serves the others; the authority's next one takes its place.
            kept = not pairs.problems(installed, [], self.now) and bool(
                lineages.normal(item.domains)
                - set(pairs.covers(installed.names, sorted(lineages.normal(item.domains))))
            )
        else:
            ours = known in ("acme", "files") and bool(_store(item).current())
            kept = not ours and not pairs.problems(installed, item.domains, self.now)
        source = known if known in ("acme", "files") and _store(item).current() else "foreign"
        if kept:
            self.remember(item, source=source)
            if source == "foreign":
                self.outcomes[item.name].notes.append(
                    f"The certificate that somebody put into {item.certificate.parent} is left as it is."
                )
        return kept

    # --- The authority -------------------------------------------------------------------------------------------

    def differences(self, item: Certificate, lineage: Lineage) -> list[str]:
        """Why the authority has to be asked."""
        return lineages.differences(self.config, item, lineage, self.now, self.version)

    def obtain(self, item: Certificate) -> None:
        """Install what certbot has, or ask the authority for it."""
        if item.mode != "acme":
            return
        outcome = self.outcomes[item.name]
        lineage = lineages.find(self.config, item.lineage)
        why = self.differences(item, lineage)
        if not why and lineage.pair:
            self.take(item, lineage.pair)
            return
        if self.dry:
            # Where it could not be had the last time, it may well be the same again.
            outcome.changed = not self.recall(item).error
            what = f"{self.config.directory} would be asked for {', '.join(item.domains)}: {'; '.join(why)}"
            outcome.notes.append(_sentence(what))
            return
        if self.waits(item):
            return
        try:
            self.ask(item, lineage)
        except CertificateError as error:
            self.failed(item, str(error))

    def waits(self, item: Certificate) -> bool:
        """Whether the authority has said when it wants to be asked again, and that is not yet."""
        known = self.recall(item)
        if known.not_before <= self.now or known.asked != item.domains or known.directory != self.config.directory:
            return False
        # Until then the last failure is the reason.
        self.outcomes[item.name].problems.append(
            f"The authority is not asked again before {_when(known.not_before)}. {known.error}".strip()
        )
        return True

    def ask(self, item: Certificate, lineage: Lineage) -> None:
        """Ask the authority.

        Raises:
            CertificateError: nobody can be asked.
        """
        config, outcome = self.config, self.outcomes[item.name]
        version = self.version()
        found = self.told("directory", lambda: authority.directory(config.directory, config.root))
        if missing := records.problems(
            item.domains,
            item.challenge,
            found.get("meta", {}).get("caaIdentities", []),
            *self.reach(item),
        ):
            self.failed(item, *missing)
            return
        # certbot keeps a certificate with the same names, whatever else is new (main._handle_identical_cert_request).
        same = lineage.pair is not None and lineage.pair.names == lineages.normal(item.domains)
        command = authority.certonly(config, item, version, force=same)
        outcome.notes += authority.notes(config, version)
        if lineage.broken:
            moved = lineages.set_aside(config, item.lineage)
            outcome.notes.append(f"{lineage.trouble} It was put aside: {', '.join(map(str, moved))}.")
        self.remember(item, asked=item.domains, directory=config.directory)
        code, out, err = self.certbot(command)
        lineage = lineages.find(config, item.lineage)
        why = self.differences(item, lineage)
        if code:
            failure = authority.explain(f"{out}\n{err}", self.now, self.config.directory)
            self.failed(item, f"{failure.reason} {failure.cure}".strip(), not_before=failure.not_before)
        elif why:
            odd = _sentence(f"certbot ended well, but its certificate is not what was asked for: {'; '.join(why)}")
            self.failed(item, f"{odd} See /var/log/letsencrypt.", not_before=self.now + ODD_SECONDS)
        else:
            self.remember(item, error="", error_at=0, not_before=0)
        if lineage.pair and not why:
            lineages.keep_renewal_time(config, lineage, version)
            self.take(item, lineage.pair)

    def reach(self, item: Certificate) -> tuple[list[str], records.Probe]:
        """This host's addresses, and how to see who answers at others; the dns challenge asks for neither."""
        if item.challenge == "dns":
            return [], lambda _address, _domain: ""
        return (
            self.told("addresses", lambda: records.own_addresses(self.run)),
            self.told("probe", lambda: self.stack.enter_context(records.probing(self.config.webroot))),
        )

    def renew(self, item: Certificate) -> None:
        """Have certbot renew what is due. What has to be asked for anew anyway is not renewed before."""
        lineage = lineages.find(self.config, item.lineage)
        if item.mode != "acme" or self.dry or self.differences(item, lineage) or lineage.pair is None:
            return
        if self.waits(item):
            return
        version = self.version()
        lineages.keep_renewal_time(self.config, lineage, version)
        self.remember(item, asked=item.domains, directory=self.config.directory)
        command = [*authority.renewal(self.config), "--cert-name", item.lineage]
        code, out, err = self.certbot(command)
        lineage = lineages.find(self.config, item.lineage)
        lineages.keep_renewal_time(self.config, lineage, version)
        if code:
            failure = authority.explain(f"{out}\n{err}", self.now, self.config.directory)
            what = f"The certificate could not be renewed. {failure.reason} {failure.cure}".strip()
            self.failed(item, what, not_before=failure.not_before)
        else:
            self.remember(item, error="", error_at=0, not_before=0)

    def renew_others(self) -> None:
        """Renew the certificates that somebody has had from certbot for something else.

        The timer of the distribution's package did that, and the timer that calls this program is in its place.
        """
        ours = {item.lineage for item in self.config.certificates}
        if self.dry or not self.config.others:
            return
        for name in lineages.foreign(self.config, ours):
            with self.kept(name):
                code, out, err = self.certbot([*authority.renewal(self.config), "--cert-name", name])
                if code:
                    failure = authority.explain(f"{out}\n{err}", self.now)
                    reason = f"certbot's certificate {name}, which is of no site here, could not be renewed."
                    cure = f"Where it is not needed: {self.config.certbot} delete --cert-name {name}"
                    raise CertificateError(f"{reason} {failure.reason} {failure.cure}".strip(), cure)
        for name in [name for name in self.outcomes if name not in self.before and not self.outcomes[name].problems]:
            del self.outcomes[name]

    def certbot(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run certbot, whose hook comes back to this program while this one holds the lock."""
        self.told("bundle", lambda: authority.ca_bundle(self.config))
        return self.run(command, env={**authority.environment(self.config), LOCKED: str(os.getpid())})

    def failed(self, item: Certificate, *problems: str, not_before: float = 0) -> None:
        """Write down why the authority's certificate could not be had."""
        self.outcomes[item.name].problems += problems
        self.remember(item, error=" ".join(problems), error_at=int(self.now), not_before=math.ceil(not_before))

    def take(self, item: Certificate, pair: Pair) -> None:
        """Install the authority's certificate; one that certbot's hook has installed meanwhile is a change too."""
        if not pair.fits or pair.not_after <= self.now:
            raise CertificateError(
                f"certbot's certificate for {item.name} cannot be used: "
                + ("it has expired." if pair.fits else "its key does not belong to it.")
            )
        note = f"The certificate of {pair.issuer_name}, good until {_when(pair.not_after)}, is in place."
        self.install(item, pair, "acme", note)
        outcome = self.outcomes[item.name]
        if not outcome.changed and self.before[item.name][0] != pair:
            outcome.changed = True
            outcome.notes.append(note)
        self.remember(item, asked=item.domains)

    # --- What was dropped ----------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Delete the lineages and folders of what is not wanted any more."""
        wanted = {item.name: item for item in self.config.certificates}
        for name in state.names(self.config.state):
            item, known = wanted.get(name), state.load(self.config.state, name)
            with self.kept(name):
                # Only what this program has asked for is its own to delete; and not while it serves.
                lineage = f"{PREFIX}{name}"
                unused = item is None or (item.mode != "acme" and known.source != "acme")
                if unused and known.asked and lineages.exists(self.config, lineage):
                    if not self.dry:
                        lineages.delete(self.run, self.config, lineage)
                    self.deleted.append(name)
                if unused and item is not None and known.asked:
                    self.remember(item, asked=(), directory="", error="", error_at=0, not_before=0)
                elif item is None and self.is_free(name, known):
                    self.remove(name, known)
        for name in [name for name in self.outcomes if name not in wanted]:
            if not (self.outcomes[name].problems or self.outcomes[name].notes):
                del self.outcomes[name]

    def is_free(self, name: str, known: State) -> bool:
        """Whether nginx names nothing of a dropped site's folder."""
        if not known.folder or not Path(known.folder).exists():
            return True
        code, out, _ = self.told("nginx", lambda: self.run(["/usr/sbin/nginx", "-T"]))
        outcome = self.outcomes[name]
        if code and code != 127:
            outcome.notes.append(f"{known.folder} is kept, as nginx cannot tell whether it uses it (nginx -T).")
            return False
        if code == 0 and f"{known.folder}/" in out:
            outcome.notes.append(f"{known.folder} is kept, as nginx's configuration still names it.")
            return False
        return True

    def remove(self, name: str, known: State) -> None:
        """Remove a dropped site's folder, and what is remembered of it; not what may be the only copy of a key."""
        folder = Path(known.folder) if known.folder else None
        if folder and folder.is_dir() and known.source == "foreign":
            self.outcomes[name].notes.append(f"{folder} is kept, as somebody else has put it there.")
        elif folder and folder.name == name and folder.is_dir():
            if name not in self.deleted:
                self.deleted.append(name)
            if not self.dry:
                Store(folder / "fullchain.pem", folder / "privkey.pem").remove()
        if not self.dry:
            state.remove(self.config.state, name)

    # --- What nginx serves ---------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Have nginx load what is new, prove that it serves it, tell the hooks, and tell browsers of HTTPS."""
        if self.dry:
            return
        if not serving.is_running(self.run):
            for outcome in self.outcomes.values():
                if outcome.changed:
                    outcome.notes.append("nginx does not run; it takes the certificate in when it starts.")
            return
        stale: list[Certificate] = []
        proven: dict[str, Pair] = {}
        for item in self.config.certificates:
            with self.kept(item.name):
                pair = _installed(item)[0]
                shown = serving.served(item.domains[0]) if pair else None
                if pair and shown == _der(pair):
                    proven[item.name] = pair
                elif pair and (shown is not None or self.outcomes[item.name].changed):
                    # Not loaded: changed just now, or by a run that was killed before it reloaded nginx.
                    stale.append(item)
        if stale and self.reload(stale):
            for item in stale:
                with self.kept(item.name):
                    pair = _installed(item)[0]
                    if pair:
                        serving.prove(item.domains, pair)
                        proven[item.name] = pair
        self.announce(proven)
        self.grow(proven)

    def reload(self, stale: Sequence[Certificate]) -> bool:
        """Reload nginx; where it refuses, what was installed before is put back."""
        try:
            serving.reload(self.run)
        except CertificateError as error:
            for item in stale:
                with self.kept(item.name):
                    self.put_back(item, str(error))
            # Refused by its test, nginx was not touched, and has nothing to load. Refused later, it may have half done.
            with contextlib.suppress(CertificateError):
                serving.reload(self.run)
            return False
        self.reloaded = True
        return True

    def put_back(self, item: Certificate, why: str) -> None:
        """Put the pair back that was installed before this run."""
        outcome, (pair, known) = self.outcomes[item.name], self.before[item.name]
        if not pair or _installed(item)[0] == pair:
            outcome.problems.append(why)
            return
        _store(item).install(pair)
        self.remember(item, source=known.source)
        outcome.changed = False
        outcome.notes.clear()
        outcome.problems.append(f"{why} The certificate from before is back in place.")

    def announce(self, proven: Mapping[str, Pair]) -> None:
        """Tell the programs that want to know of a new certificate. One that fails is told again by the next run."""
        for item in self.config.certificates:
            pair = proven.get(item.name)
            if not pair or self.recall(item).announced == pair.fingerprint:
                continue
            with self.kept(item.name):
                # One that fails keeps no other from being told.
                told = [self.hook(item, hook) for hook in _hooks(self.config.hooks)]
                if all(told):
                    self.remember(item, announced=pair.fingerprint)

    def hook(self, item: Certificate, hook: Path) -> bool:
        """Tell one program."""
        told = {
            "FLASKHOST_APP": item.name,
            "FLASKHOST_CERTIFICATE": str(item.certificate),
            "FLASKHOST_KEY": str(item.key),
        }
        code, out, err = self.run([str(hook)], env=told)
        if code:
            said = lineages.last_line(err) or lineages.last_line(out) or f"status {code}"
            self.outcomes[item.name].problems.append(
                f"{hook}, which wants to know of a new certificate, failed: {said}. The next run calls it again."
            )
        return code == 0

    def grow(self, proven: Mapping[str, Pair]) -> None:
        """Tell browsers of HTTPS, as long as a trusted certificate has been served for.

        Where nginx does not serve what is installed, nothing is known, and nothing changed: the ramp would start anew.
        """
        changed = []
        for item in self.config.certificates:
            pair = proven.get(item.name)
            if not pair:
                continue
            with self.kept(item.name):
                trusted = not pair.self_signed and serving.trusted(item.domains[0], self.config.root)
                since = self.recall(item).trusted_since
                since = (since or int(self.now)) if trusted else 0
                self.remember(item, trusted_since=since)
                value = hsts.value(item.hsts, since, self.now)
                if hsts.write(item.certificate.parent / "hsts.map", hsts.map_text(value)):
                    outcome = self.outcomes[item.name]
                    outcome.changed = True
                    outcome.notes.append(f"Strict-Transport-Security is {value or 'not sent'} from now on.")
                    changed.append(item)
        if changed:
            try:
                serving.reload(self.run)
                self.reloaded = True
            except CertificateError as error:
                for item in changed:
                    self.outcomes[item.name].problems.append(str(error))

    # --- Whether all is well -------------------------------------------------------------------------------------

    def check(self, item: Certificate, running: bool) -> None:
        """Say what is wrong with a certificate."""
        outcome, known = self.outcomes[item.name], self.recall(item)
        pair, trouble = _installed(item)
        if trouble or pair is None:
            missing = f"There is no certificate in {item.certificate.parent}."
            outcome.problems.append(f"{trouble or missing} Run site.yml, which puts one there.")
            return
        if item.mode == "acme" and known.source != "acme":
            outcome.problems.append(f"There is none of the authority's yet, and browsers warn. {_cure(item, known)}")
        if late := lateness(pair, self.now):
            outcome.problems.append(f"The certificate for {item.domains[0]} {late} {_cure(item, known)}")
        shown = serving.served(item.domains[0]) if running else _der(pair)
        if shown != _der(pair):
            what = "no certificate" if shown is None else "another certificate"
            outcome.problems.append(
                f"nginx serves {what} for {item.domains[0]}, not the one in {item.certificate.parent}. "
                "See 'sudo nginx -t' and 'sudo journalctl -u nginx', then run 'sudo flaskhost-certificates apply'."
            )
        elif not running:
            outcome.notes.append("nginx does not run.")


def lateness(pair: Pair, now: float) -> str:
    """Say that a certificate has expired or should have been renewed; empty where all is well.

    certbot renews at a third of the lifetime (from 10 days on), or at half of it. One that is older has a problem.
    One that the host signed itself is not renewed before its end.
    """
    left = pair.not_after - now
    if left <= 0:
        return f"expired on {_when(pair.not_after)}."
    third = pair.lifetime / 3 - (GRACE if pair.lifetime >= lineages.SHORT_LIVED else 0)
    if pair.self_signed or left >= third:
        return ""
    amount = f"{left / 86400:.0f} days" if left >= 2 * 86400 else f"{left / 3600:.0f} hours"
    return f"is good for {amount} only, until {_when(pair.not_after)}, and has not been renewed."


def _cure(item: Certificate, known: State) -> str:
    if item.mode == "acme":
        return known.error or "See 'sudo journalctl -u flaskhost-certificates-renew' for the reason."
    if known.source == "selfsigned":
        return "Run site.yml, which signs a new one."
    if known.source == "files":
        return f"Put a new one into {' and '.join(_variables(item))}, then run site.yml."
    return f"Whoever put it into {item.certificate.parent} has to renew it."


def serial(pair: Pair) -> str:
    """A serial number as ``openssl x509 -serial`` writes it."""
    text = f"{pair.serial:X}"
    return text.zfill(len(text) + len(text) % 2)


def _variables(item: Certificate) -> tuple[str, str]:
    """Where the operator has set the own certificate and its key."""
    return f"{item.variable}.tls.certificate", f"{item.variable}.tls.key"


def _store(item: Certificate) -> Store:
    return Store(item.certificate, item.key)


def _installed(item: Certificate) -> tuple[Pair | None, str]:
    """The installed pair, or why it cannot be used."""
    try:
        pair = _store(item).installed()
    except CertificateError as error:
        return None, str(error)
    if pair and not pair.fits:
        return None, f"The key in {item.certificate.parent} does not belong to the certificate."
    return pair, ""


def _der(pair: Pair) -> bytes:
    return pair.leaf.public_bytes(Encoding.DER)


def _hooks(folder: Path) -> list[Path]:
    """The programs in a folder, in order; what is hidden or an editor's copy is none."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and os.access(path, os.X_OK) and not path.name.startswith(".") and not path.name.endswith("~")
    )


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def defect(error: Exception) -> str:
    """Describe a failure that nobody has thought of; its own text may hold anything, and is not shown."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" ({Path(place.tb_frame.f_code.co_filename).name}, line {place.tb_lineno})" if place else ""
    return f"The program has a defect: {type(error).__name__}{where}. Please report it."
