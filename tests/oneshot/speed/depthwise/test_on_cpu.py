"""Depthwise convolutions are those of torch, and so are their gradients, twice."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.oneshot.speed.depthwise import depthwise, is_depthwise, run_depthwise

CASES = [
    # kernel, stride, padding, dilation
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((5, 5), (1, 1), (2, 2), (1, 1)),
    ((7, 7), (1, 1), (3, 3), (1, 1)),
    ((4, 5), (1, 1), (0, 1), (1, 1)),
    ((3, 3), (1, 1), (2, 2), (2, 2)),
    ((5, 5), (1, 1), (4, 4), (2, 2)),
    ((3, 5), (1, 1), (3, 2), (3, 1)),
    ((5, 5), (1, 1), (0, 2), (2, 2)),
    ((3, 3), (2, 2), (2, 2), (2, 2)),
    ((5, 5), (2, 2), (4, 4), (2, 2)),
]


def tensors(kernel: tuple[int, int], size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(4, 1, *kernel, generator=generator, dtype=torch.float64).to(dtype)
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("size", [(12, 12), (11, 13)])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_all_gradients_of_both_orders_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    x, weight = tensors(kernel, size, dtype)

    def gradients(y: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(y.square().mean(), [x, weight], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), [x, weight])
        return [y, *first, *second]

    ours = gradients(depthwise(x, weight, stride, padding, dilation))
    theirs = gradients(functional.conv2d(x, weight, None, stride, padding, dilation, 4))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=tolerance * float(b.detach().abs().max()))


def test_what_is_not_asked_for_is_not_computed() -> None:
    x, weight = tensors((5, 5), (12, 12), torch.float32)
    y = depthwise(x, weight.detach(), padding=(2, 2))
    assert y.grad_fn is not None
    assert y.grad_fn.saved_tensors[0] is None  # type: ignore[attr-defined]  # the image is for the weights alone
    (found,) = torch.autograd.grad(y.sum(), [x])
    expected = torch.autograd.grad(functional.conv2d(x, weight, None, 1, 2, 1, 4).sum(), [x])[0]
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "answer"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), True),
        (nn.Conv2d(4, 4, 5, padding=4, dilation=2, stride=2, groups=4), True),
        (nn.Conv2d(4, 4, 3, padding=1, stride=2, groups=4), False),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), False),
        (nn.Conv2d(4, 8, 3, padding=1, groups=4), False),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), False),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"), False),
        (nn.Conv2d(4, 4, 3, padding=3, groups=4), False),
        (nn.Identity(), False),
    ],
)
def test_which_modules_it_computes(module: nn.Module, answer: bool) -> None:
    assert is_depthwise(module) is answer
    if answer:
        assert isinstance(module, nn.Conv2d)
        x = torch.randn(2, 4, 9, 9)
        assert torch.allclose(run_depthwise(module, x), module(x), atol=1e-6)


def test_mixed_precision_is_the_modules_own() -> None:
    module = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert run_depthwise(module, torch.randn(2, 4, 8, 8)).dtype == torch.bfloat16


def test_it_is_compiled_without_a_break() -> None:
    x, weight = tensors((5, 5), (8, 8), torch.float32)

    def step(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise(x, weight, padding=(4, 4), dilation=(2, 2)).relu()

    found = torch.compile(step, fullgraph=True, backend="aot_eager")(x, weight)
    assert torch.allclose(found, step(x, weight), atol=1e-6)
    ours = torch.autograd.grad(found.sum(), [x, weight])
    for a, b in zip(ours, torch.autograd.grad(step(x, weight).sum(), [x, weight]), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
