"""Checkpoints of a search: everything it depends on, written whole or not at all, and readable without running code."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer

from nas._compat.lightning_loops import all_states as lightning_states
from nas._compat.lightning_loops import epoch_results, settle
from nas._compat.torchmetrics_internals import put_back, seen_by
from nas.errors import ExperimentError, NasError, NasTypeError, explain, told_if_full
from nas.files import drafted, is_file
from nas.oneshot.training.distributed import gather
from nas.oneshot.training.measures import metrics_of_module
from nas.oneshot.training.random_streams import all_states, restore_states, seed_all
from nas.oneshot.training.steering import Steering
from nas.random_state import derive_seed
from nas.reading import Refused, tensors_in, torch_tensors

_RESTORE = "restore the folder from a copy, or remove it to train anew"
VERSION = 2
LAST, BEFORE = "last.ckpt", "before.ckpt"


def write_checkpoint(state: Mapping[str, Any], directory: Path) -> None:
    """Writes the newest checkpoint; the one before it stays, should the disk not keep its word.

    Raises:
        DiskFull: there is no room; the newest one is the one before.
    """
    last = directory / LAST
    with told_if_full(last, "make room, and run it again with resume=True"):
        directory.mkdir(parents=True, exist_ok=True)
        with drafted(last, sync=True) as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
            if is_file(last):
                os.replace(last, directory / BEFORE)


def read_checkpoint(directory: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; None where there is none. Nothing in it is executed.

    Raises:
        ExperimentError: there are checkpoints, but none can be read.
    """
    found = _newest(directory)
    return None if found is None else found[1]


def checkpoint_path(directory: Path) -> Path | None:
    """Where the newest checkpoint that is whole lies; None where there is none.

    Raises:
        ExperimentError: there are checkpoints, but none can be read.
    """
    found = _newest(directory)
    return None if found is None else found[0]


