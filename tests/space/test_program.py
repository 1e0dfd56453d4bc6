"""Mutators: what finds nothing, modules that are used twice, mutators over what another one has made."""

import warnings

import pytest
import torch
from torch import nn

from nas import LayerChoice, ModelSpace, Mutator, NasError, Repeat, ValueChoice, replace_module


class Activations(Mutator):
    """A choice for each module of one kind."""

    def __init__(self, kind: type[nn.Module]) -> None:
        self.kind = kind

    def mutate(self, model: nn.Module) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, self.kind):
                replace_module(model, name, LayerChoice([self.kind, nn.Sigmoid], label=name))


class Deepen(Mutator):
    def mutate(self, model: nn.Module) -> nn.Module:
        return nn.Sequential(model, Repeat(lambda i: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (0, 3), label="depth"))


def network() -> nn.Module:
    act = nn.Tanh()
    return nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)


def test_a_mutator_that_finds_nothing_says_so() -> None:
    with pytest.raises(
        NasError, match=r"asks none, and these mutators found nothing to change in it: Activations\(kind=ReLU\)"
    ):
        ModelSpace(network(), mutators=[Activations(nn.ReLU)])
    with pytest.warns(UserWarning, match=r"found nothing to change in Sequential, .*: Activations\(kind=ReLU\)\."):
        ModelSpace(network(), mutators=[Activations(nn.ReLU), Activations(nn.Tanh)])


def test_a_mutator_that_changes_without_a_choice_has_found_something() -> None:
    class Halve(Mutator):
        def mutate(self, model: nn.Module) -> None:
            replace_module(model, "0", nn.Linear(4, 4, bias=False))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ModelSpace(network(), mutators=[Halve(), Activations(nn.Tanh)])
        # This one finds nothing unless another has deepened the network.
        ModelSpace(network(), mutators=[Deepen(), Activations(nn.ReLU)])


def test_a_module_that_is_used_twice_is_replaced_in_both_places() -> None:
    space = ModelSpace(network(), mutators=[Activations(nn.Tanh)])
    assert space.size == 2
    model = space.build({"1": "Sigmoid"})
    assert isinstance(model[1], nn.Sigmoid)  # type: ignore[index]
    assert model[3] is model[1]  # type: ignore[index]


def test_or_in_one_where_that_is_wanted() -> None:
    model = replace_module(network(), "3", nn.Sigmoid(), alone=True)
    assert [type(module) for module in model] == [nn.Linear, nn.Tanh, nn.Linear, nn.Sigmoid]  # type: ignore[attr-defined]
    wrapped = replace_module(network(), "1", nn.Sequential(nn.Tanh(), nn.Dropout()))
    assert isinstance(wrapped[3], nn.Sequential)  # type: ignore[index]


def test_what_wraps_a_module_holds_it() -> None:
    model = network()
    replace_module(model, "1", nn.Sequential(model[1], nn.Dropout(0.0)))  # type: ignore[index]
    assert model(torch.ones(1, 4)).shape == (1, 4)
    assert isinstance(model[3][0], nn.Tanh)  # type: ignore[index]


def test_choices_over_what_another_mutator_made_are_exact() -> None:
    """As many activations as there are blocks, without any value that plain Python sees."""
    space = ModelSpace(nn.Sequential(nn.Linear(4, 4)), mutators=[Deepen(), Activations(nn.ReLU)])
    assert space.exact
    assert space.size == sum(2**depth for depth in range(4)) == len(list(space.grid()))
    for sample in space.grid():
        assert vars(space.build(sample))["nas_architecture"]["sample"] == sample


def test_kernels_inside_a_repeat_of_another_mutator_are_exact() -> None:
    class Blocks(Mutator):
        def mutate(self, model: nn.Module) -> nn.Module:
            blocks = Repeat(lambda i: nn.Conv1d(2, 2, 3, padding=1), (1, 3), label="depth")
            return nn.Sequential(model, LayerChoice({"blocks": lambda: blocks, "none": nn.Identity}, label="body"))

    class Kernels(Mutator):
        def mutate(self, model: nn.Module) -> None:
            for name, module in list(model.named_modules()):
                if isinstance(module, nn.Conv1d):
                    kernel = ValueChoice([1, 3], label=f"{name}.kernel")
                    replace_module(model, name, nn.Conv1d(2, 2, kernel, padding=kernel // 2))

    space = ModelSpace(nn.ReLU(), mutators=[Blocks(), Kernels()])
    assert space.exact
    assert space.size == (2 + 4 + 8) + 3
    for sample in space.grid():
        assert space.build(sample)(torch.ones(1, 2, 5)).shape == (1, 2, 5)
