"""The weighted sum as an operator: what the naive loop computes, in every layout, differentiated and compiled."""

import pytest
import torch
from torch import Tensor

from nas import NasTypeError, NasValueError
from nas.oneshot import weighted_sum


def naive(outputs: list[Tensor], weights: Tensor) -> Tensor:
    return torch.stack([weight * output for output, weight in zip(outputs, weights.unbind(), strict=True)]).sum(0)


def tensors(shape: tuple[int, ...], number: int = 3, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(number)]
    weights = torch.rand(number, generator=generator, dtype=torch.float64).to(dtype)
    return [output.requires_grad_() for output in outputs], weights.requires_grad_()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5, 7), (4, 1, 1, 33)])
def test_it_is_the_naive_loop_and_so_are_its_gradients(shape: tuple[int, ...]) -> None:
    outputs, weights = tensors(shape)
    ours, theirs = weighted_sum(outputs, weights), naive(outputs, weights)
    assert torch.allclose(ours, theirs, atol=1e-14)
    toward = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(ours, [*outputs, weights], toward)
    for a, b in zip(found, torch.autograd.grad(theirs, [*outputs, weights], toward), strict=True):
        assert torch.allclose(a, b, atol=1e-13)


def test_layouts_may_differ() -> None:
    outputs, weights = tensors((2, 6, 4, 4))
    with torch.no_grad():
        laid = [
            outputs[0].contiguous(memory_format=torch.channels_last),
            outputs[1].repeat(1, 2, 1, 1)[:, 6:],
            outputs[2].transpose(0, 1).contiguous().transpose(0, 1),
        ]
    for tensor in laid:
        tensor.requires_grad_()
    ours = weighted_sum(laid, weights)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours, naive(outputs, weights), atol=1e-14)
    found = torch.autograd.grad(ours.square().sum(), [*laid, weights])
    expected = torch.autograd.grad(naive(outputs, weights).square().sum(), [*outputs, weights])
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_gradients_are_right_twice() -> None:
    outputs, weights = tensors((2, 3))
    assert torch.autograd.gradcheck(lambda *t: weighted_sum(t[:-1], t[-1]), (*outputs, weights))
    assert torch.autograd.gradgradcheck(lambda *t: weighted_sum(t[:-1], t[-1]), (*outputs, weights))


