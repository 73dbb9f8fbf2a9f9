#!/usr/bin/env python3
"""Mutate the code and check whether a unit test fails: how much of the code's behavior the tests verify.

    make mutants                                      a sample with a fixed seed
    python3 scripts/mutants.py --path roles/backup    only in this folder
    python3 scripts/mutants.py --seed 7 --count 300   another, larger sample

A mutant has one changed place: a comparison reversed, `and` for `or`, a number increased by one, a call removed, a
return without its value. It is killed if a unit test fails or never ends. The tests that run are those whose files
import the module, or a module that imports it, nearest first, up to a minute of tests. First, all of them run without a
mutant: a test that is red anyway kills nothing, and the times of the others say which fit into the minute, and when a
mutant hangs. A run of tests that exceeds its time limit, or dies, is repeated without the mutant. Only if that ends in
time, the mutant was the cause and counts as killed; otherwise the machine is too busy, and a longer limit follows. Each
worker has a copy of the files in git, so that you can edit the working tree meanwhile. Equivalent mutants are listed in
tests/mutants_equal.txt, and are skipped.

Each result is saved in .cache/mutants.jsonl. If a run is killed, the next one continues, unless a file in git changed.

Why not mutmut or cosmic-ray: mutmut has to import the code as a package and rewrites every function, which our tests of
the sources would detect. cosmic-ray runs the whole suite, six minutes, for each mutant.
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT, Problem, guarded, note, run, say

#: The packages to mutate: the project's code. Each becomes a line of the result.
PACKAGES = ("plugins/module_utils", "plugins/modules", "plugins", "roles/backup/files", "roles/certbot/files",
            "roles/postgres/files")  # fmt: skip
#: Equivalent mutants: ``path``, the old code, and the new code, separated by tabs. Lines with # say why.
EQUAL = ROOT / "tests" / "mutants_equal.txt"
#: Required percentage of killed mutants: in total, and for each package.
GOAL, LEAST = 90, 80
#: Seconds of tests that judge one mutant, and, on a busy machine, the share of the seconds of all tests. The whole
#: suite would take minutes for each survivor.
BUDGET, SHARE = 60, 1 / 8
#: The nearest test files, which run first, because starting all of them takes longer.
NEAREST = 3
#: The exit codes of pytest that a mutant can cause: a test failed, a file or a conftest.py could not be loaded.
RED = {1, 2, 4}
#: How often a time limit is doubled if the tests exceed it without a mutant, too.
DOUBLINGS = 2
#: The results of a run that has not ended.
JOURNAL = ROOT / ".cache" / "mutants.jsonl"
#: Minimum number of mutants for each package.
FEWEST = 12

_TURNED: dict[type[ast.AST], Any] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One changed place.

    Attributes:
        path: the file, relative to the project's root.
        line: its line number, from 1.
        start: its first byte in the file.
        end: the byte after its last one.
        old: the old code.
        new: the new code.
    """

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str

    @property
    def key(self) -> str:
        """Its name in tests/mutants_equal.txt, which does not depend on other changes in the file."""
        return "\t".join([self.path, *(" ".join(text.split()) for text in (self.old, self.new))])

    def applied(self, source: bytes) -> bytes:
        """Return the file with the mutant."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants_of(path: str, source: str) -> Iterator[Mutant]:
    """Yield all mutants of a file, in the order of the source.

    Args:
        path: the file, relative to the project's root.
        source: its text.
    """
    data, starts = source.encode(), [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _nodes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        old = data[start:end].decode()
        for new in _changes(node):
            yield Mutant(path, node.lineno, start, end, old, new)


def _nodes(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Yield the nodes that can be changed. Without types, and without parts of f-strings, whose position is unknown."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.JoinedStr | ast.arguments):
            continue
        if isinstance(child, ast.AnnAssign):
            if child.value:
                yield from _nodes(child)
            continue
        if isinstance(child, ast.expr | ast.stmt):
            yield child
        yield from _nodes(child)


def _changes(node: ast.expr | ast.stmt) -> Iterator[str]:
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in _TURNED:
        new.ops[0] = _TURNED[type(new.ops[0])]()
        yield f"({ast.unparse(new)})"
    elif isinstance(new, ast.BoolOp | ast.BinOp) and type(new.op) in _TURNED and not _is_of_texts(new):
        new.op = _TURNED[type(new.op)]()
        yield f"({ast.unparse(new)})"
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.Not):
        yield f"({ast.unparse(new.operand)})"
    elif isinstance(new, ast.Constant) and isinstance(new.value, bool | int):
        yield str(not new.value if isinstance(new.value, bool) else new.value + 1)
    elif (
        isinstance(new, ast.Return) and new.value and not (isinstance(new.value, ast.Constant) and not new.value.value)
    ):
        yield "return None"
    elif isinstance(new, ast.Expr) and isinstance(new.value, ast.Call):
        yield "pass"
    elif isinstance(new, ast.IfExp):
        new.body, new.orelse = new.orelse, new.body
        yield f"({ast.unparse(new)})"


def _is_of_texts(node: ast.BoolOp | ast.BinOp) -> bool:
    """Check whether an expression joins strings, where another operator would be an error in any case."""
    sides = [node.left, node.right] if isinstance(node, ast.BinOp) else []
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )


def package_of(path: str) -> str:
    """Return the package of a file; empty if the file is not mutated."""
    return next((name for name in PACKAGES if path.startswith(f"{name}/")), "")


def sample(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw mutants: for each package its share, but at least a minimum number."""
    chance, drawn = random.Random(seed), []  # noqa: S311 - no secret
    for package in PACKAGES:
        own = [item for item in found if package_of(item.path) == package]
        share = max(round(count * len(own) / max(len(found), 1)), FEWEST)
        drawn += chance.sample(own, min(share, len(own)))
    return drawn


