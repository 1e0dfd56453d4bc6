"""The loop of a search: propose, evaluate, write down, tell; `Experiment.run` starts it, Ctrl-C ends it in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, final

from nas.domains import Sample
from nas.errors import DiskFull, ExperimentError, NasError, SearchSpaceExhausted, explain, is_full, told_if_full
from nas.execution import Assignment, Executor, Outcome, Plan, answer_again, give_up
from nas.protocols import Evaluator, Objectives, Strategy, Trial, TrialState, forget_checkpoints
from nas.random_state import derive_seed
from nas.records import History, Ledger, begin_folder, folder_of, write_outcome
from nas.search.orders import KILLED, Orders
from nas.search.pauses import Pauses
from nas.search.progress import Progress, Standing
from nas.space import ModelSpace

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

INTERRUPTED = "interrupted; run it again (with resume=True in a new process) to go on"
STOPPED = "stopped by request; resume it to go on"
TIME_IS_UP = "the time is up"
ALL_DONE = "all trials done"
UNTRAINED = "the time is up, before the supernet is trained and ranked"
EARLY = (INTERRUPTED, STOPPED, TIME_IS_UP, UNTRAINED)
"""Endings after which there is more to search."""
_POLL = 0.5
"""Seconds between looks at what other processes do, when there is nothing else to do."""
_HOPELESS = 10
"""So many failures before any success end a search: it is the evaluator then, not the architecture."""


@final
class SearchInterrupted(KeyboardInterrupt, SystemExit):
    """A search has ended in good order after a Ctrl-C: what follows it in a script must not run as if it were complete.

    A script ends with the exit code that shells give to what Ctrl-C ends, and without a traceback.
    """

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)
        self.code = 130


def interruption() -> KeyboardInterrupt:
    """What a search raises in its end; where somebody types, a mere KeyboardInterrupt, for the session has to stay."""
    return KeyboardInterrupt(INTERRUPTED) if hasattr(sys, "ps1") else SearchInterrupted()


@final
@dataclass(frozen=True, kw_only=True)
class SearchLoop:
    """What a search runs with."""

    space: ModelSpace
    """With the evaluator's hyperparameters."""
    evaluator: Evaluator
    strategy: Strategy
    objectives: Objectives
    executor: Executor
    pruner: BasePruner | None
    history: History
    ledger: Ledger
    path: Path
    """The experiment's folder."""
    seed: int
    repeats: int
    orders: Orders
    """The limits, and what others ask for meanwhile."""
    pauses: Pauses | None = None
    """Says where trials pause, and which go on; None where none does."""

    def run(self, shown: Progress) -> str:
        """Keeps `concurrency` trials under way, and tells the strategy each outcome.

        Args:
            shown: is told of each trial that ends.

        Returns:
            Why it ended, in words.

        Raises:
            ExperimentError: the first 10 trials all failed, or the strategy proposed the impossible.
        """
        if self.pauses is not None:
            self.pauses.note = shown.note
        room = _Room(self.executor, self.orders, shown)
        self.executor.start(self._plan(), room.started)
        try:
            with _Interrupts(patient=self.executor.is_isolated) as interrupts:
                ending = self._search(room, shown, interrupts)
                return INTERRUPTED if interrupts.asked else ending
        except Exception as error:
            if isinstance(error, OSError) and not self.path.is_dir():
                rule = f"the folder of the experiment is gone, while the experiment runs ({error.strerror})"
                raise ExperimentError(explain(rule, got=str(self.path), mend="bring it back, and resume")) from error
            if isinstance(error, NasError) or not is_full(error):
                raise
            raise self._no_room from error
        finally:
            self.ledger.sharing.end()

    @property
    def _no_room(self) -> DiskFull:
        return DiskFull(
            explain(
                "there is no space left on the disk, so the search ends; nothing that was finished is lost",
                got=str(self.path),
                mend="make room, and run it again with resume=True",
            )
        )

    def _search(self, room: _Room, shown: Progress, interrupts: _Interrupts) -> str:
        history, orders = self.history, self.orders
        under_way, begun = set[int](), set[int]()
        failures, exhausted, aim = 0, "", orders.limits.max_trials

        def begin() -> tuple[Trial | None, str]:
            orders.take(history.look())
            if interrupts.asked:
                return None, INTERRUPTED
            if orders.is_stopped:
                return None, STOPPED
            if orders.end is not None and time.monotonic() >= orders.end:
                return None, TIME_IS_UP
            return self._next(under_way, exhausted)

        while True:
            ending = ""
            while len(under_way) < room.size():
                trial, ending = history.in_turn(begin)
                if ending or trial is None:
                    break
                settled = self._settled(trial)
                if settled is not None:
                    shown.finished(self._finish(trial.number, settled), self._standing)
                    continue
                begin_folder(self.path, trial.number, trial.sample, is_own=trial.number in begun)
                begun.add(trial.number)
                self.executor.submit(self._assign(trial))
                under_way.add(trial.number)
            if aim != orders.limits.max_trials:
                aim = orders.limits.max_trials
                shown.aim(aim)
            if ending not in ("", INTERRUPTED, STOPPED, TIME_IS_UP, ALL_DONE):
                exhausted = ending  # What a strategy has said once holds, whatever ends meanwhile.
            if not under_way:
                if ending:
                    return ending
                time.sleep(_POLL)
                continue
            found = self.executor.attend(orders.look)
            if found is None:
                continue
            number, outcome = found
            under_way.discard(number)
            if outcome.no_room:  # It is no fault of the trial's: it stays one that is to be run.
                raise self._no_room
            if self.pauses is not None and self.pauses.pause(number, outcome):
                continue
            trial = self._finish(number, outcome)
            failures += trial.state is TrialState.FAILED and number not in orders.killed
            shown.finished(trial, self._standing)
            if failures >= _HOPELESS and not self._any_success:
                raise ExperimentError(
                    f"The first {failures} trials all failed, so the fault is not in the architectures; the last one "
                    f"with:\n{trial.error}All of them are in {self.path}. Mend the evaluator and run it again."
                )

    @property
    def _any_success(self) -> bool:
        """Whether any trial has come so far that the evaluator works: to an end, or to a rung."""
        ended = any(t.state in (TrialState.COMPLETE, TrialState.STOPPED) for t in self.history.trials.values())
        return ended or (self.pauses is not None and bool(self.pauses.paused))

    def _next(self, under_way: set[int], exhausted: str) -> tuple[Trial | None, str]:
        """The next trial to run, or why there is none; neither where others still run what may become this one's."""
        pauses, max_trials = self.pauses, self.orders.limits.max_trials
        room = max_trials is None or self.history.begun < max_trials
        paused = set() if pauses is None else pauses.paused
        if killed := sorted(paused & self.orders.killed):
            return self.history.take(killed[0]), ""
        if pauses is not None and (decided := pauses.decide(more=room)) is not None:
            return decided, ""
        adopted = self.history.adopt(paused)
        if adopted is not None:
            return adopted, ""
        if not room:
            ending = ALL_DONE
        elif exhausted and self.history.upcoming is None:
            ending = exhausted
        else:
            try:
                return self._propose(), ""
            except SearchSpaceExhausted as error:
                ending = str(error)
        if pauses is not None and (decided := pauses.decide(more=False)) is not None:
            return decided, ""
        # Where trials pause, one that is under way may let others go on.
        return None, "" if self.history.running - (under_way if pauses is None else set()) else ending

    def _settled(self, trial: Trial) -> Outcome | None:
        """The outcome of a trial that needs no evaluation, or can have none."""
        if self.history.is_outdated(trial):
            # Its value would be that of another supernet than the one that ranked it.
            return give_up(trial, "The supernet was trained on before this trial was judged.\n")
        if trial.number in self.orders.killed:  # It paused, or its process died before it could be.
            return give_up(trial, f"TrialKilled: {KILLED}\n")
        if self.pauses is not None and (outcome := self.pauses.end(trial)) is not None:
            return outcome
        known = self.history.known(trial)
        return None if known is None else answer_again(known)

    def _finish(self, number: int, outcome: Outcome) -> Trial:
        """Writes an outcome down: the folder first, so that what the ledger calls finished has all its files."""
        self.ledger.sharing.make_sure()
        doubt = self.objectives.doubt(outcome.metrics) if outcome.state is TrialState.COMPLETE else ""
        if doubt:
            outcome = replace(outcome, state=TrialState.FAILED, values=None, error=f"ExperimentError: {doubt}\n")
        if self.pauses is not None:
            outcome = self.pauses.timed(number, outcome)
        if number in self.history.taken_over and outcome.intermediate:
            outcome = replace(outcome, intermediate=self.ledger.courses.of(number).whole(outcome.intermediate))
        write_outcome(self.path, number, outcome)
        trial = self.history.in_turn(lambda: self.history.finish(number, outcome))
        if doubt:
            raise ExperimentError(doubt)
        if trial.state is not TrialState.FAILED:
            forget_checkpoints(folder_of(self.path, number))
        return trial

    def _propose(self) -> Trial:
        """Takes a sample from the queue or asks the strategy, and writes the new trial down before it runs."""
        number = len(self.history.trials)
        seed = derive_seed(self.seed, number)
        queued = self.history.upcoming
        if queued is not None:
            return self.history.begin(queued, seed, queued=True)
        return self.history.begin(self._checked(self.strategy.ask(number)), seed)

    def _checked(self, sample: object) -> Sample:
        name, tree = type(self.strategy).__name__, self.space.search_space
        if not isinstance(sample, Mapping):
            raise ExperimentError(f"{name} must propose a dict label -> answer, not {sample!r}.")
        extra = {label: answer for label, answer in sample.items() if label not in tree.domains}
        try:
            return tree.validate({k: v for k, v in sample.items() if k not in extra}) | extra
        except NasError as error:
            raise ExperimentError(f"{name} proposed an impossible sample: {error}") from error

    @property
    def _standing(self) -> Standing:
        return Standing(objectives=self.objectives, leaders=self.history.leaders, complete=self.history.complete)

    def _plan(self) -> Plan:
        return Plan(
            evaluator=self.evaluator,
            objectives=self.objectives,
            build=self.space.build_completed,
            hyperparameters=frozenset(self.space.hyperparameters),
            repeats=self.repeats,
            max_trial_time=self.orders.limits.max_trial_time,
            pauses=self.pauses is not None,
        )

    def _assign(self, trial: Trial) -> Assignment:
        return Assignment(
            number=trial.number,
            sample=trial.sample,
            seed=trial.seed,
            directory=Path(os.path.abspath(folder_of(self.path, trial.number))),
            on_report=lambda step, value: self._on_report(trial.number, step, value),
        )

    def _on_report(self, number: int, step: int, value: float) -> bool:
        with told_if_full(self.path, "make room, and run it again with resume=True"):  # It is no fault of the trial's.
            self.ledger.report(number, step, value)
        if self.pauses is not None:
            return self.pauses.stops(number, step)
        return self.pruner is not None and self.ledger.should_stop(number, step, self.pruner)


