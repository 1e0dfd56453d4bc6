"""Metrics without a Trainer's loop, and batch statistics taken afresh."""

from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from nas.oneshot.training.measures import measure, metrics_of_module, recalibrate, size_of, untouched


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.accuracy = MulticlassAccuracy(3, average="micro")

    def validation_step(self, batch: list[Tensor]) -> None:
        scores = self.model(batch[0])
        self.accuracy.update(scores, batch[1])
        self.log("accuracy", self.accuracy)
        self.log_dict({"first": scores[0, 0], "mean": scores.mean()}, on_epoch=True)


def batches() -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(10, 3, generator=generator), torch.arange(10) % 3
    return [[inputs[:8], labels[:8]], [inputs[8:], labels[8:]]]


def measured(module: Module, **given: Any) -> dict[str, float]:
    return measure(module, ((batch, 0) for batch in batches()), **given)


def test_means_are_over_samples_and_modes_come_back() -> None:
    module = Module().train()
    module.model[1].eval()
    found = measured(module)
    inputs, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    scores = inputs / (1 + 1e-5) ** 0.5
    assert found["accuracy"] == pytest.approx((scores.argmax(1) == labels).float().mean().item())
    assert found["mean"] == pytest.approx(scores.mean().item(), rel=1e-4)
    assert found["first"] == pytest.approx((8 * scores[0, 0] + 2 * scores[8, 0]).item() / 10, rel=1e-4)
    assert [m.training for m in module.modules()] == [True, True, True, False, True]
    assert measured(module) == found, "the metrics began anew"


def test_statistics_of_the_batch() -> None:
    module = Module()
    module.model[1].p = 0.0
    inputs = batches()[0][0]
    found = measured(module, batch_statistics=module.model[0])
    normal = (inputs - inputs.mean(0)) / inputs.std(0, unbiased=False)
    assert abs(found["mean"]) < 1e-5
    assert normal[0, 0].isfinite()
    assert module.model[0].num_batches_tracked == 2


def test_what_metrics_have_seen_is_put_back() -> None:
    module = Module()
    inputs, labels = batches()[0]
    module.accuracy.update(inputs, labels)
    before = module.accuracy.compute()
    with untouched(metrics_of_module(module)):
        module.accuracy.update(-inputs, labels)
        assert module.accuracy.compute() != before
    assert module.accuracy.compute() == before
    module.accuracy.update(inputs, labels)
    assert module.accuracy.update_count == 2


def test_sizes() -> None:
    assert size_of(torch.zeros(4, 2)) == 4
    assert size_of({"x": [torch.zeros(3)], "y": 1}) == 3
    assert size_of("text") == 1
    assert size_of([torch.tensor(1.0)]) == 1


def test_recalibration_is_the_mean_over_batches() -> None:
    inputs = [torch.randn(16, 3, generator=torch.Generator().manual_seed(seed)) + 2 for seed in range(4)]
    norm = nn.BatchNorm1d(3, momentum=0.3)
    seen: list[bool] = []
    model = nn.Sequential(norm, nn.Dropout(0.5))
    model.register_forward_hook(lambda module, given, out: seen.append(bool((out == 0).any())))
    norm.running_mean.fill_(99)
    model.eval()
    recalibrate(model, inputs, model)
    assert torch.allclose(norm.running_mean, torch.stack([x.mean(0) for x in inputs]).mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, torch.stack([x.var(0) for x in inputs]).mean(0), atol=1e-5)
    assert norm.momentum == 0.3
    assert not any(module.training for module in model.modules())
    assert seen == [False] * 4, "no dropout meanwhile"
    recalibrate(nn.Linear(2, 2), [], lambda batch: pytest.fail("nothing to do"))
