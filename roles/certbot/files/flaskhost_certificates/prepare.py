"""The verb ``prepare``: install a usable pair for each site before nginx starts, without contacting a CA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flaskhost_certificates import authority, hsts, lineages, pairs
from flaskhost_certificates.config import Certificate, CertificateError, Config
from flaskhost_certificates.lineages import Run
from flaskhost_certificates.pairs import Pair
from flaskhost_certificates.result import Result
from flaskhost_certificates.work import Work, installed, store_of, variables


def prepare(config: Config, run: Run, own: Mapping[str, Mapping[str, str]], now: float, *, dry: bool = False) -> Result:
    """Install a usable pair at each final path, before nginx starts. No CA is contacted.

    Args:
        config: the configuration.
        run: runs a command.
        own: the sites' own certificates by site, each a mapping with the PEMs ``certificate`` and ``key``.
        now: seconds since 1970.
        dry: report what would be done, and change nothing.

    Raises:
        CertificateError: a site's own certificate cannot be used. The error names it and the reason. Nothing was
            changed at all.
    """
    work = Work(config, run, now, dry)
    given = _own_pairs(config, own, now)
    made = _make_folders(config, dry)
    for item in config.certificates:
        with work.failures_of(item.name):
            _prepare(work, item, given.get(item.name))
    return replace(work.result(), made=made)


def _make_folders(config: Config, dry: bool) -> list[str]:
    """Create the folders that others read: nginx, the hooks, and certbot, whose sandbox lets it create none."""
    challenges = config.webroot / ".well-known" / "acme-challenge"
    made: list[str] = []
    for folder in (challenges, config.letsencrypt, config.hooks):
        missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
        for path in reversed(missing):
            made.append(str(path))
            if not dry:
                path.mkdir(exist_ok=True)
                # The program's umask is meant for its own files only.
                path.chmod(0o755)
    return made


def _own_pairs(config: Config, own: Mapping[str, Mapping[str, str]], now: float) -> dict[str, Pair]:
    """Check all own certificates before any of them is installed."""
    found: dict[str, Pair] = {}
    wrong: list[str] = []
    for item in config.certificates:
        if item.mode != "files" or item.name not in own:
            continue
        names = variables(item)
        what = " and ".join(names)
        try:
            pair = pairs.parse(own[item.name]["certificate"], own[item.name]["key"], names)
            wrong += [f"{what}: {problem}" for problem in pairs.problems(pair, item.domains, now)]
            found[item.name] = pair
        except CertificateError as error:
            wrong.append(str(error))
        except (KeyError, TypeError, AttributeError):
            wrong.append(f"{what} are both required, in PEM format.")
    if wrong:
        raise CertificateError(" ".join(wrong), "Nothing was changed on this host.")
    return found


def _prepare(work: Work, item: Certificate, given: Pair | None) -> None:
    """Install a usable pair for one site."""
    outcome = work.outcomes[item.name]
    present, trouble = installed(item)
    if trouble:
        outcome.notes.append(f"{trouble} It is kept next to the new one.")
    lineage = lineages.find(work.config, item.lineage) if item.mode == "acme" else None
    if given:
        work.install(item, given, "files", "Your own certificate is installed.")
        # This host need not trust a private CA. With a public CA, a problem means that an intermediate is missing.
        roots = pairs.trusted_roots(work.config.root)
        outcome.notes += pairs.problems(given, item.domains, work.now, roots)
    elif item.mode == "files" and not (present and work.recall(item).source == "files"):
        what = " and ".join(variables(item))
        outcome.problems.append(f"{what} were not passed to the host. Run site.yml again, which passes them.")
        _self_sign_if(work, item, present is None)
    elif lineage and lineage.pair and not pairs.problems(lineage.pair, item.domains, work.now):
        work.install(item, lineage.pair, "acme", "The CA's certificate, which certbot already had, is installed.")
        work.remember(item, asked=work.recall(item).asked or item.domains)
    elif item.mode != "files":
        _self_sign_if(work, item, not _keep(work, item, present))
    if item.mode == "acme" and not work.dry:
        work.once("bundle", lambda: authority.ca_bundle(work.config))
    # nginx reads this file when it starts. If it came later, nginx would have to be reloaded.
    path = item.certificate.parent / "hsts.map"
    if not work.dry and not path.exists():
        hsts.write(path, hsts.map_text(""))


def _self_sign_if(work: Work, item: Certificate, needed: bool) -> None:
    """Install a self-signed certificate, if one is needed."""
    if needed and work.dry:
        work.outcomes[item.name].changed = True
        work.outcomes[item.name].notes.append("This host would create a self-signed certificate.")
    elif needed:
        note = "This host has created a self-signed certificate, which browsers do not trust."
        work.install(item, pairs.sign(item.domains, work.now), "selfsigned", note)


def _keep(work: Work, item: Certificate, present: Pair | None) -> bool:
    """Decide whether the installed pair stays; if it does, record its source.

    Args:
        work: the run.
        item: the certificate.
        present: the installed pair.
    """
    known = work.recall(item).source
    if present is None:
        return False
    if present.self_signed and known != "files":
        # An earlier release of the role signed some without recording their source.
        usable = not pairs.problems(present, item.domains, work.now)
        if usable:
            work.remember(item, source="selfsigned")
        return usable
    if item.mode == "acme":
        # A pair that lacks a new name still serves the others, until the CA's next certificate replaces it.
        usable = not pairs.problems(present, [], work.now) and bool(
            lineages.normal(item.domains) - set(pairs.covers(present.names, sorted(lineages.normal(item.domains))))
        )
    else:
        ours = known in ("acme", "files") and bool(store_of(item).current())
        usable = not ours and not pairs.problems(present, item.domains, work.now)
    source = known if known in ("acme", "files") and store_of(item).current() else "foreign"
    if usable:
        work.remember(item, source=source)
        if source == "foreign":
            work.outcomes[item.name].notes.append(
                f"The certificate in {item.certificate.parent} was installed by hand and is left unchanged."
            )
    return usable
