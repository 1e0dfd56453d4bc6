"""The two names under which people import Lightning: what belongs to which, and our own classes as members of either.

`pytorch_lightning` and `lightning.pytorch` are the same code under two names, but a Trainer of one takes no module of
the other. So whatever meets in a training is of one family: that of what the user has given.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from typing import Any, Literal, TypeAlias, TypeGuard, TypeVar, final

import pytorch_lightning

from nas.errors import NasTypeError, explain

Name: TypeAlias = Literal["pytorch_lightning", "lightning.pytorch"]
Kind = TypeVar("Kind")

_NAMES: tuple[Name, ...] = ("pytorch_lightning", "lightning.pytorch")


@final
class Family:
    """The classes of Lightning under one of its names; get it by `family_of` or `family_named`.

    For a type checker they are those of pytorch_lightning, which the others equal name by name.

    Example:
        >>> family = family_of(pytorch_lightning.LightningModule())
        >>> family
        pytorch_lightning
        >>> class Greets(pytorch_lightning.Callback):
        ...     def on_fit_start(self, trainer, pl_module):
        ...         print("hello")
        >>> isinstance(family.as_callback(Greets()), family.Callback)
        True
    """

    def __init__(self, name: Name) -> None:
        self.name: Name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, tuple[Name]]:
        return family_named, (self.name,)

    def get(self, path: str) -> Any:
        """What stands at a path below the name: "callbacks.EarlyStopping", say."""
        module, _, attribute = f"{self.name}.{path}".rpartition(".")
        return getattr(importlib.import_module(module), attribute)

    @property
    def Trainer(self) -> type[pytorch_lightning.Trainer]:  # noqa: N802 - the name of the class
        """The Trainer."""
        found: type[pytorch_lightning.Trainer] = self.get("Trainer")
        return found

    @property
    def LightningModule(self) -> type[pytorch_lightning.LightningModule]:  # noqa: N802
        """The base of modules."""
        found: type[pytorch_lightning.LightningModule] = self.get("LightningModule")
        return found

    @property
    def LightningDataModule(self) -> type[pytorch_lightning.LightningDataModule]:  # noqa: N802
        """The base of data modules."""
        found: type[pytorch_lightning.LightningDataModule] = self.get("LightningDataModule")
        return found

    @property
    def Callback(self) -> type[pytorch_lightning.Callback]:  # noqa: N802
        """The base of callbacks."""
        found: type[pytorch_lightning.Callback] = self.get("Callback")
        return found

    def member(self, kind: type[Kind], base: str) -> type[Kind]:
        """A class of ours below a base of this family; what it makes can be pickled.

        Args:
            kind: with the methods. It has no base of Lightning, or one of the other family that does nothing.
            base: the name of the base: "LightningModule", say.
        """
        ours: Any = kind
        joined: type[Kind] = _joined(self.name, ours, base)
        return joined

    def as_callback(self, ours: pytorch_lightning.Callback) -> pytorch_lightning.Callback:
        """A callback of ours as one of this family: itself, or an object that shares all of its attributes."""
        if isinstance(ours, self.Callback):
            return ours
        made: Any = _blank(self.name, type(ours), "Callback")
        made.__dict__ = ours.__dict__
        callback: pytorch_lightning.Callback = made
        return callback

    def is_overridden(self, method: str, of: object) -> bool:
        """Whether a method of a module, data module or callback is more than that of its base."""
        return bool(self.get("utilities.model_helpers.is_overridden")(method, of))

    @functools.cached_property
    def _bases(self) -> tuple[type, ...]:
        names = ["LightningModule", "LightningDataModule", "Callback", "Trainer", "loggers.Logger"]
        names += ["strategies.Strategy", "profilers.Profiler", "accelerators.Accelerator", "plugins.Precision"]
        return tuple(map(self.get, names))

    def owns(self, thing: object) -> bool:
        """Whether an object or a class is below a base of this family."""
        return issubclass(thing, self._bases) if inspect.isclass(thing) else isinstance(thing, self._bases)


@functools.cache
def family_named(name: Name) -> Family:
    """The family of a name, which is imported."""
    importlib.import_module(name)
    return Family(name)


def families() -> list[Family]:
    """Those that this program has imported; what is of no other name than pytorch_lightning comes at once."""
    return [family_named(name) for name in _NAMES if name in sys.modules]


def family_of(*things: object, default: Family | None = None) -> Family:
    """The family that objects or classes of Lightning belong to: modules, callbacks, Trainers, loggers, and so on.

    Args:
        *things: any others among them do not count.
        default: where none of them is Lightning's; pytorch_lightning if omitted.

    Raises:
        NasTypeError: they are of two families, which do not work together.
    """
    found: dict[Name, object] = {}
    for thing in things:
        owners = [family.name for family in families() if family.owns(thing)]
        if owners:
            found.setdefault(owners[-1], thing)
    if len(found) > 1:
        (one, first), (other, second) = found.items()
        raise NasTypeError(
            explain(
                "one training takes the classes of one package: pytorch_lightning and lightning.pytorch have their own",
                got=f"{_name(first)} of {one}, and {_name(second)} of {other}",
                mend="import both from the same package",
            )
        )
    return family_named(next(iter(found))) if found else default or family_named(_NAMES[0])


def is_module(thing: object) -> TypeGuard[pytorch_lightning.LightningModule]:
    """Whether it is a LightningModule, under whatever name."""
    return any(isinstance(thing, family.LightningModule) for family in families())


def is_data_module(thing: object) -> TypeGuard[pytorch_lightning.LightningDataModule]:
    """Whether it is a LightningDataModule, under whatever name."""
    return any(isinstance(thing, family.LightningDataModule) for family in families())


def is_combined(thing: object) -> bool:
    """Whether it is a CombinedLoader, under whatever name."""
    return any(isinstance(thing, family.get("utilities.CombinedLoader")) for family in families())


def _name(thing: object) -> str:
    return thing.__name__ if inspect.isclass(thing) else type(thing).__name__


@functools.lru_cache(maxsize=64)
def _joined(name: Name, kind: Any, base: str) -> type[Any]:
    parent = family_named(name).get(base)
    if issubclass(kind, parent):
        made: type[Any] = kind
        return made

    def reduce(self: Any, protocol: int) -> tuple[Any, ...]:
        _, _, *state = kind.__reduce_ex__(self, protocol)
        return _blank, (name, kind, base), *state

    body = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, parent), body | {"__reduce_ex__": reduce})


def _blank(name: Name, kind: Any, base: str) -> Any:
    joined: Any = _joined(name, kind, base)
    return joined.__new__(joined)