def _newest(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    problems = []
    for name in (LAST, BEFORE):
        path = directory / name
        if not os.path.lexists(path):
            continue
        try:
            found = torch_tensors(path)
            if isinstance(found, dict) and found.get("version") == VERSION:
                return path, found
            problems.append(f"{name}: of another version")
        except (Refused, OSError, ExperimentError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ExperimentError(
            explain(
                f"no checkpoint of the supernet can be read ({'; '.join(problems)})",
                got=str(directory),
                mend=_RESTORE,
            )
        )
    return None


_PARTS: dict[str, type] = {
    "nas": dict,
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "epoch": int,
    "global_step": int,
}
_OURS: dict[str, type] = {
    "done": int,
    "position": int,
    "stopped": bool,
    "learner": dict,
    "learner_optimizers": list,
    "inside": bool,
    "limits": list,
    "random": list,
    "sums": dict,
    "metrics": list,
}
"""What a checkpoint consists of, and what of it is ours."""


def check_parts(found: Mapping[str, Any], directory: Path) -> None:
    """Refuses what is no checkpoint of a search.

    Raises:
        ExperimentError: parts of it are missing, or are something else.
    """
    ours = found.get("nas")
    for part, wanted in ((found, _PARTS), (ours, _OURS)):
        for name, kind in wanted.items():
            if not isinstance(part, Mapping) or not isinstance(part.get(name), kind):
                raise ExperimentError(
                    explain(f"the checkpoint of a search has no {name!r}", got=str(directory), mend=_RESTORE)
                )


@contextmanager
def restoring(directory: Path, is_restored: Callable[[], bool]) -> Iterator[None]:
    """Says of what fails before a checkpoint has been taken over that it does not fit the search.

    Args:
        directory: of the checkpoint.
        is_restored: whether it has been taken over by now.
    """
    try:
        yield
    except NasError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError) as error:
        if is_restored():
            raise
        raise ExperimentError(
            explain(
                f"the search cannot go on from its checkpoint: {type(error).__name__} {error}",
                got=str(directory),
                mend=_RESTORE,
            )
        ) from error


class TimeUp(Exception):  # noqa: N818 - it is no error
    """The time of the run is up; where the search stands is written."""


@final
class Checkpoints(Callback):
    """Writes checkpoints at the beginning of a step: every so many, of each epoch's first, and when the time is up.

    A checkpoint is that of Lightning, so that Lightning restores it, and what Lightning does not know: the state of the
    learner, the random generators, and what was logged so far in the epoch.

    Args:
        steering: of the search.
        directory: where to.
        every: training steps.
        seed: of the random numbers of training.
        limits: of the training, as they were asked for.
        deadline: says what it is now, by `time.monotonic()`; None for none.
    """

    def __init__(
        self,
        steering: Steering,
        directory: Path,
        *,
        every: int,
        seed: int,
        limits: list[Any],
        deadline: Callable[[], float | None],
    ) -> None:
        self._steering, self._directory, self._every, self._seed = steering, directory, every, seed
        self._limits, self._deadline = limits, deadline
        self._found: dict[str, Any] | None = None
        self._random: dict[str, Any] | None = None
        """The states before the batch of a step that begins with a checkpoint was loaded."""
        self._to_restore: dict[str, Any] | None = None
        self.is_restored = False
        """Whether all that a checkpoint holds has been taken over."""
        self._first = True
        self._written = 0
        """Training steps of the newest checkpoint."""
        self._settle: Callable[[], None] | None = None
        self._time_is_up = False
        self._sums: Mapping[str, Any] = {}

    # Going on.

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """The learner's state; Lightning restores the module, the optimizers of the weights and its own counters."""
        found = self._found = checkpoint["nas"]
        steering = self._steering
        steering.learner.load_state_dict(found["learner"])
        steering.done, steering.position, steering.resumed = found["done"], found["position"], found["inside"]
        self._sums, self._written = found["sums"], found["done"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The random states, the counters, what metrics have seen, and the learner's optimizers.

        These take their state along to where their parameters are, which are on the device by now.
        """
        found, self._found = self._found, None
        self.is_restored = found is None
        if found is None:
            seed_all(derive_seed(self._seed, trainer.global_rank))
            return
        for optimizer, state in zip(self._steering.learner.optimizers(), found["learner_optimizers"], strict=False):
            optimizer.load_state_dict(state)
        self._settle = settle(trainer, inside_epoch=found["inside"])
        random = found["random"][trainer.global_rank % len(found["random"])]
        restore_states(random)
        if found["inside"]:
            self._to_restore = random
            for metric, seen in zip(metrics_of_module(pl_module), found["metrics"], strict=False):
                put_back(metric, seen)
        self.is_restored = True

    # Writing.

    def before_batch(self) -> None:
        """Before the batch of a step is loaded: nothing that is random in loading it has happened yet."""
        if self._to_restore is not None:
            restore_states(self._to_restore)
            self._to_restore = None
            return
        steering, trainer = self._steering, self._steering.trainer
        if trainer is None or trainer.sanity_checking:
            return
        if steering.position % trainer.accumulate_grad_batches:
            return  # gradients that wait for others are in no checkpoint
        deadline = self._deadline()
        if deadline is not None and not self._first:
            self._time_is_up = bool(trainer.strategy.broadcast(time.monotonic() > deadline))
        due = steering.position == 0 or steering.done - self._written >= self._every or self._time_is_up
        if due and not (self._first and steering.done):
            self._random = all_states()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Writes a checkpoint, where one is due."""
        if self._first and self._settle is not None:
            self._settle()
        self._first = False
        random, self._random = self._random, None
        if random is not None:
            self._write(trainer, random, inside=True)
        if self._time_is_up:
            raise TimeUp

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """The means of the epoch go on: Lightning knows a metric when it has been logged, so after the first step."""
        for key, metric in epoch_results(trainer).items():
            if key in self._sums:
                value, size = self._sums[key]
                metric.value = metric.value + value.to(metric.value)
                metric.cumulated_batch_size = metric.cumulated_batch_size + size.to(metric.cumulated_batch_size)
        self._sums = {}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last one: the training has ended by itself."""
        self._write(trainer, all_states(), inside=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What a supernet has besides its weights; in the checkpoints of others too."""
        steering = self._steering
        checkpoint["nas"] = {
            "done": steering.done,
            "position": steering.position,
            "stopped": steering.learner.stopped,
            "learner": steering.learner.state_dict(),
            "learner_optimizers": [optimizer.state_dict() for optimizer in steering.learner.optimizers()],
        }

    def _write(self, trainer: Trainer, random: dict[str, Any], *, inside: bool) -> None:
        """Every device must come here, the first one writes."""
        self._written = self._steering.done
        gathered = gather(random)
        state = lightning_states(trainer)
        state["nas"] |= {
            "inside": inside,
            "limits": self._limits,
            "random": gathered,
            "sums": _sums(trainer) if inside and self._steering.position else {},
            "metrics": [seen_by(metric) for metric in metrics_of_module(trainer.lightning_module)] if inside else [],
        }
        state["lr_schedulers"] = [plain(schedule) for schedule in state["lr_schedulers"]]
        if trainer.is_global_zero:
            write_checkpoint({"version": VERSION} | _readable(state), self._directory)
        trainer.strategy.barrier("nas.checkpoint")


def _readable(state: dict[str, Any]) -> dict[str, Any]:
    """What of a checkpoint can be read without running code; what a module was made of is made again, not read.

    Raises:
        NasTypeError: something that the user's module, data or callbacks keep cannot be read.
    """
    made_again = (LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY)
    found = {name: value for name, value in state.items() if name not in made_again or _can_be_read(value)}
    parts: dict[str, Any] = {name: value for name, value in found.items() if name != "callbacks"}
    parts |= {f"callbacks, {name}": value for name, value in found.get("callbacks", {}).items()}
    for name, value in parts.items():
        if not _can_be_read(value):
            raise NasTypeError(
                explain(
                    "what a search keeps in its checkpoints must be readable without running code",
                    got=type(value).__name__ if not isinstance(value, Mapping) else _unreadable(value),
                    where=name,
                    mend="keep tensors, numbers, texts, lists and dicts of them in on_save_checkpoint and state_dict",
                )
            )
    return found


def _unreadable(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name}: {type(value).__name__}" for name, value in mapping.items() if not _can_be_read(value))


def _can_be_read(value: Any) -> bool:
    if _is_plain(value):
        return True
    file = io.BytesIO()
    try:
        torch.save(value, file)
        tensors_in(file)
    except Exception:  # pickling and reading fail in many ways
        return False
    return True


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
