"""The stand-in for another device: its numbers are right, and what CUDA refuses it refuses."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from nas._compat.second_device import NAME, Backend, can_register, present

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or not can_register(), reason="there is a better device, or a torch without such backends"
)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with present() as found:
        yield found


def there(tensor: Tensor) -> Tensor:
    return tensor.to(NAME)


REFUSED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sums": lambda a, b: a + b,
    "products": lambda a, b: a @ b,
    "lists": lambda a, b: torch.cat([a, b]),
    "what is written": lambda a, b: a.add_(b),
    "what is written here": lambda a, b: b.add_(a),
    "indices from there": lambda a, b: b[a.long()[0]],
    "each of a list": lambda a, b: torch._foreach_add([a], [b]),
}
ALLOWED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a number of the CPU": lambda a, b: a + b.sum(),
    "indices of the CPU": lambda a, b: a[b.long()[0]],
    "copies": lambda a, b: (a.copy_(b), b.copy_(a), a.cpu(), a.sum().item()),
}


@pytest.mark.parametrize("mix", REFUSED.values(), ids=REFUSED)
def test_what_cuda_refuses(mix: Callable[[Tensor, Tensor], object], backend: Backend) -> None:
    with pytest.raises(RuntimeError, match="same device|indices should be"):
        mix(there(torch.ones(2, 2)), torch.ones(2, 2))


@pytest.mark.parametrize("mix", ALLOWED.values(), ids=ALLOWED)
def test_what_cuda_allows(mix: Callable[[Tensor, Tensor], object], backend: Backend) -> None:
    mix(there(torch.ones(2, 2)), torch.ones(2, 2))


def test_training_there_is_training_here(backend: Backend) -> None:
    def trained(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        x, y = torch.randn(5, 3, 4, 4), torch.tensor([0, 1, 1, 0, 1])
        net, x, y = net.to(device), x.to(device), y.to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        assert {tensor.device.type for tensor in net.state_dict().values()} == {device}
        return [tensor.cpu() for tensor in net.state_dict().values()]

    for found, expected in zip(trained(NAME), trained("cpu"), strict=True):
        torch.testing.assert_close(found, expected)


def test_views_copies_and_files(backend: Backend) -> None:
    whole = there(torch.zeros(2, 3))
    whole[0].add_(1)
    assert whole.sum().item() == 3
    assert copy.deepcopy(whole).device.type == NAME
    file = io.BytesIO()
    torch.save({"w": whole}, file)
    file.seek(0)
    assert torch.equal(torch.load(file, map_location="cpu", weights_only=True)["w"], whole.cpu())


def test_waits_are_counted(backend: Backend) -> None:
    x = there(torch.ones(2))
    before = sum(backend.waits.values())
    float(x.sum())
    assert sum(backend.waits.values()) == before + 1


def test_afterwards_it_is_gone() -> None:
    with present():
        assert torch.zeros(1, device=NAME).device.type == NAME
    assert not torch.accelerator.is_available() or torch.accelerator.current_accelerator() != torch.device(NAME)
