"""Near enough: each output by itself, in units of its own size; rounding and ties are told from what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas import ExperimentError
from nas.export.onnx_call import take_apart
from nas.export.onnx_check import Ruler, apart, judge
from nas.export.references import Reference

NAN, INF = float("nan"), float("inf")


def difference(wanted: list[Tensor], got: list[Tensor], tolerance: float = 1e-3, net: nn.Module | None = None) -> float:
    """What the ruler says of these outputs of a net, or of an identity, for an input of ones."""
    net = nn.Identity() if net is None else net
    x = torch.ones(2, 4)
    reference = Reference(sizes={"batch": 2}, inputs=[x], expected=dict(zip("abcd", wanted, strict=False)), fresh=True)
    return Ruler(net, take_apart(net, x), tolerance).largest_difference(reference, got, "onnxruntime")


@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e-4, 1.0, 1e6])
def test_outputs_of_any_size_are_told_from_zeros(size: float) -> None:
    wanted = torch.randn(3, 5) * size
    assert difference([wanted], [wanted * (1 + 1e-5)]) <= 1e-4 * size
    for wrong in (torch.zeros(3, 5), wanted.flip(0), wanted * 1.01):
        with pytest.raises(
            ExperimentError, match=r"at batch 2: onnxruntime differs from torch by .* in 'a', beyond 0\.001"
        ):
            difference([wanted], [wrong])


def test_a_small_output_beside_a_large_one() -> None:
    large, small = torch.randn(3, 5) * 1e4, torch.randn(3, 5) * 1e-4
    assert difference([large, small], [large, small]) == 0
    with pytest.raises(ExperimentError, match="in 'b'"):
        difference([large, small], [large, torch.zeros(3, 5)])


def test_integers_and_truth_values_must_be_equal_but_for_ties() -> None:
    wanted = torch.arange(2000).reshape(2, 1000)
    tie = wanted.clone()
    tie[0, 0] = 7
    assert difference([wanted], [tie]) == 7
    with pytest.raises(ExperimentError, match=r"beyond 0\.001 of its numbers"):
        difference([wanted], [wanted + 1])
    with pytest.raises(ExperimentError, match=r"beyond 0\.001 of its numbers"):
        difference([wanted[:, :10]], [tie[:, :10]])  # one of twenty
    with pytest.raises(ExperimentError, match="of its numbers"):
        difference([torch.tensor([True, False])], [torch.tensor([True, True])])
    assert difference([torch.tensor([2**60 + 1])], [torch.tensor([2**60 + 1])]) == 0


def test_shapes_and_kinds_of_numbers_must_be_the_same() -> None:
    with pytest.raises(ExperimentError, match=r"outputs of shape \[\(2, 3\)\]; received \[\(3, 2\)\]"):
        difference([torch.zeros(2, 3)], [torch.zeros(3, 2)])
    with pytest.raises(ExperimentError, match=r"outputs of shape"):
        difference([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)])
    with pytest.raises(ExperimentError, match=r"outputs of torch\.float32; received 'torch\.int64'"):
        difference([torch.zeros(2)], [torch.zeros(2).long()])


def test_what_is_no_number_agrees_with_itself_alone() -> None:
    odd = torch.tensor([1.0, NAN, INF, -INF])
    assert difference([odd], [odd.clone()]) == 0
    for wrong in ([1.0, 1.0, INF, -INF], [1.0, NAN, 3e38, -INF], [1.0, NAN, INF, INF], [NAN] * 4):
        with pytest.raises(ExperimentError, match="differs from torch by inf"):
            difference([odd], [torch.tensor(wrong)])
    assert apart(torch.zeros(0), torch.zeros(0)) == 0


class Cancels(nn.Module):
    """What is left is rounding: torch itself is off by as much."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": (x * 0.1 + 100.0) - 100.0 - x * 0.1}


class Chance(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": torch.rand_like(x)}


def test_an_output_near_zero_is_judged_by_the_rounding_of_torch() -> None:
    net = Cancels()
    left = net(torch.ones(2, 4))["a"]
    assert 0 < left.abs().max() < 1e-4
    assert difference([left], [torch.zeros(2, 4)], net=net) == pytest.approx(float(left.abs().max()))
    with pytest.raises(ExperimentError, match="differs from torch"):
        difference([left], [torch.full((2, 4), 1e-3)], net=net)
    with pytest.raises(ExperimentError, match="differs from torch"):
        difference([torch.rand(2, 4)], [torch.rand(2, 4)], net=Chance())  # random numbers are no rounding


@pytest.mark.parametrize(("dtype", "near", "far"), [(torch.float16, 0.003, 0.01), (torch.bfloat16, 0.02, 0.1)])
def test_half_precision_is_allowed_a_few_roundings(dtype: torch.dtype, near: float, far: float) -> None:
    net, wanted = nn.Linear(4, 4).to(dtype), torch.ones(2, 4, dtype=dtype)
    assert difference([wanted], [wanted.float() + near], net=net) == pytest.approx(near, rel=0.01)
    with pytest.raises(ExperimentError, match="differs from torch"):
        difference([wanted], [wanted.float() + far], net=net)


def test_files_that_nothing_was_learned_of_are_not_reported_as_verified(tmp_path: Path) -> None:
    from nas.export import to_onnx

    net, x = nn.Linear(4, 3), torch.randn(2, 4)
    path = to_onnx(net, x, tmp_path / "net.onnx").path
    call = take_apart(net, x)
    ruler = Ruler(net, call, 1e-3)

    def verdict(expected: Tensor, *, fresh: bool) -> str | None:
        reference = Reference(sizes={}, inputs=[x], expected={"": expected}, fresh=fresh)
        return judge(path, [reference], ruler, call).reason

    assert verdict(net(x).detach(), fresh=True) is None
    assert "no other values than those of the example" in str(verdict(net(x).detach(), fresh=False))
    with pytest.raises(ExperimentError, match="differs from torch"):
        verdict(net(x).detach() + 1, fresh=False)
