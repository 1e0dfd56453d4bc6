"""How far a supernet can be trusted: does it rank architectures as they rank when each is trained alone?"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

from torch import nn

from nas.brief import rich_html
from nas.checks import check_int, check_word
from nas.domains import Answer, Sample, as_key, sample_key
from nas.files import own_folder
from nas.oneshot.alarms import Compared, Evidence, in_short
from nas.oneshot.paths import AllPaths, OnePath, answers_from, construct_without_weights
from nas.oneshot.relaxed import OnceDifferentiable
from nas.plain_text import printable
from nas.protocols import Direction, Evaluator, Job, Trial, as_metrics, evaluating
from nas.random_state import derive_seed, seeded
from nas.space import Choice, ModelSpace, is_skip

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nas.oneshot.training import Training

_FRESH = 4
"""Times that each architecture is judged with fresh weights."""
_ALL_ORDERS = 7
"""Of so many architectures all orders are looked at, of more some at random."""


@final
@dataclass(frozen=True, kw_only=True)
class TrustReport:
    """What is known of a supernet's judgement; `print` shows it."""

    metric: str
    compared: tuple[Compared, ...]
    kendall: float
    """Rank correlation, tau-b, of shared and alone: 1 for the same order, 0 for none, -1 for the opposite one."""
    interval: tuple[float, float]
    """Of its 95 % confidence, by the bootstrap: few architectures say little."""
    skips: float | None
    """The share of skip connections among the operations of the best sample; None where it has no such choice."""
    expected_skips: float | None
    """The share that random samples have."""
    curvature: float | None
    """The largest eigenvalue of the Hessian of the validation loss in the architecture parameters, for relaxed ones.

    None where torch cannot differentiate an operation of the network twice.
    """
    no_curvature: str | None = None
    """What torch says of that operation."""
    chance: float | None = None
    """The share of all orders that agree as well as the supernet's with that of the architectures alone."""
    direction: Direction = "maximize"
    """Of the metric."""
    choose: Literal["spread", "best"] = "spread"
    """What was compared besides the best sample: random ones, or the next best."""
    is_whole_space: bool = False
    """Whether these are all the architectures that there are."""

    @property
    def alarms(self) -> list[str]:
        """What should make one doubt the result, each with what to do next; also where nothing can be told."""
        return Evidence(
            metric=self.metric,
            direction=self.direction,
            compared=self.compared,
            choose=self.choose,
            kendall=self.kendall,
            interval=self.interval,
            chance=self.chance,
            is_whole_space=self.is_whole_space,
            skips=self.skips,
            expected_skips=self.expected_skips,
        ).alarms()

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=100, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return printable(captured.get().rstrip(), lines=True)

    def __repr__(self) -> str:
        """In one line."""
        return f"TrustReport({self.metric}: {len(self.compared)} compared, {len(self.alarms)} alarms)"

    def _repr_html_(self) -> str:
        return rich_html(self)

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title="Trust report", title_justify="left")
        for name in ("sample", f"{self.metric}, shared weights", f"{self.metric}, alone"):
            table.add_column(name)
        fresh = max((len(row.untrained) for row in self.compared), default=0)
        if fresh:
            table.add_column(f"untrained, best of {fresh}")
        best = max if self.direction == "maximize" else min
        for row in self.compared:
            untrained = [f"{best(row.untrained):.5g}"] if row.untrained else []
            table.add_row(Text(in_short(row.sample)), f"{row.shared:.5g}", f"{row.alone:.5g}", *untrained)
        low, high = self.interval
        lines = [f"Rank correlation (Kendall): {self.kendall:.2f}, with 95 % confidence from {low:.2f} to {high:.2f}"]
        if self.skips is not None:
            lines.append(
                f"Skip connections in the best sample: {self.skips:.0%}, expected {self.expected_skips or 0:.0%}"
            )
        if self.curvature is not None:
            lines.append(f"Largest eigenvalue of the Hessian in the architecture parameters: {self.curvature:.4g}")
        if self.no_curvature is not None:
            lines.append(
                "Largest eigenvalue of the Hessian in the architecture parameters: not known, for an operation of the "
                f"network cannot be differentiated twice ({self.no_curvature})"
            )
        lines += [f"ALARM: {alarm}" for alarm in self.alarms] or ["No alarm."]
        return Group(table, Text("\n".join(lines)))


