"""What the unit tests run on: a host without systemd, owners that need no root, modules, and commands that are real.

Only what a unit test cannot have is made up here: systemd's bookkeeping of units, uv's downloads, and who owns a file.
git, tar, cp and the app's own commands are run for real, by a stand-in for ``AnsibleModule.run_command``; the simple
ones only in small where :attr:`FakeHost.quick` is set.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible.module_utils.flaskhost.host import output

#: The app's user: nobody on the machine that runs the tests.
USER, UID, GID = "shop", 4242, 4343
#: The account that builds for it.
BUILDER, BUILD_UID, BUILD_GID = "shop_build", 4252, 4353


class ModuleFailed(Exception):
    """``AnsibleModule.fail_json``, which ends the module."""


def run_command(
    args: Sequence[str],
    check_rc: bool = False,
    environ_update: dict[str, str] | None = None,
    expand_user_and_vars: bool = True,
    cwd: str | None = None,
) -> tuple[int, str, str]:
    """Run a command as ``AnsibleModule.run_command`` does, its habit of replacing $NAME in arguments included."""
    if expand_user_and_vars:
        args = [os.path.expanduser(os.path.expandvars(item)) for item in args]  # noqa: PTH111 - what Ansible does
    environment = {**os.environ, **(environ_update or {})}
    try:
        done = subprocess.run(args, capture_output=True, env=environment, cwd=cwd, check=False)
    except OSError as error:
        raise ModuleFailed(f"Error executing command: {error}") from error
    out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    if check_rc and done.returncode:
        raise ModuleFailed(f"{args}: {err}")
    return done.returncode, out, err


class Ended(Exception):
    """The end of a module, with its result."""


class FakeModule:
    """``AnsibleModule`` with the options of a test.

    Args:
        params: the options.
        check: whether it is check mode.
        run: what runs its commands.
    """

    def __init__(self, params: dict[str, Any], check: bool = False, run: Callable[..., Any] = run_command) -> None:
        self.params, self.check_mode, self.run_command = params, check, run
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def exit_json(self, **result: Any) -> None:
        raise Ended({**result, "warnings": self.warnings})

    def fail_json(self, **result: Any) -> None:
        raise Ended({"failed": True, **result, "warnings": self.warnings})


def run_module(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    run: Callable[..., Any] = run_command,
    /,
    check: bool = False,
    **given: Any,
) -> dict[str, Any]:
    """Run a module of the project with these options, and its defaults for the others.

    Returns:
        Its result, with its warnings.
    """
    defaults = {name: option.get("default") for name, option in module.ARGUMENT_SPEC.items()}
    fake = FakeModule({**defaults, **given}, check, run)
    monkeypatch.setattr(module, "AnsibleModule", lambda **_arguments: fake)
    with pytest.raises(Ended) as caught:
        module.main()
    return dict(caught.value.args[0])


class Unit(NamedTuple):
    """A command that ``systemd-run`` was asked to run.

    Attributes:
        command: what systemd executes, after it has replaced variables.
        properties: the unit's properties, those that may be given twice as lists.
        environment: the variables that the command finds.
    """

    command: list[str]
    properties: dict[str, list[str]]
    environment: dict[str, str]


def without_limit(args: Sequence[str]) -> list[str]:
    """Return a command without what limits its output; see :mod:`host.output`."""
    return list(args[len(output.LIMITED) :] if tuple(args[: len(output.LIMITED)]) == output.LIMITED else args)


def read_systemd_run(args: Sequence[str]) -> Unit:
    """Understand a ``systemd-run`` as systemd does."""
    split = list(args).index("--")
    properties: dict[str, list[str]] = {}
    environment: dict[str, str] = {"PATH": os.environ["PATH"]}
    for item in args[1:split]:
        if item.startswith("--property="):
            name, _, value = item.removeprefix("--property=").partition("=")
            properties.setdefault(name, []).append(value)
        elif item.startswith("--setenv="):
            name, _, value = item.removeprefix("--setenv=").partition("=")
            environment[name] = value
    for path in properties.get("EnvironmentFile", []):
        file = Path(path.removeprefix("-"))
        if file.exists() or not path.startswith("-"):
            environment |= load_environment_file(file.read_text(encoding="utf-8"))
    command = [word for item in args[split + 1 :] for word in _replace_variables(item, environment)]
    return Unit(command, properties, environment)


def _replace_variables(argument: str, environment: dict[str, str]) -> list[str]:
    """What becomes of an argument of ExecStart=: systemd.service(5), "Command lines"."""
    if re.fullmatch(r"\$[A-Za-z_]\w*", argument):
        return environment.get(argument[1:], "").split()
    pattern = re.compile(r"\$\$|\$\{(\w+)\}")
    return [pattern.sub(lambda found: environment.get(found[1], "") if found[1] else "$", argument)]


def load_environment_file(text: str) -> dict[str, str]:
    """Read an EnvironmentFile by the rules of systemd.exec(5), with systemd's own states (src/basic/env-file.c)."""
    result: dict[str, str] = {}
    characters = iter(text)
    for character in characters:
        if character in " \t\r\n":
            continue
        if character in "#;":
            _skip_comment(characters)
            continue
        key = character
        for item in characters:
            if item in "=\n\r":
                break
            key += item
        else:
            break
        if item == "=":
            result[key.rstrip(" \t")] = _read_value(characters)
    return result


