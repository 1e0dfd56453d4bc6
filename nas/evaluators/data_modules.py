"""The data modules that a Trainer sees: of datasets and loaders, or views of the one that the user has given."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any, TypeAlias, final

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from nas._compat.lightning_families import Family, family_of, is_combined
from nas._compat.torch_internals import running_iterator, tree_flatten, tree_leaves, tree_unflatten
from nas.errors import NasValueError, explain
from nas.random_state import derive_seed, seeded

Load: TypeAlias = Callable[[int], Any]
"""Makes the training loaders, fresh, in the order of a seed."""
Wrap: TypeAlias = Callable[[Load], Any]
"""Makes what `train_dataloader()` or `val_dataloader()` returns to the Trainer of what makes the loaders."""
Wraps: TypeAlias = tuple[Wrap | None, Wrap | None]
"""What is made of the training and of the validation data; None for the loaders themselves."""


def wrapped_loaders(load: Load, wrap: Wrap | None, seed: int) -> Any:
    """What a Trainer is given: the loaders in the order of the seed, or what somebody makes of them."""
    return load(seed) if wrap is None else wrap(load)


def loaders_module(family: Family, train: Load, validation: Load, *, seed: int, wraps: Wraps) -> LightningDataModule:
    """A data module of loaders that are made for a seed; see `Loaders`."""
    made: Any = family.member(Loaders, "LightningDataModule")(train, validation, seed, wraps)
    module: LightningDataModule = made
    return module


class Loaders:
    """What a data module does that makes loaders for a seed.

    Args:
        train: makes those of the training data.
        validation: makes those of the validation data.
        seed: decides the order.
        wraps: what is made of the training and of the validation data.
    """

    def __init__(self, train: Load, validation: Load, seed: int, wraps: Wraps) -> None:
        super().__init__()
        self._train, self._validation, self._seed, self._wraps = train, validation, seed, wraps
        self._made = 0

    def train_dataloader(self) -> Any:
        """In another order each time."""
        self._made += 1
        return wrapped_loaders(self._train, self._wraps[0], derive_seed(self._seed, self._made))

    def val_dataloader(self) -> Any:
        """In the same order each time."""
        return wrapped_loaders(self._validation, self._wraps[1], self._seed)


@final
class HeldModule:
    """A user's data module, prepared and set up once in each process, however many Trainers use it there.

    What is random in that (a split, say) is the same in every process, and does not depend on the trial that comes
    first. `teardown` is called when the process ends.

    Args:
        module: the user's.
    """

    def __init__(self, module: LightningDataModule) -> None:
        self.module = module
        self._prepared = False
        self._stages: set[str] = set()
        self._endings: list[Finalize] = []

    def __reduce__(self) -> tuple[Callable[[LightningDataModule], HeldModule], tuple[LightningDataModule]]:
        """Another process has prepared and set up nothing yet."""
        return HeldModule, (self.module,)

    def view(self, seed: int, wraps: Wraps = (None, None)) -> LightningDataModule:
        """What a Trainer takes in place of the user's.

        Args:
            seed: where generators of the loaders begin.
            wraps: what is made of the training and of the validation data.
        """
        return _view(self, seed, wraps)

    def prepare(self) -> None:
        """Calls `prepare_data`, the first time."""
        if not self._prepared:
            with seeded(0):
                self.module.prepare_data()
            self._prepared = True

    def set_up(self, stage: str) -> None:
        """Calls `setup`, the first time for each stage."""
        if stage in self._stages:
            return
        with seeded(0):
            self.module.setup(stage)
        self._stages.add(stage)
        if family_of(self.module).is_overridden("teardown", self.module):
            # Unlike those of atexit, these are called in processes of `multiprocessing` too.
            self._endings.append(Finalize(None, self.module.teardown, args=(stage,), exitpriority=0))

    def tear_down(self) -> None:
        """Calls `teardown` for each stage now, and not when the process ends; what is used again is set up again."""
        while self._endings:
            self._endings.pop()()
        self._stages.clear()

    def make_ready(self) -> None:
        """For loaders that are asked for without a Trainer, which would have called the hooks."""
        if "fit" not in self._stages:
            self.prepare()
            self.set_up("fit")


@final
class _State:
    """What a view knows besides the attributes of the user's data module."""

    def __init__(self, held: HeldModule, seed: int, wraps: Wraps) -> None:
        self.held, self.seed, self.wraps, self.made = held, seed, wraps, 0


def _view(held: HeldModule, seed: int, wraps: Wraps) -> LightningDataModule:
    """An object of a class of its own, below that of the user's data module, which shares all of its attributes."""
    theirs: Any = type(held.module)
    view: Any = object.__new__(_view_class(theirs))
    object.__setattr__(view, "__dict__", held.module.__dict__)
    object.__setattr__(view, _STATE, _State(held, seed, wraps))
    made: LightningDataModule = view
    return made


