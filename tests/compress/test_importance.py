"""Which channels are kept first: those that an importance says are worth most, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from nas.compress import elastic

WORTH = torch.tensor([3.0, 1.0, 4.0, 2.0, 0.5, 6.0])


def kept(net: nn.Module, x: Tensor, importance: object, data: object = None) -> list[int]:
    """The channels of the first layer that are kept when there are three, by the biases that say which they were."""
    space = elastic(net, x, importance=importance, data=data, widths=(0.5, 1.0))  # type: ignore[arg-type]
    return sorted(round(number * 1e4) for number in space.build({"0.channels": 3})[0].bias.tolist())  # type: ignore[index]


def layers(*between: nn.Module) -> nn.Sequential:
    """Two layers, between which channels are the larger the more they are worth."""
    net = nn.Sequential(nn.Linear(4, 6), *between, nn.Linear(6, 6))
    with torch.no_grad():
        net[0].weight.copy_(torch.ones(6, 4))
        net[0].bias.copy_(torch.arange(6) / 1e4)
        net[-1].weight.copy_(torch.eye(6) + 0.01)
    return net


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_by_the_sizes_of_weights(importance: str) -> None:
    net = layers()
    net[0].weight.data *= WORTH[:, None]
    assert kept(net, torch.zeros(1, 4), importance) == [0, 2, 5]


def test_by_the_distance_to_others() -> None:
    net = layers()
    net[0].weight.data += torch.tensor([0.0, 9.0, 0.0, -9.0, 0.01, 20.0])[:, None]
    assert kept(net, torch.zeros(1, 4), "fpgm") == [1, 3, 5]


def test_by_what_a_batch_norm_multiplies_with() -> None:
    net = layers(nn.BatchNorm1d(6))
    net[1].weight.data.copy_(WORTH)
    assert kept(net, torch.zeros(2, 4), "batchnorm") == [0, 2, 5]
    assert kept(layers(), torch.zeros(2, 4), "batchnorm")  # there is none, and "l2" stands for it


@pytest.mark.parametrize("importance", ["activation", "mean"])
def test_by_what_layers_read_of_data(importance: str) -> None:
    net = layers()
    net[0].weight.data *= WORTH[:, None]
    data = [torch.rand(8, 4), (torch.rand(8, 4), torch.zeros(8))]
    assert kept(net, torch.zeros(1, 4), importance, data) == [0, 2, 5]


def test_by_how_often_a_channel_is_positive() -> None:
    net = layers(nn.ReLU())
    net[0].weight.data *= torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0])[:, None]
    assert kept(net, torch.zeros(1, 4), "apoz", [torch.rand(8, 4)]) == [0, 2, 5]


@pytest.mark.parametrize("importance", ["taylor", "movement"])
def test_by_gradients(importance: str) -> None:
    net = layers()
    x = torch.rand(16, 4)
    with torch.no_grad():  # the outputs of three channels are far too small, those of the others as they should be
        y = net(x)
        far = y + 5 * torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    assert kept(net, x, importance, [(x, far)]) == [0, 2, 5]


def test_by_a_function() -> None:
    seen = {}

    def worth(weights: Mapping[str, Tensor]) -> Tensor:
        seen.update({name: tuple(rows.shape) for name, rows in weights.items()})
        return WORTH

    assert kept(layers(), torch.zeros(1, 4), worth) == [0, 2, 5]
    assert seen == {"0.bias": (6, 1), "0.weight": (6, 4), "1.weight (dimension 1)": (6, 6)}


def test_at_random_is_the_same_each_time() -> None:
    assert kept(layers(), torch.zeros(1, 4), "random") == kept(layers(), torch.zeros(1, 4), "random")


def test_classes_are_told_by_cross_entropy() -> None:
    x = torch.rand(16, 4)
    data = [(x, torch.randint(0, 6, (16,)))]
    assert len(kept(layers(), x, "taylor", data)) == 3
