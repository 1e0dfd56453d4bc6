"""Contract suites that every implementation of a protocol passes, ours and others', and what such tests need."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.testing.comparison import differences, refused
from nas.testing.damage import mutants, survives_mutants
from nas.testing.domains import DomainContract
from nas.testing.evaluators import EvaluatorContract
from nas.testing.executors import ExecutorContract
from nas.testing.one_shot import OneShotContract
from nas.testing.processes import PATIENCE, ended_well, fork, is_alive, wait_until
from nas.testing.reachable import reachable_tensors
from nas.testing.strategies import StrategyContract
from nas.testing.strategy_table import STRATEGIES, ListedStrategy
from nas.testing.tables import Table, play, synthetic_table, table_of

if TYPE_CHECKING:
    from nas.testing.other_device import SecondDevice, can_stand_in, second_device

_LATE = dict.fromkeys(("SecondDevice", "can_stand_in", "second_device"), "nas.testing.other_device")

__all__ = [
    "PATIENCE",
    "STRATEGIES",
    "DomainContract",
    "EvaluatorContract",
    "ExecutorContract",
    "ListedStrategy",
    "OneShotContract",
    "SecondDevice",
    "StrategyContract",
    "Table",
    "can_stand_in",
    "differences",
    "ended_well",
    "fork",
    "is_alive",
    "mutants",
    "play",
    "reachable_tensors",
    "refused",
    "second_device",
    "survives_mutants",
    "synthetic_table",
    "table_of",
    "wait_until",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
