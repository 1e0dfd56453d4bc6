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
from nas.protocols.strategy import Strategy, Task
from nas.protocols.supernet_strategy import OneShotStrategy, OneShotTask, Supernet, refuse_for_one_shot
from nas.protocols.trial import Trial, TrialState

__all__ = [
    "Direction",
    "EarlyStopping",
    "Evaluator",
    "Hyperband",
    "Job",
    "MedianStop",
    "Objectives",
    "OneShotStrategy",
    "OneShotTask",
    "Patience",
    "Strategy",
    "SuccessiveHalving",
    "Supernet",
    "Task",
    "Trial",
    "TrialState",
    "TrialTimeout",
    "as_metrics",
    "as_number",
    "crowding",
    "evaluating",
    "fronts",
    "losses",
    "refuse_for_one_shot",
    "report",
    "trial_directory",
    "usual_direction",
]
