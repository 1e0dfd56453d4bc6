"""What a search remembers: the ledger on disk, its history, its identity, and the folders of trials."""

from nas.records.courses import Course, Courses
from nas.records.history import History
from nas.records.identity import describe_experiment
from nas.records.ledger import Ledger
from nas.records.optuna_parameters import suggest, to_optuna
from nas.records.session import Session
from nas.records.storage import open_storage, quiet_optuna
from nas.records.trial_folder import folder_of, write_outcome, write_sample

__all__ = [
    "Course",
    "Courses",
    "History",
    "Ledger",
    "Session",
    "describe_experiment",
    "folder_of",
    "open_storage",
    "quiet_optuna",
    "suggest",
    "to_optuna",
    "write_outcome",
    "write_sample",
]