def _skip_comment(characters: Iterator[str]) -> None:
    for character in characters:
        if character == "\\":
            next(characters, "")
        elif character in "\n\r":
            return


def _read_value(characters: Iterator[str]) -> str:
    # A quote is one only at the beginning, or after another one that has ended; spaces at both ends are nothing.
    value, kept, plain = "", 0, False
    for character in characters:
        if character in "\n\r":
            break
        if character in " \t" and not plain:
            continue
        if character in "'\"" and not plain:
            quoted = iter(lambda: next(characters, "'"), "'")
            value += _read_double_quoted(characters) if character == '"' else "".join(quoted)
        elif character == "\\":
            plain, escaped = True, next(characters, "")
            value += "" if escaped == "\n" else escaped
        else:
            plain = True
            value += character
        if character not in " \t":
            kept = len(value)
    return value[:kept]


def _read_double_quoted(characters: Iterator[str]) -> str:
    value = ""
    for character in characters:
        if character == '"':
            break
        if character != "\\":
            value += character
            continue
        escaped = next(characters, "")
        if escaped in '"\\`$':
            value += escaped
        elif escaped != "\n":
            value += "\\" + escaped
    return value


def fake_owners(monkeypatch: pytest.MonkeyPatch) -> dict[Path, tuple[int, int]]:
    """Let anybody give files away: owners are written down, not set, and the app's user exists.

    Returns:
        The owner and group of each path that was given away.
    """
    owners: dict[Path, tuple[int, int]] = {}
    real_stat, real_user, real_group = Path.stat, pwd.getpwnam, grp.getgrnam

    def chown(path: Any, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)  # fails where chown would
        path = Path(path) if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink() / path
        before = owners.get(path, (0, 0))
        owners[path] = (before[0] if uid == -1 else uid, before[1] if gid == -1 else gid)

    def fchown(descriptor: int, uid: int, gid: int) -> None:
        # A file that is put in place by a rename has its temporary name when it is given away.
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        owners[path.with_name(path.name.removeprefix(".").removesuffix(".partial"))] = (uid, gid)

    def path_stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        status, owner = real_stat(self, follow_symlinks=follow_symlinks), owners.get(self, (0, 0))
        if (status.st_uid, status.st_gid) == owner:
            return status
        kind, (values, more) = status.__reduce__()
        return kind((*values[:4], *owner, *values[6:]), more)

    def getpwnam(name: str) -> pwd.struct_passwd:
        numbers = {USER: (UID, GID), BUILDER: (BUILD_UID, BUILD_GID)}.get(name)
        return pwd.struct_passwd((name, "!", *numbers, "", "/nonexistent", "")) if numbers else real_user(name)

    def getgrnam(name: str) -> grp.struct_group:
        return grp.struct_group((USER, "!", GID, [])) if name == USER else real_group(name)

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(Path, "stat", path_stat)
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(grp, "getgrnam", getgrnam)
    return owners


