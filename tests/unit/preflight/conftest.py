"""The fixture that the tests of preflight share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with sources of several kinds."""
    root = tmp_path_factory.mktemp("project")
    for name in (
        "sample_app/shop/__init__.py sample_app/shop/static/style.css sample_app/requirements.txt "
        "src_layout/src/inner/__init__.py src_layout/uv.lock "
        "mono/uv.lock mono/services/web/main.py "
        "bare/app.py bare/requirements/base.txt "
        "sample_app/vendor/wheels/flask-3.1.3-py3-none-any.whl sample_app/vendor/empty/README.md dist/shop-1.0.tar.gz"
    ).split():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("app = None\n\n\ndef create_app(config=None): ...\n" if name.endswith(".py") else "")
    (root / "archive.tar").mkdir()
    (root / "settings_only").mkdir()
    (root / "settings_only/app.py").write_text("app = None")
    (root / "settings_only/pyproject.toml").write_text("[tool.ruff]\n")
    (root / "declared").mkdir()
    (root / "declared/app.py").write_text("app = None")
    (root / "declared/pyproject.toml").write_text('[project]\ndependencies = ["flask"]\n')
    for name, lock, project in (
        ("poetry_without_lock", "", '[tool.poetry]\nname = "shop"\n[tool.poetry.dependencies]\nflask = "^3"\n'),
        ("pdm_without_lock", "", "[tool.pdm]\n"),
        ("old_poetry", "poetry.lock", "[tool.poetry]\n"),
        ("damaged_lock", "pdm.lock", ""),
        (
            "choices",
            "uv.lock",
            '[project]\nname = "shop"\n[project.optional-dependencies]\ndatabase = ["x"]\n'
            '[dependency-groups]\nprod = ["y"]\ndev = ["z"]\n',
        ),
    ):
        (root / name).mkdir()
        (root / name / "app.py").write_text("app = None")
        (root / name / "pyproject.toml").write_text(project)
        if lock:
            (root / name / lock).write_text('[metadata]\nlock-version = "2.0"\n')
    return root
