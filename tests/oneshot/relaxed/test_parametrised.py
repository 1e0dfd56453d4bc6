"""Layers whose weights are computed: by torch's parametrizations, the old hooks, and those of a user."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from nas import InputChoice, LayerChoice, ModelSpace, NasValueError, ValueChoice
from nas.oneshot import RelaxedSupernet
from nas.oneshot.relaxed.parametrised import computed_weights, normalised_rows

Wrap = Callable[[Any], Any]


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


def symmetric(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


WRAPS: dict[str, Wrap] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "a user's own": symmetric,
    "old weight_norm": weight_norm,
    "old spectral_norm": spectral_norm,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


def train(net: RelaxedSupernet, x: Tensor) -> None:
    optimizer = torch.optim.SGD(net.model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net.architecture.mix()
        net.model(x).square().mean().backward()
        optimizer.step()


def difference(net: RelaxedSupernet, x: Tensor) -> float:
    """Between the supernet and each of its architectures, in both modes."""
    found = 0.0
    for sample in net.space.grid():
        for training in (False, True):
            built = net.extract(sample).train(training)  # before a pass: spectral_norm writes in it
            net.architecture.one_hot(sample)
            with torch.no_grad():
                found = max(found, float((net.model.train(training)(x) - built(x)).abs().max()))
    return found


@pytest.mark.parametrize("wrap", WRAPS)
def test_candidates_and_other_layers_are_trained_and_taken_out(wrap: str) -> None:
    make = WRAPS[wrap]

    def network() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(
            make(nn.Linear(4, 4)),
            LayerChoice({"a": lambda: make(nn.Linear(4, 4)), "b": lambda: nn.Linear(4, 4), "c": nn.Tanh}, label="op"),
            nn.Linear(4, width),
            nn.ReLU(),
            nn.Linear(width, 4),
        )

    net, x = RelaxedSupernet(ModelSpace(network)), torch.randn(3, 4)
    net.check(x)
    train(net, x)
    assert difference(net, x) < 1e-5
    built = net.extract({"op": "a", "width": 2})
    assert type(built[0]).__name__ == type(make(nn.Linear(4, 4))).__name__  # type: ignore[index]  # a Sequential


@pytest.mark.parametrize("wrap", ["weight_norm", "old weight_norm"])
@pytest.mark.parametrize("images", [False, True])
def test_chosen_widths_of_normalised_rows_are_masked_by_their_lengths(wrap: str, images: bool) -> None:
    make = WRAPS[wrap]

    def layer(*channels: int) -> nn.Module:
        return make(nn.Conv2d(*channels, 3, padding=1) if images else nn.Linear(*channels))  # type: ignore[no-any-return]

    def network() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(layer(4, width), nn.ReLU(), layer(width, width), layer(width, 4))

    net, x = RelaxedSupernet(ModelSpace(network)), torch.randn(2, 4, *([5, 5] if images else []))
    net.check(x)
    train(net, x)
    net.architecture.mix()
    net.model(x).square().mean().backward()
    assert all(bool(parameter.isfinite().all()) for parameter in net.model.parameters())
    gradient = net.architecture.parameter("width").grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()
    assert difference(net, x) < 1e-5


@pytest.mark.parametrize("wrap", ["spectral_norm", "orthogonal", "old spectral_norm"])
def test_other_chosen_widths_and_kernels_are_refused(wrap: str) -> None:
    make = WRAPS[wrap]
    with pytest.raises(NasValueError, match="ValueChoice 'width': for 4 .*Linear.*LayerChoice of whole layers"):
        RelaxedSupernet(ModelSpace(lambda: make(nn.Linear(4, ValueChoice([2, 4], label="width")))))
    with pytest.raises(NasValueError, match="ValueChoice 'size': for 3 .*Conv2d.*LayerChoice of whole layers"):
        RelaxedSupernet(ModelSpace(lambda: make(nn.Conv2d(4, 4, ValueChoice([1, 3], label="size"), padding="same"))))


@pytest.mark.parametrize("wrap", ["weight_norm", "old weight_norm"])
def test_kernels_under_weight_norm_and_norms_of_columns_are_refused(wrap: str) -> None:
    make = WRAPS[wrap]
    with pytest.raises(NasValueError, match="by weight_norm, of which masks leave channels, but no kernels"):
        RelaxedSupernet(ModelSpace(lambda: make(nn.Conv2d(4, 4, ValueChoice([1, 3], label="size"), padding="same"))))
    for other in (None, 1):
        with pytest.raises(NasValueError, match="only weight_norm of rows does"):
            RelaxedSupernet(
                ModelSpace(lambda dim: make(nn.Linear(4, ValueChoice([2, 4], label="width")), dim=dim), other)
            )


def test_what_weights_are_computed_from_is_told() -> None:
    new, old = parametrizations.weight_norm(nn.Linear(2, 2)), weight_norm(nn.Linear(2, 2))
    assert set(computed_weights(new)) == {f"parametrizations.weight.original{i}" for i in range(2)}
    assert set(computed_weights(old)) == {"weight_g", "weight_v"}
    assert normalised_rows(new) == {"parametrizations.weight.original1"}
    assert normalised_rows(old) == {"weight_v"}
    assert normalised_rows(parametrizations.weight_norm(nn.ConvTranspose2d(2, 2, 1))) == set()
    assert computed_weights(nn.Linear(2, 2)) == {}


def test_classes_that_a_constructor_defines_are_one_kind() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = ValueChoice([2, 4], label="width")

            class Block(nn.Module):
                def __init__(self) -> None:
                    super().__init__()
                    self.into, self.out = nn.Linear(4, width), nn.Linear(width, 4)

                def forward(self, x: Tensor) -> Tensor:
                    y: Tensor = self.out(self.into(x).relu())
                    return y

            self.first, self.second = Block(), LayerChoice({"block": Block, "same": nn.Identity}, label="op")

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.second(self.first(x))
            return y

    net, x = RelaxedSupernet(ModelSpace(Net)), torch.randn(3, 4)
    net.check(x)
    train(net, x)
    assert difference(net, x) < 1e-5


@pytest.mark.parametrize("wrap", [name for name in WRAPS if name != "a user's own"])
def test_partial_channels_refuse_them(wrap: str) -> None:
    def edge(i: int) -> nn.Module:
        return LayerChoice([lambda: WRAPS[wrap](nn.Conv2d(4, 4, 1)), nn.Identity], label=f"edge{i}")

    space = ModelSpace(lambda: InputChoice(2, 2, replace=False, each=edge, label="node"))
    with pytest.raises(NasValueError, match="candidate 0 of LayerChoice 'edge0': partial channels make no layer"):
        RelaxedSupernet(space, partial_channels=2)