@final
class _Room:
    """How many trials run at a time.

    Args:
        executor: where they run.
        orders: how many are asked for.
        shown: is told why there are not so many.
    """

    def __init__(self, executor: Executor, orders: Orders, shown: Progress) -> None:
        self._executor, self._orders, self._shown = executor, orders, shown
        self.started = self._asked = self._wanted

    @property
    def _wanted(self) -> int:
        """As many as are asked for, and as the executor can."""
        asked = self._orders.limits.concurrency
        executor = self._executor
        return executor.usual_concurrency if asked is None else min(asked, executor.max_concurrency)

    def size(self) -> int:
        """So many as there is room for now; makes other room where another number is asked for by now."""
        if (wanted := self._wanted) != self._asked:
            self._asked = wanted
            try:
                if self._executor.resize(wanted):
                    self.started = wanted
                elif wanted > self.started:
                    self._shown.note(f"this executor runs {self.started} trials at a time until the run ends")
            except NasError as error:
                self._shown.note(f"there are {self.started} trials at a time as before: {error}")
        return min(wanted, self.started)


@final
class _Interrupts:
    """Notes the first Ctrl-C in a `with` block, and lets the second through as KeyboardInterrupt.

    So trials that run in other processes are let finish.

    Args:
        patient: whether the first one is only noted; else every one is let through.
    """

    def __init__(self, *, patient: bool) -> None:
        self.asked = False
        """Whether there was one."""
        self._patient = patient
        self._before: Any = None

    def __enter__(self) -> _Interrupts:
        usable = self._patient and threading.current_thread() is threading.main_thread()
        if usable and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Printing inside a signal handler may meet a print that is under way: write to the terminal itself.
        with suppress(OSError):
            os.write(2, b"\nThe running trials are let finish; Ctrl-C once more breaks them off.\n")