def trust_report(
    training: Training,
    judge: Callable[[Sample], float],
    judge_untrained: Callable[[Sample, int], float],
    trials: Sequence[Trial],
    *,
    k: int,
    evaluator: Evaluator | None = None,
    choose: Literal["spread", "best"] = "spread",
) -> TrustReport:
    """Trains k architectures alone, and compares.

    Args:
        training: of the supernet.
        judge: the metric of a sample by the shared weights; more is better.
        judge_untrained: the same with fresh weights of a seed: what a supernet is worth that has learned nothing, for
            any metric.
        trials: of the experiment: its subnets.
        k: how many architectures.
        evaluator: how they are trained; the experiment's where None.
        choose: "spread": the best one and random ones, which asks whether the supernet ranks the space; "best": the k
            best, which asks whether it ranks its own favourites.

    Raises:
        NasValueError: k below 2, or an unknown way to choose.
    """
    k = check_int("k", k, least=2, where="trust_report")  # a rank correlation needs two
    check_word("choose", choose, ("spread", "best"), where="trust_report")
    task = training.task
    sign = 1 if task.direction == "maximize" else -1
    samples = _chosen(training, trials, k, choose)

    def alone(sample: Sample, number: int) -> float:
        if any(p.requires_grad for p in task.space.build(sample).parameters()):
            return _train_alone(training, sample, number, evaluator)
        return sign * judge_untrained(sample, derive_seed(task.seed, number))  # skip connections, with nothing to train

    trained = [alone(sample, number) for number, sample in enumerate(samples)]
    compared = tuple(
        Compared(
            sample=sample,
            shared=sign * judge(sample),
            alone=value,
            untrained=tuple(sign * judge_untrained(sample, derive_seed(task.seed, i, draw)) for draw in range(_FRESH)),
        )
        for i, (sample, value) in enumerate(zip(samples, trained, strict=True))
    )
    pairs = [(sign * row.shared, sign * row.alone) for row in compared]
    best = trials[0].sample if trials else samples[0]
    skips = SkipConnections(task.space)
    curvature, unknown = _curvature(training)
    return TrustReport(
        metric=training.metric,
        compared=compared,
        kendall=kendall(pairs),
        interval=_bootstrap(pairs),
        skips=skips.share(dict(best)),
        expected_skips=_mean([skips.share(task.space.sample(seed)) for seed in range(100)]),
        curvature=curvature,
        no_curvature=unknown,
        chance=_chance(pairs),
        direction=task.direction,
        choose=choose,
        is_whole_space=task.space.exact and len(compared) == task.space.size,
    )


def _curvature(training: Training) -> tuple[float | None, str | None]:
    """What it is, or why it is not known."""
    try:
        return training.curvature(), None
    except OnceDifferentiable as error:
        return None, error.reason


def kendall(pairs: Sequence[tuple[float, float]]) -> float:
    """The rank correlation tau-b of two values, ties counted out (Kendall 1945); 0 where one of them never changes.

    Example:
        >>> kendall([(1, 10), (2, 20), (3, 30)]), kendall([(1, 30), (2, 20), (3, 10)])
        (1.0, -1.0)
    """
    agree = first = second = 0
    for i, (a, b) in enumerate(pairs):
        for c, d in pairs[:i]:
            x, y = (a > c) - (a < c), (b > d) - (b < d)
            agree += x * y
            first += x * x
            second += y * y
    return agree / math.sqrt(first * second) if first and second else 0.0


