"""The ledger: every trial of an experiment, durably, as an Optuna study that every Optuna tool can open."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

from nas._compat.optuna_internals import METRIC_NAMES, id_in_storage
from nas.domains import Answer, dumps_sample, sample_key
from nas.errors import ExperimentError, explain
from nas.protocols import Trial, TrialState
from nas.records.attributes import ASKED, CHANGES, HEADER, KILLS, QUEUE, RESULT, RUN, STOPS, refuse_damaged
from nas.records.courses import Courses
from nas.records.disk import Running, of_disk, told
from nas.records.notes import Notes, Queued
from nas.records.optuna_parameters import to_optuna
from nas.records.record import Record, refuse_others
from nas.records.retry import is_broken_connection, patiently, read_once, read_patiently
from nas.records.sharing import Sharing, share
from nas.records.storage import quiet_optuna

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from nas.space import SearchSpace


@final
class Ledger:
    """One experiment's trials in an Optuna storage.

    A trial is written whole when it starts (its sample, its seed, and how many had finished before it was asked for)
    and gets its result in two more records, the state last: so a trial whose state says it is finished has all the
    rest, whenever the process is killed.
    """

    def __init__(
        self, storage: BaseStorage, study_id: int, header: Mapping[str, Any], sharing: Sharing, place: str
    ) -> None:
        self._storage, self._study_id, self.header, self.sharing = storage, study_id, dict(header), sharing
        self._ids: dict[int, int] = {}
        self._place = place
        self.courses = Courses(storage, study_id, place)

    @classmethod
    def create(
        cls,
        storage: BaseStorage,
        *,
        name: str,
        directions: Mapping[str, str],
        header: Mapping[str, Any],
        running: Running | None = None,
    ) -> Ledger:
        """Begins a new study; where another process that shares it was first, that one's.

        Args:
            storage: to write to.
            name: of the experiment.
            directions: metric -> direction.
            header: what the experiment is.
            running: the lock of who runs it, where that is one process alone.

        Raises:
            ExperimentError: another process was first, and does not share it.
        """
        sharing = share(storage, name, running)

        def create() -> Ledger:
            found = cls.find(storage, name, running) if sharing.is_shared else None
            return found or cls._create(storage, sharing, _place(running), name, directions, header)

        return patiently(lambda: sharing.in_turn(create), _place(running))

    @staticmethod
    def is_shared(storage: BaseStorage, name: str) -> bool:
        """Whether several processes may run the experiment of this name at once."""
        return share(storage, name).is_shared

    @classmethod
    def _create(
        cls,
        storage: BaseStorage,
        sharing: Sharing,
        place: str,
        name: str,
        directions: Mapping[str, str],
        header: Mapping[str, Any],
    ) -> Ledger:
        import optuna

        ways = [optuna.study.StudyDirection[direction.upper()] for direction in directions.values()]
        try:
            # A process that was killed while it began leaves a study without a header and without trials: go on there.
            study_id = storage.get_study_id_from_name(name)
            if HEADER in storage.get_study_user_attrs(study_id):
                raise ExperimentError(
                    explain(
                        f"an experiment named {name!r} has been begun by somebody else meanwhile",
                        mend="go on with it by resume=True, or take another name",
                    )
                )
        except KeyError:
            with quiet_optuna():
                study_id = storage.create_new_study(ways, name)
        storage.set_study_system_attr(study_id, METRIC_NAMES, list(directions))
        storage.set_study_user_attr(study_id, HEADER, dict(header))
        return cls(storage, study_id, header, sharing, place)

    @classmethod
    def find(cls, storage: BaseStorage, name: str, running: Running | None = None) -> Ledger | None:
        """The study of this name, where there is one.

        Args:
            storage: where it may be.
            name: of the experiment.
            running: the lock of who runs it, where that is one process alone.

        Raises:
            ExperimentError: it is damaged, or not of an experiment.
        """
        place = _place(running)
        try:
            study_id = patiently(lambda: storage.get_study_id_from_name(name), place)
        except KeyError:
            return None
        attributes = read_patiently(lambda: storage.get_study_user_attrs(study_id), place)
        refuse_damaged(attributes, (HEADER,), place)
        header = attributes.get(HEADER)
        if header is None and not read_patiently(lambda: storage.get_all_trials(study_id, deepcopy=False), place):
            return None
        if header is None:
            raise ExperimentError(
                explain(
                    f"the study {name!r} in this storage was not made by an experiment",
                    got=place,
                    mend="take another name",
                )
            )
        return cls(storage, study_id, header, share(storage, name, running), place)

    def notes(self) -> Notes:
        """What is written beside the trials, as it is now."""
        return patiently(self.glance)

    def glance(self) -> Notes:
        """The same, or an error at once where the database is away."""
        return Notes(read_once(lambda: self._storage.get_study_user_attrs(self._study_id), self._place), self._place)

    def enqueue(self, queued: Queued) -> bool:
        """Puts a sample at the end of the queue, unless it has been there, or in a trial, before.

        Args:
            queued: the sample; where it may have been there before, only one that waits is not put there twice.

        Returns:
            Whether it was put there.
        """
        return self.sharing.in_turn(lambda: self._enqueue(queued))

    def _enqueue(self, queued: Queued) -> bool:
        queue, records = self.notes().queue, self.read()
        taken = max((record.place + 1 for record in records if record.place is not None), default=0)
        known = {sample_key(other.sample) for other in queue[taken if queued.again else 0 :]}
        if not queued.again:
            known |= {sample_key(record.trial.sample) for record in records}
        if sample_key(queued.sample) in known:
            return False
        self._write_queue([*queue, queued])
        return True

    def _write_queue(self, queue: Iterable[Queued]) -> None:
        """Writes the queue, those that have been taken out of it included."""
        self._note(QUEUE, [queued.as_json() for queued in queue])

    def retry(self, numbers: Collection[int] | None = None) -> list[int]:
        """Puts the samples of FAILED trials into the queue again, unless that has been done.

        Args:
            numbers: of the trials; None for all that are FAILED.

        Returns:
            The numbers of those that were put there.

        Raises:
            NasValueError: a number of no trial, or of one that is not FAILED.
        """
        return self.sharing.in_turn(lambda: self._retry(numbers))

    def _retry(self, numbers: Collection[int] | None) -> list[int]:
        queue = self.notes().queue
        trials = {record.trial.number: record for record in self.read()}
        failed = {number: r for number, r in trials.items() if r.trial.state is TrialState.FAILED}
        states = {number: record.trial.state for number, record in trials.items()}
        refuse_others(numbers or (), states, failed, "FAILED can be tried again")
        done = {queued.instead_of for queued in queue}
        new = [number for number in (failed if numbers is None else sorted(set(numbers))) if number not in done]
        self._write_queue([*queue, *(Queued(failed[n].proposed, again=True, instead_of=n) for n in new)])
        return new

    def forget(self) -> None:
        """Deletes all that it holds."""
        with told(self._place):
            self._storage.delete_study(self._study_id)

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Writes what was asked of the latest run: its limits and when it began."""
        self._note(RUN, dict(run))

    def write_header(self, header: Mapping[str, Any]) -> None:
        """Writes what the experiment is from now on."""
        self._note(HEADER, dict(header))
        self.header = dict(header)

    def ask_to_stop(self) -> None:
        """Asks all processes that run the experiment to end when their trials have."""
        self.sharing.in_turn(lambda: self._note(STOPS, self.notes().stops + 1))

    def ask_to_kill(self, numbers: Iterable[int]) -> None:
        """Asks the processes that run some trials to end them at once.

        Raises:
            NasValueError: a number of no trial, or of one that has ended.
        """
        self.sharing.in_turn(lambda: self._ask_to_kill(list(numbers)))

    def _ask_to_kill(self, numbers: list[int]) -> None:
        trials = {record.trial.number: record.trial for record in self.read()}
        running = [number for number, trial in trials.items() if not trial.state.is_finished]
        refuse_others(numbers, {n: trial.state for n, trial in trials.items()}, running, "RUNNING can be killed")
        self._note(KILLS, sorted({*self.notes().kills, *numbers}))

    def change_limits(self, changes: Mapping[str, float | None]) -> None:
        """Notes other limits, for the run that is under way and for later ones that are not told theirs.

        Args:
            changes: limit -> its value from now on; None for no such limit.
        """
        self.sharing.in_turn(lambda: self._note(CHANGES, [*self.notes().changes, dict(changes)]))

    def _note(self, key: str, value: Any) -> None:
        patiently(lambda: self._storage.set_study_user_attr(self._study_id, key, value))

    def start(
        self,
        sample: Mapping[str, Answer],
        space: SearchSpace,
        *,
        seed: int,
        told: int,
        place: int | None,
        supernet_steps: int | None = None,
        again: bool = False,
    ) -> int:
        """Writes a new trial, RUNNING, as this process's own.

        Args:
            sample: label -> answer.
            space: of the samples.
            seed: of the trial.
            told: how many trials had finished by then.
            place: in the queue, where it comes from there.
            supernet_steps: of the trial.
            again: whether it is evaluated though a trial of the same sample is COMPLETE.

        Returns:
            Its number.
        """
        from optuna.trial import TrialState as OptunaState
        from optuna.trial import create_trial

        asked = {
            "sample": dumps_sample(sample),
            "seed": seed,
            "told": told,
            "place": place,
            "supernet_steps": supernet_steps,
            "again": again or None,
            "mark": uuid.uuid4().hex if self.sharing.is_shared else None,
        }
        parameters, distributions = to_optuna(sample, space)
        names = {name: self._parameter(name) for name in parameters}
        template = create_trial(
            state=OptunaState.RUNNING,
            params={names[name]: value for name, value in parameters.items()},
            distributions={names[name]: distribution for name, distribution in distributions.items()},
            user_attrs={ASKED: {k: v for k, v in asked.items() if v is not None}},
        )
        trial_id = self._create_trial(template, asked["mark"])
        number = patiently(lambda: self._storage.get_trial_number_from_id(trial_id))
        self._ids[number] = trial_id
        self.sharing.claim(trial_id)
        return number

    def _parameter(self, name: str) -> str:
        """What a label, or a part of one, is called in the study: Optuna lets no parameter change its candidates."""
        label, bracket, rest = name.partition("[")
        return str(self.header.get("renamed", {}).get(label, label)) + bracket + rest

    def _create_trial(self, template: FrozenTrial, mark: object) -> int:
        try:
            return int(self._storage.create_new_trial(self._study_id, template_trial=template))
        except Exception as error:
            if not is_broken_connection(error):
                if (found := of_disk(error, self._place)) is not None:
                    raise found from error
                raise
        # Whether it was written before the connection broke, its mark tells.
        for frozen in patiently(lambda: self._storage.get_all_trials(self._study_id, deepcopy=False)):
            if frozen.user_attrs.get(ASKED, {}).get("mark") == mark:
                return id_in_storage(frozen)
        return self._create_trial(template, mark)

    def report(self, number: int, step: int, value: float) -> None:
        """Writes an intermediate value."""
        patiently(lambda: self._storage.set_trial_intermediate_value(self._ids[number], step, value))

    def should_stop(self, number: int, step: int, pruner: BasePruner) -> bool:
        """What a pruner says of a running trial at a step."""
        return patiently(lambda: self._should_stop(number, step, pruner))

    def _should_stop(self, number: int, step: int, pruner: BasePruner) -> bool:
        import optuna

        study = optuna.load_study(
            study_name=self._storage.get_study_name_from_id(self._study_id), storage=self._storage, pruner=pruner
        )
        trial = copy.copy(self._storage.get_trial(self._ids[number]))
        # A trial that runs again after a kill must not be judged by how far it came the first time.
        trial.intermediate_values = {s: value for s, value in trial.intermediate_values.items() if s <= step}
        return bool(pruner.prune(study, trial))

    def finish(self, trial: Trial, *, order: int, inputs: list[dict[str, Any]]) -> None:
        """Writes the result of a trial, the `order`-th to finish."""
        from optuna.trial import TrialState as OptunaState

        result = {
            "order": order,
            "sample": dumps_sample(trial.sample),
            "metrics": dict(trial.metrics),
            "repeats": [dict(metrics) for metrics in trial.repeats],
            "duration": trial.duration,
            "error": trial.error,
            "inputs": inputs,
            "same_as": trial.same_as,
            # A trial that ran twice, the first time until a kill, has left reports of both in the study.
            "steps": list(trial.intermediate),
        }
        states = {
            TrialState.COMPLETE: OptunaState.COMPLETE,
            TrialState.STOPPED: OptunaState.PRUNED,
            TrialState.FAILED: OptunaState.FAIL,
        }
        written = {k: v for k, v in result.items() if v not in (None, [])}
        trial_id = self._ids[trial.number]

        def write() -> None:
            if self._storage.get_trial(trial_id).state.is_finished():
                return  # An earlier try, whose connection broke, had come so far.
            self._storage.set_trial_user_attr(trial_id, RESULT, written)
            self._storage.set_trial_state_values(trial_id, states[trial.state], trial.values)

        if self.sharing.is_shared:
            patiently(write)
        else:
            with told(self._place):
                write()
        self.sharing.release(trial_id)

    def claim(self, number: int) -> None:
        """Takes over a trial whose process has died."""
        self.sharing.claim(self._ids[number])

    def release(self, number: int) -> None:
        """Lets go of a trial that another process has finished."""
        self.sharing.release(self._ids[number])

    def orphans(self, running: Iterable[int]) -> list[int]:
        """Which of these running trials no living process runs."""
        return self.sharing.orphans({number: self._ids[number] for number in running})

    def read(self, known: Collection[int] = ()) -> list[Record]:
        """All trials, by number, but those that are known."""
        found = []
        for frozen in read_patiently(lambda: self._storage.get_all_trials(self._study_id, deepcopy=False), self._place):
            self._ids[frozen.number] = id_in_storage(frozen)
            if frozen.number not in known and ASKED in frozen.user_attrs:
                found.append(Record(frozen, len(self.header["objective"]), self._place))
        return found


def _place(running: Running | None) -> str:
    return "the storage" if running is None else running.place
