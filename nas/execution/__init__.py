"""Where trials run: the executors and the one function that runs a trial."""

from nas.execution.execute import Assignment, Outcome, answer_again, execute
from nas.execution.executor import Executor
from nas.execution.inline import InlineExecutor

__all__ = ["Assignment", "Executor", "InlineExecutor", "Outcome", "answer_again", "execute"]
