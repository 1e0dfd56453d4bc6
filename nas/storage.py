"""The ledger: every trial of an experiment, durably, as an Optuna study that every Optuna tool can open."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from nas.domains import Answer, Categorical, Domain, Subset
from nas.errors import ExperimentError, NasTypeError, explain
from nas.numeric_domains import Integer, Real
from nas.samples import Sample, dumps_sample, loads_sample
from nas.trial import Trial, TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_HEADER, _QUEUE, _ASKED, _RESULT = "nas:experiment", "nas:queue", "nas:asked", "nas:result"


@final
class Ledger:
    """One experiment's trials in an Optuna storage.

    A trial is written whole when it starts (its sample, its seed, and how many had finished before it was asked for)
    and gets its result in two more records, the state last: so a trial whose state says it is finished has all the
    rest, whenever the process is killed.
    """

    def __init__(self, storage: BaseStorage, study_id: int, header: Mapping[str, Any]) -> None:
        self._storage, self._study_id, self.header = storage, study_id, dict(header)
        self._ids: dict[int, int] = {}

    @classmethod
    def create(
        cls, storage: BaseStorage, *, name: str, directions: Mapping[str, str], header: Mapping[str, Any]
    ) -> Ledger:
        """Begins a new study."""
        import optuna

        ways = [optuna.study.StudyDirection[direction.upper()] for direction in directions.values()]
        try:
            # A process that was killed while it began leaves a study without a header and without trials: go on there.
            study_id = storage.get_study_id_from_name(name)
            if _HEADER in storage.get_study_user_attrs(study_id):
                raise ExperimentError(
                    explain(
                        f"an experiment named {name!r} has been begun by somebody else meanwhile",
                        mend="go on with it by resume=True, or take another name",
                    )
                )
        except KeyError:
            with quiet_optuna():
                study_id = storage.create_new_study(ways, name)
        storage.set_study_system_attr(study_id, "study:metric_names", list(directions))
        storage.set_study_user_attr(study_id, _HEADER, dict(header))
        return cls(storage, study_id, header)

    @classmethod
    def find(cls, storage: BaseStorage, name: str) -> Ledger | None:
        """The study of this name, where there is one."""
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return None
        header = storage.get_study_user_attrs(study_id).get(_HEADER)
        if header is None and not storage.get_all_trials(study_id, deepcopy=False):
            return None
        if header is None:
            raise ExperimentError(
                explain(f"the study {name!r} in this storage was not made by an experiment", mend="take another name")
            )
        return cls(storage, study_id, header)

    def read_queue(self) -> list[Sample]:
        """The samples that were put in the queue, those that have been taken out of it included."""
        return [loads_sample(text) for text in self._storage.get_study_user_attrs(self._study_id).get(_QUEUE, [])]

    def write_queue(self, samples: Iterable[Sample]) -> None:
        """Writes the queue, those that have been taken out of it included."""
        self._storage.set_study_user_attr(self._study_id, _QUEUE, [dumps_sample(sample) for sample in samples])

    def start(
        self, sample: Mapping[str, Answer], domains: Mapping[str, Domain], *, seed: int, told: int, place: int | None
    ) -> int:
        """Writes a new trial, RUNNING.

        Args:
            sample: label -> answer.
            domains: of its labels.
            seed: of the trial.
            told: how many trials had finished by then.
            place: in the queue, where it comes from there.

        Returns:
            Its number.
        """
        from optuna.trial import TrialState as OptunaState
        from optuna.trial import create_trial

        asked = {"sample": dumps_sample(sample), "seed": seed, "told": told, "place": place}
        parameters, distributions = to_optuna(sample, domains)
        template = create_trial(
            state=OptunaState.RUNNING,
            params=parameters,
            distributions=distributions,
            user_attrs={_ASKED: {k: v for k, v in asked.items() if v is not None}},
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
        number = self._storage.get_trial_number_from_id(trial_id)
        self._ids[number] = trial_id
        return number

    def report(self, number: int, step: int, value: float) -> None:
        """Writes an intermediate value."""
        self._storage.set_trial_intermediate_value(self._ids[number], step, value)

    def should_stop(self, number: int, step: int, pruner: BasePruner) -> bool:
        """What a pruner says of a running trial at a step."""
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
        trial_id = self._ids[trial.number]
        self._storage.set_trial_user_attr(trial_id, _RESULT, {k: v for k, v in result.items() if v not in (None, [])})
        self._storage.set_trial_state_values(trial_id, states[trial.state], trial.values)

    def read(self) -> list[Record]:
        """All trials, by number."""
        found = []
        for frozen in self._storage.get_all_trials(self._study_id, deepcopy=False):
            self._ids[frozen.number] = frozen._trial_id
            if _ASKED in frozen.user_attrs:
                found.append(Record(frozen))
        return found


@final
class Record:
    """A trial in the ledger, and its place in the order of events."""

    def __init__(self, frozen: FrozenTrial) -> None:
        asked: dict[str, Any] = frozen.user_attrs[_ASKED]
        result: dict[str, Any] = frozen.user_attrs.get(_RESULT, {}) if frozen.state.is_finished() else {}
        self.told: int = asked["told"]
        """How many trials had finished when it was asked for."""
        self.proposed = loads_sample(asked["sample"])
        """The sample before the build completed it."""
        self.place: int | None = asked.get("place")
        """Its place in the queue, where it came from there."""
        self.order: int = result.get("order", -1)
        """Its place among the finished ones."""
        self.inputs: list[dict[str, Any]] = result.get("inputs", [])
        states = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.STOPPED, "FAIL": TrialState.FAILED}
        self.trial = Trial(
            number=frozen.number,
            sample=loads_sample(result["sample"]) if "sample" in result else self.proposed,
            state=states.get(frozen.state.name, TrialState.RUNNING),
            values=tuple(frozen.values) if result and frozen.values is not None else None,
            metrics=result.get("metrics", {}),
            repeats=tuple(result.get("repeats", ())),
            intermediate={step: frozen.intermediate_values[step] for step in result.get("steps", ())},
            duration=result.get("duration"),
            error=result.get("error"),
            seed=asked["seed"],
            same_as=result.get("same_as"),
        )


def to_optuna(
    sample: Mapping[str, Answer], domains: Mapping[str, Domain]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """A sample as Optuna's parameters and distributions.

    Tuples become JSON text; a subset becomes one parameter for each item (taken or not) or each place (which item).
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for label, answer in sample.items():
        match domains.get(label):
            case Categorical(candidates=candidates):
                parameters[label] = _scalar(answer)
                distributions[label] = CategoricalDistribution(tuple(_scalar(c) for c in candidates))
            case Integer(low=low, high=high, step=step, log=log):
                parameters[label] = answer
                distributions[label] = IntDistribution(low, high, step=step, log=log)
            case Real(low=low, high=high, step=interval, log=log):
                parameters[label] = answer
                distributions[label] = FloatDistribution(low, high, step=interval, log=log)
            case Subset(n=n, k=None):
                for item in range(n):
                    parameters[f"{label}[{item}]"] = item in answer
                    distributions[f"{label}[{item}]"] = CategoricalDistribution((False, True))
            case Subset(n=n):
                for place, item in enumerate(answer):
                    parameters[f"{label}[{place}]"] = item
                    distributions[f"{label}[{place}]"] = CategoricalDistribution(tuple(range(n)))
            case _:
                # A label met only through the value of another choice: its domain is not in the tree.
                continue
    return parameters, distributions


