"""The benchmark of the strategies and the real table it uses: both scripts run, and make what is stored."""

import gzip
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.testing import STRATEGIES

pytestmark = pytest.mark.long

BENCHMARK = Path(__file__).parents[2] / "docs" / "benchmark"


@pytest.fixture
def run(run_script: Callable[..., str]) -> Callable[..., str]:
    return lambda name, *options: run_script(BENCHMARK / name, "--workers", 0, *options)


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["rows"]
    return found


def test_the_stored_table_is_whole() -> None:
    found = rows(BENCHMARK / "digits.json.gz")
    assert len({json.dumps(row["sample"]) for row in found}) == len(found) == 624
    assert all(len(row["accuracy"]) == 2 and all(len(curve) == 15 for curve in row["accuracy"]) for row in found)
    values = [statistics.fmean(curve[-1] for curve in row["accuracy"]) for row in found]
    assert 0.97 < max(values) < 1
    assert (BENCHMARK / "digits.json.gz").stat().st_size < 100_000


def test_the_table_is_made_again_and_goes_on_after_a_kill(tmp_path: Path, run: Callable[..., str]) -> None:
    table = tmp_path / "digits.json.gz"
    run("digits_table.py", "--first", 2, "--table", table)
    lines = table.with_suffix(".lines")
    whole = lines.read_text()
    lines.write_text(whole[: whole.rindex("{") + 30])  # a kill in the middle of the last line
    out = run("digits_table.py", "--first", 2, "--table", table)
    assert "1 to train" in out
    for made, stored in zip(rows(table), rows(BENCHMARK / "digits.json.gz"), strict=False):
        assert made["sample"] == stored["sample"]
        assert made["parameters"] == stored["parameters"]
        last = [curve[-1] for curve in made["accuracy"]]
        assert last == pytest.approx([curve[-1] for curve in stored["accuracy"]], abs=0.05)


@pytest.mark.slow
def test_the_benchmark_writes_its_tables_and_its_plot(tmp_path: Path, run: Callable[..., str]) -> None:
    page = tmp_path / "README.md"
    page.write_text((BENCHMARK / "README.md").read_text())
    options = ["--trials", 60, "--lines", tmp_path / "lines", "--page", page]
    only = ["--only", "Random", "LocalSearch", "Optuna Random", "--no-cost"]
    out = run("strategies.py", "--seeds", 1, *options, *only)
    assert "| flat | after 50 | after 150 | after 500 |" in out
    again = run("strategies.py", "--seeds", 2, *options, *only)
    assert out != again
    assert len((tmp_path / "lines").read_text().splitlines()) == 2 * 4 * 3
    text = page.read_text()
    assert "2 seeds" in text
    assert text.split("<!-- end of regret -->")[0].count("| LocalSearch |") == 4
    assert (tmp_path / "regret.svg").read_text().startswith("<?xml")


def test_the_page_and_its_curves_have_every_strategy_of_the_table() -> None:
    names = {name for name, listed in STRATEGIES.items() if listed.usual is not None}
    curves = json.loads(gzip.decompress((BENCHMARK / "strategies.json.gz").read_bytes()))
    assert names == {row["strategy"] for row in curves if not row["strategy"].startswith("Optuna ")}
    page = (BENCHMARK / "README.md").read_text()
    assert {name: page.count(f"\n| {name} |") for name in names} == dict.fromkeys(names, 5)  # four tables, and the cost
