"""Judging subnets by Lightning's own validation: with the module's hooks, its data, and a Trainer that it can ask."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import cycle, islice
from typing import Any, TypeAlias, TypeVar, final

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from nas._compat.lightning_families import Family, family_of
from nas._compat.lightning_loops import left_on_device, ready_batches
from nas.evaluators import TrainingEvaluator, all_of, as_numbers, interruptible, logged, silenced
from nas.example_inputs import Inputs, tensors_of
from nas.oneshot.judged import FEWEST, Aside, Begun, JudgedPasses, Lane, Place, lanes_of, recorder_of
from nas.oneshot.speed import Recorder
from nas.oneshot.training.calls import network_calls
from nas.oneshot.training.kept import KEPT_BYTES, KeptBatches
from nas.oneshot.training.measures import Check, recalibrate, without_lone
from nas.random_state import seeded

T = TypeVar("T")
Metrics: TypeAlias = dict[str, float]


@final
class Judging:
    """Validates modules, on the device of the search.

    The batches of validation data are loaded once, and then kept on the device, as long as they are not too many.

    On a CUDA device the forward passes of a model are recorded as CUDA graphs and replayed, where that is the same.
    Where they are, several models are judged side by side: their modules take their steps one after the other, as ever,
    but nobody waits for the device in between. What was found is read in the end. That is so where no judgement is seen
    to touch a tensor that others could touch meanwhile, nor the user's callbacks run, which may count.

    Args:
        evaluator: has the module, the data and the arguments of the Trainer.
        seed: of the order of the data.

    Attributes:
        unrecorded: why passes of a model ran as they are on a device that can record them, where some did.
    """

    def __init__(self, evaluator: TrainingEvaluator, seed: int) -> None:
        self._evaluator, self._seed = evaluator, seed
        self.unrecorded: str | None = None
        self._kept: KeptBatches | None = None
        self._calls: list[Inputs] = []
        self._asked = 0
        self._recorder: Recorder | None = None
        self._records = True
        self._passes: JudgedPasses | None = None
        self._later: list[Check] | None = None
        self._trainers: dict[tuple[str, bool, int | None], tuple[Trainer, _Follow, int | float]] = {}
        self._places: list[Place] | None = None
        """Where models are judged side by side; None as long as it is not known whether they can be."""
        self._turn: Iterator[Place] = iter(())
        self._lanes: list[Lane] = []

    @property
    def at_once(self) -> int:
        """How many judgements are to be begun before the first is asked for."""
        return max(len(self._places or ()), 1)

    def measure(
        self,
        inner: LightningModule,
        *,
        model: nn.Module | None = None,
        before: Callable[[Trainer], object] | None = None,
        batches: int | None = None,
        gradients: bool = False,
    ) -> Metrics:
        """The metrics of one validation.

        Args:
            inner: the module.
            model: the network in it, whose passes may be recorded on a device that can; None where they are not to be.
            before: is called before the first batch, with the Trainer that validates.
            batches: of validation data, at most, of each loader; what the Trainer's arguments say where None.
            gradients: whether `before` takes gradients.
        """
        self._settle()
        kept = self._kept_for(batches)
        keeping = KeptBatches(batches) if kept is None else None
        trainer, follow = self._trainer(family_of(inner), batches, gradients, None)
        watch = self._watch(inner, model, kept, trainer.strategy.root_device) if not gradients else None
        if watch is not None:  # with a Trainer that has seen nothing yet
            trainer, follow = self._trainer(family_of(inner), batches, gradients, 0)
        passes = self._validate(inner, trainer, follow, model, before, batches, kept, keeping, watch=watch)
        if passes is not None:
            passes.forget()
        if keeping is not None and keeping.whole:
            self._kept = keeping
        if watch is not None:
            self._places = [] if watch.found else [Place(lane, number) for number, lane in enumerate(self._lanes)]
            self._turn = cycle(self._places)
        return logged(trainer)

    def begin(
        self,
        inner: LightningModule,
        *,
        model: nn.Module,
        before: Callable[[Trainer], object] | None = None,
        batches: int | None = None,
    ) -> Callable[[], Metrics]:
        """Begins a validation as `measure` makes one; what it returns waits for the end, and says the metrics.

        Only where models are judged side by side it is not over yet. The module and the model are to be left alone
        until the metrics are there; then they are on the device.
        """
        kept = self._kept_for(batches)
        if not self._places or not self._records or self.unrecorded is not None or kept is None:
            return partial(dict, self.measure(inner, model=model, before=before, batches=batches))
        if kept.number(batches) < FEWEST or self._listens(inner):
            return partial(dict, self.measure(inner, model=model, before=before, batches=batches))
        place = next(self._turn)
        if place.begun is not None:
            place.begun()
        trainer, follow = self._trainer(family_of(inner), batches, False, place.number)
        checks: list[Check] = []
        self._later = checks
        try:
            with place.lane.work(), left_on_device(trainer):
                passes = self._validate(inner, trainer, follow, model, before, batches, kept, None, place=place)
        except torch.OutOfMemoryError:
            passes = None
        finally:
            self._later = None
        if passes is None:  # one at a time takes less
            self._settle()
            self._places = []
            return partial(dict, self.measure(inner, model=model, before=before, batches=batches))
        read = partial(as_numbers, dict(trainer.callback_metrics))
        return Begun(place, read, checks, passes, again=partial(self.measure, inner, before=before, batches=batches))

    def _validate(
        self,
        inner: LightningModule,
        trainer: Trainer,
        follow: _Follow,
        model: nn.Module | None,
        before: Callable[[Trainer], object] | None,
        batches: int | None,
        kept: KeptBatches | None,
        keeping: KeptBatches | None,
        *,
        place: Place | None = None,
        watch: Aside | None = None,
    ) -> JudgedPasses | None:
        """Lets Lightning validate; yields the passes of the model, whose recordings the device may not be done with."""
        family, setup = family_of(inner), inner.setup
        recorder = self._recorder_of(trainer.strategy.root_device) if place is None else place.lane.recorder
        passes = None if model is None or recorder is None or not self._records else JudgedPasses(model, recorder)
        with ExitStack() as ending, silenced(), seeded(self._seed):

            def begin(trainer: Trainer) -> None:
                self._passes = passes
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
                with (
                    interruptible(follow),
                    nullcontext() if kept is None else ready_batches(trainer, inner),
                    watch or nullcontext(),
                ):
                    trainer.validate(inner, datamodule=data, verbose=False)
            finally:
                del inner.__dict__["setup"]
                ending.close()
                self._end_passes()
                follow.begin(None, None)
        return passes

    def _kept_for(self, batches: int | None) -> KeptBatches | None:
        return self._kept if self._kept is not None and self._kept.enough_for(batches) else None

    def _watch(
        self, inner: LightningModule, model: nn.Module | None, kept: KeptBatches | None, device: torch.device
    ) -> Aside | None:
        """Watches the first judgement that could be one of several at a time, on batches that were kept."""
        if self._places is not None or model is None or kept is None:
            return None
        self._lanes = lanes_of(device)
        if not self._lanes or self._listens(inner):
            self._places = []
            return None
        return Aside(device, [inner, kept.batches, [(call.args, call.kwargs) for call in self._calls]])

    def _listens(self, inner: LightningModule) -> bool:
        """Whether the module is told when Lightning has moved it back, or callbacks of the user's what is validated."""
        family, theirs = family_of(inner), self._evaluator.trainer_arguments().get("callbacks") or []
        callbacks = theirs if isinstance(theirs, list | tuple) else [theirs]
        return family.is_overridden("teardown", inner) or any(
            family.is_overridden(hook, callback) for callback in callbacks for hook in _HOOKS
        )

    def _settle(self) -> None:
        """Waits for what was begun: what it reads may be replaced now."""
        for place in self._places or ():
            if place.begun is not None:
                place.lane.wait()

    def _recorder_of(self, device: torch.device) -> Recorder | None:
        if self._recorder is None:
            self._recorder = recorder_of(device)
        return self._recorder

    def _end_passes(self) -> None:
        if self._passes is not None and self._passes.reason is not None:
            self.unrecorded = self._passes.reason
            self._records = self._records and not self._passes.failed
        self._passes = None

    def _trainer(
        self, family: Family, batches: int | None, gradients: bool, place: int | None
    ) -> tuple[Trainer, _Follow]:
        """One for all candidates of a place: it takes longer to make than a small network to be judged."""
        key = family.name, gradients, place
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
            self._settle()
            self._asked = number
            self._calls = network_calls(self._evaluator, copy.deepcopy(model), seed=self._seed, number=number)
            if sum(t.nbytes for t in tensors_of(self._calls)) > KEPT_BYTES:
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
                alike = passes is not None and passes.are_recorded_of(model)
                recalibrate(model, several, run, alike=alike, later=self._later)

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


_HOOKS = (
    "setup",
    "teardown",
    *(f"on_validation_{part}{when}" for part in ("", "epoch_", "batch_") for when in ("start", "end")),
)
"""What callbacks are told of a validation."""
_QUIET: dict[str, Any] = {
    "devices": 1,
    "strategy": "auto",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "profiler": None,
}


@final
class _Follow(Callback):
    """Calls something before the first batch of a validation, keeps the batches, and keeps what ended it."""

    def __init__(self) -> None:
        self.exception: BaseException | None = None
        self.begin(None, None)

    def begin(self, before: Callable[[Trainer], object] | None, keeping: KeptBatches | None) -> None:
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
