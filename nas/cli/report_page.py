"""What an experiment found, as one page of HTML that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, final

from nas.cli.catalogue import Catalogue, describe_trial
from nas.domains import Answer
from nas.errors import told_if_full
from nas.files import named_by_user, write_whole
from nas.plain_text import printable, without_passwords
from nas.protocols import Objectives, Trial, TrialState, losses
from nas.search import Results, sample_text

_FEW = 8
"""Answers of a label that are shown one by one; more numbers are shown as quarters of their range."""
_DOTS = 2000

Dot: TypeAlias = tuple[float, float, str, bool]
Scale: TypeAlias = Callable[[float], float]


@final
@dataclass(kw_only=True)
class Chart:
    """Dots and a line, in the units of the picture."""

    title: str
    caption: str
    x_label: str
    dots: list[Dot] = field(default_factory=list)
    line: str = ""
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    width: int = 800
    height: int = 300
    left: int = 80


_STYLE = """
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { margin-bottom: 0; } h2 { margin-top: 2rem; }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
  td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
  .quiet { color: #666; } code { overflow-wrap: anywhere; }
  svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #555; }
  th.bars { width: 40%; } svg.bars { height: 1.4em; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
"""Nothing but the style above has an effect: no script, and nothing from elsewhere."""


def write_report(catalogue: Catalogue, name: str, path: Path | None = None, *, top: int = 10) -> Path:
    """Writes the page: what `nas show` says, the search in a picture, the best trials, what their answers share.

    Args:
        catalogue: where the experiment is kept.
        name: of the experiment.
        path: of the page; `report.html` in the experiment's folder where omitted.
        top: how many trials are listed.

    Returns:
        The path. What was there before is replaced as a whole.

    Raises:
        UnknownName: there is no such experiment.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    results = catalogue.find(name)
    environment = Environment(
        loader=PackageLoader("nas.cli", "."),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    text = environment.get_template("report_page.html.jinja").render(
        e=catalogue.describe(name),
        charts=_charts(results),
        best=[describe_trial(trial) for trial in results.top(top)],
        choices=_choices(results),
        text_of=sample_text,
        style=Markup(_STYLE),
        policy=_POLICY,
    )
    path = results.path / "report.html" if path is None else named_by_user(path)
    with told_if_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return path


def _shown(value: object) -> object:
    """What stands on the page: what a template writes is escaped after this."""
    return without_passwords(printable(value)) if type(value) is str else value


def _complete(results: Results) -> list[Trial]:
    return [trial for trial in results.counted if trial.state is TrialState.COMPLETE and trial.values]


def _charts(results: Results) -> list[Chart]:
    trials = _complete(results)
    if not trials:
        return []
    if len(results.objectives.names) > 1:
        return [_front(results, trials)]
    chart = _history(results.objectives, trials, first=results.counted[0].number if results.ranked else 0)
    if results.ranked:
        best = results.top(1)[0]
        chart.title, chart.line, chart.x_label = "The ranking", "", "rank"
        (name,) = results.objectives.shown(trials)
        chart.caption = f"{name} of the subnets with shared weights, in the order of the search; red: its best."
        chart.dots = [(x, y, text, text == _title(best, results.objectives)) for x, y, text, _ in chart.dots]
    return [chart]


def _history(objectives: Objectives, trials: Sequence[Trial], *, first: int) -> Chart:
    """Values by number, counted from the first one on."""
    ((name, direction),) = objectives.shown(trials).items()
    best: list[tuple[int, float]] = []
    for trial in trials:
        value = _value(trial)
        if not best or losses([value], objectives.directions) < losses([best[-1][1]], objectives.directions):
            best.append((trial.number, value))
    chart = Chart(
        title="The search",
        x_label="trial",
        caption=f"{name} of each complete trial, to {direction}; the line is the best so far. "
        "The worst tenth stands at the edge.",
    )
    # A few diverged trials would leave no room for all others.
    values = sorted((_value(trial) for trial in trials), key=lambda v: losses([v], objectives.directions))
    low, high = sorted((values[0], values[min(len(values) - 1, (9 * len(values)) // 10)]))
    place, up = _axes(chart, (0, max(trials[-1].number - first, 1)), (low, high), whole=True)

    def across(number: float) -> float:
        return place(number - first)

    last = best[-1][0]
    shown = trials if len(trials) <= _DOTS else [*trials[:: len(trials) // _DOTS + 1]]
    chart.dots = [
        (across(t.number), up(min(max(_value(t), low), high)), _title(t, objectives), t.number == last)
        for t in sorted(shown, key=lambda t: t.number == last)
    ]
    corners: list[tuple[float, float]] = []
    for number, value in best:
        value = min(max(value, low), high)
        corners += [(number, corners[-1][1]), (number, value)] if corners else [(number, value)]
    corners.append((trials[-1].number, corners[-1][1]))
    chart.line = " ".join(f"{across(x)},{up(y)}" for x, y in corners)
    return chart


def _front(results: Results, trials: Sequence[Trial]) -> Chart:
    first, second = [*results.objectives.shown(trials)][:2]
    chart = Chart(
        title="The search", x_label=first, caption=f"{second} over {first} of each complete trial; red: the front."
    )
    pairs = [(trial.values or ())[:2] for trial in trials]
    across, up = _axes(chart, _range([p[0] for p in pairs]), _range([p[1] for p in pairs]))
    front = {trial.number for trial in results.pareto_front}
    order = sorted(zip(trials, pairs, strict=True), key=lambda pair: pair[0].number in front)
    chart.dots = [
        (across(x), up(y), _title(trial, results.objectives), trial.number in front) for trial, (x, y) in order
    ][-_DOTS:]
    return chart


def _axes(chart: Chart, x: tuple[float, float], y: tuple[float, float], *, whole: bool = False) -> tuple[Scale, Scale]:
    """From numbers to places in the picture, with the ticks noted."""
    right, top, bottom = chart.width - 40, 15, chart.height - 45

    def across(value: float) -> float:
        return round(chart.left + (value - x[0]) / ((x[1] - x[0]) or 1) * (right - chart.left), 1)

    def up(value: float) -> float:
        return round(bottom - (value - y[0]) / ((y[1] - y[0]) or 1) * (bottom - top), 1)

    parts = range(5)
    xs = [x[0] + (x[1] - x[0]) * part / 4 for part in parts]
    xs = sorted({float(round(value)) for value in xs}) if whole else xs
    chart.x_ticks = [(across(value), f"{value:.4g}") for value in xs]
    chart.y_ticks = [
        (up(value), f"{value:.4g}") for value in sorted({y[0] + (y[1] - y[0]) * part / 4 for part in parts})
    ]
    return across, up


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _value(trial: Trial) -> float:
    return (trial.values or (0.0,))[0]


def _title(trial: Trial, objectives: Objectives) -> str:
    return f"trial {trial.number}: {objectives.text(trial)} ({sample_text(trial.sample)})"


def _choices(results: Results) -> list[dict[str, Any]]:
    """For each label the shares of its answers, in all complete trials and in the best quarter of them."""
    trials = results.objectives.rank(results.counted)
    best = trials[: len(trials) // 4]
    if not best:
        return []
    labels = dict.fromkeys(label for trial in trials for label in trial.sample)
    return [{"label": label, "answers": _shares(label, trials, best)} for label in labels]


def _shares(label: str, trials: Sequence[Trial], best: Sequence[Trial]) -> list[dict[str, Any]]:
    texts = _texts([trial.sample[label] for trial in trials if label in trial.sample])

    def share(group: Sequence[Trial]) -> Counter[str]:
        return Counter(texts(trial.sample[label]) if label in trial.sample else "(not asked)" for trial in group)

    everywhere, among_best = share(trials), share(best)
    names = sorted(everywhere, key=lambda name: (name == "(not asked)", _rank(name)))
    return [{"text": n, "all": everywhere[n] / len(trials), "best": among_best[n] / len(best)} for n in names]


def _texts(answers: Sequence[Answer]) -> Callable[[Answer], str]:
    """What an answer is shown as: itself, or the quarter of the range that it lies in."""
    numbers = [a for a in answers if isinstance(a, int | float) and not isinstance(a, bool)]
    if len({str(answer) for answer in answers}) <= _FEW or len(numbers) < len(answers):
        return str
    low, high = min(numbers), max(numbers)

    def quarter(answer: Answer) -> str:
        assert isinstance(answer, int | float)
        part = min(int(4 * (answer - low) / (high - low)), 3)
        ends = [low + (high - low) * end / 4 for end in (part, part + 1)]
        return f"{ends[0]:.4g} to {ends[1]:.4g}"

    return quarter


def _rank(text: str) -> tuple[float, str]:
    """Numbers by their size, before words."""
    try:
        return float(text.split()[0]), text
    except (ValueError, IndexError):
        return float("inf"), text
