"""What a search remembers: the ledger on disk, its history, its identity, and the folders of trials."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.records.courses import Course, Courses
from nas.records.ledger import Ledger
from nas.records.notes import Notes
from nas.records.optuna_parameters import suggest, to_optuna
from nas.records.storage import Store, quiet_optuna
from nas.records.trial_folder import begin_folder, folder_of, write_outcome

if TYPE_CHECKING:
    from nas.records.history import History
    from nas.records.identity import describe_experiment
    from nas.records.session import Session

_LATE = {
    "History": "nas.records.history",
    "Session": "nas.records.session",
    "describe_experiment": "nas.records.identity",
}

__all__ = [
    "Course",
    "Courses",
    "History",
    "Ledger",
    "Notes",
    "Session",
    "Store",
    "begin_folder",
    "describe_experiment",
    "folder_of",
    "quiet_optuna",
    "suggest",
    "to_optuna",
    "write_outcome",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
