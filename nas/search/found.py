"""What an experiment has found, asked of it itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.calls import explained
from nas.protocols import Trial
from nas.search.results import Results
from nas.search.weights import chosen_weights

if TYPE_CHECKING:
    import pandas


@explained(methods=True)
class Found(ABC):
    """Answers from its results."""

    @property
    @abstractmethod
    def results(self) -> Results:
        """The trials with what can be asked of them."""

    def __repr__(self) -> str:
        """In one line."""
        return f"{type(self).__name__}({self.results.path.name!r}: {self.results.standing})"

    def _repr_html_(self) -> str:
        """The best trials as a table, for notebooks."""
        return self.results.as_html(repr(self))

    @property
    def best_trial(self) -> Trial:
        """The COMPLETE trial with the best value.

        Raises:
            ExperimentError: there is none yet, or there are several objectives.
        """
        return self.results.best_trial

    @property
    def pareto_front(self) -> list[Trial]:
        """The COMPLETE trials that no other one beats in every objective."""
        return self.results.pareto_front

    def hypervolume(self, reference: Sequence[float] | Mapping[str, float]) -> float:
        """The volume that the COMPLETE trials dominate, as far as a reference point: the worst that matters.

        Args:
            reference: metric -> value, or the values in order.
        """
        return self.results.objectives.hypervolume(self.results.counted, reference)

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each trial: its number, state, values, metrics, duration in seconds, and its answers."""
        return self.results.to_dataframe()

    def export_top_models(
        self,
        k: int = 1,
        formatter: str = "dict",
        *,
        weights: str | None = None,
        inherit_weights: bool = False,
        example_input: Any = None,
        directory: str | Path | None = None,
    ) -> list[Any]:
        """The k best different architectures, best first; see `Results.export_top_models`.

        `inherit_weights=True` is another way to write `weights="inherit"`; where neither is said, they are fresh.
        """
        weights = chosen_weights(weights, inherit_weights)
        return self.results.export_top_models(
            k, formatter, weights=weights, example_input=example_input, directory=directory
        )
