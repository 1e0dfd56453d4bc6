"""A cost of a user's own limits a search, is penalised, and is a metric; what is no cost is refused."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas import Experiment, LayerChoice, ModelSpace, NasError, Repeat, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.oneshot import CostPenalty, RelaxedSupernet
from nas.profile import ModuleRun, TensorSpec, cost, profile
from nas.strategies import Random

BITS = {nn.Conv2d: 8, nn.Linear: 4}


def bits(run: ModuleRun) -> float:
    """Convolutions of 8 bits, linear layers of 4, all else of 32."""
    return run.parameters * BITS.get(type(run.module), 32)


class Net(nn.Module):
    """A width that multiplies, a depth, and kinds of layers."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 8], label="width")
        self.stem = nn.Conv2d(3, width, ValueChoice([1, 3], label="kernel"), padding="same")
        kinds = {"conv": lambda: nn.Conv2d(width, width, 3, padding=1), "norm": lambda: nn.BatchNorm2d(width)}
        self.blocks = Repeat(lambda i: LayerChoice(kinds, label=f"kind{i}"), (1, 2), label="depth")
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return found


SPACE = ModelSpace(Net)
SHAPE = (2, 3, 8, 8)


def by_hand(model: nn.Module) -> float:
    own = ((module, sum(p.numel() for p in module.parameters(recurse=False))) for module in model.modules())
    return sum(number * BITS.get(type(module), 32) for module, number in own)


def test_it_is_the_sum_over_the_modules_of_every_sample() -> None:
    found = cost(SPACE, SHAPE, bits, name="bits")
    for sample in SPACE.grid():
        model = SPACE.build(sample)
        assert found(sample) == by_hand(model) == cost(model, SHAPE, bits)
    values = [found(sample) for sample in SPACE.grid()]
    bounds = found.bounds()
    assert (bounds.least, bounds.greatest, bounds.exact) == (min(values), max(values), True)
    assert ("width", "kernel") in found.interactions
    assert repr(found < 3) == "bits < 3"


def test_what_profile_counts_is_a_special_case() -> None:
    usual = profile(SPACE, SHAPE)
    flops, activations = (cost(SPACE, SHAPE, of) for of in (lambda run: run.flops, lambda run: run.activations))
    for seed in range(10):
        sample = SPACE.sample(seed)
        assert (flops(sample), activations(sample)) == (usual.flops(sample), usual.activations(sample))


def test_fractions_are_kept() -> None:
    found = cost(SPACE, SHAPE, lambda run: run.parameters * 0.1)
    sample = SPACE.sample(3)
    expected = sum(p.numel() for p in SPACE.build(sample).parameters()) * 0.1
    assert found(sample) == pytest.approx(expected, abs=1e-7)
    assert cost(SPACE, SHAPE, lambda run: 2.0**60 * run.leaf)(sample) == 2.0**60 * len(list(leaves(sample)))


def leaves(sample: Any) -> list[nn.Module]:
    return [module for module in SPACE.build(sample).modules() if not list(module.children())]


def test_a_run_tells_what_went_in_and_out() -> None:
    seen: dict[str, ModuleRun] = {}

    def note(run: ModuleRun) -> int:
        seen[run.path] = run
        return 0

    sample = {"width": 4, "kernel": 3, "depth": 1, "kind0": "norm"}
    assert cost(SPACE.build(sample), SHAPE, note) == 0
    assert seen["stem"].inputs == [(TensorSpec(SHAPE, torch.float32),)]
    assert seen["stem"].outputs == [((2, 4, 8, 8),)]
    assert seen["stem"].module.weight.is_meta
    assert seen["stem"].leaf
    assert not seen[""].leaf


def test_it_limits_a_search_and_is_a_metric(tmp_path: Path) -> None:
    found = cost(SPACE, SHAPE, bits)
    limit = found.bounds().least * 1.5
    experiment = Experiment(
        SPACE.where(found < limit),
        FunctionalEvaluator(lambda model: {"bits": cost(model, SHAPE, bits)}),
        Random(),
        name="bits",
        directory=tmp_path,
        objective={"bits": "minimize"},
    )
    experiment.run(5, progress="silent")
    assert all(trial.value == found(trial.sample) < limit for trial in experiment.trials)


def test_it_is_penalised() -> None:
    """Its expectation under the probabilities, with a gradient."""
    found = cost(SPACE, SHAPE, bits)
    architecture = RelaxedSupernet(SPACE).architecture
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    penalty = CostPenalty(cost=found, weight=1.0, target=1.0)
    expected = penalty.expected(architecture)
    rng, total = random.Random(0), 0.0
    shares = {label: architecture.probabilities(label).tolist() for label in architecture.labels}
    draws = Counter(tuple(rng.choices(range(len(p)), p)[0] for p in shares.values()) for _ in range(4000))
    for places, times in draws.items():
        drawn = {n: architecture.answers(n)[place] for n, place in zip(shares, places, strict=True)}
        sample = {n: a for n, a in drawn.items() if n != "kind1" or drawn["depth"] == 2}
        total += times * found(SPACE.complete(sample))
    assert expected.item() == pytest.approx(total / 4000, rel=0.05)
    expected.backward()
    gradient = architecture.parameter("width").grad
    assert gradient is not None
    assert gradient[1] > 0 > gradient[0], "the wider costs more"


@pytest.mark.parametrize(
    ("model", "of", "message"),
    [
        (SPACE, 3, "of is a function of what a module does; received 3"),
        (Net, bits, "a cost is that of a module or of a ModelSpace"),
        (
            SPACE,
            lambda run: None,
            "of the model itself: what a module costs must be a number from 0 on; received None",
        ),
        (
            SPACE,
            lambda run: -1.0 * (run.path == "head"),
            "'head': what a module costs must be a number from 0 on; received -1.0",
        ),
        (SPACE, lambda run: float("nan"), "must be a finite number from 0 on; received nan"),
        (nn.Conv2d(3, 3, 1), lambda run: True, "must be a number from 0 on; received True"),
    ],
)
def test_what_is_no_cost_is_refused(model: Any, of: Any, message: str) -> None:
    with pytest.raises(NasError, match=message):
        cost(model, SHAPE, of)
