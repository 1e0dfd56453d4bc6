"""Models as people call them: by keyword, with dicts, None and masks; every algorithm trains and judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from nas import Experiment, LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.evaluators import LightningEvaluator
from nas.oneshot import DARTS, ENAS, GumbelDARTS, ProxylessNAS, RandomOneShot
from nas.oneshot.training.calls import network_calls

SHORT: Any = {"candidates": 1, "recalibration": 2}
ALGORITHMS: dict[str, Any] = {
    "DARTS": lambda: DARTS(**SHORT),
    "Gumbel": lambda: GumbelDARTS(hard=True, **SHORT),
    "Proxyless": lambda: ProxylessNAS(**SHORT),
    "ENAS": lambda: ENAS(controller_steps=1, samples_per_step=2, draws=3, **SHORT),
    "RandomOneShot": lambda: RandomOneShot(evaluations=3, **SHORT),
    "sandwich": lambda: RandomOneShot(sampling="sandwich", evaluations=3, distillation=None, **SHORT),
    "sum": lambda: RandomOneShot(sampling="sum", evaluations=3, **SHORT),
}


class Sentences(Dataset[Any]):
    """Tokens with a mask, as dicts."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        generator = torch.Generator().manual_seed(index)
        tokens = torch.randint(10, (5,), generator=generator)
        return {"tokens": tokens, "mask": torch.arange(5) < 3 + index % 3, "label": tokens[0] % 3}


class Reader(nn.Module):
    """(batch, 5) tokens and what else is given by keyword -> (batch, 3)"""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([8, 4], label="width")
        self.embed = nn.Embedding(10, 8)
        kinds = {"linear": lambda: nn.Linear(8, 8), "tanh": nn.Tanh}
        self.layer = LayerChoice(kinds, label="kind")
        self.squeeze = nn.Sequential(nn.Linear(8, width), nn.Linear(width, 8))
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor | None]:
        x = self.squeeze(self.layer(self.embed(tokens)))
        x = x if mask is None else x * mask[..., None]
        scores = self.head(self.norm(x.mean(1)))
        return {"loss": None if labels is None else cross_entropy(scores, labels), "scores": scores}


class ReaderOfBatches(Reader):
    def forward(self, batch: dict[str, Tensor]) -> Any:  # type: ignore[override]  # another way to be called
        return super().forward(batch["tokens"], mask=batch["mask"], labels=batch["label"])


CALLS: dict[str, tuple[Any, Any]] = {
    "keywords": (Reader, lambda model, b: model(tokens=b["tokens"], mask=b["mask"], labels=b["label"])),
    "None": (Reader, lambda model, b: model(b["tokens"], None, mask=None, labels=b["label"])),
    "a dict": (ReaderOfBatches, lambda model, b: model(b)),
    "a dict by keyword": (ReaderOfBatches, lambda model, b: model(batch=b)),
}


MOST = ("DARTS", "RandomOneShot")
PAIRS = [
    pytest.param(name, way, marks=[] if name in MOST or way == "keywords" else pytest.mark.slow)
    for name in ALGORITHMS
    for way in CALLS
]


class Reads(LightningModule):
    def __init__(self, model: nn.Module, way: str) -> None:
        super().__init__()
        self.model, self.way = model, way

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return CALLS[self.way][1](self.model, batch)["loss"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = CALLS[self.way][1](self.model, batch)["scores"]
        self.log("val_acc", (scores.argmax(1) == batch["label"]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


def evaluator(way: str) -> LightningEvaluator:
    loaders = DataLoader(Sentences(), 8), DataLoader(Sentences(), 8)
    return LightningEvaluator(Reads, *loaders, metric="val_acc", way=way, max_epochs=1, accelerator="cpu", logger=False)


@pytest.mark.parametrize(("algorithm", "way"), PAIRS)
def test_every_way_to_call_a_model(algorithm: str, way: str, tmp_path: Path) -> None:
    search = Experiment(CALLS[way][0], evaluator(way), ALGORITHMS[algorithm](), name="search", directory=tmp_path)
    search.run(progress="silent")
    assert len(search.trials) == 1
    (model,) = search.export_top_models(1, "model", inherit_weights=True)
    batch = next(iter(DataLoader(Sentences(), 8)))
    assert CALLS[way][1](model.eval(), batch)["scores"].shape == (8, 3)


@pytest.mark.parametrize("way", CALLS)
def test_a_call_is_recorded_with_its_keywords(way: str) -> None:
    kind, call = CALLS[way]
    model = ModelSpace(kind).build({"width": 4, "kind": "tanh"})
    calls = network_calls(evaluator(way), model, seed=0, number=2)
    assert len(calls) == 2
    batches = list(DataLoader(Sentences(), 8))
    for found, batch in zip(calls, batches, strict=False):
        model.eval()
        again = model(*found.args, **found.kwargs)
        assert torch.equal(again["scores"], call(model, batch)["scores"])


def test_a_step_that_does_not_call_the_model_is_refused(tmp_path: Path) -> None:
    class Elsewhere(Reads):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model.head.weight.sum()

    arguments = {"metric": "val_acc", "way": "keywords", "max_epochs": 1, "accelerator": "cpu", "logger": False}
    other = LightningEvaluator(Elsewhere, DataLoader(Sentences(), 8), DataLoader(Sentences(), 8), **arguments)
    with pytest.raises(NasValueError, match="must call the model"):
        Experiment(Reader, other, RandomOneShot(**SHORT), name="search", directory=tmp_path).run(progress="silent")
