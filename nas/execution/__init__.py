"""Where trials run: the executors and the one function that runs a trial."""

from nas.execution.executor import Executor
from nas.execution.futures import FuturesExecutor
from nas.execution.inline import InlineExecutor
from nas.execution.log import read_log
from nas.execution.process import ProcessExecutor
from nas.execution.ray import RayExecutor
from nas.execution.trial_run import Assignment, Outcome, Plan, answer_again, execute, give_up

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
    "read_log",
]
