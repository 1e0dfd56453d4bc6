"""What this package takes for granted of Optuna's private names: those that our classes are built on."""

from __future__ import annotations

from nas._compat.optuna_bases import JournalOperation


def test_the_records_of_a_journal_have_the_numbers_that_files_hold() -> None:
    numbers = {operation.name: int(operation) for operation in JournalOperation}
    numbers.pop("DISCARD_TRIALS", None)  # since Optuna 5
    assert numbers == {
        "CREATE_STUDY": 0,
        "DELETE_STUDY": 1,
        "SET_STUDY_USER_ATTR": 2,
        "SET_STUDY_SYSTEM_ATTR": 3,
        "CREATE_TRIAL": 4,
        "SET_TRIAL_PARAM": 5,
        "SET_TRIAL_STATE_VALUES": 6,
        "SET_TRIAL_INTERMEDIATE_VALUE": 7,
        "SET_TRIAL_USER_ATTR": 8,
        "SET_TRIAL_SYSTEM_ATTR": 9,
    }, "a new kind of record: is the disk to be waited for?"
