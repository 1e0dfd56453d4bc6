"""The versions that pyproject.toml allows: the oldest and the newest are those that are tested."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
MAY_CHANGE_RESULTS = ("torch", "numpy", "optuna", "pytorch-lightning", "onnx", "onnxscript", "loky", "tianshou", "ray")


def requirements() -> list[Requirement]:
    """All of them, those of extras too, but for the extras of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [found for line in lines if (found := Requirement(line)).name != project["name"]]


def pins(file: str) -> dict[NormalizedName, Version]:
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def lowest(requirement: Requirement) -> Version:
    return next(Version(bound.version) for bound in requirement.specifier if bound.operator == ">=")


def test_the_lower_bounds_are_what_test_oldest_runs_on() -> None:
    oldest = pins("constraints-oldest.txt")
    wrong = []
    for requirement in requirements():
        bound, pin = lowest(requirement), oldest[canonicalize_name(requirement.name)]
        # 1.11 is 1.11.0, or the first release of 1.11 that is still there.
        if pin.release[: len(bound.release)] != bound.release or pin not in requirement.specifier:
            wrong.append(f"{requirement}: constraints-oldest.txt has {pin}")
    assert not wrong, "\n".join(wrong)


def test_the_versions_of_the_tests_are_allowed() -> None:
    newest = pins("constraints.txt")
    wrong = [str(r) for r in requirements() if newest[canonicalize_name(r.name)] not in r.specifier]
    assert not wrong, "\n".join(wrong)


def test_what_may_change_results_is_bounded_above_by_a_major_version() -> None:
    newest = pins("constraints.txt")
    bounded = {r.name: [Version(b.version) for b in r.specifier if b.operator == "<"] for r in requirements()}
    for name in MAY_CHANGE_RESULTS:
        assert bounded[name] == [Version(str(newest[canonicalize_name(name)].major + 1))], name
