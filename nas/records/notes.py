"""What a ledger holds beside its trials: samples in the queue, and what was asked of those who run the experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from nas.domains import Sample, dumps_sample, loads_sample
from nas.records.attributes import CHANGES, KILLS, QUEUE, RUN, STOPS, refuse_damaged


@final
@dataclass(frozen=True)
class Queued:
    """A sample that comes before what the strategy proposes."""

    sample: Sample
    again: bool = False
    """Whether it is evaluated though it has been tried before."""
    instead_of: int | None = None
    """The FAILED trial whose place among those that are counted it takes."""

    def as_json(self) -> Any:
        """A text; what is to be tried again is a list, which older versions do not read."""
        text = dumps_sample(self.sample)
        return [text, self.instead_of] if self.again else text

    @classmethod
    def of_json(cls, value: Any) -> Queued:
        """What `as_json` has made."""
        if isinstance(value, str):
            return cls(loads_sample(value))
        text, instead_of = value
        return cls(loads_sample(text), again=True, instead_of=instead_of)


@final
class Notes:
    """The attributes of a study that are no trials, read.

    Args:
        attributes: of the study.
        place: where the ledger is, for messages.

    Raises:
        ExperimentError: one of them is damaged.
    """

    def __init__(self, attributes: Mapping[str, Any], place: str = "") -> None:
        refuse_damaged(attributes, (QUEUE, STOPS, RUN, CHANGES, KILLS), place)
        self.queue: list[Queued] = [Queued.of_json(value) for value in attributes.get(QUEUE, [])]
        """Samples that were put in the queue, those that have been taken out of it included."""
        self.stops: int = attributes.get(STOPS, 0)
        """How often somebody has asked for the search to be stopped."""
        self.kills: frozenset[int] = frozenset(attributes.get(KILLS, ()))
        """The trials that somebody has ever asked to end at once."""
        self.changes: list[dict[str, Any]] = attributes.get(CHANGES, [])
        """The limits that somebody has changed, ever, in that order."""
        noted = attributes.get(RUN, {})
        self.run: dict[str, Any] = dict(noted)
        """What was asked of the latest run, and what has been changed since it began."""
        for change in self.changes[noted.get("changes", 0) :]:
            self.run |= change
