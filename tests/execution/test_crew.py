"""What workers of all kinds have in common: deaths before and in a trial, last words, time limits, lost places."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from nas import TrialState
from nas.execution import Assignment, Outcome
from nas.execution.crew import Begun, Crew, Done, Gone, Line, Report, Word, Worker


class Told(Line):
    """A worker that says what a test has written down for it, one word at a time."""

    made: ClassVar[deque[list[Word]]] = deque()

    def __init__(self) -> None:
        self.words = deque(Told.made.popleft() if Told.made else [])
        self.sent: list[Assignment] = []
        self.answers: list[bool] = []
        self.ended = self.starved = self.dead = False

    @property
    def noun(self) -> str:
        return "robot"

    @property
    def is_starved(self) -> bool:
        return self.starved

    def send(self, assignment: Assignment) -> bool:
        if self.dead:
            raise BrokenPipeError
        self.sent.append(assignment)
        return False

    def answer(self, stop: bool) -> None:
        self.answers.append(stop)

    def cause(self) -> str:
        return "rusts"

    def end(self) -> None:
        self.ended = True


def listen(lines: list[Told], timeout: float | None) -> Iterator[tuple[Told, Word]]:
    for line in lines:
        if line.words:
            yield line, line.words.popleft()


def crew(*lives: list[Word], places: int = 1, limit: float | None = None) -> tuple[Crew[Told], list[Worker[Told]]]:
    Told.made = deque(lives)
    workers = [Worker(Told, limit=limit, grace=0.05) for _ in range(places)]
    return Crew(workers, listen), workers


def outcome(value: float = 1.0) -> Outcome:
    return Outcome(
        state=TrialState.COMPLETE,
        sample={},
        values=(value,),
        metrics={},
        repeats=(),
        intermediate={},
        duration=0.0,
        error=None,
        inputs=[],
    )


def trial(number: int = 0, folder: Path | None = None) -> Assignment:
    return Assignment(number=number, sample={}, seed=0, on_report=lambda step, value: value > 1, directory=folder)


def test_reports_are_answered_and_a_worker_stays(tmp_path: Path) -> None:
    done = Done(outcome=outcome())
    made, (worker,) = crew([Begun(), Report(step=0, value=1.0), Report(step=1, value=2.0), done, Begun(), done])
    for number in range(2):
        made.submit(trial(number))
        assert made.collect() == (number, done.outcome)
    assert worker.is_warm
    assert worker.line is not None
    assert worker.line.answers == [False, True]
    assert all(assignment.on_report is None for assignment in worker.line.sent), "functions of ours do not travel"
    line = worker.line
    made.close()
    assert line.ended


def test_a_death_in_a_trial_fails_it_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("last words\n")
    made, (worker,) = crew([Begun(), Report(step=0, value=0.5), Gone()], [Begun(), Done(outcome=outcome())])
    made.submit(trial(folder=tmp_path))
    number, failed = made.collect()
    assert (number, failed.state, failed.intermediate) == (0, TrialState.FAILED, {0: 0.5})
    assert failed.error == "The end of its log:\n  last words\nWorkerDied: the robot of this trial rusts\n"
    assert not worker.is_warm
    made.submit(trial(1))
    assert made.collect()[1].values == (1.0,)


def test_deaths_before_a_trial_begins_cost_it_nothing_but_not_for_ever() -> None:
    made, _ = crew([Gone()], [Gone()], [Begun(), Done(outcome=outcome())])
    made.submit(trial())
    assert made.collect()[1].state is TrialState.COMPLETE
    made, _ = crew([Gone()], [Gone()], [Gone()], [Begun(), Done(outcome=outcome())])
    made.submit(trial())
    assert "WorkerDied" in (made.collect()[1].error or "")


def test_an_idle_worker_that_has_died_is_replaced() -> None:
    made, (worker,) = crew([Begun(), Done(outcome=outcome())], [Begun(), Done(outcome=outcome(2.0))])
    made.submit(trial(0))
    made.collect()
    assert worker.line is not None
    dead, worker.line.dead = worker.line, True
    made.submit(trial(1))
    assert made.collect()[1].values == (2.0,)
    assert dead.ended


def test_a_trial_is_run_again_when_its_place_is_lost_however_often() -> None:
    lost: list[Word] = [Begun(), Report(step=0, value=0.1), Gone(innocent=True)]
    made, _ = crew(*[list(lost) for _ in range(5)], [Begun(), Gone()])
    made.submit(trial())
    failed = made.collect()[1]
    assert failed.state is TrialState.FAILED
    assert failed.intermediate == {}, "what was reported elsewhere belongs to another attempt"


def test_a_trial_that_is_begun_anew_by_others_has_a_new_curve() -> None:
    made, _ = crew([Begun(), Report(step=0, value=0.1), Begun(), Report(step=1, value=0.2), Gone()])
    made.submit(trial())
    assert made.collect()[1].intermediate == {1: 0.2}


def test_last_words_of_a_replaced_worker_end_nothing() -> None:
    """The listener hands over all at once what was said before and after the worker was replaced."""
    Told.made = deque([[Begun()], [Begun(), Done(outcome=outcome(2.0))]])
    workers = [Worker(Told, limit=None, grace=0.0)]
    said: list[Word] = [Gone(innocent=True), Report(step=0, value=9.0), Done(outcome=outcome(1.0))]

    def all_at_once(lines: list[Told], timeout: float | None) -> Iterator[tuple[Told, Word]]:
        for line in lines:
            words = [line.words.popleft()] if line.words else []
            yield from ((line, word) for word in words)
            while said:
                yield line, said.pop(0)

    made = Crew(workers, all_at_once)
    made.submit(trial())
    assert made.collect()[1].values == (2.0,)
    assert said == []
    assert workers[0].line is not None
    assert workers[0].line.answers == []


def test_what_is_overdue_is_ended_and_its_grace_counts_from_its_beginning() -> None:
    made, (worker,) = crew([Begun()], [Begun(), Done(outcome=outcome())], limit=0.1)
    made.submit(trial())
    begin, line = time.monotonic(), worker.line
    number, failed = made.collect()
    assert number == 0
    assert time.monotonic() - begin >= 0.15
    assert (failed.error or "").startswith("TrialTimeout: the trial ran longer than max_trial_time, 0.1 s")
    assert (failed.error or "").endswith("its robot was killed\n")
    assert line is not None
    assert line.ended
    made.submit(trial(1))
    assert made.collect()[1].values == (1.0,), "it is replaced"


def test_a_starved_trial_goes_to_an_idle_worker() -> None:
    done = Done(outcome=outcome())
    made, (first, second) = crew([Begun(), done, Begun(), done], [], places=2)
    made.submit(trial(0))
    second.assign(trial(1))
    starved = second.line
    assert starved is not None
    starved.starved = True
    assert made.collect()[0] == 0
    assert first.assignment is not None
    assert first.assignment.number == 1
    assert starved.ended
    assert made.collect()[0] == 1


def test_more_than_there_are_places_for_is_a_mistake_of_ours() -> None:
    made, _ = crew([])
    made.submit(trial(0))
    with pytest.raises(AssertionError, match="no more trials"):
        made.submit(trial(1))


def test_idle_workers_are_dismissed_and_busy_ones_are_not() -> None:
    class Polite(Told):
        dismissed = 0

        def dismiss(self) -> None:
            Polite.dismissed += 1

    worker: Worker[Polite] = Worker(Polite, limit=None, grace=1.0)
    Told.made.append([])
    worker.assign(Assignment(number=0, sample={}, seed=0))
    worker.close()
    assert Polite.dismissed == 0
    Told.made.append([])
    worker.assign(Assignment(number=1, sample={}, seed=0))
    worker.assignment = None
    worker.close()
    assert Polite.dismissed == 1


def test_a_trial_is_killed_and_the_others_are_not() -> None:
    made, workers = crew([Begun()], [Begun(), Done(outcome=outcome())], places=2)
    made.submit(trial(0))
    made.submit(trial(1))
    line = workers[0].line
    assert line is not None
    found = made.attend(lambda: made.kill(0, "enough") or False)  # type: ignore[func-returns-value]
    assert found is not None
    assert (found[0], found[1].state, found[1].error) == (0, TrialState.FAILED, "TrialKilled: enough\n")
    assert line.ended
    made.kill(7, "nobody's")
    assert made.collect() == (1, outcome())


def test_who_looks_may_break_the_waiting_off() -> None:
    made, _ = crew([])
    made.submit(trial())
    looks = iter([False, False, True])
    assert made.attend(lambda: next(looks)) is None


def test_another_limit_holds_for_trials_that_run_and_without_grace_where_they_do_not_know_it() -> None:
    made, (worker,) = crew([Begun(), Begun()], limit=1000.0)
    made.submit(trial())
    assert worker.line is not None
    assert worker.line.sent[0].max_trial_time == 1000.0
    found = made.attend(lambda: made.limit(0.1) or False)  # type: ignore[func-returns-value]
    assert found is not None
    assert found[1].error == ("TrialTimeout: the trial ran longer than max_trial_time, 0.1 s, its robot was killed\n")
    made.limit(None)
    made.submit(trial(1))
    assert worker.line.sent[-1].max_trial_time == math.inf


def test_places_come_and_go_and_trials_keep_their_devices() -> None:
    made, _ = crew([Begun(), Done(outcome=outcome(2.0))], [Begun(), Done(outcome=outcome(3.0))], places=0)

    def places(*gpus: str) -> list[Worker[Told]]:
        return [
            Worker(Told, limit=None, grace=0.0, environment={"CUDA_VISIBLE_DEVICES": name, "THREADS": str(len(gpus))})
            for name in gpus
        ]

    made.resize(places("0", "1"))
    made.submit(trial(0))
    made.submit(trial(1))
    on = {w.assignment.number: w.devices for w in made._workers if w.assignment is not None}
    made.resize(places("0", "1", "2"))
    busy = {w.assignment.number: w.devices for w in made._workers if w.assignment is not None}
    assert busy == on, "a GPU that is in use is not given to another trial"
    made.resize(places("1"))
    assert len(made._leaving) == 1
    lines = [w.line for w in (*made._workers, *made._leaving)]
    assert {made.collect()[1].values, made.collect()[1].values} == {(2.0,), (3.0,)}
    assert made._leaving == []
    assert all(line is not None and line.ended for line in lines), "those have other threads now"
    assert [w.devices for w in made._workers] == ["1"]
