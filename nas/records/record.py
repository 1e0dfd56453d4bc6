"""A trial as the ledger holds it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, final

from nas.domains import loads_sample
from nas.errors import ExperimentError, NasValueError, explain
from nas.protocols import Trial, TrialState
from nas.records.attributes import ASKED, RESULT, refuse_damaged

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@final
class Record:
    """A trial in the ledger, and its place in the order of events.

    Args:
        frozen: as Optuna has it.
        objectives: how many values it has when it is COMPLETE.
        place: where the ledger is, for messages.

    Raises:
        ExperimentError: what is written of it is damaged.
    """

    def __init__(self, frozen: FrozenTrial, objectives: int, place: str) -> None:
        place = f"{place}, trial {frozen.number}"
        refuse_damaged(frozen.user_attrs, (ASKED, RESULT), place)
        _refuse_incomplete(frozen, objectives, place)
        asked: dict[str, Any] = frozen.user_attrs[ASKED]
        result: dict[str, Any] = frozen.user_attrs.get(RESULT, {}) if frozen.state.is_finished() else {}
        self.told: int = asked["told"]
        """How many trials had finished when it was asked for."""
        self.proposed = loads_sample(asked["sample"])
        """The sample before the build completed it."""
        self.again: bool = asked.get("again", False)
        """Whether it is evaluated though a trial of the same sample is COMPLETE."""
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
            intermediate=_curve(result.get("steps", ()), frozen.intermediate_values, place),
            duration=result.get("duration"),
            error=result.get("error"),
            seed=asked["seed"],
            same_as=result.get("same_as"),
            supernet_steps=asked.get("supernet_steps"),
        )


def _refuse_incomplete(frozen: FrozenTrial, objectives: int, place: str) -> None:
    state, values = frozen.state.name, frozen.values
    if state in ("COMPLETE", "PRUNED") and RESULT not in frozen.user_attrs:
        raise _damaged("it has ended, and its result is missing", place)
    if (values is None and state == "COMPLETE") or (values is not None and len(values) != objectives):
        raise _damaged(f"it has the values {values}, for {objectives} objectives", place)


def _curve(steps: Iterable[int], reports: Mapping[int, float], place: str) -> dict[int, float]:
    if lost := [step for step in steps if step not in reports]:
        raise _damaged(f"there is no report of step {lost[0]}", place)
    return {step: reports[step] for step in steps}


def _damaged(reason: str, place: str) -> ExperimentError:
    return ExperimentError(explain(f"the ledger is damaged: {reason}", got=place, mend="restore it from a copy"))


def refuse_others(
    numbers: Iterable[int], states: Mapping[int, TrialState], allowed: Collection[int], rule: str
) -> None:
    """Something can be done with trials of a certain state alone.

    Args:
        numbers: of the trials that it is to be done with.
        states: of all trials, by number.
        allowed: the numbers of those that it can be done with.
        rule: the state, and what can be done, in words.

    Raises:
        NasValueError: one of another state, or that is not there.
    """
    for number in numbers:
        if number not in allowed:
            state = f"is {states[number]}" if number in states else "is not there"
            none = f"there is none that is {rule.partition(' ')[0]}"
            raise NasValueError(
                explain(
                    f"trials that are {rule}, but trial {number} {state}",
                    got=number,
                    mend=f"one of {', '.join(map(str, allowed))}" if allowed else none,
                )
            )