class Tests:
    """Finds the test files for a module.

    Args:
        files: the project's files, relative to its root.
    """

    def __init__(self, files: Sequence[str]) -> None:
        texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in files if name.endswith(".py")}
        self.tests = [name for name in texts if re.fullmatch(r"tests/unit/\w+/test_\w+\.py", name)]
        helpers = [name for name in texts if name.startswith(("tests/unit/", "scripts/"))]
        modules = [name for name in texts if package_of(name)] + helpers
        named = {name: _names_modules(text) for name, text in texts.items()}
        self.importers = {name: [other for other in texts if _name_of(name) in named[other]] for name in modules}

    def of(self, path: str) -> list[str]:
        """Return the test files, nearest first: those in the folder of the module's package, then by imports."""
        found, layer, seen = [], [path], {path}
        while layer:
            layer = [item for name in layer for item in self.importers.get(name, []) if item not in seen]
            layer = list(dict.fromkeys(layer))
            seen.update(layer)
            found += [name for name in layer if name in self.tests]
        folder = f"tests/unit/{_package_folder(path)}/"
        found.sort(key=lambda name: (not name.startswith(folder), Path(path).stem not in name))
        # This test file loads every module.
        return found or (["tests/unit/project/test_module_contracts.py"] if path.startswith("plugins/modules/") else [])


def _name_of(path: str) -> str:
    """Return the name by which a file is imported."""
    return Path(path).parent.name if Path(path).name == "__init__.py" else Path(path).stem


def _package_folder(path: str) -> str:
    """Return the folder of tests/unit that mirrors a file's package."""
    parts = path.split("/")
    if path.startswith("plugins/module_utils/flaskhost/"):
        return parts[3]
    return {"certbot": "certificates"}.get(parts[1], parts[1]) if parts[0] == "roles" else ""


def _names_modules(text: str) -> set[str]:
    """Return the words of a text that can name a module: in an import, or before ``.py``, as some tests load files."""
    lines = re.findall(r"(?m)^\s*(?:from|import)\b.*|^    \w+,$", text)
    return set(re.findall(r"\w+", " ".join(lines))) | set(re.findall(r"\b(\w+)\.py\b", text))


def command(python: str, *words: str) -> list[str]:
    """Return the command that runs tests."""
    return [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]


def measured(copied: Path, tests: Sequence[str], python: str, workers: int) -> tuple[dict[str, float], set[str]]:
    """Run tests without a mutant.

    Returns:
        The seconds of each green file, and the red files. A file without any test is red, because it judges nothing.
    """
    report = copied / "report.xml"
    several = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    subprocess.run(
        command(python, *several, "--continue-on-collection-errors", f"--junitxml={report}", *tests), cwd=copied,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
    )  # fmt: skip
    seconds: dict[str, float] = {}
    red: set[str] = set()
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest's own
        place = f"{case.get('classname') or case.get('name') or ''}.".replace(".", "/")
        name = next((test for test in tests if place.startswith(f"{test.removesuffix('.py')}/")), "")
        seconds[name] = seconds.get(name, 0) + float(case.get("time") or 0)
        if case.find("failure") is not None or case.find("error") is not None:
            red.add(name)
    report.unlink()
    red |= {test for test in tests if test not in seconds}
    return {name: took for name, took in seconds.items() if name in tests and name not in red}, red & {*tests}


