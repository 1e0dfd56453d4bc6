"""An experiment's ledger and the history lived through it, from the moment that the experiment is made."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from nas.domains import Sample
from nas.errors import ExperimentError, NasValueError, explain, shown
from nas.opened import opened_how
from nas.protocols import Objectives, Strategy, TrialState
from nas.records.disk import told
from nas.records.history import History
from nas.records.identity import amend, refuse_differences
from nas.records.ledger import Ledger
from nas.records.notes import Notes, Queued
from nas.records.storage import Store
from nas.space import ModelSpace

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


@final
class Session:
    """What an experiment has written down, and goes on with.

    Args:
        store: where the ledger is kept; it is written to as soon as something is done with the experiment.
        path: the experiment's folder; its name is the experiment's.
        header: what the experiment is.
        space, strategy, objectives, seed: of the search.
        resume: whether to go on with what is there; "auto": unless trials have failed and none has succeeded.
        accept_changes: whether to go on though the code or the space is another one than it was.

    Raises:
        ExperimentError: there is an experiment already; or another one is to be gone on with; or there are trials
            without a ledger, or a ledger of another name.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        header: Mapping[str, Any],
        *,
        space: ModelSpace,
        strategy: Strategy,
        objectives: Objectives,
        seed: int,
        resume: bool | Literal["auto"],
        accept_changes: bool,
    ) -> None:
        self._store, self._path, self.header = store, path, dict(header)
        self._space, self._strategy, self._objectives, self._seed = space, strategy, objectives, seed
        self._accept_changes, self._resume = accept_changes, bool(resume)
        self._origin = opened_how()
        self._is_amended = False
        """Whether the header has to be written, which waits until something is done with the experiment."""
        self._is_open = False
        """Whether the ledger is one that may be written to."""
        self._opening, self._running = threading.Lock(), threading.Lock()
        self.history: History | None = None
        self.earlier: Path | None = None
        """Where that is which an experiment of this name held before it was begun anew."""
        storage = store.look()
        self.ledger = None if storage is None else Ledger.find(storage, path.name, store.running)
        if self.ledger is None:
            self._refuse_remains(storage)
        if self.ledger is not None and resume is not True:
            self._begin_anew(self.ledger, only_failed=resume == "auto")
        if self.ledger is not None:
            if not resume:
                raise ExperimentError(
                    explain(
                        f"an experiment named {path.name!r} exists already",
                        got=str(path),
                        mend="go on with it by resume=True, or take another name",
                    )
                )
            self._compare(self.ledger)
            self.history = self._relive(self.ledger)

    def _refuse_remains(self, storage: BaseStorage | None) -> None:
        """No ledger of this name: where there are trials all the same, nothing is begun over them."""
        studies = storage.get_all_studies() if storage is not None and self._store.has_journal else []
        others = [study.study_name for study in studies if study.study_name != self._path.name]
        if others:
            raise ExperimentError(
                explain(
                    f"the journal in the folder of the experiment {self._path.name!r} is one of {shown(others[0])}",
                    got=str(self._path),
                    mend="give the folder the name that it had, or take another name for the new experiment",
                )
            )
        trials = [folder for folder in (self._path / "trials").glob("[0-9]*") if folder.name.isdecimal()]
        remains = ([f"folders of {len(trials)} trials"] if trials else []) + (
            ["a supernet"] if any((self._path / "supernet").glob("*")) else []
        )
        if remains:
            raise ExperimentError(
                explain(
                    f"there are {' and '.join(remains)}, and no ledger that tells of them, so nothing is begun over "
                    "them",
                    got=str(self._path),
                    mend="restore journal.log from a copy, or give storage= as it was; or move the folder away, or "
                    "take another name",
                )
            )

    def _begin_anew(self, ledger: Ledger, *, only_failed: bool) -> None:
        """Puts aside what is there, where nothing is lost by it.

        That is: no trial has succeeded or is in the queue, no supernet has been trained, and no process runs it.
        """
        records = ledger.read()
        states = {record.trial.state for record in records}
        waits = len(ledger.notes().queue) > sum(record.place is not None for record in records)
        if (
            states & {TrialState.COMPLETE, TrialState.STOPPED}
            or any(course.is_paused for course in ledger.courses.read().values())
            or waits
            or (only_failed and TrialState.FAILED not in states)
            or ledger.sharing.is_shared
            or (self._path / "supernet").exists()
        ):
            return
        with self._store.running.taken(), told(self._path):
            ledger = self.opened()
            if records:
                self.earlier = self._path / "earlier" / str(len(list(self._path.glob("earlier/*"))))
                self.earlier.mkdir(parents=True)
                if (journal := self._path / "journal.log").exists():
                    shutil.copy(journal, self.earlier)
                if (trials := self._path / "trials").exists():
                    trials.rename(self.earlier / "trials")
            ledger.forget()
        self.ledger = None
        self._is_open = False

    def _compare(self, ledger: Ledger) -> None:
        changes = refuse_differences(ledger.header, self.header, self._path.name, accept=self._accept_changes)
        self.header = amend(ledger.header, self.header, changes)
        said = ledger.header.get("assumed") != self.header.get("assumed")
        self._is_amended = bool(changes) or said or "parameters" not in ledger.header

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps other processes out, unless the ledger is one that several share; and other threads always.

        Raises:
            ExperimentError: another process runs the experiment, or another thread runs it by this very object.
        """
        if not self._running.acquire(blocking=False):
            raise ExperimentError(
                explain(
                    f"the experiment {self._path.name!r} is being run already, in another thread", mend="wait for it"
                )
            )
        try:
            with self._alone():
                yield
        finally:
            self._running.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if Ledger.is_shared(self._store.write(), self._path.name):
            yield
        else:
            with self._store.running.taken():
                yield

    def note_run(self, max_trials: int | None, **limits: Any) -> Notes:
        """Writes down what a run is asked for, and by which file, for `nas show` and `nas resume`.

        Args:
            max_trials: of the whole experiment. Where there are as many already, so that nothing is left to do, what
                was noted before stays: it is no wish for fewer. So it does where others run the experiment, to more.
            **limits: the others.

        Returns:
            What others have noted before the run.
        """
        assert self.ledger is not None
        assert self.history is not None
        notes, there = self.ledger.notes(), self.history.begun
        before = notes.run.get("max_trials")
        if max_trials is not None and notes.run:
            others = self.history.running - set(self.ledger.orphans(self.history.running))
            if max_trials <= there or (others and (before is None or before > max_trials)):
                max_trials = before
        elif max_trials is not None:
            max_trials = max(max_trials, there)
        noted = {**limits, "max_trials": max_trials, "changes": len(notes.changes)}
        run = {**noted, **self._origin, "began": time.time(), "finished": self.history.finished}
        self.ledger.write_run({name: value for name, value in run.items() if value is not None})
        return notes

    def enqueue(self, sample: Sample, *, again: bool = False) -> bool:
        """Puts a sample in the queue; a process that runs the experiment takes it from there."""
        with self._store.queueing():
            return self.opened().enqueue(Queued(sample, again))

    def retry(self, numbers: Collection[int] | None = None) -> list[int]:
        """Puts the samples of FAILED trials in the queue again: see `Ledger.retry`."""
        with self._store.queueing():
            return self.opened().retry(numbers)

    def stop(self) -> None:
        """Asks whoever runs the experiment to stop: see `Ledger.ask_to_stop`."""
        with self._store.queueing():
            self.opened().ask_to_stop()

    def kill(self, numbers: Collection[int]) -> None:
        """Asks whoever runs some trials to end them: see `Ledger.ask_to_kill`."""
        with self._store.queueing():
            self.opened().ask_to_kill(numbers)

    def change_limits(self, changes: Mapping[str, float | None]) -> None:
        """Notes other limits: see `Ledger.change_limits`."""
        with self._store.queueing():
            self.opened().change_limits(changes)

    def begun(self, max_trials: int | None = None) -> History:
        """The history as the ledger knows it, whatever struck since: a Ctrl-C, or another process."""
        self.history = self._relive(self.opened(), max_trials)
        return self.history

    def opened(self) -> Ledger:
        """The ledger alone, begun where there is none: what another thread writes to while this one runs the search.

        The history is the run's; the run finds what is written when it looks.
        """
        with self._opening:
            storage, running = self._store.write(), self._store.running
            if self.ledger is not None and not self._is_open:
                self.ledger = Ledger.find(storage, self._path.name, running)
                if self.ledger is None:
                    raise ExperimentError(
                        explain(
                            f"the experiment {self._path.name!r} was deleted since it was opened",
                            got=running.place,
                            mend="restore it from a copy, or open it anew",
                        )
                    )
            self._is_open = True
            if self.ledger is None:
                self.ledger = Ledger.create(
                    storage,
                    name=self._path.name,
                    directions=self._objectives.describe(),
                    header=self.header,
                    running=running,
                )
                if self._resume:
                    self._compare(self.ledger)  # Another process that shares it may have begun it meanwhile.
            if self._is_amended:
                self.ledger.write_header(self.header)
                self._is_amended = False
            return self.ledger

    def _relive(self, ledger: Ledger, max_trials: int | None = None) -> History:
        try:
            return History(
                ledger,
                space=self._space.search_space,
                strategy=self._strategy,
                objectives=self._objectives,
                seed=self._seed,
                max_trials=max_trials,
                path=self._path,
                grow=lambda sample: self._space.search_space if self._space.grow(sample) else None,
            )
        except NasValueError as error:
            raise ExperimentError(
                explain(
                    f"what the ledger holds is not of this experiment: {error}",
                    got=self._store.running.place,
                    mend="restore it from a copy",
                )
            ) from error
