"""The data of a training evaluator: loaded once in each process, and in an order that the trial's seed decides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias, final

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from nas._compat.lightning_families import Family, family_of, is_combined, is_data_module
from nas._compat.torch_internals import tree_map
from nas.calls import misfit
from nas.errors import NasTypeError, NasValueError, explain
from nas.evaluators.data_modules import HeldModule, Wraps, all_of, fresh, length_of, loaders_module, mapped
from nas.random_state import seeded, untouched

Part: TypeAlias = "Dataset[Any] | DataLoader[Any] | list[Any] | dict[str, Any]"
"""A dataset or a loader; or several of them, in a list or a dict, which Lightning combines."""
Source: TypeAlias = "Part | LightningDataModule | Callable[[], object]"
"""Training data, a data module, or a function that loads: a data module, or a pair (training, validation)."""

_KINDS = "a Dataset, a DataLoader, a LightningDataModule, or a function without arguments that loads one of these"
_BOUND = "bind them: functools.partial(load, root=...), or lambda: load(...)"
_MEND = "TensorDataset(inputs, targets) of torch.utils.data pairs tensors; torch.as_tensor makes one of an array"


@final
class Data:
    """Training and validation data.

    Args:
        train: datasets, loaders, a data module, or a function; a function is called once in each process.
        validation: a dataset or a loader; None with a data module, a function that returns both, or folds.
        batch_size: whether one is wanted: only datasets leave it open.
        folds: into how many parts the training data is split for cross-validation.
        pairs: whether the samples must be inputs with their targets; else an array of inputs is a dataset too.

    Raises:
        NasTypeError, NasValueError: data of another kind, a missing part, or an empty one.
    """

    def __init__(
        self, train: Source, validation: Part | None, *, batch_size: bool, folds: int | None, pairs: bool = False
    ) -> None:
        self._given = (train, validation)
        self._wants_batch_size, self._folds, self._pairs = batch_size, folds, pairs
        self._payload: bytes | None = None
        self._held: HeldModule | tuple[Part, Part | None] | None = None
        if isinstance(train, type):
            mend = f"an instance of it: {train.__name__}(...)"
            raise NasTypeError(explain(f"train must be {_KINDS}", got=train, mend=mend))
        if not _is_function(train):
            self._check(train, validation)
        elif (found := misfit(train)) is not None:  # type: ignore[arg-type]  # it is a function
            rule, mend = f"the function that loads the data is called without arguments, but {found[0]}", _BOUND
            raise NasTypeError(explain(rule, got=train, where="train", mend=mend))
        elif validation is not None:
            raise NasValueError(
                explain("a function loads the validation data too", got=validation, mend="return (train, validation)")
            )

    def __reduce__(self) -> tuple[Callable[[bytes], Data], tuple[bytes]]:
        """As bytes that are the same each time, so that a process that gets them again finds what it has loaded."""
        if self._payload is None:
            self._payload = cloudpickle.dumps((*self._given, self._wants_batch_size, self._folds, self._pairs))
        return _restored, (self._payload,)

    def load(self) -> HeldModule | tuple[Part, Part | None]:
        """The data, loaded on the first call; a data module is prepared and set up when a Trainer says so.

        What is random in it (a split, say) is the same in every process, and does not depend on the trial that loads.
        """
        if self._held is None:
            with seeded(0):
                self._held = self._load()
        return self._held

    def _load(self) -> HeldModule | tuple[Part, Part | None]:
        source: Any = self._given[0]
        found: Any = source() if _is_function(source) else self._given
        train, validation = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        self._check(train, validation)
        return HeldModule(train) if is_data_module(train) else (train, validation)

    @property
    def at_hand(self) -> bool:
        """Whether it was given as it is, not as a function that loads it."""
        return not _is_function(self._given[0])

    def batches(self, *, load: bool) -> list[Any]:
        """A few samples of the training and of the validation data, as a loader hands them out.

        The smallest and the largest target are among them, where the data says its targets. Of what has no samples by
        number (streams, data modules, several loaders together) there are none.

        Args:
            load: whether a function may be called, which loads the data in this process.
        """
        found = self.load() if load or self.at_hand else None
        if found is None or isinstance(found, HeldModule):
            return []
        with untouched():
            return [batch for part in found if part is not None and (batch := _few(part)) is not None]

    def close(self) -> None:
        """Tears down a data module that has been set up."""
        if isinstance(self._held, HeldModule):
            self._held.tear_down()

    def whole(self) -> Data:
        """Without folds: what they are made of is both trained and validated on."""
        found = self.load()
        assert isinstance(found, tuple), "a data module has no folds"
        train = found[0]
        return Data(train, train, batch_size=self._wants_batch_size, folds=None)

    def theirs(self) -> list[object]:
        """The user's data module, or nothing; loads where a function was given."""
        found = self.load()
        return [found.module] if isinstance(found, HeldModule) else []

    def module(
        self, family: Family, *, seed: int, batch_size: int, fold: int = 0, wraps: Wraps = (None, None)
    ) -> LightningDataModule:
        """What a Trainer of that family takes, its order decided by the seed.

        Raises:
            NasTypeError: the user's data module is of another family.
        """
        found = self.load()
        if isinstance(found, HeldModule):
            family_of(found.module, family.Trainer)
            return found.view(seed, wraps)
        train, validation = found
        if self._folds is not None:
            train, validation = split(train, self._folds, fold)
        assert validation is not None
        return loaders_module(
            family,
            functools.partial(_loaders, train, batch_size=batch_size, shuffle=True),
            functools.partial(_loaders, validation, batch_size=batch_size, shuffle=False),
            seed=seed,
            wraps=wraps,
        )

    def _check(self, train: object, validation: object) -> None:
        if is_data_module(train):
            self._refuse_extras("a data module has", validation)
            return
        for name, part in (("train", train), ("validation", validation)):
            optional = name == "validation" and self._folds is not None
            if part is None and optional:
                continue
            if part is None and name == "validation":
                raise NasValueError(
                    explain(
                        "there must be validation data, for that is what an architecture is judged by",
                        got=f"training data alone, of the class {type(train).__name__}",
                        mend="give validation=..., or folds=5 for cross-validation on the training data",
                    )
                )
            for member in members(part):
                if not _is_data(member) or (self._pairs and _is_array(member)):
                    raise NasTypeError(explain(f"{name} must be {_KINDS}", got=member, mend=_MEND))
                if length_of(member) == 0:
                    raise NasValueError(
                        explain(
                            f"the {name} data must not be empty",
                            got=f"{type(member).__name__} of length 0",
                            mend="look at how it is filtered, or at the path that it is read from",
                        )
                    )
        if any(isinstance(member, DataLoader) for member in members(train)):
            self._refuse_extras("a DataLoader has", None)
        if self._folds is not None:
            self._check_folds(train, validation)

    def _refuse_extras(self, what: str, validation: object) -> None:
        for name, given in (("validation", validation), ("folds", self._folds), ("batch_size", self._wants_batch_size)):
            if given:
                raise NasValueError(
                    explain(
                        f"{what} its own {name.replace('_', ' ')}",
                        got=f"{name}={given!r}",
                        mend="leave it out, or give a Dataset",
                    )
                )

    def _check_folds(self, train: object, validation: object) -> None:
        assert self._folds is not None
        if validation is not None:
            raise NasValueError(
                explain("cross-validation takes its validation data from train", got=validation, mend="leave one out")
            )
        length = length_of(train)
        if isinstance(train, IterableDataset) or members(train) != [train] or length is None or length < self._folds:
            raise NasValueError(
                explain(
                    f"{self._folds} folds need a dataset of at least that length",
                    got=f"{type(train).__name__} of length {length}",
                    where="folds",
                    mend="fewer folds, or one dataset whose samples have numbers",
                )
            )


