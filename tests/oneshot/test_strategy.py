"""What all strategies do with the user's training code: what it finds in the model, and what it may not undo."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice, OneShotStrategy
from nas.evaluators import LightningEvaluator
from nas.oneshot import DARTS, ENAS, RandomOneShot


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8))
        self.op = LayerChoice({"relu": nn.ReLU, "bn": lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh())}, label="op")
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.op(self.stem(x))))


class Initialised(pl.LightningModule):
    """Initialises its model, and gives norms a group of their own."""

    groups: list[list[list[int]]] = []  # noqa: RUF012  # of all that were trained

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.apply(self.init)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eps *= 1000

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        norms = [p for m in self.model.modules() if isinstance(m, nn.BatchNorm1d) for p in m.parameters()]
        others = [p for name, p in self.model.named_parameters() if "bn" not in name and not name.startswith("stem.1.")]
        Initialised.groups.append([[p.numel() for p in group] for group in (norms, others)])
        return torch.optim.AdamW([{"params": norms, "weight_decay": 0.0}, {"params": others}], lr=0.05)


@pytest.mark.parametrize(
    "strategy",
    [
        RandomOneShot(epochs=4, evaluations=2, population=2, candidates=2),
        ENAS(epochs=4, controller_steps=1, draws=2, candidates=2),
        DARTS(epochs=4, candidates=2),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_weights_are_initialised_before_the_search_and_not_after_it(strategy: OneShotStrategy, tmp_path: Path) -> None:
    x = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, 4 + x.sum(1, keepdim=True))
    evaluator = LightningEvaluator(Initialised, data, data, metric="loss", direction="minimize", batch_size=16)
    experiment = Experiment(Net, evaluator, strategy, name="initialised", directory=tmp_path, objective="minimize")
    Initialised.groups.clear()
    experiment.run()
    assert [[8, 8], [24, 8, 64, 8, 8, 1]] in Initialised.groups
    untrained = float((4 + x.sum(1)).square().mean())
    assert experiment.best_trial.value is not None
    assert experiment.best_trial.value < untrained - 5, "zeros say 0 of everything"
    model = experiment.export_top_models(1, formatter="model", weights="inherit")[0]
    assert model.get_parameter("head.bias").item() > 0.3
    assert model.get_submodule("stem.1").eps == pytest.approx(1e-2), "not twice"
    judged = nn.functional.mse_loss(model.eval()(x), 4 + x.sum(1, keepdim=True))
    assert judged.item() == pytest.approx(experiment.best_trial.value, rel=1e-3)
