"""Memory format, compilation and cells that are computed again change no numbers, statistics included."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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
    copy.deepcopy(net.model)  # no tensor of the last pass is left in it
    net.model[1][1].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index, union-attr]
    observe(net)
    assert calls == [1], "what is between the cells is computed once"
    report.undo()
    assert all("forward" not in vars(cell) for cell in cells(net.model))


class Wide(nn.Module):
    """A cell of a chosen width, called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        self.into, self.out = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 1)
        self.op = LayerChoice([nn.ReLU, nn.Tanh], label="op")

    def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        return scale * self.out(self.op(self.into(x)))  # type: ignore[no-any-return]


class Wides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.cells = nn.Conv2d(1, 4, 1), nn.ModuleList([Wide()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for cell in self.cells:
            x = cell(x, scale=2.0)
        return x


def test_cells_of_a_chosen_width_are_computed_again_with_their_masks() -> None:
    nets = [RelaxedSupernet(ModelSpace(Wides)) for _ in range(2)]
    for net in nets:
        net.model.double().train()
        net.architecture.double()
    optimise(nets[0], (X,), Speed(checkpoint_cells=True))
    for ours, theirs in zip(observe(nets[0]), observe(nets[1]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)
    assert theirs.any()


def test_what_cannot_be_computed_again_is_refused() -> None:
    with pytest.raises(NasValueError, match="the second order replaces the weights for a while"):
        ArchitectureSteps(unrolled=True, speed=Speed(checkpoint_cells=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at it itself
@pytest.mark.parametrize("merge", [True, False])
def test_the_whole_model_is_compiled_without_a_break(merge: bool) -> None:
    net = supernet()
    optimise(net, (X,), Speed(merge=merge))
    net.model.compile(backend="aot_eager", fullgraph=True)
    check_alike(net)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at it itself
@pytest.mark.slow
def test_mixtures_are_compiled_by_inductor() -> None:
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


class Checkpointed(nn.Module):
    """Mixtures that read one tensor, some of them in a checkpoint of the user's."""

    def __init__(self, how: bool | None) -> None:
        super().__init__()
        self.how, self.steps = how, 0
        self.ops = nn.ModuleList(
            LayerChoice({"a": Block._conv, "b": Block._conv, "c": lambda: nn.Conv2d(4, 4, 1)}, label=f"op{i}")
            for i in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        x = torch.cat([x, x * x, x + 1, -x], dim=1)
        part = lambda y: self.ops[1](y) * self.ops[2](y)  # noqa: E731
        middle = part(x) if self.how is None or not self.training else checkpoint(part, x, use_reentrant=self.how)
        found: torch.Tensor = self.ops[0](x) + middle + self.ops[3](x)
        return found


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_mixtures_in_a_checkpoint_share_nothing_with_those_outside(reentrant: bool, merge: bool) -> None:
    nets = [RelaxedSupernet(ModelSpace(lambda how: Checkpointed(how), how)) for how in (reentrant, None)]
    for net in nets:
        net.model.double().train()
        net.architecture.double()
    steps = nets[0].model.steps
    optimise(nets[0], (X,), Speed(merge=merge))
    assert nets[0].model.steps == steps + 1, "what is done in training is not counted"
    for _ in range(2):
        found = [[tensor for i, tensor in enumerate(observe(net))] for net in nets]
        buffers = len(list(nets[0].model.buffers()))
        for ours, theirs in zip(*(tensors[:-buffers] for tensors in found), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-10)
    # In a checkpoint torch counts a batch twice; outside of it once.
    counts = [int(b) for name, b in nets[0].model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [2, 2, 4, 4, 4, 4, 2, 2]


def test_a_checkpoint_that_the_example_did_not_have_is_refused_where_it_changes_what_is_computed() -> None:
    net = RelaxedSupernet(ModelSpace(Checkpointed, None))
    net.model.double().train()
    net.architecture.double()
    optimise(net, (X,), Speed(merge=True))
    net.model.how = False
    with pytest.raises(NasValueError, match="now one of them stands in an activation checkpoint"):
        observe(net)


def test_a_model_that_needs_more_to_be_trained_is_looked_at_all_the_same() -> None:
    class Targets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op, self.seen = LayerChoice([nn.Tanh, nn.ReLU], label="op"), 0
            self.register_buffer("last", torch.zeros(1))

        def forward(self, x: torch.Tensor, targets: torch.Tensor | None = None) -> torch.Tensor:
            self.seen += self.training
            self.last = self.last + self.training
            assert targets is not None or not self.training
            y: torch.Tensor = self.op(x)
            return y

    net = RelaxedSupernet(ModelSpace(Targets))
    optimise(net, X)
    assert net.model.seen == net.model.last == 0
    assert net.model.training
