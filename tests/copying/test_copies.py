"""Copies of modules."""

import pytest
import torch
from torch import nn

from nas import NasTypeError
from nas.copying import copy_module, deep_copy, move


def test_a_copy_on_the_meta_device_touches_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    model.table = {"rows": [torch.ones(2)], "tied": model[0].weight}  # type: ignore[assignment]
    twin = copy_module(model, on_meta=True)
    assert twin.table["rows"][0].is_meta  # type: ignore[index]
    assert twin.table["tied"] is twin[0].weight  # type: ignore[index]
    assert not any(parameter.is_meta for parameter in model.parameters())
    model.lock = open(__file__)  # type: ignore[assignment] # noqa: SIM115
    try:
        with pytest.raises(NasTypeError, match=r"attribute 'lock' of module '\(itself\)': the module cannot be copied"):
            copy_module(model, on_meta=True)
    finally:
        model.lock.close()  # type: ignore[operator]


def test_what_cannot_be_copied_is_shared_where_that_is_wanted_and_the_rest_is_not() -> None:
    lines = (line for line in "ab")
    given = {"lines": lines, "list": [1], "pair": ([2], lines)}
    found = deep_copy(given, sharing=True)
    assert found["lines"] is lines
    assert found["pair"][1] is lines  # type: ignore[index]
    assert found["list"] == [1]
    assert found["list"] is not given["list"]


def test_a_move_keeps_ties() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Embedding(2, 2)})
    net["b"].weight = net["c"].weight
    moved = move(net, "meta")
    assert moved["b"].weight is moved["c"].weight  # type: ignore[index]
    assert all(parameter.is_meta for parameter in moved.parameters())
    assert len(list(moved.parameters())) == 4


def test_functions_of_a_copy_hold_on_to_what_is_its_own() -> None:
    """Adapters are often put into a network so: a hook that calls a module which stands beside."""
    seen: list[int] = []

    def adapted() -> nn.Module:
        net = nn.Sequential(nn.Linear(2, 2))
        adapter, scale = nn.Linear(2, 2), nn.Parameter(torch.ones(1))
        net[0].adapter, net[0].scale = adapter, scale
        through = lambda x: scale * adapter(x)  # noqa: E731 - a function that another one holds on to

        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            seen.append(1)
            return output + through(inputs[0])

        net[0].register_forward_hook(hook)
        return net

    net, x = adapted(), torch.ones(1, 2)
    twin = copy_module(net)
    expected = net(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(twin(x), expected)
    twin(x).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert len(seen) == 3  # What is no part of the model stays the caller's.
