"""Mixtures: the weighted sums they are said to be, computing no more than they must."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nas import InputChoice, LayerChoice, ModelSpace, NasTypeError, NasValueError, Repeat
from nas.oneshot import RelaxedSupernet, weighted_sum


def relaxed(factory: Callable[[], nn.Module]) -> RelaxedSupernet:
    return RelaxedSupernet(ModelSpace(factory))


class Counting(nn.Module):
    """Multiplies, and counts its calls."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.factor


def test_the_gradients_of_a_weighted_sum_are_those_of_the_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(3, 4, generator=generator, dtype=torch.double, requires_grad=True) for _ in range(4)]
    weights = torch.rand(4, generator=generator, dtype=torch.double, requires_grad=True)
    target = torch.randn(3, 4, generator=generator, dtype=torch.double)

    def naive() -> Tensor:
        return torch.stack([weights[i] * outputs[i] for i in range(4)]).sum(0)

    ours = torch.autograd.grad((weighted_sum(outputs, weights) - target).square().sum(), [*outputs, weights])
    theirs = torch.autograd.grad((naive() - target).square().sum(), [*outputs, weights])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *tensors: weighted_sum(tensors[:-1], tensors[-1]), (*outputs, weights))


def test_a_weighted_sum_of_nothing_is_refused() -> None:
    with pytest.raises(NasValueError, match="a mixture needs a candidate that is computed"):
        weighted_sum([None, None], torch.zeros(2))


def test_a_candidate_of_weight_zero_is_not_computed_and_the_others_learn() -> None:
    net = relaxed(lambda: LayerChoice([Counting, Counting, Counting], label="op"))
    candidates = [module for module in net.model.modules() if isinstance(module, Counting)]

    def hard(label: str, logits: Tensor) -> Tensor:
        soft = logits.softmax(-1)
        return nn.functional.one_hot(torch.tensor(1), 3) - soft.detach() + soft

    net.architecture.mix(hard)
    net.model(torch.ones(2)).sum().backward()
    assert [candidate.calls for candidate in candidates] == [0, 1, 0]
    assert [candidate.factor.grad for candidate in candidates] == [None, torch.tensor(2.0), None]
    gradient = net.architecture.parameter("op").grad
    assert gradient is not None
    assert gradient[1] > 0 > gradient[0]


def test_a_layer_choice_is_the_softmax_weighted_sum() -> None:
    net = relaxed(lambda: LayerChoice({"tanh": nn.Tanh, "relu": nn.ReLU, "same": nn.Identity}, label="op"))
    x = torch.randn(5)
    shares = net.architecture.probabilities("op")
    expected = shares[0] * x.tanh() + shares[1] * x.relu() + shares[2] * x
    assert torch.allclose(net.model(x), expected)


def test_candidates_that_write_into_their_input_are_kept_from_it() -> None:
    net = relaxed(lambda: LayerChoice([lambda: nn.ReLU(inplace=True), nn.Identity], label="op"))
    x = torch.tensor([-2.0, 2.0])
    net.architecture.mix(lambda label, logits: torch.tensor([0.5, 0.5]))
    assert torch.equal(net.model(x), torch.tensor([-1.0, 2.0]))
    assert torch.equal(x, torch.tensor([-2.0, 2.0]))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("n_chosen", "replace"), [(1, True), (2, True), (2, False), (3, True)])
