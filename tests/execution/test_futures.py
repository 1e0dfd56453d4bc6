"""Trials in the workers of pools: real ones of each kind."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from nas.execution import Executor, FuturesExecutor
from nas.testing import ExecutorContract

pytestmark = pytest.mark.long


class TestProcessPool(ExecutorContract):
    def make(self) -> Executor:
        return FuturesExecutor(lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")), workers=2, grace=1)


class TestThreads(ExecutorContract):
    def make(self) -> Executor:
        return FuturesExecutor(lambda: ThreadPoolExecutor(2), workers=2, grace=1)
