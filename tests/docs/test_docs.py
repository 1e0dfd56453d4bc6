"""Every Python block of the pages at the top and of the documentation runs, page by page."""

import re
from pathlib import Path
from typing import Any

import pytest

from nas.testing import STRATEGIES

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S) for page in PAGES}


LENGTHY = ("durable.md", "evaluators.md", "export.md", "model_zoo.md", "nas_benchmarks.md", "one_shot.md")
"""They start processes and train: among the slow tests, of which CI runs those of the documentation."""


def page_of(page: Path) -> Any:
    return pytest.param(page, marks=[pytest.mark.slow] if page.name in LENGTHY else [], id=page.name)


@pytest.mark.parametrize("page", [page_of(page) for page in PAGES if BLOCKS[page]])
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in BLOCKS[page]:
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_page_of_strategies_has_a_row_for_each() -> None:
    names = {type(listed.make()).__name__ for listed in STRATEGIES.values()}
    rows = re.findall(r"^\| `(\w+)\(", (ROOT / "docs/strategies.md").read_text(), re.M)
    assert sorted(rows) == sorted(names)
