"""What a step of training costs beside the model: nothing walks over its modules, once its paths are known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice
from nas.evaluators import Classification
from nas.oneshot import DARTS, ENAS, GumbelDARTS, ProxylessNAS, RandomOneShot

ALGORITHMS = [DARTS, GumbelDARTS, ProxylessNAS, RandomOneShot, ENAS]


def network() -> nn.Module:
    kinds = {"linear": lambda: nn.Linear(8, 8), "tanh": nn.Tanh, "skip": nn.Identity}
    return nn.Sequential(nn.Linear(6, 8), LayerChoice(kinds, label="kind"), nn.Linear(8, 3))


class Walks(Callback):
    """Counts the walks over modules from the end of the 16th step to that of the 18th."""

    found: list[str] = []  # noqa: RUF012 - Lightning copies callbacks

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 15:
            self.walk = nn.Module.named_modules
            walk, found = self.walk, self.found

            def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
                found.append(type(module).__name__)
                return walk(module, *args, **kwargs)

            nn.Module.named_modules = counted  # type: ignore[method-assign, assignment]
        elif batch_idx == 17:
            nn.Module.named_modules = self.walk  # type: ignore[method-assign]


@pytest.mark.parametrize("make", ALGORITHMS, ids=lambda make: make.__name__)
def test_no_step_walks_over_the_modules(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "named_modules", nn.Module.named_modules)
    monkeypatch.setattr(Walks, "found", [])
    data = [TensorDataset(torch.randn(40, 6), torch.randint(3, (40,))) for _ in range(2)]
    given: dict[str, Any] = {"accelerator": "cpu", "logger": False, "gradient_clip_val": 1.0, "callbacks": [Walks()]}
    evaluator = Classification(*data, batch_size=2, optimizer="SGD", **given)
    strategy = make(epochs=1, candidates=1, recalibration=1)
    Experiment(network, evaluator, strategy, name="e", directory=tmp_path).run(1, progress="silent")
    assert nn.Module.named_modules.__name__ == "named_modules", "the 18th step has come"
    assert Walks.found == []
