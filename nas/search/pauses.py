"""Trials that pause at the rungs of Hyperband until all of their bracket are there, and then go on or end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

from nas.domains import dumps_sample, loads_sample
from nas.execution import Outcome
from nas.protocols import Hyperband, Objectives, Trial, TrialState, arrival
from nas.records import Course, Courses, History, Ledger


@final
class Pauses:
    """Says where trials pause, and decides which go on.

    All that it decides by is in the ledger, so it decides the same when the search is gone on with.

    Args:
        rule: has brackets and rungs.
        history: of the search.
        ledger: of the search.
        objectives: a single one.
    """

    def __init__(self, rule: Hyperband, history: History, ledger: Ledger, objectives: Objectives) -> None:
        self._rule, self._history, self._ledger = rule, history, ledger
        self.note: Callable[[str], None] = lambda text: None
        """Says something to who follows the search."""
        self._sign = 1 if objectives.directions[0] == "maximize" else -1
        self._ending: set[int] = set()

    @property
    def _courses(self) -> Courses:
        return self._ledger.courses

    def stops(self, number: int, step: int) -> bool:
        """Whether a running trial has come to its next rung by its report of this step."""
        course = self._courses.of(number)
        return self._arrived(number, course.passed, course, step=step) is not None

    def _arrived(self, number: int, rung: int, course: Course, *, step: int | None = None) -> float | None:
        """The value that a trial has come to a rung with; None where it has not, or there is no such rung.

        Args:
            number: of the trial.
            rung: 0 for its first.
            course: of the trial.
            step: the latest report that counts; all do where omitted.
        """
        # A trial that runs again after a kill is not judged by how far it came the first time.
        reports = {s: value for s, value in course.reports.items() if step is None or s <= step}
        rungs = self._rule.rungs(number)
        came = arrival(reports, rungs[rung]) if rung < len(rungs) else None
        return None if came is None else self._sign * reports[came]

    def pause(self, number: int, outcome: Outcome) -> bool:
        """Takes note of a trial that has stopped at a rung; whether it has."""
        course = self._courses.of(number)
        if outcome.state is not TrialState.STOPPED or not outcome.intermediate:
            return False
        if not self.stops(number, max(outcome.intermediate)):
            return False
        outcome = self.timed(number, outcome)
        known = {"sample": dumps_sample(outcome.sample), "duration": outcome.duration, "inputs": outcome.inputs}
        self._courses.pause(number, course.passed, known)
        self._ledger.release(number)
        return True

    def timed(self, number: int, outcome: Outcome) -> Outcome:
        """An outcome with the time that was taken before the trial paused."""
        course = self._courses.of(number)
        if course.pause is None or number in self._ending:
            return outcome
        return replace(outcome, duration=course.pause["duration"] + outcome.duration)

    @property
    def paused(self) -> set[int]:
        """The numbers of the trials that wait at a rung."""
        courses = self._courses.read()
        return {number for number in self._history.running if courses[number].is_paused}

    def decide(self, *, more: bool) -> Trial | None:
        """A trial whose time of waiting is over, as this process's own: it goes on, or `end` says how it ends.

        Args:
            more: whether new trials may begin.

        Returns:
            It, or None where all have to wait for others.
        """
        courses, paused = self._courses.read(), self.paused
        for number in sorted(paused, key=lambda number: (courses[number].passed, number)):
            rung = courses[number].passed
            if self._arrived(number, rung, courses[number]) is None:
                self._courses.wake(number)  # It waits at a rung of another rule, under which the search was begun.
                return self._history.take(number)
            members = [member for member in self._rule.members(number) if member in courses]
            coming = more and len(members) < len(self._rule.members(number))
            for member in members:
                other = courses[member]
                waits = member in paused and other.passed == rung
                coming = coming or (other.is_running and other.passed <= rung and not waits)
            if not coming:
                return self._decide(rung, {member: courses[member] for member in members}, paused)
        return None

    def _decide(self, rung: int, members: dict[int, Course], paused: set[int]) -> Trial:
        values = {number: self._arrived(number, rung, course) for number, course in members.items()}
        came = [number for number, value in values.items() if value is not None]
        passing = max(1, len(came) // self._rule.reduction_factor)
        passed = sum(course.passed > rung for course in members.values())
        here = [number for number in came if number in paused and members[number].passed == rung]
        best = max(here, key=lambda number: (values[number], -number))
        if passed == 0:
            resource = self._rule.rungs(best)[rung]
            self.note(f"of {len(came)} trials that have come to resource {resource}, {passing} go on")
        if passed < passing:
            self._courses.let_pass(best, rung + 1)
            return self._history.take(best)
        self._ending.add(best)
        return self._history.take(best)

    def end(self, trial: Trial) -> Outcome | None:
        """The outcome of a paused trial that does not go on; None of any other."""
        if trial.number not in self._ending:
            return None
        course = self._courses.of(trial.number)
        assert course.pause is not None
        last = arrival(course.reports, self._rule.rungs(trial.number)[course.passed])
        curve = {step: value for step, value in course.reports.items() if last is not None and step <= last}
        return Outcome(
            state=TrialState.STOPPED,
            sample=loads_sample(course.pause["sample"]),
            values=(curve[max(curve)],),
            metrics={},
            repeats=(),
            intermediate=curve,
            duration=course.pause["duration"],
            error=None,
            inputs=course.pause["inputs"],
        )


def make_pauses(rule: object, history: History, ledger: Ledger, objectives: Objectives) -> Pauses | None:
    """What pauses trials, where an early stopping rule is one of that kind."""
    return Pauses(rule, history, ledger, objectives) if isinstance(rule, Hyperband) and rule.pauses else None
