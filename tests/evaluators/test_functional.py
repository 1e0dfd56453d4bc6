"""The evaluator made of a function."""

import pytest
import torch
from torch import nn

from nas import Categorical, Job, NasError, Real
from nas.evaluators import FunctionalEvaluator


def train(model: nn.Module, rate: float, epochs: int = 1) -> dict[str, float]:
    return {"rate": rate, "epochs": epochs}


def test_domains_are_searched_and_the_rest_is_fixed() -> None:
    evaluator = FunctionalEvaluator(train, rate=Real(0, 1), epochs=3)
    assert evaluator.hyperparameters == {"rate": Real(0, 1)}
    job = Job(
        number=0,
        sample={"width": 2, "rate": 0.5},
        build=lambda sample, seed: (nn.Linear(2, sample["width"]), sample),
        hyperparameters=frozenset({"rate"}),
    )
    assert evaluator.evaluate(job) == {"rate": 0.5, "epochs": 3}


def test_the_model_is_built_once_and_its_inputs_are_noted() -> None:
    job = Job(number=0, sample={}, build=lambda sample, seed: (nn.Linear(2, 2), sample))
    assert job.model is job.model
    job.model(torch.zeros(5, 2))
    assert job.input_shapes == [{"shape": [5, 2], "dtype": "float32"}]


class Keywords(nn.Module):
    def forward(self, x: torch.Tensor, *, mask: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        return x * scale


def test_keywords_and_plain_values_are_noted() -> None:
    job = Job(number=0, sample={}, build=lambda sample, seed: (Keywords(), sample))
    job.model(torch.zeros(5, 2), mask=None, scale=2.0)
    assert job.input_shapes == [
        {"shape": [5, 2], "dtype": "float32", "name": "x"},
        {"value": None, "name": "mask"},
        {"value": 2.0, "name": "scale"},
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FunctionalEvaluator(3), "needs a function"),  # type: ignore[arg-type]
        (lambda: FunctionalEvaluator(train), "train needs 'rate'"),
        (lambda: FunctionalEvaluator(train, rat=Categorical([1])), "'rat'|missing a required argument"),
    ],
)
def test_functions_that_do_not_fit_are_refused_at_once(make: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        make()  # type: ignore[operator]
    assert isinstance(caught.value, NasError)
