"""What the parts of a search owe each other: trials, objectives, evaluators, strategies, early stopping."""

from nas.protocols.early_stopping import EarlyStopping, Hyperband, MedianStop, Patience, SuccessiveHalving
from nas.protocols.evaluation import (
    Evaluator,
    Job,
    TrialTimeout,
    as_metrics,
    as_number,
    evaluating,
    report,
    trial_directory,
)
from nas.protocols.objectives import Direction, Objectives, losses, usual_direction
from nas.protocols.pareto import crowding, fronts
from nas.protocols.shared_training import ExperimentArguments, OneShotTask, SharedTraining
from nas.protocols.strategy import OneShotStrategy, Strategy, Task, check_single
from nas.protocols.trial import Trial, TrialState

__all__ = [
    "Direction",
    "EarlyStopping",
    "Evaluator",
    "ExperimentArguments",
    "Hyperband",
    "Job",
    "MedianStop",
    "Objectives",
    "OneShotStrategy",
    "OneShotTask",
    "Patience",
    "SharedTraining",
    "Strategy",
    "SuccessiveHalving",
    "Task",
    "Trial",
    "TrialState",
    "TrialTimeout",
    "as_metrics",
    "as_number",
    "check_single",
    "crowding",
    "evaluating",
    "fronts",
    "losses",
    "report",
    "trial_directory",
    "usual_direction",
]
