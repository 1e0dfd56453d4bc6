"""The first 30 proposals of each strategy for a fixed seed and table.

`python tests/strategies/test_golden.py` stores them. A change of a trajectory is one that users of a resumed search
notice: store it anew only on purpose.
"""

import importlib.metadata
import json
from pathlib import Path

import pytest

from nas import Sample
from nas.testing import STRATEGIES, play, synthetic_table

STORED = Path(__file__).with_suffix(".json")


def proposals(name: str) -> list[Sample]:
    return [trial.sample for trial in play(STRATEGIES[name].make(), synthetic_table("conditional", 0), 30, seed=7)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_trajectory_is_the_stored_one(name: str) -> None:
    stored = json.loads(STORED.read_text())
    for package in STRATEGIES[name].follows:
        version = stored["versions"][package]
        if importlib.metadata.version(package) != version:
            pytest.skip(f"stored with {package} {version}")
    assert proposals(name) == stored["proposals"][name]


def test_nothing_else_is_stored() -> None:
    assert set(json.loads(STORED.read_text())["proposals"]) == set(STRATEGIES)


if __name__ == "__main__":
    packages = sorted({package for listed in STRATEGIES.values() for package in listed.follows})
    versions = {package: importlib.metadata.version(package) for package in packages}
    found = {name: proposals(name) for name in STRATEGIES}
    lines = ",\n".join(
        f"  {json.dumps(name)}: [\n" + ",\n".join(f"    {json.dumps(sample)}" for sample in samples) + "\n  ]"
        for name, samples in found.items()
    )
    STORED.write_text(f'{{"versions": {json.dumps(versions)},\n"proposals": {{\n{lines}\n}}}}\n')
