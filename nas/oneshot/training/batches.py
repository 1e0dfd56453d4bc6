"""Batches of an epoch, in an order that seed and epoch alone decide, from any position on: for an exact resume."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias, final

import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from nas._compat.lightning_families import is_combined
from nas._compat.lightning_loops import length_of
from nas._compat.torch_internals import tree_leaves, tree_map
from nas.errors import NasTypeError, NasValueError, explain
from nas.evaluators import all_of, fresh
from nas.oneshot.training.measures import IndexedBatch, without_lone
from nas.oneshot.training.random_streams import RandomStream
from nas.random_state import derive_seed

Load: TypeAlias = Callable[[int], Any]
"""Makes the loaders of a cycle, given its seed: one, or a list or dict of several, as Lightning takes them."""
Place: TypeAlias = Callable[[], tuple[int, int]]
"""The number of the epoch, and how many batches of it are over."""

_END = object()


@final
class Batches:
    """The training batches of one epoch after the other, each time that it is iterated over.

    Their order, and what is random in loading them, depends on the seed and the epoch alone, so the rest of an epoch is
    the same whether one was there from its beginning or not.

    Args:
        load: makes the loaders of training data, given a seed.
        seed: of the search.
        place: where the search stands.
        before: is called before each batch is loaded.
        rank: of the device.
        devices: how many there are; each takes every n-th batch.
    """

    def __init__(
        self,
        load: Load,
        *,
        seed: int,
        place: Place,
        before: Callable[[], None] | None = None,
        rank: int = 0,
        devices: int = 1,
    ) -> None:
        self._load, self._seed, self._place, self._before = load, seed, place, before
        self._rank, self._devices = rank, devices
        self._like: Any = None
        self._length = self._measure()

    def __getattr__(self, name: str) -> Any:
        """What a loader has besides its batches: `trainer.train_dataloader.dataset`, say."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._like, name)

    def _measure(self) -> int:
        seed = derive_seed(self._seed, 0)
        with RandomStream(seed).active():
            try:
                self._like = one_loader(self._load(seed))
                length = len(self._like)
            except TypeError as error:
                raise NasTypeError(
                    explain(
                        "one-shot search needs training data of known length",
                        got=str(error),
                        mend="give a dataset or a loader that has len()",
                    )
                ) from error
        if length == 0:
            raise NasValueError(explain("the training data must have at least one batch", got="none"))
        return length // self._devices

    def __len__(self) -> int:
        """How many batches an epoch has, the same on every device."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """What is left of the epoch, in order."""
        epoch, begin = self._place()
        seed = derive_seed(derive_seed(self._seed, epoch), 0)
        every = itertools.islice(cycled(self._load, seed, epoch=epoch), self._length * self._devices)
        mine = itertools.islice(every, begin * self._devices + self._rank, None, self._devices)
        while True:
            if self._before is not None:
                self._before()
            batch = next(mine, _END)
            if batch is _END:
                return
            yield batch


def cycled(load: Load, seed: int, *, epoch: int = 0) -> Iterator[Any]:
    """The batches of one loader after the other, without end, loaded under random numbers of their own.

    Args:
        load: makes the loaders.
        seed: of the first cycle; the others have seeds that follow from it.
        epoch: what samplers are told that ask for it.
    """
    for cycle in itertools.count():
        following = derive_seed(seed, cycle)
        stream, yielded = RandomStream(following), False
        with stream.active():
            loaders = load(following)
            _tell(loaders, epoch)
            iterator = iter(one_loader(loaders))
        while True:
            with stream.active():
                batch = next(iterator, _END)
            if batch is _END:
                break
            yielded = True
            yield batch
        if not yielded:
            raise NasValueError(explain("the data must have at least one batch", got="none"))


def of_validation(loaders: Any, seed: int, like: Any = None) -> Iterator[IndexedBatch]:
    """Batches of validation data without end, in another order in each cycle; each with the number of its loader.

    A lone sample is left out where there are larger batches, for batch normalisation cannot train on it. Of several
    loaders the batches come in turns; where the training batches are dicts or lists of batches, one of each loader,
    so are these.

    Args:
        loaders: one, or a list or dict of several.
        seed: of the orders.
        like: the loaders of training data.
    """
    if is_combined(loaders):
        loaders = loaders.iterables
    if is_collection(like) and same_structure(loaders, like):
        for batch in cycled(partial(_larger, loaders), seed):
            yield batch, 0
    several = tree_leaves(loaders)
    streams = [
        cycled(partial(_larger, loader), derive_seed(seed, i) if i else seed) for i, loader in enumerate(several)
    ]
    for turn in itertools.count():
        yield next(streams[turn % len(streams)]), turn % len(streams)


def is_collection(loaders: Any) -> bool:
    """Whether they are several, in a list or a dict."""
    return isinstance(loaders, Mapping | list | tuple)


def same_structure(one: Any, other: Any) -> bool:
    """Whether two collections of loaders have the same keys, or the same length."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys()
    return isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other)


def shuffled(loader: Any, seed: int) -> Any:
    """A loader of validation data; in a random order where it has a fixed one, as an epoch may see a part of it."""
    loader = fresh(loader, seed)
    if not isinstance(loader, DataLoader) or not isinstance(loader.sampler, SequentialSampler):
        return loader
    if not isinstance(loader.batch_sampler, BatchSampler):
        return loader
    order = RandomSampler(loader.dataset, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]  # it has a length, or its order were none
    whole = len(order) >= loader.batch_sampler.batch_size
    return DataLoader(
        loader.dataset,
        batch_sampler=BatchSampler(order, loader.batch_sampler.batch_size, drop_last=whole),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )


@final
class _Larger:
    """A loader without its lone samples."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return without_lone(self._loader)


def _larger(loaders: Any, seed: int) -> Any:
    return tree_map(lambda loader: _Larger(shuffled(loader, seed)), loaders)


def one_loader(loaders: Any) -> Any:
    """One loader; of several, in the way in which Lightning combines those of training data."""
    if is_collection(loaders):
        loaders = CombinedLoader(loaders, "max_size_cycle")
    return _Batches(loaders) if is_combined(loaders) else loaders


@final
class _Batches:
    """What several loaders yield together, without the numbers that Lightning adds."""

    def __init__(self, loaders: Any) -> None:
        self._loaders = loaders

    def __len__(self) -> int:
        return length_of(self._loaders)

    def __iter__(self) -> Iterator[Any]:
        return (batch for batch, *_ in self._loaders)


def generators_of(loaders: Any) -> list[torch.Generator]:
    """The random generators of one loader or several, and of their samplers."""
    owners = [owner for loader in all_of(loaders) for owner in (loader, *_samplers(loader))]
    found = [getattr(owner, "generator", None) for owner in owners]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def _tell(loaders: Any, epoch: int) -> None:
    """Samplers that go by the epoch are told it, as Lightning does."""
    for loader in all_of(loaders):
        for sampler in _samplers(loader):
            set_epoch: Any = getattr(sampler, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)


def _samplers(loader: Any) -> list[Any]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    return [getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]
