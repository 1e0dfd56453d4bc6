"""An evaluator that asks a fitted predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, final, runtime_checkable

import numpy

from nas.domains import Sample
from nas.durations import check_seconds
from nas.errors import NasTypeError, explain
from nas.evaluators.tabular import Run, SimulatedEvaluator
from nas.protocols import as_metrics, as_number

Encode: TypeAlias = Callable[[Sample], Sequence[float]]


@runtime_checkable
class Predictor(Protocol):
    """Anything with the `predict` of scikit-learn's estimators."""

    def predict(self, rows: Any, /) -> Any:
        """Rows (samples, features) to one number for each."""


Predict: TypeAlias = "Predictor | Callable[[Sample], Run | Mapping[str, float] | float]"


@final
class Surrogate(SimulatedEvaluator):
    """Predicts what each sample would come to.

    Args:
        predict: a function from a sample to a number, a dict of metrics or a `Run`; or a fitted estimator, whose
            `predict` takes rows of features (then `encode` is needed).
        encode: a sample to its features; `nas.strategies.PathEncoding(space)` does for any space.
        seconds: that the training would take: a number (or a text such as "2m"), a function of the sample, or an
            estimator. A `Run` has its own.
        curves: whether to report the steps of a `Run`'s curve.

    Raises:
        NasTypeError: neither a function nor an estimator, or an estimator without an encoding.

    Example:
        >>> evaluator = Surrogate(lambda sample: 1 - 1 / sample["width"], seconds=lambda sample: 10.0 * sample["width"])
        >>> evaluator.run({"width": 4}, seed=0)
        Run(metrics={'value': 0.75}, seconds=40.0, curve={}, clock={})
    """

    def __init__(
        self,
        predict: Predict,
        *,
        encode: Encode | None = None,
        seconds: float | str | Predict = 0.0,
        curves: bool = True,
    ) -> None:
        if encode is not None and not callable(encode):
            raise NasTypeError(explain("encode is a function of a sample", got=encode, where="Surrogate"))
        self._predict = _as_function(predict, encode, "predict")
        if isinstance(seconds, Predictor) or callable(seconds):
            self._seconds: Callable[[Sample], Any] = _as_function(seconds, encode, "seconds")
        else:
            fixed = check_seconds("seconds", seconds, least=0, or_else="a function of a sample", where="Surrogate")
            self._seconds = lambda sample: fixed
        self._curves = curves

    def decisive(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A duration counts, not how it is written."""
        found = super().decisive(arguments)
        written = {"seconds": self._seconds({})} if isinstance(found.get("seconds"), str) else {}
        return found | written

    @property
    def curves(self) -> bool:
        """Whether the steps of a `Run`'s curve are reported."""
        return self._curves

    def run(self, sample: Sample, seed: int) -> Run:
        """What is predicted for a sample; the seed plays no part."""
        found = self._predict(sample)
        if isinstance(found, Run):
            return found
        return Run(metrics=as_metrics(found), seconds=as_number(self._seconds(sample), "Surrogate, seconds"))


def _as_function(predict: object, encode: Encode | None, name: str) -> Callable[[Sample], Any]:
    if isinstance(predict, Predictor):
        if encode is None:
            raise NasTypeError(
                explain(
                    "an estimator needs an encoding of the samples",
                    got=predict,
                    where=f"Surrogate, {name}",
                    mend="encode=nas.strategies.PathEncoding(space)",
                )
            )
        return lambda sample: numpy.ravel(predict.predict(numpy.array([encode(sample)])))[0]
    if not callable(predict):
        raise NasTypeError(
            explain(
                "a function of a sample, or an object with predict",
                got=predict,
                where=f"Surrogate, {name}",
                mend='lambda sample: 1 - 1 / sample["width"], say',
            )
        )
    return predict
