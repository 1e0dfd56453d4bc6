"""The batches of a validation, kept on the device for all that follow."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, final

from nas.example_inputs import tensors_of

KEPT_BYTES = 2**30
"""What is kept on the device of validation and training data, each."""


@final
class KeptBatches:
    """Batches of validation data as a validation was given them, by loader."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.batches: list[list[Any]] = []
        self._bytes = 0
        self.whole = True
        """Whether none was left out for its size."""

    def add(self, batch: Any, loader: int) -> None:
        """Keeps one."""
        self._bytes += sum(tensor.nbytes for tensor in tensors_of(batch))
        if self._bytes > KEPT_BYTES:
            self.whole = False
            self.batches.clear()
        if self.whole:
            while len(self.batches) <= loader:
                self.batches.append([])
            self.batches[loader].append(copy.deepcopy(batch))

    def enough_for(self, batches: int | None) -> bool:
        """Whether so many are there."""
        return self._limit is None or (batches is not None and batches <= self._limit)

    @property
    def loaders(self) -> list[Any]:
        """One for each of the user's."""
        return [_Loader(batches) for batches in self.batches]

    def number(self, batches: int | None) -> int:
        """How many there are, where so many of each loader are taken."""
        return sum(len(each[:batches]) for each in self.batches)


@final
class _Loader:
    """Copies of batches, so that no step changes them for the next."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return map(copy.deepcopy, self._batches)
