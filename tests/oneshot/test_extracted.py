"""Subnets that were taken out: built once, and as they were each time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nas.oneshot.extracted import Extracted, Numbers
from tests.oneshot.conftest import OtherDevice


def test_each_subnet_is_built_once_and_is_as_it_was() -> None:
    built: list[Any] = []

    def extract(sample: Any) -> nn.Module:
        built.append(sample)
        return nn.BatchNorm1d(2)

    subnets = Extracted(extract)
    first, _ = subnets({"kind": "a"})
    first.running_mean.fill_(9)  # type: ignore[operator]  # a tensor
    subnets({"kind": "b"})
    again, _ = subnets({"kind": "a"})
    assert again is first
    assert again.running_mean.tolist() == [0, 0]  # type: ignore[operator]
    assert built == [{"kind": "a"}, {"kind": "b"}]


def test_the_latest_are_kept_within_a_limit() -> None:
    built: list[Any] = []

    def extract(sample: Any) -> nn.Module:
        built.append(sample)
        return nn.Linear(10, 10, bias=False)

    subnets = Extracted(extract, limit=2 * 800)
    for kind in "abcacba":
        subnets({"kind": kind})
    assert "".join(str(sample["kind"]) for sample in built) == "abcaba"


class Counting(nn.Linear):
    """Keeps something of its own in its state."""

    calls = 0

    def get_extra_state(self) -> Any:
        return {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = state["calls"]


def tied() -> nn.Module:
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    layers[1].weight = layers[0].weight
    layers[2].register_buffer("unsaved", torch.ones(2), persistent=False)
    return layers


@pytest.mark.parametrize("make", [tied, lambda: nn.Sequential(Counting(3, 3), nn.BatchNorm1d(3))])
def test_numbers_are_put_back(make: Callable[[], nn.Module]) -> None:
    module = make()
    kept = {name: value if isinstance(value, dict) else value.clone() for name, value in module.state_dict().items()}
    numbers, parameters = Numbers(module), list(module.parameters())
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.add_(1)
    for part in module.modules():
        if isinstance(part, Counting):
            part.calls = 3
    numbers.put_back()
    torch.testing.assert_close(dict(module.state_dict()), kept, rtol=0, atol=0)
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    for name, buffer in module.named_buffers():
        assert "unsaved" not in name or buffer.tolist() == [2, 2], "as in a state dict"


def test_numbers_come_back_from_a_device(other_device: OtherDevice) -> None:
    module = tied()
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    numbers = Numbers(module)
    module.to(other_device.device)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    numbers.put_back()
    assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {"cpu"}
    torch.testing.assert_close(dict(module.state_dict()), kept, rtol=0, atol=0)
    assert module[0].weight is module[1].weight  # type: ignore[index]  # a Sequential


def test_numbers_of_a_module_that_was_rebuilt_are_refused_as_by_torch() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    numbers = Numbers(module)
    module.append(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="Missing key"):
        numbers.put_back()
    del module[1]
    module[0] = nn.Linear(2, 2)
    numbers.put_back()
