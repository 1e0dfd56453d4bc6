"""What this package takes for granted of Optuna's private names: those that are read from its objects."""

from __future__ import annotations

import copy
import inspect
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import optuna
import pytest
from optuna.samplers import BaseSampler

from nas import ExperimentError
from nas._compat.optuna_internals import (
    METRIC_NAMES,
    backend_of,
    id_in_storage,
    reseed,
    stale_trials,
    trials_with_heartbeat,
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Optuna logs nothing of what is usual."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Callable[..., optuna.storages.RDBStorage]]:
    """Makes SQLite databases."""
    made: list[optuna.storages.RDBStorage] = []

    def make(**options: Any) -> optuna.storages.RDBStorage:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made.append(optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/{len(made)}.db", **options))
        return made[-1]

    yield make
    for storage in made:
        storage.engine.dispose()


def test_a_trial_knows_its_id_in_the_storage() -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage).ask()  # so that numbers and ids differ
    study = optuna.create_study(storage=storage)
    asked = study.ask()
    study_id = storage.get_study_id_from_name(study.study_name)
    expected = storage.get_trial_id_from_study_id_trial_number(study_id, asked.number)
    assert id_in_storage(asked) == id_in_storage(study.trials[0]) == expected != asked.number
    with pytest.raises(AttributeError, match="_trial_id"):
        id_in_storage(object())  # type: ignore[arg-type]  # what an Optuna without it would give


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_metric_names_are_found_where_optuna_looks_for_them() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    storage.set_study_system_attr(storage.get_study_id_from_name(study.study_name), METRIC_NAMES, ["good", "bad"])
    assert study.metric_names == ["good", "bad"]


def test_a_database_is_found_in_the_cache_around_it(database: Callable[..., optuna.storages.RDBStorage]) -> None:
    storage = database()
    cached = optuna.storages.get_storage(storage)
    assert cached is not storage
    assert backend_of(cached) is storage
    assert backend_of(storage) is storage
    memory = optuna.storages.InMemoryStorage()
    assert backend_of(memory) is memory


def test_a_cache_that_cannot_be_looked_into_is_no_storage_for_one_process(
    database: Callable[..., optuna.storages.RDBStorage],
) -> None:
    cached: Any = optuna.storages.get_storage(database())
    cached._inner = cached.__dict__.pop("_backend")  # as if Optuna had renamed it
    with pytest.raises(ExperimentError, match=r"_CachedStorage\._backend of optuna .* is not what this package knows"):
        backend_of(cached)


def test_another_wrapper_around_a_shared_database_is_refused(
    database: Callable[..., optuna.storages.RDBStorage],
) -> None:
    def passed_on(name: str) -> Callable[..., Any]:
        return lambda self, *args, **kwargs: getattr(self.inner, name)(*args, **kwargs)

    def wrapper(inner: optuna.storages.RDBStorage) -> Any:
        names = [*optuna.storages.BaseStorage.__abstractmethods__, "get_heartbeat_interval"]
        made = type("Wrapper", (optuna.storages.BaseStorage,), {name: passed_on(name) for name in names})()
        made.inner = inner
        return made

    alone = wrapper(database())
    assert backend_of(alone) is alone
    with pytest.raises(ExperimentError, match=r"Wrapper'\. To mend: give the optuna\.storages\.RDBStorage itself"):
        backend_of(wrapper(database(heartbeat_interval=60)))


def test_heartbeats_tell_which_trials_live(database: Callable[..., optuna.storages.RDBStorage]) -> None:
    storage = database(heartbeat_interval=1, grace_period=1)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "study")
    beating, silent, never = (storage.create_new_trial(study_id) for _ in range(3))
    for trial in (beating, silent):
        storage.record_heartbeat(trial)
    assert trials_with_heartbeat(storage) == {beating, silent}
    assert stale_trials(storage, study_id) == set()
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00.000000' WHERE trial_id = {silent}"
        )
    assert stale_trials(storage, study_id) == {silent}
    assert never not in trials_with_heartbeat(storage)


def samplers() -> dict[str, BaseSampler]:
    """Every sampler that Optuna exports."""
    made: dict[str, BaseSampler] = {}
    arguments: dict[str, Any] = {
        "GridSampler": ({"x": list(range(50))},),
        "PartialFixedSampler": ({}, optuna.samplers.RandomSampler()),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in optuna.samplers.__all__:
            kind = getattr(optuna.samplers, name)
            if isinstance(kind, type) and issubclass(kind, BaseSampler) and not inspect.isabstract(kind):
                made[name] = kind(*arguments.get(name, ()))
        made["CmaEsSampler, restarts"] = optuna.samplers.CmaEsSampler(n_startup_trials=1)
    return made


SAMPLERS = samplers()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.filterwarnings("ignore")
def test_the_seed_decides_what_a_sampler_proposes(name: str) -> None:
    found = []
    for seed in (1, 1, 2):
        sampler = copy.deepcopy(SAMPLERS[name])
        reseed(sampler, seed)
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: trial.suggest_int("x", 0, 49) ** 2, n_trials=2)
        found.append([trial.params["x"] for trial in study.trials])
    assert found[0] == found[1]
    if name not in ("QMCSampler", "GridSampler"):  # their order is that of their constructor
        assert found[0] != found[2]


def test_a_sampler_of_optuna_without_a_known_generator_is_refused() -> None:
    sampler: Any = optuna.samplers.RandomSampler()
    sampler.__dict__ = {"_generator": numpy.random.default_rng(0)}  # as if Optuna had changed its kind
    with pytest.raises(ExperimentError, match="the random generator of RandomSampler of optuna"):
        reseed(sampler, 1)


def test_a_sampler_of_the_user_without_randomness_is_as_good_as_any() -> None:
    class First(BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return param_distribution.low

    reseed(First(), random.Random(0).getrandbits(32))
