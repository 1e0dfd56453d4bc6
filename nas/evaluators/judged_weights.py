"""Keeps the weights that a model had in the last validation: those that its trial is judged with."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from nas._compat.lightning_families import family_of
from nas._compat.torch_internals import inside_compiled, is_compiled
from nas.errors import ExperimentError
from nas.files import is_file
from nas.protocols import copy_weights, forget_weights, write_weights
from nas.reading import Refused, torch_notes

_WHOLE = ("SingleDeviceStrategy", "DDPStrategy")
"""Strategies under which a device has the whole model."""


@final
class JudgedWeights(Callback):
    """Follows one fit, and writes the weights of its last validation when it ends.

    They are taken when the model is called in a validation, whoever has exchanged them before: a moving average that is
    swapped in by a callback or by `torch.func.functional_call` is what is judged. Where the model that was handed in is
    not called at all, but a copy of it, say, nothing is kept.

    Args:
        name: of the model inside the LightningModule, as in `named_modules()`.
        folder: where they are written.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._weights: Any = None
        self._watching = ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        """For the processes of other devices: before the fit there is nothing to take along."""
        return {"_name": self._name, "_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._weights, self._watching = None, ExitStack()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begins to watch for the first call in a validation."""
        if trainer.sanity_checking or batch_idx or dataloader_idx:
            return
        self._weights = None
        family = family_of(trainer)
        if not any(isinstance(trainer.strategy, family.get(f"strategies.{name}")) for name in _WHOLE):
            return
        model = pl_module.get_submodule(self._name)
        if _is_compiled(model, pl_module):  # what is compiled does not look at hooks any more
            self._weights = copy_weights(model)
        else:
            self._watching.enter_context(self._watched(model))

    @contextmanager
    def _watched(self, model: nn.Module) -> Iterator[None]:
        def take(*_: Any) -> None:
            if self._weights is None:
                self._weights = copy_weights(model)

        handles = [
            module.register_forward_pre_hook(take)
            for module in model.modules()
            if not isinstance(module, torch.jit.ScriptModule)
        ]
        yield
        for handle in handles:
            handle.remove()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Watches no longer."""
        self._watching.close()

    def on_exception(self, *_: Any) -> None:
        """Watches no longer."""
        self._watching.close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes them."""
        if self._weights is not None and trainer.is_global_zero:
            write_weights(self._folder, self._weights)


def judged_weights(model: nn.Module, module: LightningModule, folder: Path | None) -> list[Callback]:
    """What keeps the weights of a model.

    Args:
        model: the architecture.
        module: that trains it.
        folder: where they are written; None for nowhere.

    Returns:
        A callback; none where the LightningModule does not hold the model itself.
    """
    inner = inside_compiled(model)
    names = [name for name, part in module.named_modules() if part is inner]
    return [JudgedWeights(names[0], folder)] if names and folder is not None else []


def clear(directory: Path | None, *, goes_on: bool) -> None:
    """Removes what the same trial left when it was killed.

    Args:
        directory: of the training.
        goes_on: whether it goes on from a checkpoint, so that its logs are still of use.
    """
    if directory is not None and directory.exists():
        forget_weights(directory)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        for path in [] if goes_on else directory.glob("events.out.tfevents.*"):
            path.unlink()


def epochs_in(checkpoint: Path) -> int:
    """How many epochs have been trained by a checkpoint to go on from; 0 where there is none, or none to be read."""
    if not is_file(checkpoint):
        return 0
    try:
        found = torch_notes(checkpoint)
        if type(found) is not dict or type(found.get("epoch")) is not int or found["epoch"] < 0:
            raise Refused("it does not say of which epoch it is")
        return int(found["epoch"]) + 1
    except (Refused, OSError, ExperimentError) as error:
        warnings.warn(
            f"The checkpoint {checkpoint} cannot be read without executing code, so the trial begins anew "
            f"({error}). Tensors, numbers and texts in save_hyperparameters and on_save_checkpoint can.",
            stacklevel=2,
        )
        return 0


def _is_compiled(model: nn.Module, module: LightningModule) -> bool:
    """Whether the model, a part of it or what it is called through is compiled."""
    around = [part for part in module.modules() if inside_compiled(part) is not part]
    return any(map(is_compiled, module.modules())) or any(model is inner for part in around for inner in part.modules())
