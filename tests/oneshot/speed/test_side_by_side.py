"""What is launched in a step of the DARTS space: counted, so that it does not creep back."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nas import ModelSpace
from nas.model_zoo import darts
from nas.oneshot import RelaxedSupernet, Speed, frozen, optimise


class Operations(TorchDispatchMode):
    """Counts operations by name, views left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if not (func.is_view or any(word in name for word in ("empty", "_unsafe_view", "detach", "alias"))):
            self.found[name.split(".")[1]] += 1
        return out


def operations(speed: Speed, cells: int) -> Counter[str]:
    """Of a step of the architecture and one of the weights; on the meta device, where nothing is done as on a CPU."""
    net = RelaxedSupernet(ModelSpace(lambda: darts(channels=4, cells=cells, none=True)))
    net.model.train()
    optimise(net, (torch.zeros(2, 3, 8, 8),), speed)
    net.model.to("meta")
    net.architecture.to("meta")
    x, y = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(2, dtype=torch.long, device="meta")
    with Operations() as counted:
        for first in (True, False):
            with frozen(net.model.parameters(), really=first), torch.set_grad_enabled(first):
                net.architecture.mix()
            with frozen(net.model.parameters(), really=first):
                loss = functional.cross_entropy(net.model(x), y)
            asked = net.architecture if first else net.model
            torch.autograd.grad(loss, list(asked.parameters()), allow_unused=True)
    return counted.found


@pytest.mark.slow
def test_a_step_of_darts_launches_few_operations() -> None:
    """Each candidate by itself takes 5,100; side by side, but each part joined and parted by itself, 3,900."""
    found, apart = operations(Speed(merge=True), 3), operations(Speed(merge=False), 3)
    assert sum(found.values()) <= 2250 < 0.45 * sum(apart.values())
    # One for the kernels of all candidates on a tensor, one for their norms, one for their outputs where they meet.
    assert found["cat"] <= 250
    assert found["clone"] + found["copy_"] <= 30
    assert found["native_batch_norm"] <= 110
    assert found["weighted_sums"] == found["weighted_sums_backward"] == 30
