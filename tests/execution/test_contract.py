"""The executors keep their contract."""

from pathlib import Path

import pytest

from nas.execution import Executor, InlineExecutor, ProcessExecutor
from nas.testing import ExecutorContract

pytestmark = pytest.mark.long


class TestInline(ExecutorContract):
    def make(self) -> Executor:
        return InlineExecutor()


@pytest.mark.slow
class TestProcess(ExecutorContract):
    def make(self) -> Executor:
        return ProcessExecutor(workers=2, grace=1)

    @pytest.mark.slow
    def test_many_trials_leave_nothing_behind(self, tmp_path: Path) -> None:
        super().test_many_trials_leave_nothing_behind(tmp_path)

    @pytest.mark.slow
    def test_a_trial_that_kills_its_process_fails_alone(self, tmp_path: Path) -> None:
        super().test_a_trial_that_kills_its_process_fails_alone(tmp_path)

    @pytest.mark.slow
    def test_ctrl_c_once_and_twice(self, tmp_path: Path) -> None:
        super().test_ctrl_c_once_and_twice(tmp_path)