class FakeHost:
    """A host with systemd and uv, as far as a deploy of one app can see them. To be given as ``run``.

    What goes wrong is written in the release's code, so that it is that release that fails and no other: a file
    ``fails-to-start``, ``fails-the-gate``, ``fails-behind-nginx`` or ``fails-as-worker``, a requirement
    ``no-such-package==1``.

    Args:
        root: the app's folder.
        unit: the units' name before the ``@``.
        units: the folder of unit files.
    """

    def __init__(self, root: Path, unit: str = "flask-shop", units: Path | None = None) -> None:
        self.root, self.unit, self.units = root, unit, units or root / "units"
        self.calls: list[list[str]] = []
        #: The release that each running slot has loaded, and each start and stop of a running slot, in order.
        self.running: dict[str, str] = {}
        self.history: list[str] = []
        self.enabled: set[str] = set()
        #: How often a slot was started, by hand or after a crash.
        self.starts: dict[str, int] = {}
        #: The release that each process beside the slots has loaded, and the timers that run.
        self.workers: dict[str, str] = {}
        self.timers: set[str] = set()
        #: Slots that do not answer although they run.
        self.mute: set[str] = set()
        #: Whether nginx has a listener for the gate.
        self.nginx = True
        #: What systemd and others say of a command that fails, by a word of it: ``{"daemon-reload": "no room"}``.
        self.refuses: dict[str, str] = {}
        #: At this call, counted from 1, the module is killed: amid or after what the command does.
        self.kill_at, self.kill_when = 0, "after"
        #: Whether simple commands are done here and not by a process of their own, hundreds of times faster.
        self.quick = False

    def __call__(self, args: Sequence[str], **options: Any) -> tuple[int, str, str]:
        """Run a command; see :func:`run_command` for the options."""
        self.calls.append(list(args))
        killed = len(self.calls) == self.kill_at
        result = self._run(list(args), amid=killed and self.kill_when == "amid", **options)
        if killed:
            raise KeyboardInterrupt
        return result

    def _run(self, args: list[str], amid: bool, **options: Any) -> tuple[int, str, str]:
        for word, says in self.refuses.items():
            if word in args:
                return 1, "", says
        if options.get("expand_user_and_vars", True):
            args = [os.path.expandvars(item) for item in args]
        if args[0] == "timeout":
            args = list(dropwhile(lambda item: item == "timeout" or item.startswith("--") or item.isdigit(), args))
        if args[0] == "prlimit" and self.quick:
            args = list(dropwhile(lambda item: item == "prlimit" or item.startswith("--"), args))
        if answer := self._systemd(args):
            return answer
        if args[1] == "-c" and "sys.version_info" in args[2]:
            return 0, "(3, 11) linux-x86_64\n", ""
        if args[0] == "systemd-run":
            unit = read_systemd_run(args)
            if Path(unit.command[0]).name == "uv":
                return _uv(unit, amid)
            args = unit.command
            options = {"cwd": unit.properties["WorkingDirectory"][0], "environ_update": unit.environment}
        options["expand_user_and_vars"] = False
        if self.quick and _do(args, options.get("environ_update") or {}):
            return 0, "", ""
        return run_command(args, **options)

    def _systemd(self, args: list[str]) -> tuple[int, str, str] | None:
        if args[0] == "systemd-analyze":
            return (1, "", "Failed to parse") if args[-1] == "someday" else (0, "", "")
        if "journalctl" in args:
            return 0, f"a line of the journal of {args[-1]}\n", ""
        if args[0] != "systemctl":
            return None
        verb, *units = (item for item in args[1:] if not item.startswith("--"))
        if verb in ("show", "list-units"):
            return 0, self._show(units) if verb == "show" else self._list(units), ""
        return self._systemctl(verb, *units), "", ""

    def _systemctl(self, verb: str, *units: str) -> int:
        slots = [
            name.partition("@")[2].removesuffix(".service")
            for name in units
            if name.endswith(".service") and name.startswith(f"{self.unit}@")
        ]
        slot = slots[0] if slots else ""
        if units and not slot:
            return self._others(verb, list(units))
        if verb == "is-active":
            return 0 if slot in self.running else 3
        if verb == "is-enabled":
            return 0 if slot in self.enabled else 1
        if verb == "enable":
            self.enabled.add(slot)
        elif verb == "disable":
            self.enabled.discard(slot)
        elif verb == "stop":
            self.socket(slot).unlink(missing_ok=True)
            if self.running.pop(slot, ""):
                self.history.append(f"stop {slot}")
        elif verb == "start" and slot not in self.running:
            release = (self.root / "slots" / slot).resolve()
            if not (release / "env").exists() or (release / "app/fails-to-start").exists():
                return 1
            self.running[slot] = release.name
            # As systemd does, which makes it with the socket's unit, and not anew where its service runs.
            self.socket(slot).parent.mkdir(exist_ok=True)
            self.socket(slot).touch()
            self.starts[slot] = self.starts.get(slot, 0) + 1
            self.history.append(f"start {slot}")
        return 0

    def _others(self, verb: str, units: list[str]) -> int:
        """Do something to the processes and timers of the app."""
        for unit in units:
            file = self.units / (unit if unit.endswith(".timer") else re.sub("@.*", "@.service", unit))
            link = self.units / "all.wants" / unit
            if verb == "enable":
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(file)
            elif verb == "disable":
                link.unlink(missing_ok=True)
            elif verb == "stop":
                for name in [name for name in (*self.workers, *self.timers) if fnmatch(name, unit)]:
                    self.workers.pop(name, None)
                    self.timers.discard(name)
            elif verb == "restart":
                file.read_text(encoding="utf-8")
                if unit.endswith(".timer"):
                    self.timers.add(unit)
                else:
                    self.workers[unit] = (self.root / "current").resolve().name
        return 0

    def _lame(self, unit: str) -> bool:
        return (self.root / "releases" / self.workers.get(unit, "") / "app/fails-as-worker").exists()

    def _show(self, units: list[str]) -> str:
        blocks = []
        for unit in units:
            slot = unit.partition("@")[2].removesuffix(".service")
            running = self._lame(unit) is False and (unit in self.workers or unit in self.timers)
            lines = {
                "Id": unit,
                "ActiveState": "active" if running else "inactive",
                "UnitFileState": "enabled" if (self.units / "all.wants" / unit).is_symlink() else "disabled",
                "NRestarts": "0",
                "InvocationID": f"run-{self.starts.get(slot, 0)}",
                "Result": "success",
            }
            blocks.append("".join(f"{name}={value}\n" for name, value in lines.items()))
        return "\n".join(blocks)

    def _list(self, patterns: list[str]) -> str:
        names = [*self.workers, *self.timers]
        shown = [name for name in names if any(fnmatch(name, pattern) for pattern in patterns)]
        return "".join(f"{name} loaded active running What it is\n" for name in shown)

    def reboot(self) -> None:
        """Stop everything, and start what is enabled."""
        self.running.clear()
        self.workers.clear()
        for slot in sorted(self.enabled):
            self._systemctl("start", f"{self.unit}@{slot}.service")
        for link in self.units.glob("*.wants/*.service"):
            self._others("restart", [link.name])

    def crash(self, slot: str) -> None:
        """Let a slot end by itself; systemd starts it again."""
        self.starts[slot] += 1

    def probe(self, path: str, url: str, host: str, timeout: float = 5.0) -> tuple[int, str]:
        """Answer for a slot, in the place of ``slots.probe``."""
        nginx = not path.startswith("/")
        slot = (self.root / "gate.sock").readlink().stem if nginx else Path(path).stem
        if slot not in self.running or slot in self.mute:
            return (502, "Bad Gateway") if nginx else (0, "FileNotFoundError: no socket")
        app = self.root / "releases" / self.running[slot] / "app"
        if (app / "fails-the-gate").exists() or (nginx and (app / "fails-behind-nginx").exists()):
            return 500, f"{url} of {host} does not work"
        return 200, "ok"

    def socket(self, slot: str) -> Path:
        """Where a slot that runs has its socket."""
        return self.root.parents[1] / "run" / f"{slot}.sock"

    def served(self) -> str:
        """The release that a visitor reaches; empty when nobody answers."""
        link = self.root / "live.sock"
        return self.running.get(link.readlink().stem, "") if link.exists() else ""


