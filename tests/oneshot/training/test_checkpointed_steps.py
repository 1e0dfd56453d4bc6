"""A training step that checkpoints the whole model: every strategy trains the same as without."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, ModelSpace, ValueChoice
from nas.evaluators import LightningEvaluator
from nas.oneshot import DARTS, CurvatureStop, GumbelDARTS, ProxylessNAS, SupernetStrategy

pytestmark = pytest.mark.long


class Fit(pl.LightningModule):
    def __init__(self, model: nn.Module, how: str | None = None) -> None:
        super().__init__()
        self.model, self.how = model, how

    def training_step(self, batch: Any, number: int) -> Tensor:
        x, y = batch
        x = x.clone().requires_grad_()  # the reentrant variant has gradients only where its input has
        found = self.model(x) if self.how is None else checkpoint(self.model, x, use_reentrant=self.how == "reentrant")
        return nn.functional.cross_entropy(found, y)

    def validation_step(self, batch: Any, number: int) -> None:
        self.log("accuracy", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def network() -> nn.Module:
    width = ValueChoice([2, 4], label="width")
    kinds = {"a": lambda: nn.Linear(4, 4), "b": lambda: nn.Linear(4, 4), "tanh": nn.Tanh}
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 4), LayerChoice(kinds, label="kind"))


STRATEGIES: dict[str, Callable[[], SupernetStrategy]] = {
    "first order": lambda: DARTS(candidates=1),
    "second order": lambda: DARTS(unrolled=True, candidates=1),
    "early stop": lambda: DARTS(stop=CurvatureStop(), candidates=1),
    "gdas": lambda: GumbelDARTS(hard=True, candidates=1),
    "proxyless": lambda: ProxylessNAS(candidates=1),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "first order" else pytest.mark.slow) for n in STRATEGIES]
)
def test_every_strategy_trains_the_same(name: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 4, generator=generator), torch.randint(4, (16,), generator=generator))
    found = []
    for how in (None, "functional", "reentrant"):
        torch.manual_seed(0)
        evaluator = LightningEvaluator(Fit, data, data, metric="accuracy", how=how, max_epochs=1, batch_size=8)
        strategy = STRATEGIES[name]()
        experiment = Experiment(ModelSpace(network), evaluator, strategy, name=str(how), directory=tmp_path)
        with warnings.catch_warnings():
            experiment.run(progress="silent")
        learner: Any = strategy._training.learner  # type: ignore[union-attr]
        found.append([p.detach() for p in [*learner.architecture.parameters(), *learner.model.parameters()]])
    for others in found[1:]:
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found[0], others, strict=True))