def within(tests: Sequence[str], seconds: Mapping[str, float], budget: float = 0) -> list[str]:
    """Return the nearest tests that fit into the budget. The very nearest judge whatever they take."""
    chosen: list[str] = []
    budget = budget or max(BUDGET, SHARE * sum(seconds.values()))
    for test in tests:
        if test in seconds and (not chosen or seconds[test] <= budget):
            chosen.append(test)
            budget -= seconds[test]
    return chosen


def judge(mutant: Mutant, copied: Path, tests: Sequence[str], python: str, limit: float) -> str:
    """Run the tests with a mutant.

    Returns:
        ``killed``: a test failed. ``hung``: the tests did not end, or died, and did end without the mutant in half the
        time. ``alive``: all tests passed. ``unknown``: they do not end in time without the mutant either.
    """
    target = copied / mutant.path
    source = target.read_bytes()
    for _doubling in range(DOUBLINGS + 1):
        target.write_bytes(mutant.applied(source))
        try:
            code = _exit_code(copied, tests, python, limit)
        finally:
            target.write_bytes(source)
        if code == 0 or code in RED:
            return "killed" if code else "alive"
        if _exit_code(copied, tests, python, limit / 2) == 0:  # half: other load on the machine comes and goes
            return "hung"
        limit *= 2
    return "unknown"


def _exit_code(copied: Path, tests: Sequence[str], python: str, limit: float) -> int | None:
    """Run tests, nearest first. Return pytest's first exit code that is not 0, or None if the limit was exceeded."""
    ends = time.monotonic() + limit
    for part in filter(None, (tests[:NEAREST], tests[NEAREST:])):
        code = _exit_code_of(copied, part, python, max(ends - time.monotonic(), 1))
        if code != 0:
            return code
    return 0


def _exit_code_of(copied: Path, tests: Sequence[str], python: str, limit: float) -> int | None:
    try:
        return subprocess.run(
            command(python, "-x", *tests),
            cwd=copied, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, timeout=limit, check=False,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        return None


class Journal:
    """Saves the results of a run, so that a killed run can continue.

    Args:
        path: the journal, one JSON value per line. Results for other files are deleted.
        state: a digest of the files.
    """

    def __init__(self, path: Path, state: str) -> None:
        self.path = path
        self.entries: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:  # the run was killed in the middle of a line
                continue
            self.entries[entry["name"]] = entry["value"]
        if self.entries.get("state") != state:
            self.entries = {}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")
            self.save("state", state)

    def save(self, name: str, value: Any) -> None:
        """Append one value."""
        self.entries[name] = value
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * bool(file.tell()) + json.dumps({"name": name, "value": value}))

    @staticmethod
    def name(mutant: Mutant) -> str:
        """Return the name of a mutant's result."""
        return f"{mutant.path}:{mutant.start}:{mutant.end}:{mutant.new}"


