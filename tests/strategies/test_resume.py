"""Every strategy in a real experiment that is broken off and resumed: the samples of one that was not."""

from pathlib import Path

import pytest
from torch import nn

from nas import Experiment, InputChoice, LayerChoice, Real, Repeat, Sample, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.testing import STRATEGIES


def network() -> nn.Module:
    wide = LayerChoice(
        {"plain": nn.Identity, "wide": lambda: nn.Linear(4, ValueChoice([4, 8, 16], label="width"))}, label="layer"
    )
    blocks = Repeat(lambda i: LayerChoice([nn.ReLU, nn.Tanh, nn.GELU]), (0, 4), label="depth")
    return nn.Sequential(wide, blocks, InputChoice(3, 2, label="inputs"))


def worth(model: nn.Module, rate: float) -> float:
    if isinstance(model[0], nn.Linear) and model[0].out_features == 8:  # type: ignore[index]
        raise ValueError("eight")
    return sum(p.numel() for p in model.parameters()) * rate + len(model[1])  # type: ignore[index]


def search(folder: Path, name: str, trials: int, *, resume: bool = False) -> list[Sample]:
    listed = STRATEGIES[name]
    rate = Real(0.1, 1.0) if listed.infinite else Real(0.1, 1, step=0.1)
    experiment = Experiment(
        network,
        FunctionalEvaluator(worth, rate=rate),
        listed.make(),
        name="resumed",
        directory=folder,
        seed=5,
        resume=resume,
    )
    experiment.run(trials, progress="silent")
    return [trial.sample for trial in experiment.trials]


# A part of the search is shorter than the population.
@pytest.mark.filterwarnings("ignore:RegularizedEvolution:UserWarning")
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_search_goes_on_as_the_whole_one(tmp_path: Path, name: str) -> None:
    whole = search(tmp_path / "whole", name, 24)
    for trials in (7, 16, 24):
        parts = search(tmp_path / "parts", name, trials, resume=trials > 7)
    assert parts == whole
    assert len(whole) == 24
