"""The files of a program as they are installed on a host, with the modules of the project that it imports.

Only for the control node. Each program gets its own copy of the shared modules, so that a run with ``--tags`` that
updates one program cannot break the other one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

#: The folder that contains ``flaskhost``, and the name under which Ansible, and so the programs, import it.
_SOURCE = Path(__file__).resolve().parents[2]
_NAME = "ansible.module_utils"
#: The text of the packages around the shared modules. Without a file in each of them, Python would prefer an Ansible
#: that is installed on the host.
_PACKAGE = '"""The modules that this program shares with the rest of Flaskhost. Managed by Ansible."""\n'


def program_texts(files: Path, program: str) -> dict[str, str]:
    """Return the texts of a program's files by their paths on the host.

    The shared modules and the launcher come first: a run that is killed in between leaves a program that works.

    Args:
        files: the folder with the program's launcher and its package.
        program: the name of the launcher. The package has the same name with underscores.
    """
    package = program.replace("-", "_")
    library = Path("/usr/local/lib/flaskhost") / package
    own = sorted((files / package).glob("*.py"))
    found = {str(library / "shared" / path): text for path, text in _shared(own).items()}
    found[f"/usr/local/sbin/{program}"] = (files / program).read_text(encoding="utf-8")
    return found | {str(library / path.name): path.read_text(encoding="utf-8") for path in own}


def _shared(own: list[Path]) -> dict[Path, str]:
    """Return the texts of the shared modules that some files import, directly or not, and of their packages."""
    modules: set[Path] = set()
    left = list(own)
    while left:
        for module in _imports(left.pop()):
            if module not in modules:
                modules.add(module)
                left.append(_SOURCE / module)
    top = Path(*_NAME.split("."))
    packages = {parent / "__init__.py" for module in modules for parent in (top / module).parents if parent.name}
    texts = dict.fromkeys(sorted(packages), _PACKAGE)
    return texts | {top / module: (_SOURCE / module).read_text(encoding="utf-8") for module in sorted(modules)}


def _imports(path: Path) -> Iterator[Path]:
    """Return the project's modules that a file imports, relative to the folder that contains ``flaskhost``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or "", *(f"{node.module}.{item.name}" for item in node.names)]
        elif isinstance(node, ast.Import):
            names = [item.name for item in node.names]
        else:
            continue
        for name in names:
            file = Path(*name.removeprefix(f"{_NAME}.").split(".")).with_suffix(".py")
            if name.startswith(f"{_NAME}.flaskhost.") and (_SOURCE / file).is_file():
                yield file
