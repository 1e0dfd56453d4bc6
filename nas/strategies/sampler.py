"""Any Optuna sampler as a strategy, and the study in memory that it works on."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from nas._compat.optuna_internals import id_in_storage, reseed
from nas.domains import Sample
from nas.errors import NasTypeError, NasValueError, explain
from nas.protocols import Strategy, Task, Trial, TrialState
from nas.random_state import derive_seed
from nas.records import quiet_optuna, suggest, to_optuna
from nas.space import SearchSpace
from nas.strategies.novelty import Novelty
from nas.whole_process import own_warnings

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

_NEIGHBOURS = 20


@final
class OptunaStrategy(Strategy):
    """Asks an Optuna sampler: `GPSampler`, `NSGAIISampler`, `CmaEsSampler`, `QMCSampler`, or one of your own.

    Domains say themselves which parameters they are to a sampler: a subset is one for each item or place. The
    sampler is copied, and seeded anew for each proposal, so that a resumed search goes on as it would have. Where it
    proposes a sample that was tried, the strategy takes a neighbour that was not. Takes as many objectives as the
    sampler does.

    Args:
        sampler: an instance. Its own seed does not matter.

    Raises:
        NasTypeError: it is no Optuna sampler.
        NasValueError: from `start`, when the sampler refuses several objectives, or a domain knows no parameters.

    Example:
        >>> import optuna
        >>> from nas import Categorical
        >>> strategy = OptunaStrategy(optuna.samplers.NSGAIISampler(population_size=10))
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical([16, 32, 64])}), seed=0))
        >>> strategy.ask(0)["width"] in (16, 32, 64)
        True
    """

    def __init__(self, sampler: BaseSampler) -> None:
        from optuna.samplers import BaseSampler

        if not isinstance(sampler, BaseSampler):
            raise NasTypeError(
                explain(
                    "the sampler must be an Optuna sampler, an instance",
                    got=sampler,
                    mend=f"OptunaStrategy({sampler.__name__ if isinstance(sampler, type) else 'GPSampler'}())",
                )
            )
        self.sampler = sampler

    def start(self, task: Task) -> None:
        """An empty study."""
        task.space.require(
            lambda domain: bool(domain.parameters()),
            "an Optuna sampler knows names and numbers, and this domain does not say how to be made of them",
            "list the candidates, or give the domain the methods `parameters`, `to_parameters` and `from_parameters`",
        )
        self._task, self._novelty = task, Novelty(task.space)
        if len(task.directions) > 1:
            try:
                MemoryStudy(self.sampler, task).ask(0)
            except ValueError as error:
                raise NasValueError(
                    explain(f"{type(self.sampler).__name__} refuses several objectives ({error})", got=task.directions)
                ) from error
        self._study = MemoryStudy(self.sampler, task)

    def ask(self, number: int) -> Sample:
        """What the sampler proposes, or a new neighbour of it."""
        proposed, rng = self._study.ask(number), self._task.rng(number)
        return self._novelty.first(_around(self._task.space, proposed, rng), rng)

    def tell(self, trial: Trial) -> None:
        """Puts the trial in the study."""
        self._novelty.tell(trial)
        self._study.tell(trial)


@final
class MemoryStudy:
    """An Optuna study in memory that mirrors the trials of a search.

    Args:
        sampler: is copied for each proposal, so what it proposes depends on the study and the trial's number alone.
        task: of the search.
    """

    def __init__(self, sampler: BaseSampler, task: Task) -> None:
        import optuna

        self._task, self._pristine = task, sampler
        with quiet_optuna():
            self._storage = optuna.storages.InMemoryStorage()
            self._study = optuna.create_study(storage=self._storage, directions=list(task.directions))
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        self._ids: dict[int, int] = {}
        self._pending: tuple[int, optuna.Trial, Sample] | None = None
        # These keep nothing in the study but its trials; for others, what they noted when asked has to be there.
        memoryless = (optuna.samplers.TPESampler, optuna.samplers.GPSampler, optuna.samplers.RandomSampler)
        self._takes_notes = not isinstance(sampler, memoryless)

    def ask(self, number: int) -> Sample:
        """What the sampler proposes; the same until something is told."""
        if self._pending is None or self._pending[0] != number:
            self._forget()
            self._study.sampler = _seeded(self._pristine, derive_seed(self._task.seed, number, 1))
            with _no_warnings():
                trial = self._study.ask()
                space = self._task.space
                sample = space.walk(lambda choice: suggest(trial, space.variable(choice), choice.domain))
                self._pending = number, trial, sample
        return dict(self._pending[2])

    def tell(self, trial: Trial) -> None:
        """Adds a running trial, or the result of one."""
        if trial.state.is_finished:
            self._forget()
            self._finish(trial)
            return
        if self._takes_notes:
            self.ask(trial.number)
        parameters, _ = to_optuna(trial.sample, self._task.space)
        if self._pending is not None and self._pending[0] == trial.number and self._pending[1].params == parameters:
            self._ids[trial.number] = id_in_storage(self._pending[1])
            self._pending = None
            return
        notes = {}
        if self._pending is not None:
            notes = self._storage.get_trial_system_attrs(id_in_storage(self._pending[1]))
            self._forget()
        self._ids[trial.number] = self._add(trial.sample, notes)

    def _add(self, sample: Sample, notes: dict[str, Any]) -> int:
        from optuna.trial import TrialState as OptunaState
        from optuna.trial import create_trial

        parameters, distributions = to_optuna(sample, self._task.space)
        template = create_trial(
            state=OptunaState.RUNNING, params=parameters, distributions=distributions, system_attrs=notes
        )
        return self._storage.create_new_trial(self._study_id, template_trial=template)

    def _finish(self, trial: Trial) -> None:
        from optuna.trial import TrialState as OptunaState

        storage, identity = self._storage, self._ids[trial.number]
        state = {TrialState.COMPLETE: OptunaState.COMPLETE, TrialState.STOPPED: OptunaState.PRUNED}.get(
            trial.state, OptunaState.FAIL
        )
        for step, value in trial.intermediate.items():
            storage.set_trial_intermediate_value(identity, step, value)
        self._study.sampler = _seeded(self._pristine, derive_seed(self._task.seed, trial.number, 2))
        with _no_warnings():
            self._study.sampler.after_trial(
                self._study, storage.get_trial(identity), state, None if trial.values is None else list(trial.values)
            )
        storage.set_trial_state_values(identity, state, trial.values)

    def _forget(self) -> None:
        from optuna.trial import TrialState as OptunaState

        if self._pending is not None:
            self._storage.set_trial_state_values(id_in_storage(self._pending[1]), OptunaState.FAIL)
            self._pending = None


def _around(space: SearchSpace, sample: Sample, rng: random.Random) -> Iterator[Sample]:
    """A sample, and then others further and further away."""
    yield sample
    for _ in range(_NEIGHBOURS):
        sample = space.mutate(sample, rng)
        yield sample


def _seeded(pristine: BaseSampler, seed: int) -> BaseSampler:
    """A copy whose random generators have seeds that follow from this one."""
    sampler = copy.deepcopy(pristine)
    reseed(sampler, seed)
    return sampler


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Optuna warns of its experimental features, and of what it samples independently; neither is news here."""
    with own_warnings(), quiet_optuna():
        warnings.simplefilter("ignore")
        yield
