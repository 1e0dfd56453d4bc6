"""The trust report: rank correlation, alarms, and what is printed."""

import random
from typing import Any

import pytest
from scipy.stats import kendalltau

from nas import Categorical, Experiment, LayerChoice, NasValueError
from nas.evaluators import Classification
from nas.oneshot import DARTS, RandomOneShot
from nas.oneshot.trust import Compared, TrustReport, kendall, skip_share


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


def test_skips_are_told_by_their_names() -> None:
    operations, others = Categorical(["skip_connect", "conv3", "none", "sep"]), Categorical(["relu", "tanh"])
    domains = {
        "a": operations,
        "b": operations,
        "c": operations,
        "d": operations,
        "n": Categorical([3, 4]),
        "e": others,
    }
    assert skip_share({"a": "skip_connect", "b": "conv3", "d": "sep", "n": 3, "e": "relu"}, domains) == 1 / 3
    assert skip_share({"n": 3, "e": "relu"}, domains) is None


@pytest.mark.parametrize("make", [DARTS, RandomOneShot])
def test_a_report_on_a_search(make: Any, tmp_path: Any) -> None:
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

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
    with pytest.raises(NasValueError, match="at least 2"):
        experiment.one_shot_report(k=1)
    with pytest.raises(NasValueError, match="spread"):
        experiment.one_shot_report(k=2, choose="worst")