def state_of(files: Sequence[str], root: Path = ROOT) -> str:
    """Return a digest of the files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file}\0{hashlib.sha256((root / file).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def copy_to(copied: Path, files: Sequence[str]) -> None:
    """Copy the files in git to a folder."""
    for file in files:
        (copied / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copied / file, follow_symlinks=False)


def work(
    queue: list[tuple[Mutant, list[str]]],
    files: Sequence[str],
    seconds: Mapping[str, float],
    journal: Journal,
    results: dict[Mutant, str],
) -> None:
    """Test mutants from the queue in a copy of the project until the queue is empty."""
    with tempfile.TemporaryDirectory(prefix="flaskhost-mutants-") as name:
        copied = Path(name)
        copy_to(copied, files)
        while queue:
            mutant, tests = queue.pop()
            limit = 60 + 5 * sum(seconds[test] for test in tests)
            result = judge(mutant, copied, tests, sys.executable, limit) if tests else "alive"
            results[mutant] = result
            journal.save(journal.name(mutant), result)
            _show(mutant, result)


def _show(mutant: Mutant, result: str) -> None:
    """Print a mutant that no test killed."""
    if result in ("alive", "unknown"):
        why = " (not judged: the machine is too busy)" if result == "unknown" else ""
        note(f"{mutant.path}:{mutant.line}: {mutant.key.split(chr(9), 1)[1].replace(chr(9), '  ->  ')}{why}")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--count", type=int, default=120, help="how many mutants")
    parser.add_argument("--path", default="", help="only files whose path begins with this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many at a time")
    return parser.parse_args()


def main() -> int:
    """Draw mutants, test them, and report the result."""
    options = arguments()
    files = [name for name in run("git", "-C", ROOT, "ls-files").splitlines() if (ROOT / name).is_file()]
    equal = set(EQUAL.read_text(encoding="utf-8").splitlines()) if EQUAL.exists() else set()
    found = [
        mutant
        for name in files
        if name.endswith(".py") and package_of(name) and name.startswith(options.path)
        for mutant in mutants_of(name, (ROOT / name).read_text(encoding="utf-8"))
        if mutant.key not in equal
    ]
    drawn = sample(found, options.count, options.seed)
    if not drawn:
        raise Problem(f"Nothing below {options.path} can be mutated.", f"Packages: {', '.join(PACKAGES)}")
    tests, began = Tests(files), time.monotonic()
    judges = {mutant: tests.of(mutant.path) for mutant in drawn}
    every = list(dict.fromkeys(test for found in judges.values() for test in found))
    journal = Journal(JOURNAL, state_of(files))
    seconds, red = _baseline(journal, every, files, options.workers)
    for test in sorted(red):
        note(f"red without a mutant, so it judges nothing: {test}")
    known = {mutant: journal.entries[name] for mutant in drawn if (name := journal.name(mutant)) in journal.entries}
    results = {mutant: result for mutant, result in known.items() if result != "unknown"}
    if results:
        note(f"{len(results)} results of a run that did not end are reused")
    say(f"{len(drawn)} of {len(found)} mutants, seed {options.seed}; those that no test kills:")
    for mutant, result in results.items():
        _show(mutant, result)
    queue = [(mutant, within(judges[mutant], seconds)) for mutant in reversed(drawn) if mutant not in results]
    workers = [
        threading.Thread(target=work, args=(queue, files, seconds, journal, results))
        for _number in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if len(results) < len(drawn):
        raise Problem(f"{len(drawn) - len(results)} mutants were not judged: a worker failed.", "Run it again.")
    JOURNAL.unlink()
    bad = _tell(drawn, results) or bool(red)
    say(f"{(time.monotonic() - began) / 60:.0f} minutes")
    return 1 if bad else 0


def _baseline(
    journal: Journal, tests: Sequence[str], files: Sequence[str], workers: int
) -> tuple[dict[str, float], set[str]]:
    """Return the seconds of each green test file, and the red files, from the journal or from a run of all tests."""
    seconds, red = dict(journal.entries.get("seconds", {})), set(journal.entries.get("red", []))
    missing = [test for test in tests if test not in seconds and test not in red]
    if missing:
        say(f"Running {len(missing)} test files without a mutant")
        with tempfile.TemporaryDirectory(prefix="flaskhost-mutants-") as name:
            copy_to(Path(name), files)
            more, also = measured(Path(name), missing, sys.executable, workers)
        seconds, red = {**seconds, **more}, red | also
        journal.save("seconds", seconds)
        journal.save("red", sorted(red))
    return seconds, red & {*tests}


def _tell(drawn: Sequence[Mutant], results: Mapping[Mutant, str]) -> bool:
    """Print the percentage of each package. Return whether one is too low."""
    bad = False
    for package in (*PACKAGES, ""):
        own = [item for item in drawn if not package or package_of(item.path) == package]
        if not own:
            continue
        hung = sum(results[item] == "hung" for item in own)
        killed = hung + sum(results[item] == "killed" for item in own)
        share = 100 * killed / len(own)
        bad |= share < (LEAST if package else GOAL)
        hanging = f", {hung} of them hung" if hung else ""
        say(f"{package or 'all':24} {killed:4} of {len(own):4} killed, {share:3.0f} %{hanging}")
    return bad


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    guarded(main)
