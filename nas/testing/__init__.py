"""Contract suites: the checks that every implementation of a protocol passes, ours and third parties' alike."""

from nas.testing.evaluators import EvaluatorContract
from nas.testing.executors import ExecutorContract
from nas.testing.one_shot import OneShotContract
from nas.testing.strategies import StrategyContract

__all__ = ["EvaluatorContract", "ExecutorContract", "OneShotContract", "StrategyContract"]
