"""Makes the project's own Python importable: module_utils by the name Ansible gives them, and what roles ship."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import ansible.module_utils
import pytest

ROOT = Path(__file__).resolve().parents[2]
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))
sys.path.insert(0, str(ROOT / "roles" / "certbot" / "files"))
sys.path.insert(0, str(ROOT / "roles" / "backup" / "files"))
sys.path.insert(0, str(ROOT / "roles" / "postgres" / "files"))
# pytest explains a failed assertion in files of tests; these are helpers beside them that assert as well.
pytest.register_assert_rewrite("nginx_config", "release_site")


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """Give each test the umask of a login. Some set another, as do the programs that they run."""
    before = os.umask(0o022)
    yield
    os.umask(before)
