"""Architectures taken out of a supernet: their own copies of all weights and buffers, and nothing lost."""

import pytest
import torch
from torch import Tensor, nn

from nas import Cell, InputChoice, LayerChoice, ModelSpace, NasValueError, Repeat, ValueChoice
from nas.oneshot import RelaxedSupernet, Speed, optimise
from nas.oneshot.relaxed.extraction import labels_at_fault


class Net(nn.Module):
    """Normalised, partly frozen, tied, without some biases, and with choices of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice(
            {
                "conv": lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2)),
                "affine": lambda: nn.BatchNorm2d(2, affine=False),
            },
            label="first",
        )
        self.blocks = Repeat(lambda i: nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), (1, 3), label="depth")
        self.frozen = nn.Conv2d(2, 2, 1)
        self.frozen.weight.requires_grad_(False)
        self.tied = nn.Conv2d(2, 2, 1)
        self.tied.weight = self.frozen.weight
        self.each = InputChoice(2, 1, each=lambda i: nn.Conv2d(2, 2, 1), label="input")
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.first(x))
        z: Tensor = self.each([self.frozen(y), self.tied(y)])
        return z * self.scale


@pytest.fixture
def net() -> RelaxedSupernet:
    supernet = RelaxedSupernet(ModelSpace(Net))
    optimizer = torch.optim.SGD(supernet.model.parameters(), lr=0.1)
    supernet.architecture.mix()
    supernet.model(torch.randn(4, 2, 5, 5)).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        supernet.model.get_buffer("scale").fill_(3.0)
    return supernet


def test_every_architecture_has_the_weights_of_the_supernet(net: RelaxedSupernet) -> None:
    x = torch.randn(2, 2, 5, 5)
    for sample in net.space.grid():
        for training in (False, True):
            net.model.train(training)
            built = net.extract(sample).train(training)
            net.architecture.one_hot(sample)
            assert torch.allclose(net.model(x), built(x), atol=1e-6)


def test_two_of_them_share_no_storage_with_each_other_or_the_supernet(net: RelaxedSupernet) -> None:
    sample = {"first": "conv", "depth": 2, "input": 1}
    models = [net.extract(sample), net.extract(sample), net.model]
    storages = [
        {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]} for model in models
    ]
    assert storages[0].isdisjoint(storages[1])
    assert storages[0].isdisjoint(storages[2])


def test_buffers_frozen_and_missing_and_tied_parameters_survive(net: RelaxedSupernet) -> None:
    built = net.extract({"first": "conv", "depth": 1, "input": 0})
    assert isinstance(built, Net)
    norm, ours = built.get_submodule("first.1"), net.model.get_submodule("first.candidates.0.1")
    assert torch.equal(norm.get_buffer("running_mean"), ours.get_buffer("running_mean"))
    assert norm.get_buffer("num_batches_tracked").item() == 1
    assert norm.get_buffer("running_mean").abs().sum() > 0
    assert built.get_submodule("first.0").bias is None
    assert not built.frozen.weight.requires_grad
    assert built.frozen.bias is not None
    assert built.frozen.bias.requires_grad
    assert built.tied.weight is built.frozen.weight
    assert built.get_buffer("scale").item() == 3.0
    assert len(built.blocks) == 1


def test_the_weights_of_the_supernet_may_be_frozen_meanwhile(net: RelaxedSupernet) -> None:
    net.model.requires_grad_(False)
    assert net.extract({"first": "conv", "depth": 1, "input": 0}).get_parameter("frozen.bias").requires_grad


def test_extraction_leaves_the_global_random_state_alone(net: RelaxedSupernet) -> None:
    before = torch.get_rng_state()
    net.extract({"first": "affine", "depth": 3, "input": 1})
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sample_of_another_space_is_refused(net: RelaxedSupernet) -> None:
    with pytest.raises(NasValueError, match="label 'depth': the answer is missing"):
        net.extract({"first": "conv", "input": 0})


def test_loose_ends_are_refused() -> None:
    operations = {"same": lambda i: nn.Identity(), "tanh": lambda i: nn.Tanh()}
    space = ModelSpace(lambda: Cell(operations, nodes=3, label="cell"))
    with pytest.raises(
        NasValueError,
        match="Cell 'cell': the loose ends of a cell cannot be relaxed: .* To mend: output=\"all\", or search",
    ):
        RelaxedSupernet(space)


def test_what_depends_on_a_layer_that_is_chosen_is_refused() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([lambda: nn.Linear(2, 2), nn.Identity], label="op")
            self.after = nn.Linear(2, 2) if isinstance(self.op, nn.Linear) else nn.Conv1d(2, 2, 1)

    with pytest.raises(NasValueError, match="after is a Linear in the architecture and a Conv1d in the supernet"):
        RelaxedSupernet(ModelSpace(Reading))


def test_a_size_that_depends_on_a_layer_that_is_chosen_is_refused() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([lambda: nn.Linear(2, 2), nn.Identity], label="op")
            self.after = nn.Linear(2, 4 if isinstance(self.op, nn.Linear) else 3)

    with pytest.raises(NasValueError, match=r"weight of after should have the shape \(3, 2\), .* but has \(4, 2\)"):
        RelaxedSupernet(ModelSpace(Reading))


def test_the_labels_at_fault_are_those_that_make_it_fail() -> None:
    space = RelaxedSupernet(ModelSpace(Net)).space
    sample = {"first": "affine", "depth": 3, "input": 1}
    assert labels_at_fault(space, sample, lambda other: other["depth"] > 1) == ["depth"]
    both = labels_at_fault(space, sample, lambda other: other["depth"] > 1 or other["input"] == 1)
    assert both == ["first", "depth", "input"]  # no single one of them


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("speed", [None, Speed(), Speed(merge=True, checkpoint_cells=True)])
@pytest.mark.parametrize("both", [True, False])
def test_a_supernet_of_other_numbers_computes_and_is_taken_out_in_them(
    dtype: torch.dtype, tolerance: float, speed: Speed | None, both: bool
) -> None:
    def network() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(nn.Conv2d(2, width, 3), nn.Conv2d(width, 2, 3), Net())

    net, x = RelaxedSupernet(ModelSpace(network)), torch.randn(4, 2, 9, 9, dtype=dtype)
    net.model.to(dtype)
    if both:
        net.architecture.to(dtype)
    net.check((4, 2, 9, 9))
    if speed is not None:
        optimise(net, x, speed)
    net.check(x)
    net.architecture.mix()
    y = net.model(x)
    assert y.dtype == dtype
    y.square().mean().backward()
    assert {p.grad.dtype for p in net.model.parameters() if p.grad is not None} == {dtype}
    for sample in [net.space.sample(seed) for seed in range(3)]:
        built = net.extract(sample).eval()
        assert {tensor.dtype for tensor in built.state_dict().values() if tensor.is_floating_point()} == {dtype}
        net.architecture.one_hot(sample)
        expected = built(x)
        assert (net.model.eval()(x) - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("edge", ["sum", "softmax"])
def test_mixing_in_double_precision_is_that_of_the_naive_loop(edge: str) -> None:
    net = RelaxedSupernet(
        ModelSpace(lambda: InputChoice(3, None if edge == "sum" else 1, reduction="mean", label="input"))
    )
    net.model.double()
    net.architecture.double()
    inputs = [torch.randn(3, dtype=torch.double) for _ in range(3)]
    net.architecture.mix()
    shares = net.architecture.probabilities("input")
    expected = sum(share * x for share, x in zip(shares, inputs, strict=True)) / shares.sum()
    assert (net.model(inputs) - expected).abs().max() < 1e-14
