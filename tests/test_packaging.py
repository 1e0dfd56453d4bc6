"""The wheel: `nas` and nothing else lands in site-packages, whole, and imports from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nas

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "nas",
    "nas.cli",
    "nas.evaluators",
    "nas.model_zoo",
    "nas.oneshot.paths",
    "nas.strategies",
    "nas.testing",
)


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
    files = (ROOT / "nas").rglob("*")
    return sorted(f.relative_to(ROOT).as_posix() for f in files if f.is_file() and "__pycache__" not in f.parts)


def copy_source(place: Path) -> None:
    """What a build needs, and no more: not the links at the top, which a checkout on Windows may lack."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / name)
    shutil.copytree(ROOT / "nas", place / "nas", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network from a copy, where no leftover of an earlier build can slip in."""
    source = tmp_path_factory.mktemp("source")
    copy_source(source)
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
    options = ("--no-deps", "--no-index", "--no-compile", "--target", str(site))
    run_python("-m", "pip", "install", *options, str(wheel), cwd=elsewhere)
    probe = f"import {', '.join(PACKAGES)}\nfor module in ({', '.join(PACKAGES)}): print(module.__file__)"
    printed = run_python("-c", probe, cwd=elsewhere, PYTHONPATH=str(site))
    assert printed.split("\n")[:-1] == [str(site.joinpath(*name.split("."), "__init__.py")) for name in PACKAGES]


def test_an_editable_install_is_a_path(tmp_path: Path) -> None:
    """Import hooks are invisible to type checkers and editors."""
    copy_source(tmp_path)
    script = "from setuptools.build_meta import build_editable; print(build_editable('.'))"
    name = run_python("-c", script, cwd=tmp_path).splitlines()[-1]
    with zipfile.ZipFile(tmp_path / name) as archive:
        code = [each for each in archive.namelist() if ".dist-info/" not in each]
        assert [Path(each).suffix for each in code] == [".pth"]
        assert archive.read(code[0]).decode().strip() == str(tmp_path)


def test_the_version_is_that_of_the_distribution(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == nas.__version__
