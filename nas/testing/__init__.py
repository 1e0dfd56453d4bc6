"""Contract suites that every implementation of a protocol passes, ours and others', and what such tests need."""

from nas.testing.comparison import differences, refused
from nas.testing.domains import DomainContract
from nas.testing.evaluators import EvaluatorContract
from nas.testing.executors import ExecutorContract
from nas.testing.one_shot import OneShotContract
from nas.testing.processes import PATIENCE, ended_well, fork, is_alive, wait_until
from nas.testing.strategies import StrategyContract
from nas.testing.strategy_table import STRATEGIES, ListedStrategy
from nas.testing.tables import Table, play, synthetic_table, table_of

__all__ = [
    "PATIENCE",
    "STRATEGIES",
    "DomainContract",
    "EvaluatorContract",
    "ExecutorContract",
    "ListedStrategy",
    "OneShotContract",
    "StrategyContract",
    "Table",
    "differences",
    "ended_well",
    "fork",
    "is_alive",
    "play",
    "refused",
    "synthetic_table",
    "table_of",
    "wait_until",
]
