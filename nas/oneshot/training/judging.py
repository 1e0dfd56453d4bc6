"""Judging subnets by Lightning's own validation: with the module's hooks, its data, and a Trainer that it can ask."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from typing import Any, TypeVar, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from nas._compat.lightning_families import Family, family_of
from nas._compat.lightning_loops import ready_batches
from nas.evaluators import TrainingEvaluator, all_of, interruptible, logged, silenced
from nas.example_inputs import Inputs, tensors_of
from nas.oneshot.judged import JudgedPasses, recorder_of
from nas.oneshot.speed import Recorder
from nas.oneshot.training.calls import network_calls
from nas.oneshot.training.measures import recalibrate, without_lone
from nas.random_state import seeded

T = TypeVar("T")
_KEPT_BYTES = 2**30
"""What is kept on the device of validation and training data, each."""


@final
class Judging:
    """Validates modules one after the other, on the device of the search.

    The batches of validation data are loaded once, and then kept on the device, as long as they are not too many.

    On a CUDA device the forward passes of a model are recorded as CUDA graphs and replayed, where that is the same.

    Args:
        evaluator: has the module, the data and the arguments of the Trainer.
        seed: of the order of the data.

    Attributes:
        unrecorded: why passes of a model ran as they are on a device that can record them, where some did.
    """

    def __init__(self, evaluator: TrainingEvaluator, seed: int) -> None:
        self._evaluator, self._seed = evaluator, seed
        self.unrecorded: str | None = None
        self._kept: _Kept | None = None
        self._calls: list[Inputs] = []
        self._asked = 0
        self._recorder: Recorder | None = None
        self._records = True
        self._passes: JudgedPasses | None = None
        self._trainers: dict[tuple[str, bool], tuple[Trainer, _Follow, int | float]] = {}

    def measure(
        self,
        inner: LightningModule,
        *,
        model: nn.Module | None = None,
        before: Callable[[Trainer], object] | None = None,
        batches: int | None = None,
        gradients: bool = False,
    ) -> dict[str, float]:
        """The metrics of one validation.

        Args:
            inner: the module.
            model: the network in it, whose passes may be recorded on a device that can; None where they are not to be.
            before: is called before the first batch, with the Trainer that validates.
            batches: of validation data, at most, of each loader; what the Trainer's arguments say where None.
            gradients: whether `before` takes gradients.
        """
        kept = self._kept if self._kept is not None and self._kept.enough_for(batches) else None
        keeping = _Kept(batches) if kept is None else None
        family, setup = family_of(inner), inner.setup
        with ExitStack() as ending, silenced(), seeded(self._seed):
            trainer, follow = self._trainer(family, batches, gradients)

            def begin(trainer: Trainer) -> None:
                passes = self._passes = self._passes_of(model, trainer.strategy.root_device)
                if passes is not None:
                    ending.enter_context(passes.instead())
                if before is not None:
                    before(trainer)
                if passes is not None:
                    passes.expect(sum(all_of(trainer.num_val_batches)))

            follow.begin(begin, keeping)
            loaders = None if kept is None else kept.loaders
            if kept is not None and batches is None:
                trainer.limit_val_batches = 1.0  # no more than that were kept
            wrap = None if loaders is None else lambda _: loaders
            data = self._evaluator.data(seed=self._seed, validation=wrap, family=family)
            # The module is judged as in the validation of a fit: what it sets up for that must be there.
            inner.__dict__["setup"] = lambda stage: setup("fit")
            try:
                with interruptible(follow), nullcontext() if kept is None else ready_batches(trainer, inner):
                    trainer.validate(inner, datamodule=data, verbose=False)
            finally:
                del inner.__dict__["setup"]
                ending.close()
                self._end_passes()
                follow.begin(None, None)
        if keeping is not None and keeping.whole:
            self._kept = keeping
        return logged(trainer)

    def _passes_of(self, model: nn.Module | None, device: torch.device) -> JudgedPasses | None:
        """Those of a model, where they may be recorded and its device can."""
        if model is None or not self._records:
            return None
        if self._recorder is None:
            self._recorder = recorder_of(device)
        return None if self._recorder is None else JudgedPasses(model, self._recorder)

    def _end_passes(self) -> None:
        if self._passes is not None and self._passes.reason is not None:
            self.unrecorded = self._passes.reason
            self._records = self._records and not self._passes.failed
        self._passes = None

    def _trainer(self, family: Family, batches: int | None, gradients: bool) -> tuple[Trainer, _Follow]:
        """One for all candidates: it takes longer to make than a small network to be judged."""
        key = family.name, gradients
        if key not in self._trainers:
            given = self._evaluator.trainer_arguments()
            no_logger: Any = family.get("loggers.logger.DummyLogger")
            changed = _QUIET | {"logger": given.get("logger") is not False and no_logger()}
            if gradients:
                changed["inference_mode"] = False
            follow = _Follow()
            made = self._evaluator.trainer(changed=changed, callbacks=[follow], family=family)
            self._trainers[key] = made, follow, made.limit_val_batches
        trainer, follow, limit = self._trainers[key]
        if batches is not None:
            limit = min(batches, limit) if isinstance(limit, int) else batches
        trainer.limit_val_batches = limit
        return trainer, follow

    def inside(self, inner: LightningModule, function: Callable[[Trainer], T], *, gradients: bool = False) -> T:
        """What a function finds while the module has a Trainer and is on its device."""
        found: list[T] = []
        self.measure(inner, before=lambda trainer: found.append(function(trainer)), batches=1, gradients=gradients)
        return found[0]

    def recalibration(self, model: nn.Module, number: int) -> Callable[[Trainer], None]:
        """Takes the batch statistics of a model afresh, by what networks are called with in some steps of training.

        Args:
            model: is on the Trainer's device when the function is called.
            number: of batches.
        """
        if self._asked < number:  # an epoch may have fewer
            self._asked = number
            self._calls = network_calls(self._evaluator, copy.deepcopy(model), seed=self._seed, number=number)
            if sum(t.nbytes for t in tensors_of(self._calls)) > _KEPT_BYTES:
                self._calls = [call.on("cpu") for call in self._calls]
        calls = self._calls[:number]

        def take(trainer: Trainer) -> None:
            device = trainer.strategy.root_device

            def run(call: Inputs) -> None:
                here = call.on(device)
                model(*here.args, **here.kwargs)

            several = list(without_lone(calls, lambda call: call.args or tuple(call.kwargs.values())))
            passes = self._passes
            if passes is not None:
                passes.expect(len(several))
            with trainer.precision_plugin.train_step_context(), seeded(self._seed):
                recalibrate(model, several, run, alike=passes is not None and passes.are_recorded_of(model))

        return take

    def validation_batches(self, inner: LightningModule) -> int:
        """How many batches a whole validation has, of the loader that has the most.

        Args:
            inner: any module of the evaluator's.
        """
        limit = self._evaluator.trainer_arguments().get("limit_val_batches")

        def look(trainer: Trainer) -> int:
            return max(_length(loader, limit) for loader in all_of(trainer.val_dataloaders))

        return self.inside(inner, look)

    def recalibration_batches(self, model: nn.Module, number: int) -> int:
        """How many batches of training data `recalibration` takes, where it is to take this number."""
        self.recalibration(model, number)
        return len(self._calls[:number])


def _length(loader: Any, limit: int | float | None) -> int:
    try:
        number = len(loader)
    except TypeError:  # counted, as far as it matters
        number = sum(1 for _ in islice(loader, limit if isinstance(limit, int) else None))
    return number if limit is None else min(number, limit) if isinstance(limit, int) else max(int(number * limit), 1)


_QUIET: dict[str, Any] = {
    "devices": 1,
    "strategy": "auto",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "profiler": None,
}


@final
class _Kept:
    """Batches of validation data as a validation was given them, by loader."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._batches: list[list[Any]] = []
        self._bytes = 0
        self.whole = True
        """Whether none was left out for its size."""

    def add(self, batch: Any, loader: int) -> None:
        """Keeps one."""
        self._bytes += sum(tensor.nbytes for tensor in tensors_of(batch))
        if self._bytes > _KEPT_BYTES:
            self.whole = False
            self._batches.clear()
        if self.whole:
            while len(self._batches) <= loader:
                self._batches.append([])
            self._batches[loader].append(copy.deepcopy(batch))

    def enough_for(self, batches: int | None) -> bool:
        """Whether so many are there."""
        return self._limit is None or (batches is not None and batches <= self._limit)

    @property
    def loaders(self) -> list[Any]:
        """One for each of the user's."""
        return [_KeptLoader(batches) for batches in self._batches]


@final
class _KeptLoader:
    """Copies of batches, so that no step changes them for the next."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return map(copy.deepcopy, self._batches)


@final
class _Follow(Callback):
    """Calls something before the first batch of a validation, keeps the batches, and keeps what ended it."""

    def __init__(self) -> None:
        self.exception: BaseException | None = None
        self.begin(None, None)

    def begin(self, before: Callable[[Trainer], object] | None, keeping: _Kept | None) -> None:
        """What is to be done in the next validation."""
        self._before, self._keeping = before, keeping

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calls it."""
        if self._before is not None:
            with nullcontext() if torch.is_inference_mode_enabled() else torch.enable_grad():
                self._before(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps a batch."""
        if self._keeping is not None:
            self._keeping.add(batch, dataloader_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning turns an interrupt into an exit."""
        self.exception = exception