@functools.lru_cache(maxsize=8)
def _restored(payload: bytes) -> Data:
    """One object for the same bytes: what it has loaded serves every trial of this process."""
    train, validation, batch_size, folds, pairs = cloudpickle.loads(payload)
    return Data(train, validation, batch_size=batch_size, folds=folds, pairs=pairs)


def split(data: Any, folds: int, fold: int) -> tuple[Subset[Any], Subset[Any]]:
    """The training and validation part of one fold; the same for every trial, so that architectures are comparable."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = set(order[fold::folds])
    return Subset(data, [i for i in order if i not in chosen]), Subset(data, sorted(chosen))


def _is_function(source: object) -> bool:
    return callable(source) and not isinstance(source, Dataset | DataLoader) and not is_data_module(source)


def _is_data(part: object) -> bool:
    if isinstance(part, Dataset | DataLoader):
        return True
    listed = hasattr(part, "__getitem__") and hasattr(part, "__len__")
    return listed and not isinstance(part, str | bytes | dict | tuple | type)


def _is_array(part: Any) -> bool:
    """Whether it is an array, a table or a list of numbers or arrays: inputs alone, or targets alone."""
    first = part[0] if isinstance(part, list) and part else part
    return not isinstance(first, Dataset | DataLoader) and (hasattr(first, "shape") or isinstance(first, int | float))


def _few(part: Any) -> Any:
    """A batch of a few samples; None where there are none by number."""
    loader = part if isinstance(part, DataLoader) else None
    data: Any
    data, collate = (part, default_collate) if loader is None else (loader.dataset, loader.collate_fn)
    if (loader is not None and loader.batch_size is None) or isinstance(data, IterableDataset) or not length_of(data):
        return None
    # What fails here may be what only a loader's worker can do: the trial says it.
    with suppress(Exception):
        places = [0, len(data) - 1]
        targets = _targets(data)
        if targets is not None and targets.ndim == 1 and len(targets) == len(data) and not targets.is_floating_point():
            places += [int(targets.argmin()), int(targets.argmax())]
        return collate([data[place] for place in places])
    return None


def _targets(data: Any) -> Tensor | None:
    """All targets of a dataset, where it says them without its samples being read."""
    if isinstance(data, Subset):
        inner = _targets(data.dataset)
        return None if inner is None else inner[torch.as_tensor(data.indices)]
    found = data.tensors[-1] if isinstance(data, TensorDataset) else getattr(data, "targets", None)
    return None if found is None else torch.as_tensor(found).cpu()


def members(part: Any) -> list[Any]:
    """The datasets and loaders in a list, a dict or what Lightning combines; else the part itself: a list of pairs."""
    return _several(part) or [part]


def _several(part: Any) -> list[Any] | None:
    if isinstance(part, Dataset | DataLoader):
        return [part]
    if is_combined(part):
        children: Iterable[Any] = all_of(part)
    elif isinstance(part, list | tuple | dict):
        children = part.values() if isinstance(part, dict) else part
    else:
        return None
    found: list[Any] = []
    for child in children:
        inner = _several(child)
        if inner is None:  # The first sample of a list of them says that it is one dataset.
            return None
        found += inner
    return found


def _loaders(part: Any, seed: int, *, batch_size: int, shuffle: bool) -> Any:
    """Loaders of all datasets, fresh copies of all loaders, in the form that they were given in."""
    make = functools.partial(_loader, batch_size=batch_size, shuffle=shuffle)
    return mapped(make, part, seed) if members(part) != [part] else make(part, seed)


def _loader(part: Any, seed: int, *, batch_size: int, shuffle: bool) -> Any:
    if isinstance(part, DataLoader):
        return fresh(part, seed)
    ordered = not shuffle or isinstance(part, IterableDataset)
    length = length_of(part)
    return DataLoader(
        part,
        batch_size=batch_size,
        shuffle=None if ordered else True,
        # A last batch of one sample is more than batch normalisation can take.
        drop_last=shuffle and length is not None and length > 1 and length % batch_size == 1,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=_pinned if torch.cuda.is_available() else None,
    )


def _pinned(samples: list[Any]) -> Any:
    """A batch in memory from which it goes to a device that is at work; from elsewhere, when the work is done.

    What lies on a device stays there, which the `pin_memory` of a loader refuses.
    """
    return tree_map(
        lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) and leaf.device.type == "cpu" else leaf,
        default_collate(samples),
    )
