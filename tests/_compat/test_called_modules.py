"""The method by which torch calls a module is where we look for it."""

import inspect
from typing import Any

from torch import nn

from nas._compat.called_modules import is_unfinished, module_called


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
