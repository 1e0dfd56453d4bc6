"""The method by which torch calls a module is where we look for it."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from nas._compat.called_modules import is_unfinished, module_called, plain_state


class Looks(nn.Module):
    def forward(self, _: object = None) -> Any:
        return module_called(inspect.currentframe())


class Constructs(nn.Module):
    """Makes a module when it is called, as networks do that make others."""

    def forward(self) -> Any:
        return Looked().found


class Looked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.found = module_called(inspect.currentframe())


def test_a_module_that_is_called_is_found_from_inside_of_its_forward() -> None:
    inner = Looks()
    assert inner() is inner
    assert nn.Sequential(inner)(None) is inner


def test_outside_of_a_call_and_in_a_constructor_there_is_none() -> None:
    assert module_called(inspect.currentframe()) is None
    assert Looks().forward() is None
    assert Looked().found is None
    assert Constructs()() is None


def test_a_module_is_unfinished_until_the_constructor_of_torch_has_run() -> None:
    blank = Looks.__new__(Looks)
    assert is_unfinished(blank)
    nn.Module.__init__(blank)
    assert not is_unfinished(blank)


def test_the_state_of_a_module_lies_in_its_tensors() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(nn.PReLU()))
    module.register_buffer("unsaved", torch.zeros(1), persistent=False)
    module[0].bias = None
    places = plain_state(module)
    assert places is not None
    found = {name: held[key].detach() for name, (held, key) in places.items()}
    assert list(found) == list(module.state_dict())
    assert all(tensor.data_ptr() == found[name].data_ptr() for name, tensor in module.state_dict().items())


class Saves(nn.Linear):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[prefix + "nothing"] = torch.zeros(1)


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return 3


def listened() -> nn.Module:
    layer = nn.Linear(1, 1)
    layer.register_state_dict_post_hook(lambda *_: None)
    return layer


def told() -> nn.Module:
    layer = nn.Linear(1, 1)
    layer.register_load_state_dict_pre_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize("make", [lambda: Saves(1, 1), lambda: Extra(1, 1), listened, told, lambda: nn.LazyLinear(2)])
def test_a_state_of_another_kind_is_none(make: Any) -> None:
    assert plain_state(nn.Sequential(make())) is None