@pytest.mark.parametrize("missing", [(), (1,), (0, 2)])
def test_an_input_choice_is_the_expectation_over_its_answers(
    reduction: str, n_chosen: int, replace: bool, missing: tuple[int, ...]
) -> None:
    space = ModelSpace(
        lambda: InputChoice(3, n_chosen, reduction=reduction, replace=replace, label="inputs")  # type: ignore[arg-type]
    )
    net = RelaxedSupernet(space)
    with torch.no_grad():
        net.architecture.parameter("inputs").normal_(generator=torch.Generator().manual_seed(1))
    net.architecture.mix()
    inputs = [None if i in missing else torch.randn(2, 3) for i in range(3)]
    expected = torch.zeros(2, 3)
    for share, answer in zip(net.architecture.probabilities("inputs"), net.architecture.answers("inputs"), strict=True):
        alone = space.build({"inputs": answer})(inputs)
        expected = expected + (0 if alone is None else share * alone)
    assert torch.allclose(net.model(inputs), expected, atol=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_any_subset_has_a_gate_for_each_input(reduction: str) -> None:
    space = ModelSpace(lambda: InputChoice(3, None, reduction=reduction, label="inputs"))  # type: ignore[arg-type]
    net = RelaxedSupernet(space)
    inputs = [torch.randn(2), None, torch.randn(2)]
    open_ = {0: 0.5, 1: 0.25, 2: 0.75}
    gates = iter(open_.values())
    net.architecture.mix(lambda label, logits: torch.tensor([1 - (share := next(gates)), share]))
    expected = 0.5 * inputs[0] + 0.75 * inputs[2]  # type: ignore[operator]
    assert torch.allclose(net.model(inputs), expected / (1.25 if reduction == "mean" else 1))
    for size in range(4):
        for answer in itertools.combinations(range(3), size):
            net.architecture.one_hot({"inputs": list(answer)})
            alone, ours = space.build({"inputs": list(answer)})(inputs), net.model(inputs)
            assert (ours is None) == (alone is None)
            assert ours is None or torch.allclose(ours, alone)


def test_the_skip_pattern_yields_none_where_none_is_chosen() -> None:
    net = relaxed(lambda: InputChoice(2, 1, label="skip"))
    x = torch.ones(2)
    assert torch.equal(net.model([x, None]), net.architecture.weights["skip"][0] * x)
    net.architecture.one_hot({"skip": 1})
    assert net.model([x, None]) is None


def test_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(NasValueError, match="InputChoice 'skip': this InputChoice was made for 2 inputs"):
        relaxed(lambda: InputChoice(2, 1, label="skip")).model([torch.ones(1)])


@pytest.mark.parametrize("edges", ["sum", "softmax"])
def test_inputs_through_operations_are_edges(edges: str) -> None:
    space = ModelSpace(
        lambda: InputChoice(3, 2, replace=False, each=lambda i: Counting(i + 1.0), label="inputs")  # type: ignore[arg-type]
    )
    net = RelaxedSupernet(space, edges=edges)  # type: ignore[arg-type]
    assert net.architecture.labels == ([] if edges == "sum" else ["inputs"])
    x = [torch.ones(1), torch.ones(1), torch.ones(1)]
    weights = torch.ones(3) if edges == "sum" else net.architecture.probabilities("inputs")
    assert torch.allclose(net.model(x), (weights * torch.tensor([1.0, 2.0, 3.0])).sum())
    net.architecture.one_hot({"inputs": [0, 2]})
    assert net.model(x).item() == 4
    calls = [module.calls for module in net.model.modules() if isinstance(module, Counting)]
    assert calls == [2, 1, 2]


def test_a_repeat_is_the_weighted_sum_over_depths_zero_included() -> None:
    net = relaxed(lambda: Repeat(lambda i: Counting(2.0), (0, 3), label="depth"))
    net.architecture.mix(lambda label, logits: torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert net.model(torch.ones(1)).item() == pytest.approx(0.1 + 0.2 * 2 + 0.3 * 4 + 0.4 * 8)
    net.architecture.one_hot({"depth": 1})
    assert net.model(torch.ones(1)).item() == 2
    calls = [module.calls for module in net.model.modules() if isinstance(module, Counting)]
    assert calls == [2, 1, 1]


def test_candidates_of_different_shapes_are_named() -> None:
    net = relaxed(lambda: LayerChoice({"a": nn.Identity, "b": lambda: nn.MaxPool1d(2)}, label="op"))
    with pytest.raises(
        NasValueError,
        match=r"LayerChoice 'op': only outputs of one shape can be mixed, but candidate 'a' yields \(1, 2, 8\) and "
        r"candidate 'b' \(1, 2, 4\)",
    ):
        net.check((1, 2, 8))


def test_depths_of_different_shapes_are_named() -> None:
    net = relaxed(lambda: Repeat(lambda i: nn.Linear(4 - i, 3 - i), (1, 2), label="depth"))
    with pytest.raises(NasValueError, match=r"Repeat 'depth': .* depth 1 yields \(1, 3\) and depth 2 \(1, 2\)"):
        net.check((1, 4))


def test_candidates_that_yield_something_else_than_tensors_are_refused() -> None:
    net = relaxed(lambda: LayerChoice([nn.Identity, nn.Tanh], label="op"))
    net.architecture.one_hot({"op": 0})
    with pytest.raises(
        NasTypeError, match="LayerChoice 'op': a mixture adds tensors, but candidate 'Identity' yields something"
    ):
        net.model([torch.ones(1)])


@pytest.mark.parametrize("reduction", ["concat", "none"])
def test_what_weights_cannot_choose_is_refused(reduction: str) -> None:
    with pytest.raises(
        NasValueError, match=f"InputChoice 'inputs': inputs that are reduced by '{reduction}' cannot be"
    ):
        relaxed(lambda: InputChoice(3, 2, reduction=reduction, label="inputs"))  # type: ignore[arg-type]


def test_a_choice_of_one_answer_is_what_it_is() -> None:
    net = relaxed(
        lambda: nn.Sequential(
            LayerChoice([nn.Tanh], label="op"),
            LayerChoice([nn.Identity, nn.ReLU], label="open"),
            Repeat(nn.Tanh(), (2, 2), label="depth"),
        )
    )
    assert net.architecture.labels == ["open"]
    net.check((2, 3))
