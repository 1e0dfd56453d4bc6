"""`nas report`: what was found, as one page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from nas import Experiment, LayerChoice, Real, TrialState, ValueChoice
from nas.cli.commands import app
from nas.evaluators import Classification, FunctionalEvaluator
from nas.oneshot import RandomOneShot
from nas.strategies import Random


class Page(HTMLParser):
    """The elements of a page, with what they say; open ones must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))
        if tag not in ("meta", "br"):
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag
        if tag == "td":
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for at in self._open:
            name, attributes, text = self.elements[at]
            self.elements[at] = name, attributes, text + data

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, " ".join(text.split())) for name, attributes, text in self.elements if name == tag]

    def rows(self, heading: str) -> list[str]:
        """Of the table that follows a heading, without its first."""
        begin = next(i for i, (tag, _, text) in enumerate(self.elements) if tag == "h2" and text == heading)
        rows: list[str] = []
        for tag, _, text in self.elements[begin + 1 :]:
            if tag == "h2":
                break
            if tag == "tr":
                rows.append(" ".join(text.split()))
        return rows[1:]


def space() -> nn.Module:
    act = LayerChoice({"<relu>": nn.ReLU, "tanh": nn.Tanh}, label="act")
    return nn.Sequential(nn.Linear(ValueChoice(list(range(1, 21)), label="width"), 2), act)


def value(model: nn.Module, rate: float) -> float:
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[0], nn.Linear)
    if model[0].in_features == 3:
        raise ValueError("<three> is right out")
    return model[0].in_features - rate


