"""One strategy after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from nas.checks import check_int
from nas.domains import Sample
from nas.errors import NasTypeError, NasValueError, SearchSpaceExhausted, explain
from nas.protocols import Strategy, Task, Trial


@final
class Chain(Strategy):
    """Hands over from one strategy to the next after so many trials; each is told all trials, whoever proposed them.

    A strategy that has nothing left to propose hands over at once.

    Args:
        parts: (strategy, number of its trials); the last one's may be None, for all the rest.

    Raises:
        NasValueError, NasTypeError: no parts, or one that makes no sense.

    Example:
        >>> from nas import Categorical, SearchSpace
        >>> from nas.strategies import GridSearch, Random
        >>> strategy = Chain([(GridSearch(), 2), (Random(), None)])
        >>> strategy.start(Task(space=SearchSpace.of({"width": Categorical(range(100))})))
        >>> for number in range(2):
        ...     strategy.tell(Trial(number=number, sample=strategy.ask(number)))
        >>> strategy.ask(2)["width"] > 2
        True
    """

    def __init__(self, parts: Sequence[tuple[Strategy, int | None]]) -> None:
        if not parts:
            raise NasValueError(explain("a chain needs at least one strategy", got=parts))
        for place, part in enumerate(parts):
            if not isinstance(part, tuple) or len(part) != 2 or not isinstance(part[0], Strategy):
                raise NasTypeError(
                    explain(
                        "a part of a chain is (strategy, number of trials)", got=part, mend="Chain([(Random(), 20)])"
                    )
                )
            if part[0].shared_training is not None:
                raise NasValueError(
                    explain(
                        f"part {place} trains something before it proposes, which an experiment does for a strategy of "
                        "its own alone",
                        got=part[0],
                        mend="run it in an experiment of its own",
                    )
                )
            if part[1] is not None:
                check_int(f"the number of trials of part {place}", part[1], least=1, or_else="None", where="Chain")
            elif place < len(parts) - 1:
                raise NasValueError(explain("only the last part of a chain may go on for ever", got=list(parts)))
        self.parts = tuple(parts)

    def start(self, task: Task) -> None:
        """The first part's turn."""
        self._begun = 0
        for strategy, _ in self.parts:
            strategy.start(task)

    def ask(self, number: int) -> Sample:
        """What the part whose turn it is proposes."""
        end, ending = 0, "the chain has come to its end"
        for strategy, trials in self.parts:
            end += trials or 0
            if trials is None or self._begun < end:
                try:
                    return strategy.ask(number)
                except SearchSpaceExhausted as error:
                    ending = str(error)
        raise SearchSpaceExhausted(ending)

    def tell(self, trial: Trial) -> None:
        """Tells all parts."""
        self._begun += not trial.state.is_finished
        for strategy, _ in self.parts:
            strategy.tell(trial)
