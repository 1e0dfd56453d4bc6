"""A module that shows itself as another: with its children, parameters, hooks, attributes and methods."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, Self

from torch import nn

from nas._compat.torch_internals import MovableModule, share_insides


class Facade(MovableModule):
    """Stands for another module, whose `forward` alone it replaces.

    Who walks its modules, parameters or children finds those of the other one, under the same names; so does who sets
    an attribute or the mode, freezes it or registers hooks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_shown"] = None

    def show(self, module: nn.Module) -> None:
        """Stands for this module from now on; what was set before is the facade's own."""
        self.__dict__["_shown"] = module
        share_insides(self, module)
        self._sign()

    def _sign(self) -> None:
        """Who asks how it is called is told how the other is."""
        try:
            signature = inspect.signature(MethodType(type(self.shown).forward, self.shown))
        except (TypeError, ValueError):
            return
        run: Any = functools.partial(type(self).forward, self)
        run.__signature__ = signature
        self.__dict__["forward"] = run

    @abstractmethod
    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        """In the place of the other's."""

    @property  # type: ignore[misc]  # object lets it be set too
    def __class__(self) -> type:
        """That of the other, so that it is an instance of both."""
        module = self.__dict__.get("_shown")
        return type(self) if module is None else type(module)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("forward", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._sign()

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), self.__getstate__()

    @property
    def shown(self) -> nn.Module:
        """The other module."""
        module: nn.Module = self.__dict__["_shown"]
        return module

    @property
    def training(self) -> bool:
        """The other's mode."""
        module = self.__dict__.get("_shown")
        return True if module is None else bool(module.training)

    @training.setter
    def training(self, mode: bool) -> None:
        if (module := self.__dict__.get("_shown")) is not None:
            module.training = mode

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as the other does."""
        self.shown.train(mode)
        return self

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """The other's, itself first."""
        yield from self.shown.named_modules(memo, prefix, remove_duplicate)

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Applies a function to the other's children and to the other."""
        self.shown.apply(fn)
        return self

    def __getattr__(self, name: str) -> Any:
        module = self.__dict__.get("_shown")
        if module is None or name.startswith("__"):
            return super().__getattr__(name)
        return getattr(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        module = self.__dict__.get("_shown")
        if module is None or name in self.__dict__ or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(module, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            super().__delattr__(name)
        else:
            delattr(self.shown, name)

    def __getitem__(self, key: Any) -> Any:
        """As of a Sequential."""
        module: Any = self.shown
        return module[key]

    def __iter__(self) -> Iterator[Any]:
        """As of a Sequential."""
        module: Any = self.shown
        return iter(module)

    def __len__(self) -> int:
        """As of a Sequential."""
        module: Any = self.shown
        return len(module)

    def __bool__(self) -> bool:
        """As of the other: false of an empty Sequential."""
        return bool(self.shown)
