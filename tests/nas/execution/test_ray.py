"""Trials on a real Ray instance on this machine."""

from collections.abc import Iterator

import pytest

from nas.execution import Executor, RayExecutor
from nas.testing import ExecutorContract

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def instance() -> Iterator[None]:
    """One for all tests here: it takes seconds to start."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


class TestRay(ExecutorContract):
    def make(self) -> Executor:
        return RayExecutor(workers=2, grace=1)
