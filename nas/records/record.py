"""A trial as the ledger holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from nas.domains import loads_sample
from nas.protocols import Trial, TrialState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

ASKED, RESULT = "nas:asked", "nas:result"
"""The keys, among the attributes of a trial of the study, of what is known when it begins, and when it has ended."""


@final
class Record:
    """A trial in the ledger, and its place in the order of events."""

    def __init__(self, frozen: FrozenTrial) -> None:
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
            intermediate={step: frozen.intermediate_values[step] for step in result.get("steps", ())},
            duration=result.get("duration"),
            error=result.get("error"),
            seed=asked["seed"],
            same_as=result.get("same_as"),
            supernet_steps=asked.get("supernet_steps"),
        )
