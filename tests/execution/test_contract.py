"""The executors keep their contract."""

import pytest

from nas.execution import Executor, InlineExecutor, ProcessExecutor
from nas.testing import ExecutorContract

pytestmark = pytest.mark.long


class TestInline(ExecutorContract):
    def make(self) -> Executor:
        return InlineExecutor()


class TestProcess(ExecutorContract):
    def make(self) -> Executor:
        return ProcessExecutor(workers=2, grace=1)
