"""Evaluators: what a sample is worth. Those that train by pytorch-lightning load it when they are first asked for."""

from typing import TYPE_CHECKING

from nas.evaluators.functional import FunctionalEvaluator
from nas.evaluators.nasbench import read_nasbench101, read_nasbench201, read_nats_bench
from nas.evaluators.surrogate import Surrogate
from nas.evaluators.tabular import Run, SimulatedBudget, SimulatedEvaluator, Tabular
from nas.late import late

if TYPE_CHECKING:
    from nas.evaluators.data_modules import all_of, fresh
    from nas.evaluators.lightning import LightningEvaluator
    from nas.evaluators.supervised import Classification, Regression
    from nas.evaluators.supervised_module import SupervisedModule
    from nas.evaluators.training import TrainingEvaluator
    from nas.evaluators.trial_callback import as_numbers, interruptible, logged, silence, silenced

_LATE = {
    "Classification": "nas.evaluators.supervised",
    "LightningEvaluator": "nas.evaluators.lightning",
    "Regression": "nas.evaluators.supervised",
    "SupervisedModule": "nas.evaluators.supervised_module",
    "TrainingEvaluator": "nas.evaluators.training",
    "all_of": "nas.evaluators.data_modules",
    "fresh": "nas.evaluators.data_modules",
    "as_numbers": "nas.evaluators.trial_callback",
    "interruptible": "nas.evaluators.trial_callback",
    "logged": "nas.evaluators.trial_callback",
    "silence": "nas.evaluators.trial_callback",
    "silenced": "nas.evaluators.trial_callback",
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
    "all_of",
    "as_numbers",
    "fresh",
    "interruptible",
    "logged",
    "read_nasbench101",
    "read_nasbench201",
    "read_nats_bench",
    "silence",
    "silenced",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
