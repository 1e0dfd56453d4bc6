"""The copy that is traced: functions that the model holds look at the copy, and leave the original alone."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from nas import NasTypeError, NasValueError
from nas.export.inference_copy import inference_copy


class FillsADict(nn.Module):
    """Reads what a hook has put down, as feature extractors do."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.found: dict[str, Tensor] = {}
        found = self.found

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            found["x"] = output

        def keep_in(module: nn.Module, inputs: object, output: Tensor, store: dict[str, Tensor] = found) -> None:
            store["x"] = output

        def keep_through(hook: object, module: nn.Module, inputs: object, output: Tensor) -> None:
            keep(module, inputs, output)

        hooks = {"closure": keep, "default": keep_in, "partial": functools.partial(keep_through, None)}
        self.body[0].register_forward_hook(hooks.get(kind, self._keep))

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.found["x"] = output

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return self.found["x"] * 2


@pytest.mark.parametrize("kind", ["closure", "default", "partial", "method"])
@pytest.mark.parametrize("used", [False, True])
def test_hooks_of_the_copy_fill_its_own_dict(kind: str, used: bool) -> None:
    net = FillsADict(kind)
    if used:
        net(torch.randn(2, 4))  # the dict holds a computed tensor, which copy.deepcopy refuses
    before = dict(net.found)
    twin = inference_copy(net)
    x = torch.randn(3, 4)
    expected = nn.functional.linear(x, net.body[0].weight, net.body[0].bias) * 2
    torch.testing.assert_close(twin(x), expected)
    assert net.found.keys() == before.keys()
    assert all(net.found[name] is before[name] for name in before)


def test_functions_that_share_a_variable_share_it_in_the_copy() -> None:
    net, count = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 0

    def more(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal count
        count += 1

    def scale(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * count

    net[0].register_forward_hook(more)
    net[1].register_forward_hook(scale)
    twin, x = inference_copy(net), torch.randn(2, 4)
    assert count == 0
    assert not torch.equal(twin(x), torch.zeros(2, 4))
    assert count == 0


def test_forward_that_was_replaced_by_a_closure_reads_the_copy() -> None:
    net = nn.Linear(3, 3)
    net.forward = lambda x: nn.functional.linear(x, net.weight) * 2  # type: ignore[method-assign]
    twin, x = inference_copy(net), torch.randn(2, 3)
    with torch.no_grad():
        expected = net(x)
        net.weight.zero_()
    torch.testing.assert_close(twin(x), expected)


def test_what_cannot_be_copied_is_refused() -> None:
    class Locked(nn.Module):
        def __deepcopy__(self, memo: object) -> Locked:
            raise RuntimeError("it holds a lock")

    with pytest.raises(NasTypeError, match=r"copy\.deepcopy can copy \(it holds a lock\)"):
        inference_copy(Locked())
    with pytest.raises(NasValueError, match="on the meta device or lazy"):
        inference_copy(nn.LazyLinear(3))
