"""The trust report: rank correlation, alarms, and what is printed."""

import random
from typing import Any

import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, InputChoice, LayerChoice, ModelSpace, NasValueError, Skip, ValueChoice
from nas.evaluators import Classification
from nas.oneshot import DARTS, Compared, RandomOneShot, TrustReport
from nas.oneshot.trust import SkipConnections, kendall


@pytest.mark.parametrize("seed", range(20))
def test_the_rank_correlation_is_tau_b(seed: int) -> None:
    rng = random.Random(seed)
    values = [rng.random, lambda: rng.randrange(4)][seed % 2]  # with and without ties
    pairs = [(values(), values()) for _ in range(rng.randrange(2, 30))]
    expected = kendalltau(*zip(*pairs, strict=True)).statistic
    assert kendall(pairs) == pytest.approx(0.0 if expected != expected else expected)


def test_what_never_changes_ranks_nothing() -> None:
    assert kendall([(1, 1), (1, 2), (1, 3)]) == 0


def report(**changed: Any) -> TrustReport:
    given: dict[str, Any] = {
        "metric": "accuracy",
        "compared": (Compared(sample={"kind": "conv"}, shared=0.5, alone=0.875),),
        "kendall": 0.7,
        "interval": (0.4, 0.9),
        "skips": 0.25,
        "expected_skips": 0.2,
        "curvature": 1.25,
    }
    return TrustReport(**(given | changed))


def test_alarms() -> None:
    assert report().alarms == []
    assert "No alarm" in str(report())
    for changed, words in (
        ({"kendall": -0.1}, "Kendall -0.10"),
        ({"kendall": 0.0}, "says nothing"),
        ({"skips": 0.75}, "75% of the operations"),
    ):
        (alarm,) = report(**changed).alarms
        assert words in alarm
        assert f"ALARM: {alarm[:40]}" in str(report(**changed))
    assert len(report(kendall=-1.0, interval=(-1.0, -0.5), skips=1.0).alarms) == 2
    assert report(skips=None).alarms == []


def test_it_is_printed() -> None:
    text = str(report())
    for words in (
        "kind=conv",
        "0.5",
        "0.875",
        "0.70",
        "from 0.40 to 0.90",
        "25%, expected 20%",
        "1.25",
        "accuracy, alone",
    ):
        assert words in text
    assert "Hessian" not in str(report(curvature=None))
    assert "…" in str(report(compared=(Compared(sample={f"label{i}": i for i in range(99)}, shared=0, alone=0),)))


class Halves(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]


def test_skips_are_told_by_their_modules() -> None:
    """Whatever the answers are called; of choices without skips nothing is counted."""
    operations = {"conv": nn.Identity, "skip_connect": lambda: nn.Conv1d(2, 2, 1), "none": Halves}
    others = {"identity": nn.ReLU, "skip": nn.Tanh}

    def network() -> nn.Module:
        layers = [LayerChoice(operations, label=name) for name in "abc"]
        return nn.Sequential(*layers, LayerChoice(others, label="act"), nn.Linear(ValueChoice([3, 4], label="n"), 1))

    skips = SkipConnections(ModelSpace(network))
    found = {"a": "conv", "b": "skip_connect", "c": "none", "act": "skip", "n": 3}
    assert skips.share(found) == 2 / 3
    assert skips.share(found | {"a": "skip_connect", "c": "skip_connect"}) == 0
    assert SkipConnections(ModelSpace(lambda: LayerChoice(others, label="act"))).share({"act": "skip"}) is None


def test_skips_below_other_answers_are_found() -> None:
    """What only some answers ask: candidates within candidates, inputs that are left out, values that decide."""

    def inner(label: str) -> nn.Module:
        return LayerChoice([nn.Identity, nn.ReLU], label=label)

    def network() -> nn.Module:
        deep = ValueChoice([False, True], label="deep")
        return nn.Sequential(
            LayerChoice({"plain": nn.Tanh, "more": lambda: inner("within")}, label="outer"),
            InputChoice(2, 1, each=lambda i: inner(f"input{i}"), label="inputs"),
            *([inner("below")] if deep else []),
        )

    skips = SkipConnections(ModelSpace(network))
    sample = {"outer": "more", "within": "ReLU", "inputs": 1, "input1": "Identity", "deep": True, "below": "Identity"}
    assert skips.share(sample) == 3 / 4


@pytest.mark.parametrize("make", [DARTS, RandomOneShot])
def test_a_report_on_a_search(make: Any, tmp_path: Any) -> None:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    pairs = TensorDataset(inputs, inputs.argmax(1))
    kinds = {"skip": nn.Identity, "linear": lambda: nn.Linear(3, 3), "tanh": nn.Tanh}
    evaluator = Classification(pairs, pairs, batch_size=8, max_epochs=1, accelerator="cpu", logger=False)
    experiment = Experiment(
        lambda: nn.Sequential(LayerChoice(kinds, label="kind"), nn.Linear(3, 3)),
        evaluator,
        make(candidates=2),
        name="search",
        directory=tmp_path,
    )
    experiment.run(progress="silent")
    found = experiment.one_shot_report(k=3)
    assert len(found.compared) == 3
    assert found.compared[0].sample == experiment.trials[0].sample
    assert found.compared[0].shared == pytest.approx(experiment.trials[0].metrics["accuracy"])
    assert found.kendall == kendall([(row.shared, row.alone) for row in found.compared])
    assert (found.curvature is None) == (make is RandomOneShot)
    assert found.expected_skips == pytest.approx(1 / 3, abs=0.15)
    assert str(found) == str(experiment.one_shot_report(k=3)), "the same again"
    with pytest.raises(NasValueError, match="k must be an int from 2 on; received 1"):
        experiment.one_shot_report(k=1)
    with pytest.raises(NasValueError, match="spread"):
        experiment.one_shot_report(k=2, choose="worst")
