"""What a program does to the modules of a store: settings, modes and hooks that every path must have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final
from weakref import ReferenceType

from torch import nn

from nas._compat.torch_internals import (
    BASE_ATTRIBUTES,
    SET_BY_HOOKS,
    WHAT_A_CALL_IS,
    children_of,
    hooks_of,
    own_buffers,
    own_parameters,
)
from nas.errors import NasValueError, explain


@final
class Watched:
    """A module of the store, as it was made and as it is.

    Args:
        name: of its place.
        module: whose tensors and children are those of the store.

    Attributes:
        attributes: all that it keeps.
        settings: those that were set since it was made.
    """

    __slots__ = ("_first", "_held", "_kind", "_made", "_seen", "attributes", "module", "name", "settings")

    def __init__(self, name: str, module: nn.Module) -> None:
        self.module, self.attributes = module, vars(module)
        self.settings: dict[str, Any] = {}
        self.name, self._kind = name, type(module)
        self._first = self._seen = dict(self.attributes)
        self._held = children_of(module), own_parameters(module), own_buffers(module)
        self._made = dict(self._held[0]), len(self._held[1]), len(self._held[2])

    def changed(self) -> bool:
        """Whether attributes were set since this was last asked, the mode aside.

        Raises:
            NasValueError: other modules or parameters stand where those of the program stood.
        """
        (children, parameters, buffers), (made, some, others) = self._held, self._made
        if (
            children != made
            or len(parameters) != some
            or len(buffers) != others
            or self.module.__class__ is not self._kind
        ):
            raise self._refused("its modules, parameters or buffers are others than those that the program has made")
        try:
            if self.attributes == self._seen:
                return False
        except Exception:
            pass  # what cannot be compared is another object
        return self._take_in()

    def _take_in(self) -> bool:
        now, changed = self.attributes, False
        for name in now.keys() | self._seen.keys():
            before, after = self._seen.get(name, _NOTHING), now.get(name, _NOTHING)
            if after is before or name == "training":
                continue
            if after is _NOTHING or name in WHAT_A_CALL_IS:
                raise self._refused(f"its attribute {name!r} is another one than the program has made")
            if (name not in BASE_ATTRIBUTES or name in SET_BY_HOOKS) and not _of_its_own(after):
                self.settings[name] = after
            changed = True
        self._seen = dict(now)
        return changed

    def refuse_chosen(self, name: str, own: object) -> None:
        """Raises where an attribute was set that differs from architecture to architecture.

        What it was set to may have been computed from what it was here, so that no other one has a value of its own.

        Args:
            name: of the attribute.
            own: what an architecture was made with.
        """
        made = self._first.get(name, _NOTHING)
        if own is not made and isinstance(own, _PLAIN) and isinstance(made, _PLAIN) and own != made:
            raise self._refused(f"its attribute {name!r} was set, but not all architectures are made with the same")

    def _refused(self, what: str) -> NasValueError:
        return NasValueError(
            explain(
                f"paths are built by the program of the space, and a module of the supernet was changed since: {what}",
                got=type(self.module).__name__,
                where=f"PathSupernet, module {self.name!r}" if self.name else "PathSupernet, the model itself",
                mend="make the change in the model's constructor, or in a Mutator of the space, for all architectures",
            )
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("attributes", "_held")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self.attributes = vars(self.module)
        self._held = children_of(self.module), own_parameters(self.module), own_buffers(self.module)


@final
class Standing:
    """Several modules as they were last seen: all are compared at once, for that is done in every step.

    Args:
        watched: the modules.
    """

    __slots__ = ("_held", "_lengths", "_now", "_then", "_those", "_types")

    def __init__(self, watched: Iterable[Watched]) -> None:
        several = list({id(each): each for each in watched}.values())
        self._now = [part for each in several for part in (each.attributes, each._held[0])]
        self._then = [part for each in several for part in (each._seen, each._made[0])]
        self._held = [held for each in several for held in each._held[1:]]
        self._lengths = [length for each in several for length in each._made[1:]]
        self._those, self._types = [each.module for each in several], [each._kind for each in several]

    def holds(self) -> bool:
        """Whether nothing was done to any; where it was, each says what."""
        try:
            same = self._now == self._then
        except Exception:  # what cannot be compared is another object
            return False
        return same and [*map(len, self._held)] == self._lengths and [*map(type, self._those)] == self._types


def _of_its_own(value: object) -> bool:
    """Whether it is about the module's own parameters, as the list of its weights that a recurrent layer keeps."""
    items = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(item, nn.Parameter | ReferenceType) for item in items)


_NOTHING = object()
_PLAIN = (bool, int, float, str, tuple, type(None))


@final
class Twin:
    """A module of a path, and the modules of the store that say how it is set.

    Args:
        module: of the path.
        stored: of the store: those of the LayerChoices that it is the answer of, and that of its own place.
        called: those of them whose calls are calls of the path's module; the call of the model is one of the supernet.
        mode: that which has its mode.

    Attributes:
        attributes: all that it keeps.
        hooks: the dicts of the store's.
    """

    def __init__(self, module: nn.Module, stored: Sequence[Watched], called: Sequence[Watched], mode: Watched) -> None:
        self.attributes, self.stored, self.mode = vars(module), stored, mode
        self._called, self._own, self._made = called, hooks_of(module), dict(vars(module))
        self.hooks = [hooks for watched in called for hooks in hooks_of(watched.module).values()]

    @property
    def merges(self) -> bool:
        """Whether its hooks come from several places."""
        return len(self._called) > 1 or any(self._own.values())

    def set_up(self) -> None:
        """Gives the module the settings of the store, and its hooks where they need no merging.

        Raises:
            NasValueError: an attribute was set that architectures choose.
        """
        self._take_settings()
        if not self.merges:
            for watched in self._called:
                self.attributes.update(hooks_of(watched.module))

    def apply_settings(self, *, hooks: bool) -> None:
        """Sets the module, which is taken out of the supernet, as that of a path is set.

        Args:
            hooks: whether it gets the hooks of the store too.

        Raises:
            NasValueError: an attribute was set that architectures choose.
        """
        self._take_settings()
        if hooks:
            for watched in self.stored:
                for name, theirs in hooks_of(watched.module).items():
                    self._own[name].update(theirs)
        self.attributes["training"] = self.mode.module.training

    def _take_settings(self) -> None:
        for watched in self.stored:
            for name, value in watched.settings.items():
                watched.refuse_chosen(name, self._made.get(name, _NOTHING))
                self.attributes[name] = value

    def merge(self) -> None:
        """Gives the module the hooks of the store after its own."""
        for name, own in self._own.items():
            places = [own, *(hooks_of(watched.module)[name] for watched in self._called)]
            self.attributes[name] = OrderedDict(pair for hooks in places for pair in hooks.items())