def _do(command: list[str], environment: dict[str, str]) -> bool:
    """Do what one of a release's simple commands does; tell whether it is one of them."""
    name, last = command[0], Path(command[-1])
    if name == "/bin/sh":
        touched = re.fullmatch(r"touch \$HOME/(\w+)", command[-1])
        if touched:
            (Path(environment["HOME"]) / touched[1]).touch()
        return bool(touched)
    if name == "tar":
        with tarfile.open(last.as_posix().removeprefix("--file=")) as archive:
            archive.extractall(command[-2].removeprefix("--directory="))  # noqa: S202 - our own; 3.11.2 has no filter
    elif name == "rm" and last.exists():
        shutil.rmtree(last)
    elif name == "mkdir":
        last.mkdir(parents=True, exist_ok=True)
    elif name == "cp":
        shutil.copytree(command[-2], last, dirs_exist_ok=True)
    elif name == "mv":
        Path(command[-2]).rename(last)
    return name in ("tar", "rm", "mkdir", "cp", "mv")


class Killer:
    """Kills the module before the nth change that it makes to the disk; 0 only counts them.

    After the last one come the commands, which :attr:`FakeHost.kill_at` sees to.

    Args:
        number: the change.
        but: a file of code, by its name, whose changes do not count.
    """

    CHANGES = ("chmod", "link", "mkdir", "remove", "rename", "replace", "rmdir", "symlink", "unlink")

    def __init__(self, number: int = 0, but: str = "") -> None:
        self.number, self.but, self.count, self.last = number, but, 0, ""

    def __enter__(self) -> Killer:
        self.real = {name: getattr(os, name) for name in self.CHANGES}
        for name, function in self.real.items():
            setattr(os, name, self._watched(name, function))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self.real.items():
            setattr(os, name, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.but and _called_by(self.but):
                return function(*arguments, **options)
            self.count, self.last = self.count + 1, f"{name} {arguments[0]}"
            if self.count == self.number:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call


def _called_by(file: str) -> bool:
    frame = sys._getframe(2)
    while frame.f_back and not frame.f_code.co_filename.endswith(f"/{file}"):
        frame = frame.f_back
    return bool(frame.f_back)


def _uv(unit: Unit, amid: bool) -> tuple[int, str, str]:
    """Do what uv would, in small: folders of packages by their names, and nothing in them."""
    arguments = unit.command[1:]
    if arguments[0] == "venv":
        target = Path(arguments[-1])
        (target / "lib/python3.11/site-packages").mkdir(parents=True, exist_ok=True)
        (target / "pyvenv.cfg").write_text("home = /usr/bin\n", encoding="utf-8")
        return 0, "", ""
    packages = Path(arguments[arguments.index("--python") + 1]) / "lib/python3.11/site-packages"
    rest = arguments[arguments.index("--python") + 2 :]
    wanted = Path(rest[1]).read_text(encoding="utf-8").split() if rest[0] == "-r" else rest
    if missing := [item for item in wanted if item.startswith("no-such-package")]:
        return 1, "", f"  x No solution found when resolving dependencies:\n  `-> Because {missing[0]} was not found\n"
    for item in wanted[: len(wanted) // 2] if amid else wanted:
        (packages / f"{item.replace('==', '-')}.dist-info").mkdir(exist_ok=True)
    return 0, "", ""


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything about a folder that a run could change: names, modes, times, contents, the targets of links."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = os.lstat(path)  # not by way of the made-up owners
        content: Any = ""
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


def nest(folder: Path, levels: int = 3000) -> None:
    """Folders in each other, deeper than a path can be long."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for _level in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def unsandboxed(calls: list[Unit]) -> Callable[..., tuple[int, str, str]]:
    """A ``run`` that executes what ``systemd-run`` is asked for as the present user, and writes it down."""

    def run(args: Sequence[str], **options: Any) -> tuple[int, str, str]:
        if args[0] != "systemd-run":
            return run_command(args, **options)
        unit = read_systemd_run(args)
        calls.append(unit)
        directory = unit.properties["WorkingDirectory"][0]
        return run_command(unit.command, environ_update=unit.environment, cwd=directory, expand_user_and_vars=False)

    return run
