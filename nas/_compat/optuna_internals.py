"""Private names of Optuna that are read from its objects; Optuna itself is imported only when it is there already."""

from __future__ import annotations

import random
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy

from nas._compat.changed import changed
from nas.errors import ExperimentError, explain

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial, Trial

id_in_storage: Callable[[FrozenTrial | Trial], int] = attrgetter("_trial_id")
"""The number of a trial in its storage, for which a database would have to be asked otherwise, trial by trial."""
METRIC_NAMES = "study:metric_names"
"""The system attribute of a study under which `Study.set_metric_names` keeps them; there is no study object yet."""


def backend_of(storage: BaseStorage) -> BaseStorage:
    """The storage that a storage stands for: Optuna wraps a database in a cache.

    Raises:
        ExperimentError: a wrapper that cannot be looked into, though several processes may share what is in it.
    """
    from optuna.storages import RDBStorage, _CachedStorage

    if isinstance(storage, _CachedStorage):
        backend = getattr(storage, "_backend", None)
        if not isinstance(backend, RDBStorage):
            raise changed(
                "optuna", "_CachedStorage._backend", purpose="processes that share a database find each other"
            )
        return backend
    if isinstance(storage, RDBStorage) or _heartbeat(storage) is None:
        return storage
    raise ExperimentError(
        explain(
            "a storage with a heartbeat is shared by several processes, and what takes turns for them is inside of it",
            got=type(storage).__qualname__,
            where="storage",
            mend="give the optuna.storages.RDBStorage itself, or its URL",
        )
    )


def _heartbeat(storage: object) -> int | None:
    """Seconds; None of a storage that is for one process."""
    interval: Callable[[], int | None] | None = getattr(storage, "get_heartbeat_interval", None)
    return None if interval is None else interval()


def stale_trials(backend: RDBStorage, study_id: int) -> set[int]:
    """The ids of the running trials whose heartbeat has stopped."""
    return set(backend._get_stale_trial_ids(study_id))


def trials_with_heartbeat(backend: RDBStorage) -> set[int]:
    """The ids of all trials whose heart has ever beaten."""
    with backend.engine.connect() as connection:
        return {row[0] for row in connection.exec_driver_sql("SELECT trial_id FROM trial_heartbeats")}


def reseed(sampler: BaseSampler, seed: int) -> None:
    """Gives the random generators of a sampler, wherever they are in it, seeds that follow from this one.

    Raises:
        ExperimentError: a sampler of Optuna's, or one derived from it, in which none is found.
    """
    seeds, found = random.Random(seed), {id(sampler)}
    pending: list[object] = [sampler]
    number = 0
    while pending:
        part = pending.pop()
        # Optuna makes a generator when it is first used, behind a property of this name.
        generator = part if isinstance(part, numpy.random.RandomState) else getattr(part, "rng", None)
        if isinstance(generator, numpy.random.RandomState):
            generator.seed(seeds.getrandbits(32))
            number += 1
            continue
        inside: list[Any] = (
            list(part) if isinstance(part, list | tuple) else list(getattr(part, "__dict__", {}).values())
        )
        for value in inside:
            holder = isinstance(value, list | tuple | numpy.random.RandomState)
            if id(value) not in found and (holder or type(value).__module__.partition(".")[0] in _SAMPLERS):
                found.add(id(value))
                pending.append(value)
    from optuna.samplers import BaseSampler

    kinds = [kind for kind in type(sampler).__mro__ if kind is not BaseSampler]
    if not number and any(kind.__module__.startswith("optuna.") for kind in kinds):
        raise changed(
            "optuna",
            f"the random generator of {type(sampler).__name__}",
            purpose="a search can be repeated and resumed",
        )


_SAMPLERS = frozenset({"optuna", "optunahub", "optuna_integration"})