def _scalar(value: Answer) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def from_scalar(value: Any, domain: Categorical[Any]) -> Answer:
    """The candidate that Optuna holds as this value."""
    return next(candidate for candidate in domain.candidates if _scalar(candidate) == value)


def open_storage(storage: object, folder: Path) -> BaseStorage:
    """The Optuna storage of an experiment: a journal in its folder, a URL, or a storage object.

    Raises:
        NasTypeError: something else.
    """
    import optuna

    if storage is None:
        path = folder / "journal.log"
        folder.mkdir(parents=True, exist_ok=True)
        from nas.journal import JournalFile, JournalLock

        lock = JournalLock(f"{path}.lock")
        lock.acquire()
        try:
            mend_journal(path)
        finally:
            lock.release()
        return optuna.storages.JournalStorage(JournalFile(str(path), lock))
    if isinstance(storage, str):
        try:
            with quiet_optuna():
                return optuna.storages.get_storage(storage)
        except Exception as error:
            # SQLAlchemy, its drivers and Optuna raise what they like. The URL may hold a password: do not repeat it.
            raise ExperimentError(
                explain(
                    f"the storage cannot be opened ({type(error).__name__}: {error})",
                    mend="check storage=, the URL of an Optuna storage such as sqlite:///folder/file.db",
                )
            ) from error
    if isinstance(storage, optuna.storages.BaseStorage):
        return storage
    raise NasTypeError(
        explain("storage is a URL or an Optuna storage; None keeps a journal in the folder", got=storage)
    )


@contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """One process at a time runs an experiment that is kept in a folder.

    Raises:
        ExperimentError: another one runs it.
    """
    import filelock

    lock = filelock.FileLock(str(folder / "running.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ExperimentError(
            explain(f"another process runs the experiment {folder.name!r}", got=str(folder), mend="wait for it")
        ) from error
    try:
        yield
    finally:
        lock.release()


def mend_journal(path: Path) -> int:
    """Cuts off what a killed process or a full disk left of a last line; nothing that was finished is in it.

    Returns:
        How many bytes it cut.
    """
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        whole = 0
        for line in file:
            if not line.endswith(b"\n") or not _is_json(line):
                break
            whole += len(line)
        torn = file.seek(0, os.SEEK_END) - whole
        file.seek(whole)
        if torn and b"\n" in file.read().rstrip(b"\n\0"):
            raise ExperimentError(
                explain(
                    "a line in the middle of the journal is damaged, so more than the last record is at stake",
                    got=f"{path}, byte {whole}",
                    mend="restore the file from a copy, or delete the damaged lines by hand",
                )
            )
        if torn:
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
    return torn


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging: our own lines tell the story; Optuna's would tell it twice."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
