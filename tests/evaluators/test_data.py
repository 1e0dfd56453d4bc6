"""Batches that the framework makes of datasets lie where a device can fetch them while it is at work."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nas import Experiment, LayerChoice
from nas.evaluators import Classification
from nas.strategies import Random


class Batches(Callback):
    """Keeps what training steps are given."""

    found: list[Tensor] = []  # noqa: RUF012 - Lightning copies callbacks

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.found.append(batch[0])


def trained(folder: Path, inputs: Tensor, labels: Tensor, **given: Any) -> None:
    data = TensorDataset(inputs, labels)
    trainer: dict[str, Any] = {"max_epochs": 1, "logger": False, "callbacks": [Batches()], **given}
    evaluator = Classification(data, data, batch_size=4, **trainer)
    choice = lambda: LayerChoice([lambda: nn.Linear(3, 2)], label="only")  # noqa: E731
    Experiment(choice, evaluator, Random(), name="e", directory=folder).run(1, progress="silent")


def test_where_there_is_a_device_batches_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pins memory stands in: without a device there is none to pin it for."""
    pinned: list[torch.Size] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor.shape)
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    trained(tmp_path / "without", torch.randn(8, 3), torch.zeros(8, dtype=torch.long), accelerator="cpu")
    assert pinned == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trained(tmp_path / "with", torch.randn(8, 3), torch.zeros(8, dtype=torch.long), accelerator="cpu")
    assert pinned.count(torch.Size([4, 3])) == pinned.count(torch.Size([4])) >= 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_data_on_the_device_stays_there(where: str, tmp_path: Path) -> None:
    inputs = torch.randn(8, 3, device=where)
    Batches.found.clear()
    trained(tmp_path, inputs, torch.zeros(8, dtype=torch.long, device=where), accelerator="gpu", devices=1)
    assert [batch.device.type for batch in Batches.found] == ["cuda"] * 2
