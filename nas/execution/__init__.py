"""Where trials run: the executors and the one function that runs a trial."""

from nas.execution.execute import Assignment, Outcome, Plan, answer_again, execute
from nas.execution.executor import Executor
from nas.execution.inline import InlineExecutor
from nas.execution.process import ProcessExecutor
from nas.execution.ray import RayExecutor

__all__ = [
    "Assignment",
    "Executor",
    "InlineExecutor",
    "Outcome",
    "Plan",
    "ProcessExecutor",
    "RayExecutor",
    "answer_again",
    "execute",
]
