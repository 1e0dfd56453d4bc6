"""What the evaluator calls a network with in training, seen in a dry run: each batch up to the first call."""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor, nn

from nas._compat.lightning_families import family_of
from nas._compat.lightning_loops import end_quietly, on_device
from nas._compat.torch_internals import tree_map
from nas.errors import NasTypeError, NasValueError, explain
from nas.evaluators import TrainingEvaluator, silenced
from nas.example_inputs import Inputs
from nas.oneshot.training.batches import one_loader
from nas.random_state import seeded

NOTHING_ELSE: dict[str, Any] = {
    "fast_dev_run": 1,
    "max_epochs": 1,
    "max_steps": -1,
    "max_time": None,
    "accumulate_grad_batches": 1,
    "num_sanity_val_steps": 0,
    "limit_train_batches": None,
    "limit_val_batches": None,
    "devices": 1,
    "strategy": "auto",
    "profiler": None,
    "callbacks": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Arguments of the Trainer of a dry run: nothing of the user's is written, stopped or measured by it."""


class _Called(Exception):  # noqa: N818 - it is no error
    """The network was called."""


def network_calls(
    evaluator: TrainingEvaluator,
    model: nn.Module,
    *,
    seed: int,
    number: int,
    changed: Mapping[str, Any] | None = None,
) -> list[Inputs]:
    """What a network is called with in the first training steps, by position and by keyword.

    Lightning fits it, with all that the module and its data ask for; each step ends at the first call.

    Args:
        evaluator: has the module and the data.
        model: the network.
        seed: of the order of the data.
        number: of batches, at most.
        changed: arguments of the Trainer.

    Raises:
        NasTypeError: the module lacks a step.
        NasValueError: its training step does not call the network.
    """
    found: list[Inputs] = []

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(Inputs(*_kept((args, kwargs))))
        raise _Called

    with seeded(seed), silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to warn of comes in the training too
        inner = evaluator.module(model)
        _refuse_without_steps(inner)
        family = family_of(inner)
        trainer = evaluator.trainer(changed=NOTHING_ELSE | dict(changed or {}), family=family)
        loaders = evaluator.data(seed=seed, family=family).train_dataloader
        step, takes = inner.training_step, len(inspect.signature(inner.training_step).parameters)

        def training_step(batch: Any, batch_idx: int) -> None:
            """The steps, up to their first calls; then the fit ends, as nothing is optimised."""
            handle = model.register_forward_pre_hook(catch, with_kwargs=True)
            try:
                for index, each in enumerate(itertools.islice(one_loader(loaders()), number)):
                    with suppress(_Called):
                        step(*(on_device(trainer, each), index)[:takes])
            finally:
                handle.remove()
            end_quietly(family)

        configure = inner.configure_optimizers
        inner.__dict__["optimizer_step"] = partial(family.LightningModule.optimizer_step, inner)
        inner.__dict__["training_step"] = training_step
        inner.__dict__["configure_optimizers"] = lambda: configure() if any(True for _ in inner.parameters()) else None
        trainer.fit(inner, datamodule=evaluator.data(seed=seed, family=family))
    if not found:
        raise NasValueError(explain("the training step of the evaluator must call the model", got=type(inner).__name__))
    return found


def _kept(arguments: Any) -> Any:
    """A copy that later changes of the batch do not reach, without gradients."""
    detached = tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, arguments)
    return copy.deepcopy(detached)


def _refuse_without_steps(inner: LightningModule) -> None:
    for hook in ("training_step", "validation_step", "configure_optimizers"):
        if not family_of(inner).is_overridden(hook, inner):
            raise NasTypeError(explain(f"one-shot search needs a module with {hook}", got=type(inner).__name__))
    if "dataloader_iter" in inspect.signature(inner.training_step).parameters:
        raise NasValueError(
            explain(
                "in one-shot search each step is given its batch, as the path or mixture is chosen before it",
                got="training_step(dataloader_iter)",
                where=type(inner).__name__,
                mend="take (batch, batch_idx)",
            )
        )
