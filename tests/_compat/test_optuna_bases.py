"""What this package takes for granted of Optuna's private names: those that our classes are built on."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

from nas import ExperimentError
from nas._compat.optuna_bases import FilledInTurn, JournalFileLock, JournalOperation


def test_the_lock_of_a_journal_is_taken_and_given_back(tmp_path: Path) -> None:
    assert JournalFileLock.__abstractmethods__ == {"acquire", "release"}
    assert issubclass(JournalFileOpenLock, JournalFileLock)
    assert issubclass(JournalFileSymlinkLock, JournalFileLock)
    calls = []

    class Lock(JournalFileLock):
        def acquire(self) -> bool:
            calls.append("acquire")
            return True

        def release(self) -> None:
            calls.append("release")

    JournalFileBackend(str(tmp_path / "journal"), lock_obj=Lock()).append_logs([{}])
    assert calls == ["acquire", "release"]


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


def pruner() -> FilledInTurn:
    return FilledInTurn(
        min_resource=1, max_resource=243, reduction_factor=3, brackets=6, bracket_of=lambda number: number % 6
    )


def judge(made: FilledInTurn) -> bool:
    study = optuna.create_study(pruner=made)
    trial = study.ask()
    trial.report(1.0, step=1)
    return trial.should_prune()


def test_hyperband_asks_for_the_bracket_of_each_trial_and_keeps_their_number() -> None:
    made = pruner()
    assert judge(made) is False
    assert made._asked > 0
    assert len(made._pruners) == 6  # Optuna's own logarithm says 5


def renamed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Optuna's Hyperband as it would be if it called something else by another name."""
    module = inspect.getmodule(HyperbandPruner)
    assert module is not None
    source = inspect.getsource(module)
    assert name in source
    other = types.ModuleType(module.__name__)
    exec(compile(source.replace(name, name + "_of_trial"), "renamed", "exec"), vars(other))
    for method in {*vars(HyperbandPruner), *vars(other.HyperbandPruner)} - set(vars(object)):
        if inspect.isfunction(found := vars(other.HyperbandPruner).get(method)):
            monkeypatch.setattr(HyperbandPruner, method, found, raising=False)
        elif inspect.isfunction(vars(HyperbandPruner).get(method)):
            monkeypatch.delattr(HyperbandPruner, method)
    monkeypatch.setattr(HyperbandPruner, "__init__", vars(other.HyperbandPruner)["__init__"])


@pytest.mark.parametrize("name", ["_get_bracket_id", "_n_brackets"])
def test_a_hyperband_that_would_draw_its_brackets_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed(monkeypatch, name)
    with pytest.raises(
        ExperimentError, match=r"HyperbandPruner\._get_bracket_id of optuna .* is not what this package"
    ):
        judge(pruner())


def test_a_hyperband_that_asks_no_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def prune(self: Any, study: Any, trial: Any) -> bool:
        self._try_initialization(study)
        return False

    monkeypatch.setattr(HyperbandPruner, "prune", prune)
    made = pruner()
    with pytest.raises(ExperimentError, match="brackets of Hyperband have their published sizes"):
        judge(made)
