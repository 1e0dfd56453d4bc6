"""How long `import nas` takes, as a ratio to `import torch` in the same run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).resolve().parent.parent.parent

ROUNDS = 3
MOST = 1.25
"""The most that `import nas` may take, in units of `import torch`, which it contains."""


def seconds_to_import(library: str) -> float:
    """Wall time, in seconds, of a fresh interpreter that imports one library."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {library}"], env=environment, timeout=300, check=True)
    return time.perf_counter() - start


def test_import_takes_little_more_than_torch(benchmark: BenchmarkFixture) -> None:
    """The best of three each, in turns, so that a busy moment of the machine meets both."""
    times: dict[str, list[float]] = {"torch": [], "nas": []}

    def import_nas() -> None:
        times["nas"].append(seconds_to_import("nas"))

    def import_torch() -> None:
        times["torch"].append(seconds_to_import("torch"))

    benchmark.pedantic(  # type: ignore[no-untyped-call]  # pytest-benchmark leaves it unannotated
        import_nas, setup=import_torch, rounds=ROUNDS, warmup_rounds=1
    )
    ratio = min(times["nas"]) / min(times["torch"])
    benchmark.extra_info["ratio to import torch"] = ratio
    assert ratio <= MOST, f"import nas takes {ratio:.2f} times as long as import torch; at most {MOST} is allowed"