def report(*arguments: str, code: int = 0, command: str = "report") -> str:
    result = CliRunner().invoke(app, [command, *arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output.strip()


def run(directory: Path, trials: int = 40) -> Experiment:
    evaluator = FunctionalEvaluator(value, rate=Real(0, 1))
    experiment = Experiment(space, evaluator, Random(), name="first", directory=directory, seed=1)
    experiment.run(trials, progress="silent")
    return experiment


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    experiment = run(tmp_path)
    path = Path(report("first", "-d", str(tmp_path), "-k", "3"))
    assert path == tmp_path / "first" / "report.html"
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link", text), "it needs nothing beside it"
    page = Page(text)

    complete = [trial for trial in experiment.trials if trial.state.name == "COMPLETE"]
    failed = len(experiment.trials) - len(complete)
    assert failed
    assert f"{len(complete)} complete, {failed} failed" in page.all("p")[0][1]
    rows = page.rows("The best trials")
    assert len(rows) == 3
    assert rows[0].startswith(f"{experiment.best_trial.number} {experiment.best_trial.value:.6g} ")
    numbers = ", ".join(str(trial.number) for trial in experiment.trials if trial.state is TrialState.FAILED)
    (row,) = page.rows("Failures")
    place = r"test_report_page.py:\d+ in value"
    assert re.fullmatch(f"{failed} ValueError: <three> is right out {place} {numbers}", row)

    dots = page.all("circle")
    assert len(dots) == len(complete)
    best = [dict(attributes)["cy"] for attributes, _ in dots if attributes["r"] == "5"]
    heights = [float(attributes["cy"] or "nan") for attributes, _ in dots]
    assert [float(best[0] or "nan")] == [min(heights)], "the best dot is the highest"
    corners = [tuple(map(float, pair.split(","))) for pair in (page.all("polyline")[0][0]["points"] or "").split()]
    assert corners == sorted(corners, key=lambda corner: (corner[0], -corner[1])), "it goes right and up"


def test_shares_of_answers(tmp_path: Path) -> None:
    experiment = run(tmp_path)
    page = Page(Path(report("first", "-d", str(tmp_path))).read_text(encoding="utf-8"))
    ranked = sorted((t for t in experiment.trials if t.values), key=lambda t: -(t.value or 0))
    best = ranked[: len(ranked) // 4]
    rows = page.rows("The choices")

    def percent(trials: list[object], part: int) -> str:
        return f"{100 * part / len(trials):.0f} %"

    for answer in ("<relu>", "tanh"):
        everywhere = percent([*ranked], sum(t.sample["act"] == answer for t in ranked))
        among_best = percent([*best], sum(t.sample["act"] == answer for t in best))
        assert any(row.endswith(f"{answer} {everywhere} {among_best}") for row in rows), rows
    (widest,) = [row for row in rows if " to 20 " in row]
    everywhere, among_best = re.findall(r"(\d+) %", widest)
    assert int(among_best) > 2 * int(everywhere), "the width decides"


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    experiment = Experiment(
        space,
        FunctionalEvaluator(lambda model: {"accuracy": model[0].in_features, "cost": model[0].in_features ** 2}),
        Random(),
        name="two",
        directory=tmp_path,
        objective={"accuracy": "maximize", "cost": "minimize"},
    )
    experiment.run(12, progress="silent")
    target = tmp_path / "deep" / "page.html"
    assert report("two", "-d", str(tmp_path), "-o", str(target)) == str(target)
    page = Page(target.read_text(encoding="utf-8"))
    assert sum(attributes["r"] == "5" for attributes, _ in page.all("circle")) == len(experiment.pareto_front)
    assert page.all("polyline") == []
    assert [file.name for file in target.parent.iterdir()] == ["page.html"]


def test_one_shot_search_has_a_ranking(tmp_path: Path) -> None:
    images = TensorDataset(torch.randn(32, 4), torch.randint(2, (32,)))
    evaluator = Classification(images, images, batch_size=16, max_epochs=1)

    def network() -> nn.Module:
        width = ValueChoice([2, 3, 4], label="width")
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))

    experiment = Experiment(network, evaluator, RandomOneShot(candidates=3), name="ranked", directory=tmp_path)
    experiment.run(progress="silent")
    page = Page(Path(report("ranked", "-d", str(tmp_path))).read_text(encoding="utf-8"))
    assert [text for _, text in page.all("h2")][:2] == ["The ranking", "The best trials"]
    (best,) = [text for attributes, text in page.all("circle") if attributes["r"] == "5"]
    assert best.startswith("trial 0: ")
    assert page.rows("The best trials")[0].startswith("0 ")
    assert "earlier trials" not in " ".join(text for _, text in page.all("p"))
    longer = RandomOneShot(candidates=3, epochs=2)
    Experiment(network, evaluator, longer, name="ranked", directory=tmp_path, resume=True).run(progress="silent")
    page = Page(Path(report("ranked", "-d", str(tmp_path))).read_text(encoding="utf-8"))
    assert "3 earlier trials, from before the supernet was trained on, do not count" in " ".join(
        text for _, text in page.all("p")
    )
    assert [row[0] for row in page.rows("The best trials")] == ["3", "4", "5"]
    dots = sorted((float(attributes["cx"] or 0), text) for attributes, text in page.all("circle"))
    assert [text[:7] for _, text in dots] == ["trial 3", "trial 4", "trial 5"]
    assert dots[0][0] == 80, "the first rank is 0"
    shown = report("ranked", "-d", str(tmp_path), command="show")
    assert "3 trials finished (3 complete)" in shown
    assert "3 earlier trials" in shown
    assert "trial 3" in shown
    best = json.loads(report("ranked", "-d", str(tmp_path), "--json", command="top"))
    assert [(trial["number"], trial["supernet_steps"]) for trial in best] == [(3, 4), (4, 4), (5, 4)]
    assert "steps of the supernet" in " ".join(report("ranked", "-d", str(tmp_path), command="trials").split())


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_little_was_tried(tmp_path: Path, trials: int) -> None:
    def fails(model: nn.Module) -> float:
        raise ValueError("no")

    experiment = Experiment(space, FunctionalEvaluator(fails), Random(), name="failed", directory=tmp_path)
    if trials == 0:
        experiment.run(2, progress="silent")
        page = Page(Path(report("failed", "-d", str(tmp_path))).read_text(encoding="utf-8"))
        assert page.all("svg") == []
        (row,) = page.rows("Failures")
        assert re.fullmatch(r"2 ValueError: no test_report_page.py:\d+ in fails 0, 1", row)
        return
    run(tmp_path, trials)
    page = Page(Path(report("first", "-d", str(tmp_path))).read_text(encoding="utf-8"))
    assert len(page.all("circle")) == len(page.rows("The best trials")) == trials


def test_a_wrong_name_is_answered(tmp_path: Path) -> None:
    run(tmp_path, 1)
    assert "did you mean 'first'" in report("frist", "-d", str(tmp_path), code=2)


def test_nothing_on_the_page_but_its_own_style_has_an_effect(tmp_path: Path) -> None:
    run(tmp_path)
    text = Path(report("first", "-d", str(tmp_path))).read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', text)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in unescape(policy[1]).split("; "))
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'", "'none'", "'none'")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert not re.search(r"\sstyle=|\son\w+=|<script", text), "they would have no effect"
