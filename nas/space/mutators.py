"""Choices from outside: functions that change a model nobody here wrote, asking choices while they do."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from nas.errors import NasTypeError, NasValueError, close_names, explain


class Mutator(ABC):
    """Changes a base model; the choices it asks become part of the model space.

    Example:
        >>> from nas import LayerChoice, ModelSpace
        >>> class Activation(Mutator):
        ...     def mutate(self, model):
        ...         replace_module(model, "1", LayerChoice([nn.ReLU, nn.GELU], label="activation"))
        >>> space = ModelSpace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), mutators=[Activation()])
        >>> space.build({"activation": 1})[1]
        GELU(approximate='none')
    """

    @abstractmethod
    def mutate(self, model: nn.Module) -> nn.Module | None:
        """Changes `model` in place (return None), or returns the module that takes its place."""


def replace_module(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """Puts a module in the place of the submodule with this dotted name, as in `named_modules()`.

    Args:
        model: the model to change; the empty name stands for the model itself.
        name: such as "layer1.0.conv2".
        new: the module to put there.

    Returns:
        The model (for the empty name, `new`).

    Raises:
        NasValueError: there is no submodule of this name.
        NasTypeError: `new` is no module.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        >>> replace_module(net, "1", nn.Tanh())[1]
        Tanh()
    """
    if not isinstance(new, nn.Module):
        raise NasTypeError(explain("only a module can replace a module", got=new, where=f"submodule {name!r}"))
    if not name:
        return new
    parent_name, _, leaf = name.rpartition(".")
    modules = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        names = [known for known in modules if known]
        raise NasValueError(f"{type(model).__name__} has no submodule {name!r}; {close_names(name, names)}")
    modules[parent_name].register_module(leaf, new)
    return model
