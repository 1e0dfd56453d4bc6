"""The four choices as a user writes them."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import nas
from nas import InputChoice, Integer, LayerChoice, ModelSpace, NasError, Real, Repeat, ValueChoice


def value_of(make: object, sample: dict[str, object]) -> object:
    """What the choice gave the constructor."""
    found = []

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            found.append(make())  # type: ignore[operator]

    ModelSpace(Holder).build(sample)
    return found[-1]


@pytest.mark.parametrize("answer", [16, "a", None, True, 0.5, (3, 3)])
def test_value_choice_gives_the_plain_value(answer: object) -> None:
    value = value_of(lambda: ValueChoice([16, "a", None, True, 0.5, (3, 3)], label="v"), {"v": answer})
    assert value == answer
    assert type(value) is type(answer)


def test_value_choice_over_numbers() -> None:
    assert value_of(lambda: ValueChoice(Integer(1, 9), label="v"), {"v": 7}) == 7
    assert value_of(lambda: ValueChoice(Real(0, 1), label="v"), {"v": 0.25}) == 0.25


def test_defaults() -> None:
    space = ModelSpace(
        lambda: nn.Sequential(
            nn.Linear(2, ValueChoice([4, 8], label="a", default=8)),
            LayerChoice([nn.ReLU, nn.Tanh], label="b", default=1),
        )
    )
    assert space.default() == {"a": 8, "b": "Tanh"}
    with pytest.raises(NasError, match="ValueChoice 'a': the default must be one of 4, 8"):
        ModelSpace(lambda: nn.Linear(2, ValueChoice([4, 8], label="a", default=5)))


@pytest.mark.parametrize(
    "candidates", [[nn.ReLU(), nn.Tanh()], [nn.ReLU, nn.Tanh], [lambda: nn.ReLU(), lambda: nn.Tanh()]]
)
def test_layer_choice_from_a_list(candidates: list[object]) -> None:
    space = ModelSpace(lambda: nn.Sequential(LayerChoice(candidates, label="act")))  # type: ignore[arg-type]
    assert isinstance(space.build({"act": 1})[0], nn.Tanh)  # type: ignore[index]


def test_only_the_chosen_candidate_is_built() -> None:
    built = []

    def make(name: str) -> nn.Module:
        built.append(name)
        return nn.Identity()

    space = ModelSpace(lambda: nn.Sequential(LayerChoice({n: lambda n=n: make(n) for n in "abc"}, label="x")))
    built.clear()
    space.build({"x": "b"})
    assert built == ["b"]


@pytest.mark.parametrize(
    ("reduction", "answer", "expected"),
    [
        ("sum", [0, 2], [5.0]),
        ("sum", [2, 2], [8.0]),
        ("mean", [0, 2], [2.5]),
        ("concat", [2, 0], [4.0, 1.0]),
    ],
)
def test_input_choice_reduces(reduction: str, answer: list[int], expected: list[float]) -> None:
    space = ModelSpace(lambda: nn.Sequential(InputChoice(3, 2, reduction=reduction, label="in")))  # type: ignore[arg-type]
    inputs = [torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[4.0]])]
    assert space.build({"in": answer})[0](inputs).tolist() == [expected]  # type: ignore[index]


def test_input_choice_without_reduction_gives_the_list() -> None:
    choice = ModelSpace(lambda: nn.Sequential(InputChoice(2, 1, reduction="none", label="in"))).build({"in": 1})[0]  # type: ignore[index]
    assert choice([None, 7]) == [7]


def test_none_is_no_connection() -> None:
    space = ModelSpace(lambda: nn.Sequential(InputChoice(2, 1, label="skip"), InputChoice(3, None, label="any")))
    x = torch.ones(1)
    taken, refused = space.build({"skip": 0, "any": [0, 2]}), space.build({"skip": 1, "any": []})
    assert taken[0]([x, None]) is x  # type: ignore[index]
    assert refused[0]([x, None]) is None  # type: ignore[index]
    assert taken[1]([x, x, None]).tolist() == [1.0]  # type: ignore[index]
    assert refused[1]([x, x, x]) is None  # type: ignore[index]
    with pytest.raises(NasError, match="made for 2 inputs"):
        taken[0]([x])  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"n_chosen": 2}, 6),
        ({"n_chosen": 2, "replace": False}, 3),
        ({"n_chosen": 2, "reduction": "concat"}, 9),
        ({"n_chosen": 2, "reduction": "none", "replace": False}, 6),
        ({"n_chosen": None}, 8),
        ({"n_chosen": 1}, 3),
    ],
)
def test_input_choice_sizes(options: dict[str, object], size: int) -> None:
    assert ModelSpace(lambda: nn.Sequential(InputChoice(3, label="in", **options))).size == size  # type: ignore[arg-type]


def test_repeat_copies_a_module_and_shares_its_choices() -> None:
    space = ModelSpace(
        lambda: Repeat(nn.Linear(2, 2, bias=ValueChoice([True, False], label="bias")), (1, 3), label="d")
    )
    built = space.build({"d": 3, "bias": False})
    assert len(built) == 3  # type: ignore[arg-type]
    assert len({id(layer.weight) for layer in built}) == 3  # type: ignore[attr-defined]


def test_repeat_takes_the_first_of_a_list_and_may_be_empty() -> None:
    space = ModelSpace(lambda: Repeat([nn.ReLU, lambda: nn.Tanh(), nn.GELU()], (0, 3), label="d"))
    assert [type(m) for m in space.build({"d": 2})] == [nn.ReLU, nn.Tanh]  # type: ignore[attr-defined]
    x = torch.randn(3)
    assert torch.equal(space.build({"d": 0})(x), x)


def test_repeat_over_a_value_choice_counts_its_blocks_exactly() -> None:
    block = lambda i: LayerChoice([nn.ReLU, nn.Tanh], label=f"op{i}")  # noqa: E731
    space = ModelSpace(lambda: Repeat(block, ValueChoice([1, 3], label="d")))
    assert space.size == 2 + 8
    assert len(space.build({"d": 3, "op0": 0, "op1": 1, "op2": 0})) == 3  # type: ignore[arg-type]
    assert not space.contains({"d": 1, "op0": 0, "op1": 1})


def test_repeat_of_a_fixed_depth_is_no_choice() -> None:
    space = ModelSpace(lambda: Repeat(lambda i: LayerChoice([nn.ReLU, nn.Tanh]), 2))
    assert list(space.search_space.domains) == ["repeat/0/layer", "repeat/1/layer"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValueChoice([], label="w"), "ValueChoice 'w': a choice needs at least one candidate"),
        (lambda: ValueChoice([1, 1], label="w"), "ValueChoice 'w': candidates must differ"),
        (lambda: ValueChoice([nn.ReLU], label="w"), "value that JSON can hold"),
        (lambda: ValueChoice(Integer(3, 1), label="w"), "low must not exceed high"),
        (lambda: LayerChoice([], label="op"), "LayerChoice 'op': a choice needs at least one candidate"),
        (lambda: LayerChoice([3], label="op"), "must be a module, a module class or a function"),
        (
            lambda: LayerChoice([lambda: 3], label="op"),
            "candidate 0 of LayerChoice 'op': a factory must return an nn.Module",
        ),
        (lambda: InputChoice(2, 3, replace=False, label="in"), "InputChoice 'in': 3 of 2 inputs cannot be chosen"),
        (lambda: InputChoice(0, 1, label="in"), "InputChoice 'in': n_candidates must be an int from 1 on; received 0"),
        (lambda: InputChoice(2, 0, label="in"), "n_chosen must be an int from 1 on, or None"),
        (lambda: InputChoice(2, 1, reduction="max", label="in"), 'reduction must be "sum", "mean", "concat" or "none"'),
        (lambda: Repeat(nn.ReLU(), (3, 1), label="d"), "Repeat 'd'.*low must not exceed high"),
        (lambda: Repeat(nn.ReLU(), (-1, 1), label="d"), "Repeat 'd': depth must be an int from 0 on; received -1"),
        (lambda: Repeat([nn.ReLU], (1, 2), label="d"), "must reach the greatest depth, 2"),
        (lambda: Repeat(lambda i: 3, 1, label="d"), "a factory must return an nn.Module"),
        (lambda: Repeat(nn.ReLU(), "3", label="d"), "depth must be an int"),
        (lambda: ValueChoice([1, 2], label=""), "a label must not be empty"),
        (lambda: ValueChoice([1, 2], label=3), "a label must be a str"),
    ],
)
def test_bad_choices_are_refused_when_the_space_is_made(make: object, message: str) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            make()  # type: ignore[operator]

    with pytest.raises((ValueError, TypeError), match=message) as caught:
        ModelSpace(Holder)
    assert isinstance(caught.value, NasError)


def test_one_label_with_two_domains_is_refused_naming_both() -> None:
    with pytest.raises(NasError, match="may be one of 1, 2 in one place and ValueChoice 'w' one of 1, 3 in another"):
        ModelSpace(lambda: nn.Linear(ValueChoice([1, 2], label="w"), ValueChoice([1, 3], label="w")))


def test_a_failing_factory_says_whose_it_is() -> None:
    def broken() -> nn.Module:
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer") as caught:
        ModelSpace(lambda: nn.Sequential(LayerChoice({"good": nn.ReLU, "bad": broken}, label="op")))
    assert caught.value.__notes__ == ["nas: while building candidate 'bad' of LayerChoice 'op'"] * len(
        caught.value.__notes__
    )


def test_outside_any_space_a_choice_returns_its_default_and_warns_once() -> None:
    with pytest.warns(UserWarning, match="ValueChoice 'lonely' was asked outside any model space"):
        assert ValueChoice([5, 6], label="lonely") == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ValueChoice([5, 6], label="lonely") == 5


def test_omitted_labels_come_from_the_scope_and_are_stable() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with nas.label_scope("stem"):
                self.a = nn.Linear(2, ValueChoice([2, 4]))
            self.b = Repeat(lambda i: LayerChoice([nn.ReLU, lambda: nn.Dropout(ValueChoice([0.1, 0.2]))]), (1, 2))

        def forward(self, x: Tensor) -> Tensor:
            return x

    expected = ["stem/a.out_features", "b", "b/0/layer", "b/0/layer/1/p"]
    space = ModelSpace(Net)
    assert set(expected) <= set(space.search_space.domains)
    sample = {"stem/a.out_features": 4, "b": 2, "b/0/layer": "ReLU", "b/1/layer": 1}
    model = space.build({**sample, "b/1/layer/1/p": 0.2})
    assert model.b[1].p == 0.2  # type: ignore[index,union-attr]
