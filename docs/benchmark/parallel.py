"""Many calls of one function, in several processes."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def parallel(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """What a function yields for each job, as they end; without workers in this process, one after the other."""
    if workers == 0:
        yield from itertools.starmap(function, jobs)
        return
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in concurrent.futures.as_completed([pool.submit(function, *job) for job in jobs]):
            yield done.result()
