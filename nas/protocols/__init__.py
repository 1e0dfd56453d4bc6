"""What the parts of a search owe each other: trials, objectives, evaluators, strategies, early stopping."""

from nas.protocols.checkpoints import checkpoint_file, forget_checkpoints, load_checkpoint, save_checkpoint
from nas.protocols.early_stopping import EarlyStopping, Hyperband, MedianStop, Patience, SuccessiveHalving
from nas.protocols.evaluation import (
    Evaluator,
    Job,
    TrialTimeout,
    as_metrics,
    as_number,
    evaluating,
    keep_weights,
    report,
    trial_directory,
)
from nas.protocols.failure import Failure, read_failure
from nas.protocols.objectives import Direction, Objectives, losses, usual_direction
from nas.protocols.pareto import crowding, fronts
from nas.protocols.remembered import Remembers, arguments_of, bound_arguments, given_arguments, made_again
from nas.protocols.resources import arrival
from nas.protocols.shared_training import ExperimentArguments, OneShotTask, SharedTraining
from nas.protocols.strategy import OneShotStrategy, Strategy, Task, check_single
from nas.protocols.trained_weights import (
    copy_weights,
    forget_weights,
    load_weights,
    read_state,
    save_state,
    weights_of_runs,
    write_weights,
)
from nas.protocols.trial import Cause, Trial, TrialState, causes, comparable

__all__ = [
    "Cause",
    "Direction",
    "EarlyStopping",
    "Evaluator",
    "ExperimentArguments",
    "Failure",
    "Hyperband",
    "Job",
    "MedianStop",
    "Objectives",
    "OneShotStrategy",
    "OneShotTask",
    "Patience",
    "Remembers",
    "SharedTraining",
    "Strategy",
    "SuccessiveHalving",
    "Task",
    "Trial",
    "TrialState",
    "TrialTimeout",
    "arguments_of",
    "arrival",
    "as_metrics",
    "as_number",
    "bound_arguments",
    "causes",
    "check_single",
    "checkpoint_file",
    "comparable",
    "copy_weights",
    "crowding",
    "evaluating",
    "forget_checkpoints",
    "forget_weights",
    "fronts",
    "given_arguments",
    "keep_weights",
    "load_checkpoint",
    "load_weights",
    "losses",
    "made_again",
    "read_failure",
    "read_state",
    "report",
    "save_checkpoint",
    "save_state",
    "trial_directory",
    "usual_direction",
    "weights_of_runs",
    "write_weights",
]
