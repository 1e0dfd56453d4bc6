"""Where trials run: the executors and the one function that runs a trial."""

from typing import TYPE_CHECKING

from nas.execution.log import read_log
from nas.late import late

if TYPE_CHECKING:
    from nas.execution.executor import Executor, InlineExecutor
    from nas.execution.futures import FuturesExecutor
    from nas.execution.interruption import raise_in
    from nas.execution.process import ProcessExecutor
    from nas.execution.ray import RayExecutor
    from nas.execution.trial_run import Assignment, Outcome, Plan, answer_again, execute, give_up

_LATE = {
    "Assignment": "nas.execution.trial_run",
    "Executor": "nas.execution.executor",
    "FuturesExecutor": "nas.execution.futures",
    "InlineExecutor": "nas.execution.executor",
    "Outcome": "nas.execution.trial_run",
    "Plan": "nas.execution.trial_run",
    "ProcessExecutor": "nas.execution.process",
    "RayExecutor": "nas.execution.ray",
    "answer_again": "nas.execution.trial_run",
    "execute": "nas.execution.trial_run",
    "give_up": "nas.execution.trial_run",
    "raise_in": "nas.execution.interruption",
}

__all__ = [
    "Assignment",
    "Executor",
    "FuturesExecutor",
    "InlineExecutor",
    "Outcome",
    "Plan",
    "ProcessExecutor",
    "RayExecutor",
    "answer_again",
    "execute",
    "give_up",
    "raise_in",
    "read_log",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