@pytest.mark.parametrize("constant", ["weights", "output"])
def test_second_gradients_where_some_are_not_asked_for(constant: str) -> None:
    outputs, weights = tensors((2, 3))
    (weights if constant == "weights" else outputs[1]).requires_grad_(False)
    asked = [tensor for tensor in (*outputs, weights) if tensor.requires_grad]

    def second(total: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(total.exp().sum(), asked, create_graph=True)
        return torch.autograd.grad(sum((g.square().sum() for g in first), torch.zeros(())), asked)

    for a, b in zip(second(weighted_sum(outputs, weights)), second(naive(outputs, weights)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_what_weighs_nothing_is_not_read_but_its_weight_has_a_gradient() -> None:
    weights = torch.tensor([0.0, 2.0], requires_grad=True)
    nothing = torch.full((3,), torch.inf)
    assert torch.equal(weighted_sum([nothing, torch.ones(3)], weights), torch.full((3,), 2.0))
    outputs = [torch.full((3,), 5.0, requires_grad=True), torch.ones(3, requires_grad=True)]
    of_first, of_weights = torch.autograd.grad(weighted_sum(outputs, weights).sum(), [outputs[0], weights])
    assert torch.equal(of_first, torch.zeros(3))
    assert torch.equal(of_weights, torch.tensor([15.0, 3.0]))
    assert torch.equal(weighted_sum([nothing], torch.zeros(1)), torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_single(dtype: torch.dtype) -> None:
    """Added up in half precision, 4,096 ones would stop growing long before."""
    outputs = [torch.ones(4096, dtype=dtype, requires_grad=True) for _ in range(600)]
    weights = torch.ones(600, requires_grad=True)
    total = weighted_sum(outputs, weights)
    assert total.dtype == dtype
    assert torch.equal(total.float(), torch.full((4096,), float(torch.tensor(600.0).to(dtype))))
    of_output, of_weights = torch.autograd.grad(total.sum(), [outputs[0], weights])
    assert of_output.dtype == dtype
    assert torch.equal(of_weights, torch.full((600,), 4096.0))


def test_the_kind_is_that_of_a_sum() -> None:
    outputs = [torch.ones(2, dtype=torch.bfloat16), torch.ones(2)]
    assert weighted_sum(outputs, torch.ones(2, dtype=torch.float64)).dtype == torch.float32


def test_another_number_of_weights_is_refused() -> None:
    with pytest.raises(NasValueError, match="2 outputs need as many weights"):
        weighted_sum([torch.ones(1), torch.ones(1)], torch.ones(3))
    with pytest.raises(NasValueError, match=r"1 outputs need as many weights; received \(1, 1\)"):
        weighted_sum([torch.ones(1)], torch.ones(1, 1))


def test_what_is_no_mixture_is_refused() -> None:
    with pytest.raises(NasTypeError, match=r"the weights must be a tensor; received \[0.5\]"):
        weighted_sum([torch.ones(1)], [0.5])  # type: ignore[arg-type]
    with pytest.raises(NasValueError, match=r"the outputs must have one shape; received \[\(2,\), \(2, 1\)\]"):
        weighted_sum([torch.ones(2), None, torch.ones(2, 1)], torch.ones(3))
    with pytest.raises(NasValueError, match="a mixture needs a candidate that is computed"):
        weighted_sum([None, None], torch.ones(2))


def test_weights_on_another_device_are_refused() -> None:
    with pytest.raises(NasValueError, match="the weights must be where the outputs are, on cpu; received device.*meta"):
        weighted_sum([torch.ones(1)], torch.ones(1, device="meta"))


@pytest.mark.parametrize("taken", [(1, 1, 1, 1), (0, 1, 1, 1), (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 0), (1, 1, 0, 0)])
def test_what_is_not_computed_is_left_out(taken: tuple[int, ...]) -> None:
    outputs, weights = tensors((2, 3), number=4)
    given = [output if there else None for output, there in zip(outputs, taken, strict=True)]
    expected = naive([output * there for output, there in zip(outputs, taken, strict=True)], weights)
    assert torch.allclose(weighted_sum(given, weights), expected, atol=1e-14)
    toward = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(weighted_sum(given, weights), weights, toward)[0]
    assert torch.allclose(found, torch.autograd.grad(expected, weights, toward)[0], atol=1e-13)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 4)])
def test_it_is_an_operator_as_torch_wants_it(shape: tuple[int, ...]) -> None:
    outputs, weights = tensors(shape)
    torch.library.opcheck(torch.ops.nas.weighted_sum.default, (outputs, weights))
    torch.library.opcheck(
        torch.ops.nas.weighted_sum_backward.default,
        (outputs[0].detach().clone().requires_grad_(), outputs, weights, [True, False, True, True]),
    )


def test_it_is_compiled_without_a_break() -> None:
    outputs, weights = tensors((2, 8), dtype=torch.float32)

    def mixture(outputs: list[Tensor | None], weights: Tensor) -> Tensor:
        return weighted_sum(outputs, weights.softmax(0)).relu()

    compiled = torch.compile(mixture, fullgraph=True, backend="aot_eager")
    given: list[Tensor | None] = [outputs[0], None, outputs[2]]
    ours, theirs = compiled(given, weights), mixture(given, weights)
    assert torch.allclose(ours, theirs)
    found = torch.autograd.grad(ours.sum(), [outputs[0], weights])
    for a, b in zip(found, torch.autograd.grad(theirs.sum(), [outputs[0], weights]), strict=True):
        assert torch.allclose(a, b)
