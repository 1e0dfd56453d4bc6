"""Evaluators: what a sample is worth. Those that train by pytorch-lightning load it when they are first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

from nas.evaluators.functional import FunctionalEvaluator
from nas.evaluators.surrogate import Surrogate
from nas.evaluators.tabular import Run, SimulatedBudget, SimulatedEvaluator, Tabular

if TYPE_CHECKING:
    from nas.evaluators.lightning import LightningEvaluator
    from nas.evaluators.supervised import Classification, Regression
    from nas.evaluators.supervised_module import SupervisedModule
    from nas.evaluators.training import TrainingEvaluator

_LATE = {
    "Classification": "nas.evaluators.supervised",
    "LightningEvaluator": "nas.evaluators.lightning",
    "Regression": "nas.evaluators.supervised",
    "SupervisedModule": "nas.evaluators.supervised_module",
    "TrainingEvaluator": "nas.evaluators.training",
}

__all__ = [
    "Classification",
    "FunctionalEvaluator",
    "LightningEvaluator",
    "Regression",
    "Run",
    "SimulatedBudget",
    "SimulatedEvaluator",
    "SupervisedModule",
    "Surrogate",
    "Tabular",
    "TrainingEvaluator",
]


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