@final
class SkipConnections:
    """Which answers of a space's LayerChoices are skip connections: those that build an `nn.Identity` or a `nas.Skip`.

    Args:
        space: of the samples that are asked about.

    Example:
        >>> from nas import LayerChoice
        >>> operations = {"pass": nn.Identity, "conv": lambda: nn.Conv1d(2, 2, 1)}
        >>> skips = SkipConnections(ModelSpace(lambda: LayerChoice(operations, label="op")))
        >>> skips.share({"op": "pass"}), skips.share({"op": "conv"})
        (1.0, 0.0)
    """

    def __init__(self, space: ModelSpace) -> None:
        self._space = space
        self._known: dict[str, dict[Answer, bool]] = {}
        self._layers = set(_layer_labels(space.search_space.choices))
        # Candidates side by side need not be an architecture: then the samples alone tell.
        with suppress(Exception):
            self._look(AllPaths, space.default())

    def share(self, sample: Sample) -> float | None:
        """The share of skip connections among the operations of a sample; None where it has no such choice.

        A choice is one of operations where a candidate is a skip connection.
        """
        asked = {label: as_key(answer) for label, answer in sample.items() if label in self._layers}
        if any(answer not in self._known.get(label, {}) for label, answer in asked.items()):
            self._look(OnePath, sample)
        operations = [(label, answer) for label, answer in asked.items() if any(self._known.get(label, {}).values())]
        return sum(self._known[label][answer] for label, answer in operations) / len(operations) if operations else None

    def _look(self, handler: type[AllPaths] | type[OnePath], sample: Sample) -> None:
        with seeded(0):
            _, used, _ = construct_without_weights(self._space, lambda: handler(answers_from(sample)))
        for label, answer, module in used.names.candidates():
            answers = self._known.setdefault(label, {})
            answers[as_key(answer)] = is_skip(module) or answers.get(as_key(answer), False)


def _layer_labels(choices: Iterable[Choice]) -> Iterator[str]:
    for choice in choices:
        if choice.kind == "layer":
            yield choice.label
        for branch in choice.branches:
            yield from _layer_labels(branch.choices)


def _mean(shares: list[float | None]) -> float | None:
    found = [share for share in shares if share is not None]
    return statistics.fmean(found) if found else None


def _bootstrap(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    rng = random.Random(0)
    drawn = sorted(kendall(rng.choices(pairs, k=len(pairs))) for _ in range(1000))
    return drawn[25], drawn[974]


def _chance(pairs: list[tuple[float, float]]) -> float:
    """The share of all orders of the first values that agree with the second ones as well as they do, or better."""
    first, second = zip(*pairs, strict=True)
    found = kendall(pairs) - 1e-9
    if len(pairs) <= _ALL_ORDERS:
        agree = [kendall(list(zip(order, second, strict=True))) >= found for order in itertools.permutations(first)]
        return sum(agree) / len(agree)
    rng = random.Random(0)
    drawn = [kendall(list(zip(rng.sample(first, len(first)), second, strict=True))) >= found for _ in range(2000)]
    return (sum(drawn) + 1) / (len(drawn) + 1)


def _chosen(training: Training, trials: Sequence[Trial], k: int, choose: str) -> list[Sample]:
    found: dict[str, Sample] = {}
    for trial in trials:
        if len(found) < (1 if choose == "spread" else k):
            found.setdefault(sample_key(trial.sample), dict(trial.sample))
    space, rng = training.task.space, random.Random(f"trust/{training.task.seed}")
    for _ in range(100 * k):
        if len(found) >= min(k, space.size):
            break
        sample = space.sample(rng)
        found.setdefault(sample_key(sample), sample)
    return list(found.values())


def _train_alone(training: Training, sample: Sample, number: int, evaluator: Evaluator | None) -> float:
    task = training.task

    def build(proposed: Sample, seed: int) -> tuple[nn.Module, Sample]:
        return task.space.build_completed(proposed, seed)

    seed = derive_seed(task.seed, number)
    folder = own_folder(task.directory.parent, task.directory.name, "trust", str(number))
    job = Job(number=number, sample=dict(sample), seed=seed, build=build, directory=folder)
    with evaluating(job), seeded(seed):
        metrics = as_metrics((task.evaluator if evaluator is None else evaluator).evaluate(job))
    return metrics[training.metric]
