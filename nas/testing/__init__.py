"""Contract suites: the checks that every implementation of a protocol passes, ours and third parties' alike."""

from nas.testing.evaluators import EvaluatorContract
from nas.testing.executors import ExecutorContract
from nas.testing.one_shot import OneShotContract
from nas.testing.processes import PATIENCE, ended_well, fork, is_alive, wait_until
from nas.testing.strategies import StrategyContract

__all__ = [
    "PATIENCE",
    "EvaluatorContract",
    "ExecutorContract",
    "OneShotContract",
    "StrategyContract",
    "ended_well",
    "fork",
    "is_alive",
    "wait_until",
]
