"""Checkpoints of a search: everything it depends on, written whole or not at all, and readable without running code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from nas._compat.lightning_internals import epoch_results
from nas.errors import ExperimentError, explain
from nas.oneshot.training.distributed import gather
from nas.oneshot.training.random_streams import all_states, restore_states, seed_all
from nas.random_state import derive_seed

if TYPE_CHECKING:
    from nas.oneshot.training.search_module import SearchModule

_VERSION = 1
LAST, BEFORE = "last.ckpt", "before.ckpt"


def write_checkpoint(state: Mapping[str, Any], directory: Path) -> None:
    """Writes the newest checkpoint; the one before it stays, should the disk not keep its word."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh, last = directory / "fresh.tmp", directory / LAST
    with fresh.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    if last.exists():
        os.replace(last, directory / BEFORE)
    os.replace(fresh, last)
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; None where there is none. Nothing in it is executed.

    Raises:
        ExperimentError: there are checkpoints, but none can be read.
    """
    problems = []
    for name in (LAST, BEFORE):
        path = directory / name
        if not path.exists():
            continue
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if found.get("version") == _VERSION:
                return found
            problems.append(f"{name}: of another version")
        except Exception as error:  # a torn file fails with nearly anything
            problems.append(f"{name}: {type(error).__name__} {''.join(str(error).splitlines()[:1])}".rstrip())
    if problems:
        raise ExperimentError(
            explain(
                f"no checkpoint of the supernet can be read ({'; '.join(problems)})",
                got=str(directory),
                mend="restore the folder from a copy, or remove it to train anew",
            )
        )
    return None


@final
class Checkpoints(Callback):
    """Writes a checkpoint every so many steps, at the end of each epoch, and restores one at the start.

    Args:
        directory: where to.
        every: training steps.
        found: a checkpoint to go on from.
        seed: of the random numbers of training, where there is none.
    """

    def __init__(self, directory: Path, every: int, found: Mapping[str, Any] | None, seed: int) -> None:
        self._directory, self._every, self._found, self._seed = directory, every, found, seed
        self._sums: Mapping[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the optimizers, schedulers and random states; the parameters have been restored before."""
        found, self._found = self._found, None
        if found is None:
            seed_all(derive_seed(self._seed, trainer.global_rank))
            return
        for optimizer, state in zip(trainer.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        search: SearchModule = pl_module  # type: ignore[assignment]  # the only module that has this callback
        for schedule, state in zip(search.optimization.schedules, found["schedulers"], strict=True):
            schedule.scheduler.load_state_dict(state)
        trainer.precision_plugin.load_state_dict(found["precision"])
        for callback in _callbacks(trainer):
            if callback.state_key in found["callbacks"]:
                callback.load_state_dict(found["callbacks"][callback.state_key])
        self._sums = found["sums"]
        restore_states(found["random"][trainer.global_rank % len(found["random"])])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes one, now and then; at the end of an epoch the search has more to do first."""
        search: SearchModule = pl_module  # type: ignore[assignment]
        self._restore_sums(trainer)
        if search.done % self._every == 0 and not trainer.is_last_batch:
            self.write(trainer, search, epoch=trainer.current_epoch)

    def write(self, trainer: Trainer, search: SearchModule, *, epoch: int) -> None:
        """Writes a checkpoint now; every device must come here, the first one writes.

        Args:
            trainer: that trains.
            search: what is trained.
            epoch: to go on with.
        """
        self._restore_sums(trainer)
        random = gather(all_states())
        if trainer.is_global_zero:
            state = {
                "version": _VERSION,
                "epoch": epoch,
                "position": search.position,
                "done": search.done,
                "module": search.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
                "schedulers": [plain(schedule.scheduler.state_dict()) for schedule in search.optimization.schedules],
                "precision": trainer.precision_plugin.state_dict(),
                "callbacks": {c.state_key: state for c in _callbacks(trainer) if (state := plain(c.state_dict()))},
                "random": random,
                "sums": _sums(trainer) if search.position else {},
            }
            write_checkpoint(state, self._directory)
        trainer.strategy.barrier("nas.checkpoint")

    def _restore_sums(self, trainer: Trainer) -> None:
        """Lightning knows a metric when it has been logged, so after the first step."""
        for key, metric in epoch_results(trainer).items():
            if key in self._sums:
                value, size = self._sums[key]
                metric.value = metric.value + value.to(metric.value)
                metric.cumulated_batch_size = metric.cumulated_batch_size + size.to(metric.cumulated_batch_size)
        self._sums = {}


def _callbacks(trainer: Trainer) -> list[Callback]:
    found: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # a trainer has them
    return found


def _sums(trainer: Trainer) -> dict[str, list[torch.Tensor]]:
    """What the means of this epoch are made of so far: schedulers may go by them."""
    found = {key: metric for key, metric in epoch_results(trainer).items() if metric.is_tensor and metric.meta.on_epoch}
    return {k: [m.value.clone(), m.cumulated_batch_size.clone()] for k, m in found.items() if m.meta.is_mean_reduction}


def plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a state can be read without running code: a scheduler's functions cannot, and need not."""
    return {name: value for name, value in state.items() if _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | torch.Tensor)
