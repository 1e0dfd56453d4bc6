"""Batches of training and validation data side by side, from any position on: what a bit-exact resume needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, final

from nas.errors import NasTypeError, NasValueError, explain
from nas.oneshot.training.random_streams import RandomStream
from nas.random_state import derive_seed

Load: TypeAlias = Callable[[int], Any]
"""Makes the loader of a cycle, given its seed."""

_END = object()


@final
class Batches:
    """One epoch of pairs {"train": batch, "validation": batch}, as long as the training data.

    Their order, and what is random in loading them, depends on the seed and the epoch alone, so the rest of an epoch is
    the same whether one was there from its beginning or not. Validation data begins anew when it ends.

    Args:
        train: makes a loader of training data, given a seed.
        validation: makes one of validation data; None where none is wanted in training.
        seed: of the search.
        epoch: which one this is.
        begin: how many batches of it are over.
        limit: batches of an epoch, or the share of them, at most.
    """

    def __init__(
        self,
        train: Load,
        validation: Load | None,
        *,
        seed: int,
        epoch: int,
        begin: int = 0,
        limit: int | float | None = None,
    ) -> None:
        self._train, self._validation = train, validation
        self._seed, self._begin = derive_seed(seed, epoch), begin
        self._length = self._measure()
        if limit is not None:
            most = limit if isinstance(limit, int) else max(1, int(limit * self._length))
            self._length = min(self._length, most)

    def _measure(self) -> int:
        with RandomStream(self._seed).active():
            try:
                length = len(self._train(self._seed))
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
        return length

    def __len__(self) -> int:
        """How many batches are left."""
        return self._length - self._begin

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """What is left, in order."""
        train = cycled(self._train, derive_seed(self._seed, 0))
        validation = None if self._validation is None else cycled(self._validation, derive_seed(self._seed, 1))
        for position in range(self._length):
            batch = {"train": next(train)}
            if validation is not None:
                batch["validation"] = next(validation)
            if position >= self._begin:
                yield batch


def cycled(load: Load, seed: int) -> Iterator[Any]:
    """The batches of one loader after the other, without end, loaded under random numbers of their own."""
    for cycle in itertools.count():
        following = derive_seed(seed, cycle)
        stream, yielded = RandomStream(following), False
        with stream.active():
            iterator = iter(load(following))
        while True:
            with stream.active():
                batch = next(iterator, _END)
            if batch is _END:
                break
            yielded = True
            yield batch
        if not yielded:
            raise NasValueError(explain("the data must have at least one batch", got="none"))
