"""Updates that are recorded, clipping and all, are those of Lightning to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import Precision
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import TensorDataset

from nas import Experiment, InputChoice, LayerChoice
from nas.evaluators import LightningEvaluator
from nas.oneshot import DARTS, PCDARTS, GumbelDARTS, Speed
from nas.oneshot.training import RelaxedLearner

BATCHES = 9


def network() -> nn.Module:
    kinds = {f"c{k}": lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
    layer = LayerChoice({**kinds, "skip": nn.Identity}, label="layer")
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), layer, norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


class Edge(nn.Module):
    """Edges, whose channels may be partial."""

    def __init__(self) -> None:
        super().__init__()
        self.input = InputChoice(2, 2, replace=False, each=self._edge, label="node")

    @staticmethod
    def _edge(number: int) -> nn.Module:
        kernels = {f"c{k}": lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3)}  # type: ignore[misc]
        return LayerChoice({**kernels, "skip": nn.Identity}, label=f"edge{number}")

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.input([x, torch.relu(x)])
        return found


def edges() -> nn.Module:
    nodes = nn.Sequential(Edge())
    return nn.Sequential(nn.Conv2d(3, 4, 3), nodes, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Plain(LightningModule):
    """Trains by SGD with momentum, whose rate a scheduler lowers inside of an epoch."""

    scheduled = False
    optimizer: Callable[..., Optimizer] = staticmethod(lambda parameters: SGD(parameters, lr=0.1, momentum=0.9))

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> Any:
        optimizer = type(self).optimizer(self.model.parameters())
        if not self.scheduled:
            return optimizer
        return [optimizer], [{"scheduler": StepLR(optimizer, 6, 0.5), "interval": "step"}]


class Scheduled(Plain):
    scheduled = True


class OnTheHost(Plain):
    optimizer = staticmethod(lambda parameters: Adam(parameters, lr=0.01))


class ClipsAndLooks(Plain):
    """Looks at the gradients after they are clipped."""

    seen: list[float] = []  # noqa: RUF012 - of all objects

    def configure_gradient_clipping(self, optimizer: Any, *given: Any, **named: Any) -> None:
        self.clip_gradients(optimizer, *given, **named)
        norms = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        self.seen.append(float(torch.stack(norms).norm()))


class Own(Plain):
    """Takes and adds gradients by hand."""

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        (2 * loss).backward(*args, **kwargs)  # type: ignore[no-untyped-call]


class Looks(Plain):
    """Hooks between the gradients and the step."""

    seen: list[float] = []  # noqa: RUF012 - of all objects

    def on_after_backward(self) -> None:
        self.seen.append(sum(float(p.grad.sum()) for p in self.parameters() if p.grad is not None))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)


def search(
    folder: Path, make: Any, factory: type[Plain], *, space: Any = network, timeouts: int = 0, **given: Any
) -> tuple[list[Any], dict[str, Any], list[str]]:
    """What was found, what was trained, and what the report of speed says of the whole."""
    reports: list[list[str]] = []
    begin = RelaxedLearner.begin_epoch

    def keep(learner: RelaxedLearner, at: Any) -> None:
        begin(learner, at)
        reports.append(learner.report.whole)

    torch.manual_seed(0)
    images = TensorDataset(torch.randn(BATCHES * 4, 3, 8, 8), torch.randint(2, (BATCHES * 4,)))
    given = {"batch_size": 4, "max_epochs": 2, "accelerator": "cpu", "logger": False, "metric": "loss", **given}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RelaxedLearner, "begin_epoch", keep)
        for timeout in [1e-3] * timeouts + [None]:
            evaluator = LightningEvaluator(factory, images, images, **given)
            experiment = Experiment(
                space, evaluator, make(), name="e", directory=folder, resume=True, objective="minimize"
            )
            experiment.run(1, progress="silent", timeout=timeout)
    state = torch.load(experiment.path / "supernet" / "last.ckpt", weights_only=True)
    tensors = {**state["state_dict"], **state["nas"]["learner"]}
    return [(t.sample, dict(t.metrics)) for t in experiment.trials], tensors, reports[-1] if reports else []


def check_alike(found: tuple[Any, dict[str, Any], Any], expected: tuple[Any, dict[str, Any], Any]) -> None:
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        assert not isinstance(tensor, Tensor) or torch.equal(found[1][name], tensor), name


ONE, TWO = "gradients are clipped and weights updated as one CUDA graph", "as two CUDA graphs: "
SCALE: dict[str, Any] = {"gradient_clip_val": 0.05}


def strategies(name: str, graphs: bool) -> Callable[[], Any]:
    speed = Speed(cuda_graphs=graphs)
    kinds: dict[str, Callable[[], Any]] = {
        "darts": lambda: DARTS(candidates=1, speed=speed),
        "gdas": lambda: GumbelDARTS(hard=True, candidates=1, speed=speed),
        "partial": lambda: PCDARTS(partial_channels=2, warmup_epochs=0, candidates=1, speed=speed),
    }
    return kinds[name]


@pytest.mark.parametrize(
    ("name", "factory", "given", "says"),
    [
        ("darts", Scheduled, SCALE, ONE),
        pytest.param("darts", Plain, {**SCALE, "gradient_clip_algorithm": "value"}, ONE, marks=pytest.mark.slow),
        pytest.param("darts", Plain, {}, None, marks=pytest.mark.slow),
        ("darts", ClipsAndLooks, SCALE, TWO + "the module has a configure_gradient_clipping of its own"),
        ("darts", Looks, SCALE, ONE),
        pytest.param("darts", Own, SCALE, ONE, marks=pytest.mark.slow),
        pytest.param(
            "darts", OnTheHost, SCALE, "steps of Adam are not recorded as CUDA graphs", marks=pytest.mark.slow
        ),
        ("darts", Plain, {**SCALE, "accumulate_grad_batches": 2}, None),
        ("gdas", Plain, SCALE, None),
        pytest.param("partial", Plain, SCALE, ONE, marks=pytest.mark.slow),
    ],
)
def test_recorded_updates_are_the_same_to_the_bit(
    name: str, factory: type[Plain], given: dict[str, Any], says: str | None, tmp_path: Path, recorders: list[Any]
) -> None:
    seen: list[float] = getattr(factory, "seen", [])
    seen.clear()
    space = edges if name == "partial" else network
    plain = search(tmp_path / "plain", strategies(name, False), factory, space=space, **given)
    assert not recorders
    seen_plainly = seen.copy()
    seen.clear()
    found = search(tmp_path / "found", strategies(name, True), factory, space=space, **given)
    check_alike(found, plain)
    assert seen == seen_plainly
    assert sum(recorder.replays for recorder in recorders)
    assert says is None or [line for line in found[2] if says in line] != [], found[2]
    assert ONE not in found[2] or factory not in (OnTheHost, ClipsAndLooks)


def test_recorded_updates_go_on_after_interruptions(tmp_path: Path, recorders: list[Any]) -> None:
    plain = search(tmp_path / "plain", strategies("darts", False), Scheduled, **SCALE)
    found = search(tmp_path / "found", strategies("darts", True), Scheduled, timeouts=6, **SCALE)
    check_alike(found, plain)


def test_a_precision_that_clips_in_its_own_way_is_left_alone(tmp_path: Path, recorders: list[Any]) -> None:
    class Halving(Precision):
        def clip_grad_by_norm(self, optimizer: Any, clip_val: Any) -> None:
            super().clip_grad_by_norm(optimizer, clip_val / 2)

    plain = search(tmp_path / "plain", strategies("darts", False), Plain, plugins=[Halving()], **SCALE)
    found = search(tmp_path / "found", strategies("darts", True), Plain, plugins=[Halving()], **SCALE)
    check_alike(found, plain)
    assert not [line for line in found[2] if "clipped" in line]
