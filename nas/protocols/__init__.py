"""What the parts of a search owe each other: trials, objectives, evaluators, strategies, early stopping."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.protocols.early_stopping import EarlyStopping, Hyperband, MedianStop, Patience, SuccessiveHalving
from nas.protocols.failure import Failure, bounded, read_failure
from nas.protocols.objectives import Direction, Objectives, losses, usual_direction
from nas.protocols.pareto import crowding, fronts
from nas.protocols.remembered import Remembers, arguments_of, bound_arguments, given_arguments, made_again
from nas.protocols.resources import arrival
from nas.protocols.trial import Cause, Trial, TrialState, causes, comparable
from nas.protocols.weight_files import forget_weights, weights_of_runs

if TYPE_CHECKING:
    from nas.protocols.checkpoints import checkpoint_file, forget_checkpoints, load_checkpoint, save_checkpoint
    from nas.protocols.evaluation import (
        Evaluator,
        Job,
        Place,
        TrialKilled,
        TrialTimeout,
        evaluating,
        keep_weights,
        report,
        trial_directory,
    )
    from nas.protocols.metrics import as_metrics, as_number
    from nas.protocols.shared_training import ExperimentArguments, OneShotTask, SharedTraining
    from nas.protocols.strategy import OneShotStrategy, Strategy, Task, check_single
    from nas.protocols.trained_weights import (
        copy_weights,
        load_weights,
        read_state,
        save_state,
        write_weights,
    )

_LATE = {
    "Evaluator": "nas.protocols.evaluation",
    "ExperimentArguments": "nas.protocols.shared_training",
    "Job": "nas.protocols.evaluation",
    "OneShotStrategy": "nas.protocols.strategy",
    "OneShotTask": "nas.protocols.shared_training",
    "Place": "nas.protocols.evaluation",
    "SharedTraining": "nas.protocols.shared_training",
    "Strategy": "nas.protocols.strategy",
    "Task": "nas.protocols.strategy",
    "TrialKilled": "nas.protocols.evaluation",
    "TrialTimeout": "nas.protocols.evaluation",
    "as_metrics": "nas.protocols.metrics",
    "as_number": "nas.protocols.metrics",
    "check_single": "nas.protocols.strategy",
    "checkpoint_file": "nas.protocols.checkpoints",
    "copy_weights": "nas.protocols.trained_weights",
    "evaluating": "nas.protocols.evaluation",
    "forget_checkpoints": "nas.protocols.checkpoints",
    "keep_weights": "nas.protocols.evaluation",
    "load_checkpoint": "nas.protocols.checkpoints",
    "load_weights": "nas.protocols.trained_weights",
    "read_state": "nas.protocols.trained_weights",
    "report": "nas.protocols.evaluation",
    "save_checkpoint": "nas.protocols.checkpoints",
    "save_state": "nas.protocols.trained_weights",
    "trial_directory": "nas.protocols.evaluation",
    "write_weights": "nas.protocols.trained_weights",
}

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
    "Place",
    "Remembers",
    "SharedTraining",
    "Strategy",
    "SuccessiveHalving",
    "Task",
    "Trial",
    "TrialKilled",
    "TrialState",
    "TrialTimeout",
    "arguments_of",
    "arrival",
    "as_metrics",
    "as_number",
    "bound_arguments",
    "bounded",
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

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
