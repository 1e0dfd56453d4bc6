"""An evaluator made of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, final

from torch import nn

from nas.calls import misfit
from nas.domains import Answer, Domain
from nas.errors import NasTypeError, NasValueError, explain
from nas.evaluators.settings import Settings, adopting, defaults_of, takes
from nas.protocols import Evaluator, Job
from nas.space import ModelSpace


@final
class FunctionalEvaluator(Evaluator):
    """Calls `function(model, **values)`.

    Args:
        function: takes the built module and returns a finite number, or a dict of metrics. Inside it, `nas.report`
            records intermediate results.
        **hyperparameters: the other arguments of the function. A domain (`Categorical`, `Integer`, `Real`, `Subset`) is
            searched together with the architecture: it joins the sample under its keyword. A space made by
            `nas.search_space` is searched too, and the function gets what it builds.

    Raises:
        NasTypeError: not a function, or one that does not take these arguments.

    Example:
        >>> from nas import Real
        >>> def train(model, learning_rate, epochs):
        ...     return 1 - learning_rate
        >>> evaluator = FunctionalEvaluator(train, learning_rate=Real(1e-4, 1e-1, log=True), epochs=3)
        >>> list(evaluator.hyperparameters)
        ['learning_rate']
    """

    def __init__(self, function: Callable[..., float | Mapping[str, float]], /, **hyperparameters: Any) -> None:
        if not callable(function) or _is_class_of_ours(function):
            mend = "FunctionalEvaluator(train), where train(model) returns a number or a dict of numbers"
            rule = "the evaluator needs a function (model, **values) -> number"
            raise NasTypeError(explain(rule, got=function, mend=mend))
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            kind = "a generator" if inspect.isgeneratorfunction(function) else "an async function"
            rule = f"the evaluator needs a function that returns its result, and this is {kind}"
            mend = "return the number; nas.report(value) inside the function tells intermediate ones"
            raise NasTypeError(explain(rule, got=function, mend=mend))
        self.function = function
        self._settings = Settings(hyperparameters)
        _check_arguments(function, hyperparameters)

    def omitted(self) -> Mapping[str, Any]:
        """The defaults of the function's own parameters."""
        return defaults_of(self.function)

    @property
    def hyperparameters(self) -> Mapping[str, Domain | ModelSpace]:
        """The searched ones: keyword -> domain or space."""
        return self._settings.searched

    def settled(self, found: Mapping[str, Answer]) -> tuple[Evaluator, dict[str, Answer]]:
        """What it is not given takes what the search has found, where the function has such a parameter."""
        return adopting(self, self._settings, found, lambda name: takes(self.function, name))

    def evaluate(self, job: Job) -> float | Mapping[str, float]:
        """What the function returns for the job's model."""
        return self.function(job.model, **self._settings.fill(job.hyperparameters))


def _is_class_of_ours(function: object) -> bool:
    return isinstance(function, type) and issubclass(function, Evaluator | nn.Module)


def _check_arguments(function: Callable[..., Any], hyperparameters: Mapping[str, Any]) -> None:
    if (found := misfit(function, (object(),), hyperparameters)) is not None:
        words, _, mend = found
        name, signature = getattr(function, "__name__", type(function).__name__), inspect.signature(function)
        raise NasValueError(
            explain(
                f"the function is called as function(model, **values), but {name} {words}",
                got=f"{name}{signature} with {sorted(hyperparameters)}",
                mend=f"let its parameters and the keywords of FunctionalEvaluator agree: {mend}",
            )
        )