_STATE = "_nas_view_state"


@functools.lru_cache(maxsize=16)
def _view_class(of: Any) -> type[LightningDataModule]:
    """A class of the user's name, for checkpoints and messages name it."""
    body: dict[str, Any] = {"__module__": of.__module__, "__qualname__": of.__qualname__, "__doc__": of.__doc__}
    body |= {"__slots__": (_STATE,), "__reduce_ex__": _reduced}
    body |= {name: _Method(name, function) for name, function in _METHODS.items()}
    return types.new_class(of.__name__, (of,), exec_body=lambda namespace: namespace.update(body))


@final
class _Method:
    """A method of a view, which stands before one that the user has put into the object itself."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name, self._function = name, function

    def __get__(self, view: Any, owner: type) -> Any:
        return self._function if view is None else types.MethodType(self._function, view)

    def __set__(self, view: Any, value: object) -> None:
        view.__dict__[self._name] = value


def _reduced(view: Any, protocol: int) -> tuple[Any, ...]:
    state: _State = getattr(view, _STATE)
    return _view, (state.held, state.seed, state.wraps)


def _theirs(view: Any, name: str) -> Any:
    """The user's method; what it calls `self` is the view, whose attributes are the user's."""
    own = view.__dict__.get(name)
    return getattr(super(type(view), view), name) if own is None else own


def _prepare_data(view: Any) -> None:
    getattr(view, _STATE).held.prepare()


def _setup(view: Any, stage: str) -> None:
    getattr(view, _STATE).held.set_up(stage)


def _teardown(view: Any, stage: str) -> None:
    """Nothing: other trials go on with the data."""


def _train_dataloader(view: Any) -> Any:
    state: _State = getattr(view, _STATE)
    state.held.make_ready()
    state.made += 1
    loaders = _theirs(view, "train_dataloader")()
    return wrapped_loaders(functools.partial(each_fresh, loaders), state.wraps[0], derive_seed(state.seed, state.made))


def _val_dataloader(view: Any) -> Any:
    state: _State = getattr(view, _STATE)
    state.held.make_ready()
    name = "val_dataloader"
    if not family_of(view).is_overridden(name, state.held.module):
        raise NasValueError(
            explain("an architecture is judged by validation data", got=type(view).__name__, mend=f"give it a {name}")
        )
    return wrapped_loaders(functools.partial(_validation_loaders, view), state.wraps[1], state.seed)


def _validation_loaders(view: Any, seed: int) -> Any:
    name = "val_dataloader"
    found = each_fresh(_theirs(view, name)(), seed)
    if any(isinstance(loader, DataLoader) and length_of(loader) == 0 for loader in all_of(found)):
        raise NasValueError(explain("the validation data must not be empty", got=type(view).__name__, where=name))
    return found


_METHODS: dict[str, Callable[..., Any]] = {
    "prepare_data": _prepare_data,
    "setup": _setup,
    "teardown": _teardown,
    "train_dataloader": _train_dataloader,
    "val_dataloader": _val_dataloader,
}


def each_fresh(loaders: Any, seed: int) -> Any:
    """Fresh copies of a loader, or of each one in lists, dicts and what Lightning combines; see `fresh`."""
    return mapped(fresh, loaders, seed)


def mapped(make: Callable[[Any, int], Any], loaders: Any, seed: int) -> Any:
    """What is made of each one in lists, dicts and what Lightning combines, with seeds of their own, in that form."""
    if is_combined(loaders):
        made = copy.copy(loaders)
        made.flattened = mapped(make, loaders.flattened, seed)
        return made
    leaves, form = tree_flatten(loaders)
    # Two loaders of the same data should not come in the same order.
    return tree_unflatten([make(one, derive_seed(seed, i) if i else seed) for i, one in enumerate(leaves)], form)


def all_of(loaders: Any) -> list[Any]:
    """The single loaders in a loader, or in lists, dicts and what Lightning combines."""
    return loaders.flattened if is_combined(loaders) else tree_leaves(loaders)


def fresh(loader: Any, seed: int) -> Any:
    """A copy of a loader that shares the dataset; generators of its own begin at the seed, not where they were left."""
    if not isinstance(loader, DataLoader):
        return loader
    # Persistent workers belong to the trial that started them.
    shared: dict[int, Any] = {id(running_iterator(loader)): None}
    data: Any = loader.dataset
    while data is not None:
        shared[id(data)] = data
        data = getattr(data, "dataset", None)
    copied = copy.deepcopy(loader, shared)
    samplers = (copied.sampler, copied.batch_sampler, getattr(copied.batch_sampler, "sampler", None))
    for owner in (copied, *samplers):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
    return copied


def length_of(part: Any) -> int | None:
    """How long it is; None where it does not say."""
    try:
        return len(part)
    except TypeError:
        return None
