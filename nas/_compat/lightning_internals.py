"""Private names of Lightning: its launchers. Imports Lightning."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Literal, final

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from nas._compat.lightning_families import family_of


def starts_script_again(trainer: Trainer) -> bool:
    """Whether its strategy runs the whole script once more for each further device."""
    kind: type = family_of(trainer).get("strategies.launchers._SubprocessScriptLauncher")
    return isinstance(trainer.strategy.launcher, kind)


def start_method(strategy: DDPStrategy) -> Literal["popen", "spawn", "fork", "forkserver"]:
    """How a strategy starts its processes; "popen" runs the script once more for each."""
    return strategy._start_method


class PlainProcesses(DDPStrategy):
    """Processes that share gradients when the search says so; no wrapper expects all of them in each step."""

    def configure_ddp(self) -> None:
        """Nothing is wrapped."""

    def _configure_launcher(self) -> None:
        assert self._start_method != "popen", "see choose_strategy"
        self._launcher = _Launcher(self, start_method=self._start_method)


@final
class _Launcher(_MultiProcessingLauncher):
    """Spawns processes as Lightning does, but by cloudpickle: spaces are full of lambdas and local classes."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Runs the function in all processes, and returns what the first one returned."""
        if self._start_method != "spawn":
            return super().launch(function, *args, trainer=trainer, **kwargs)
        assert trainer is not None
        assert self._strategy.cluster_environment is not None
        os.environ["MASTER_PORT"] = str(self._strategy.cluster_environment.main_port)
        payload = cloudpickle.dumps((self, trainer, function, args, kwargs))
        queue = get_context("spawn").SimpleQueue()
        number = trainer.num_devices
        context = start_processes(_work, args=(payload, queue), nprocs=number, start_method="spawn", join=False)
        self.procs = context.processes
        try:
            while not context.join():
                pass
        except BaseException:
            self.kill(signal.SIGKILL)
            raise
        output = queue.get()
        self._recover_results_in_main_process(output, trainer)
        return output.trainer_results


def _work(index: int, payload: bytes, queue: Any) -> None:
    launcher, trainer, function, args, kwargs = cloudpickle.loads(payload)
    launcher._wrapping_function(index, trainer, function, args, kwargs, queue)
