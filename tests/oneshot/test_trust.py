"""The trust report: rank correlation, alarms, and what is printed."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import kendalltau
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import TensorDataset

from nas import Experiment, InputChoice, LayerChoice, ModelSpace, NasError, NasValueError, Skip, ValueChoice, Zero
from nas.evaluators import Classification, Regression
from nas.oneshot import DARTS, Compared, CurvatureStop, RandomOneShot, TrustReport
from nas.oneshot.trust import SkipConnections, _chance, kendall


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


def test_a_report_is_one_line_and_in_a_notebook_a_table() -> None:
    shown = repr(report())
    assert shown.startswith("TrustReport(accuracy: 1 compared, ")
    assert "\n" not in shown
    assert "Trust report" in report()._repr_html_()


def test_alarms() -> None:
    assert report().alarms == []
    assert "No alarm" in str(report())
    for changed, words in (
        ({"kendall": -0.1}, "Kendall -0.10"),
        ({"kendall": 0.0}, "says nothing"),
        ({"interval": (-0.2, 0.9)}, "cannot be told"),
        ({"interval": (-1.0, 1.0)}, "cannot be told"),
        ({"interval": (0.0, 1.0)}, "cannot be told"),
        ({"chance": 0.17}, "17%"),
        ({"skips": 0.75}, "75% of the operations"),
    ):
        (alarm,) = report(**changed).alarms
        assert words in alarm
        assert f"ALARM: {alarm[:40]}" in str(report(**changed))
        assert "No alarm" not in str(report(**changed))
    assert len(report(kendall=-1.0, interval=(-1.0, -0.5), skips=1.0).alarms) == 2
    assert report(skips=None).alarms == []
    assert report(chance=0.04).alarms == []


def rows(shared: list[float], alone: list[float], untrained: float = 0.1) -> tuple[Compared, ...]:
    """Each better than an untrained one or not; these differ a little."""
    fresh = tuple(untrained + 0.01 * i for i in range(4))
    return tuple(
        Compared(sample={"n": n}, shared=one, alone=other, untrained=fresh)
        for n, (one, other) in enumerate(zip(shared, alone, strict=True))
    )


SOUND = rows([0.8, 0.7, 0.6, 0.5, 0.4], [0.95, 0.9, 0.85, 0.8, 0.75])
TROUBLED: dict[str, tuple[dict[str, Any], str, str]] = {
    "equal shared": (
        {"compared": rows([0.5] * 3, [0.9, 0.8, 0.7]), "kendall": 0.0},
        "tells none from another",
        "epochs",
    ),
    "equal alone": ({"compared": rows([0.8, 0.7, 0.6], [0.9] * 3), "kendall": 0.0}, "no order to compare", "k=10"),
    "whole space": (
        {"compared": rows([0.8, 0.7], [0.9] * 2), "kendall": 0.0, "is_whole_space": True},
        "no order to compare",
        "Train them for longer",
    ),
    "near chance": (
        {"compared": rows([0.13, 0.12, 0.1], [0.9, 0.8, 0.7])},
        "near chance: accuracy 0.13",
        "more epochs",
    ),
    "lucky": ({"compared": rows([0.14, 0.12, 0.1], [0.9, 0.8, 0.7])}, "in 1 of 3", "more epochs"),
    "nothing learns": ({"compared": rows([0.1, 0.09], [0.12, 0.11])}, "near chance", "look at the learning rate"),
    "beaten": (
        {"compared": rows([0.8, 0.7, 0.6], [0.8, 0.9, 0.85])},
        "2 of 2 random architectures are better alone",
        "Retrain several",
    ),
    "gap": ({"compared": rows([0.35, 0.3, 0.25], [0.95, 0.9, 0.8])}, "0.35 by the shared weights and 0.95", "epochs"),
    "short alone": (
        {"compared": rows([0.9, 0.8, 0.7], [0.3, 0.25, 0.2])},
        "alone it is far from trained",
        "evaluator=",
    ),
    "error, beaten": (
        {"compared": rows([0.1, 0.2, 0.3], [0.2, 0.1, 0.3], 2.0), "direction": "minimize"},
        "1 of 2 random architectures are better alone",
        "n=1",
    ),
    "error, near chance": (
        {"compared": rows([2.1, 2.2, 2.4], [0.2, 0.3, 0.4], 2.0), "direction": "minimize"},
        "near chance: accuracy 2.1 at best, and 2 ",
        "epochs",
    ),
}


@pytest.mark.parametrize("name", TROUBLED)
def test_each_alarm_says_what_to_do(name: str) -> None:
    changed, what, mend = TROUBLED[name]
    (alarm,) = report(**changed).alarms
    assert what in alarm
    assert mend in alarm or mend.lower() in alarm


def test_what_is_sound_raises_none() -> None:
    assert report(compared=SOUND).alarms == []
    lower = rows([0.1, 0.2, 0.3], [0.05, 0.1, 0.2], 2.0)
    assert report(compared=lower, direction="minimize").alarms == []
    favourites = rows([0.8, 0.7, 0.6], [0.8, 0.9, 0.85])
    assert report(compared=favourites, choose="best").alarms == [], "its favourites are all good"
    no_weights = Compared(sample={"n": 9}, shared=0.3, alone=0.3, untrained=(0.3,) * 4)
    assert report(compared=(*SOUND[:2], no_weights, no_weights, no_weights)).alarms == []


def test_chance_is_the_share_of_orders() -> None:
    assert _chance([(n, n) for n in range(4)]) == pytest.approx(1 / 24)
    assert _chance([(n, -n) for n in range(4)]) == 1
    assert _chance([(1, n) for n in range(4)]) == 1
    assert _chance([(n, n) for n in range(12)]) < 0.001


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
    unknown = str(report(curvature=None, no_curvature="derivative for aten::hardsigmoid_backward is not implemented"))
    assert "not known" in unknown
    assert "hardsigmoid_backward" in unknown
    assert "untrained" not in text
    assert "untrained, best of 4" in str(report(compared=SOUND))
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


def digits() -> tuple[TensorDataset, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    pairs = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    return TensorDataset(pairs[0][:900], pairs[1][:900]), TensorDataset(pairs[0][900:], pairs[1][900:])


def small() -> nn.Module:
    width = ValueChoice([8, 16, 32], label="width")
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh}
    return nn.Sequential(nn.Linear(64, width), LayerChoice(kinds, label="kind"), nn.Linear(width, 10))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
@pytest.mark.parametrize("make", [RandomOneShot, DARTS])
def test_what_has_not_learned_raises_alarms(make: Any, seed: int, tmp_path: Any) -> None:
    evaluator = Classification(
        *digits(), batch_size=128, optimizer="Adam", learning_rate=1e-6, max_epochs=1, accelerator="cpu", logger=False
    )
    experiment = Experiment(small, evaluator, make(candidates=2), name="search", directory=tmp_path, seed=seed)
    experiment.run(progress="silent")
    found = experiment.one_shot_report(k=5)
    assert any("near chance" in alarm for alarm in found.alarms)
    assert any("means anything" in alarm or "says nothing" in alarm for alarm in found.alarms)
    assert "No alarm" not in str(found)
    assert all(0 < value < 0.5 for row in found.compared for value in row.untrained)
    assert all(len(set(row.untrained)) > 1 for row in found.compared), "fresh weights each time"


class Mapped(nn.Module):
    """A linear map of the inputs, or what cannot be one."""

    def __init__(self) -> None:
        super().__init__()
        operations = {
            "skip": nn.Identity,
            "none": Zero,
            "relu": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
            "linear": lambda: nn.Linear(8, 8),
        }
        self.operation = LayerChoice(operations, label="operation")

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.operation(inputs)
        return found


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
@pytest.mark.parametrize("make", [lambda: RandomOneShot(epochs=6), lambda: DARTS(epochs=6, learning_rate=0.02)])
def test_what_is_planted_raises_no_alarm(make: Any, seed: int, tmp_path: Any) -> None:
    """Two of its four architectures have nothing to train."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 8, generator=generator) / 8**0.5
    inputs = torch.randn(400, 8, generator=generator)
    targets = inputs @ weight + 0.1 * torch.randn(400, 8, generator=generator)
    train, validation = (TensorDataset(inputs[part], targets[part]) for part in (slice(256), slice(256, 400)))
    evaluator = Regression(
        train, validation, batch_size=32, optimizer="SGD", learning_rate=1.0, accelerator="cpu", logger=False
    )
    experiment = Experiment(Mapped, evaluator, make(), name="search", directory=tmp_path, seed=seed)
    experiment.run(progress="silent")
    found = experiment.one_shot_report(k=5)
    assert found.alarms == []
    assert found.kendall == 1
    assert found.is_whole_space
    assert found.direction == "minimize"
    assert "No alarm." in str(found)


