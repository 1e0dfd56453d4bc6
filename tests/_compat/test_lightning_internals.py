"""What this package takes for granted of Lightning's private names."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy

from nas._compat.lightning_internals import PlainProcesses, start_method, starts_script_again

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says of torch, and of small data

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.mark.parametrize(("strategy", "expected"), [("ddp", True), ("ddp_spawn", False), ("ddp_fork", False)])
def test_the_strategy_that_starts_the_script_again_is_known(strategy: str, expected: bool) -> None:
    assert starts_script_again(Trainer(devices=2, strategy=strategy, **QUIET)) is expected
    assert not starts_script_again(Trainer(devices=1, **QUIET))


@pytest.mark.parametrize("method", ["popen", "spawn", "fork"])
def test_the_start_method_of_a_strategy_is_read(method: Literal["popen", "spawn", "fork"]) -> None:
    assert start_method(DDPStrategy(start_method=method)) == method
    assert start_method(DDPStrategy()) == "popen"


def test_processes_are_started_by_our_launcher() -> None:
    """That they run, and that no wrapper is around the model, tests/oneshot/training/test_distributed.py tells."""
    strategy = PlainProcesses(start_method="spawn")
    assert Trainer(devices=2, strategy=strategy, **QUIET).strategy is strategy
    launcher: Any = strategy.launcher
    assert type(launcher).__module__ == "nas._compat.lightning_internals"
    assert (launcher._strategy, launcher._start_method, launcher.procs) == (strategy, "spawn", [])
    for method, names in {
        "_wrapping_function": ["process_idx", "trainer", "function", "args", "kwargs", "return_queue"],
        "_recover_results_in_main_process": ["worker_output", "trainer"],
    }.items():
        known = list(inspect.signature(getattr(launcher, method)).parameters)
        assert known[: len(names)] == names, f"{method} of Lightning's launcher takes other arguments"
    assert callable(DDPStrategy.configure_ddp)
