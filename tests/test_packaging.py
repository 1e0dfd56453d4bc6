"""The wheel: `nas` and nothing else lands in site-packages, whole, and imports from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("nas", "strategies", "oneshot", "model_zoo", "evaluators")
PACKAGES = ("nas", "nas.strategies", "nas.oneshot", "nas.model_zoo", "nas.evaluators")


def run_python(*arguments: str, cwd: Path, **environment: str) -> str:
    """Runs this interpreter and returns what it printed; a failure shows all of its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_on_disk() -> list[str]:
    """Every file of the package, as the wheel should name it."""
    names = []
    for folder in FOLDERS:
        prefix = "nas" if folder == "nas" else f"nas/{folder}"
        for parent, folders, files in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            inner = Path(parent).relative_to(ROOT / folder)
            names += [(prefix / inner / name).as_posix() for name in files]
    return sorted(names)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network from a copy, where no leftover of an earlier build can slip in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out))
    run_python("-m", "pip", "wheel", *options, str(source), cwd=source)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_nas_alone_and_whole(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    code = sorted(name for name in names if ".dist-info/" not in name)
    assert {name.split("/")[0] for name in code} == {"nas"}
    assert code == files_on_disk()


def test_wheel_imports_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ("--no-deps", "--no-index", "--target", str(site))
    run_python("-m", "pip", "install", *options, str(wheel), cwd=elsewhere)
    probe = f"import {', '.join(PACKAGES)}\nfor module in ({', '.join(PACKAGES)}): print(module.__file__)"
    printed = run_python("-c", probe, cwd=elsewhere, PYTHONPATH=str(site))
    assert printed.split("\n")[:-1] == [str(site.joinpath(*name.split("."), "__init__.py")) for name in PACKAGES]