class Steps(torch.autograd.Function):
    """A rounding with the gradient of the identity, which is differentiated once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Rounds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Steps.apply(x)
        return found


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        each = x[None, None]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(each, each, each)[0, 0]


def searched(layer: Callable[[], nn.Module], strategy: DARTS, folder: Any) -> Experiment:
    inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    pairs = TensorDataset(inputs, inputs.argmax(1))
    kinds = {"linear": lambda: nn.Linear(4, 4), "tanh": nn.Tanh}
    evaluator = Classification(pairs, pairs, batch_size=8, max_epochs=1, accelerator="cpu", logger=False)
    return Experiment(
        lambda: nn.Sequential(LayerChoice(kinds, label="kind"), layer(), nn.Linear(4, 4)),
        evaluator,
        strategy,
        name="search",
        directory=folder,
    )


ONCE = {"hardsigmoid": nn.Hardsigmoid, "own": Rounds, "attention": Attends}


@pytest.mark.parametrize("name", ONCE)
def test_what_cannot_be_differentiated_twice_has_no_curvature(name: str, tmp_path: Any) -> None:
    experiment = searched(ONCE[name], DARTS(candidates=2), tmp_path)
    experiment.run(progress="silent")
    found = experiment.one_shot_report(k=2)
    assert found.curvature is None
    assert found.no_curvature
    assert "not known" in str(found)


@pytest.mark.parametrize("options", [{"stop": CurvatureStop()}, {"unrolled": True}], ids=["stop", "unrolled"])
def test_searches_that_differentiate_twice_are_refused_at_once(options: Any, tmp_path: Any) -> None:
    experiment = searched(nn.Hardsigmoid, DARTS(candidates=2, **options), tmp_path)
    with pytest.raises(NasError, match=r"cannot differentiate an operation .*hardsigmoid.* To mend: .*nn.Sigmoid"):
        experiment.run(progress="silent")
