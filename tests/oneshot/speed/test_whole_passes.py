"""Memory format, compilation and cells that are computed again change no numbers, statistics included."""

import pytest
import torch
from torch import nn

from nas import LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.model_zoo import darts
from nas.oneshot import ArchitectureSteps, RelaxedSupernet, Report, Speed, compile_whole, optimise
from nas.oneshot.speed.whole_passes import cells


class Block(nn.Module):
    """Two equal candidates and a pooled one."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.op = LayerChoice({"a": self._conv, "b": self._conv, "pool": lambda: nn.AvgPool2d(3, 1, 1)}, label=label)

    @staticmethod
    def _conv() -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.op(x)  # type: ignore[no-any-return]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(Block("one"), nn.Tanh(), Block("two")))


def supernet() -> RelaxedSupernet:
    net = RelaxedSupernet(ModelSpace(network))
    net.model.double().train()
    net.architecture.double()
    return net


X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def observe(net: RelaxedSupernet, x: torch.Tensor = X) -> list[torch.Tensor]:
    net.architecture.mix()
    y = net.model(x)
    wanted = [*net.model.parameters(), *net.architecture.parameters()]
    return [y, *torch.autograd.grad(y.square().sum(), wanted), *(b.clone() for b in net.model.buffers())]


def check_alike(net: RelaxedSupernet) -> None:
    plain = supernet()
    for _ in range(2):
        for ours, theirs in zip(observe(net), observe(plain), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-10)


def test_cells_are_found() -> None:
    assert [type(cell).__name__ for cell in cells(supernet().model)] == ["Block", "Block"]
    net = RelaxedSupernet(ModelSpace(lambda: darts(channels=4, cells=3)))
    assert [type(cell).__name__ for cell in cells(net.model)] == ["CellModule"] * 3


@pytest.mark.parametrize("merge", [True, False])
def test_cells_are_computed_again_and_statistics_counted_once(merge: bool) -> None:
    net = supernet()
    calls = []
    report = optimise(net, (X,), Speed(checkpoint_cells=True, merge=merge))
    assert "2 cells are computed again in the backward pass" in report.whole
    check_alike(net)
    net.model[1][1].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index, union-attr]
    observe(net)
    assert calls == [1], "what is between the cells is computed once"
    report.undo()
    assert all("forward" not in vars(cell) for cell in cells(net.model))


def test_what_cannot_be_computed_again_is_refused() -> None:
    net = RelaxedSupernet(ModelSpace(lambda: nn.Conv2d(1, ValueChoice([2, 4], label="width"), 1)))
    with pytest.raises(NasValueError, match="cells whose parameters are masked are not computed again"):
        optimise(net, (torch.zeros(1, 1, 4, 4),), Speed(checkpoint_cells=True))
    with pytest.raises(NasValueError, match="the second order replaces the weights for a while"):
        ArchitectureSteps(unrolled=True, speed=Speed(checkpoint_cells=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at it itself
@pytest.mark.parametrize("merge", [True, False])
def test_the_whole_model_is_compiled_without_a_break(merge: bool) -> None:
    net = supernet()
    optimise(net, (X,), Speed(merge=merge))
    net.model.compile(backend="aot_eager", fullgraph=True)
    check_alike(net)


def test_cells_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    net = supernet()
    speed = Speed(compile=True)
    report = optimise(net, (X,), speed)
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append((type(self).__name__, options)))
    compile_whole(net, speed, report)
    assert compiled == [("Block", {})] * 2
    assert "2 modules are compiled" in report.whole


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at it itself
@pytest.mark.slow
def test_cells_are_compiled_by_inductor() -> None:
    net = supernet()
    speed = Speed(compile=True)
    compile_whole(net, speed, optimise(net, (X,), speed))
    check_alike(net)


def test_cuda_graphs_need_cuda() -> None:
    with pytest.raises(NasValueError, match="CUDA graphs need a CUDA device"):
        compile_whole(supernet(), Speed(cuda_graphs=True), Report())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("speed", [Speed(), Speed(merge=False), Speed(compile=True), Speed(cuda_graphs=True)])
def test_a_device_computes_the_same(speed: Speed) -> None:
    net, plain = supernet(), supernet()
    for each in (net, plain):
        each.model.cuda()
        each.architecture.cuda()
    compile_whole(net, speed, optimise(net, (X.cuda(),), speed))
    for _ in range(6):
        for ours, theirs in zip(observe(net, X.cuda()), observe(plain, X.cuda()), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-10)


def test_one_channel_is_laid_so_that_the_next_layers_channels_lie_together() -> None:
    net = RelaxedSupernet(
        ModelSpace(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), LayerChoice([nn.ReLU, nn.Tanh], label="a")))
    )
    x = torch.randn(2, 1, 8, 8)
    expected = net.model(x)
    optimise(net, (x,))
    y = net.model(x)
    assert torch.allclose(y, expected, atol=1e-6)
    assert y.is_contiguous(memory_format=torch.channels_last)
