"""The training of one supernet, from the evaluator's arguments to the last checkpoint, in as many runs as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, final

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.multiprocessing.spawn import ProcessRaisedException

from nas._compat.lightning_families import family_of
from nas._compat.torch_internals import tree_leaves
from nas.domains import Sample
from nas.errors import NasValueError, explain
from nas.evaluators import TrainingEvaluator, interruptible, logged, silence, silenced
from nas.example_inputs import Inputs
from nas.oneshot.training.batches import Batches, Load
from nas.oneshot.training.calls import network_calls
from nas.oneshot.training.checkpoints import (
    Checkpoints,
    TimeUp,
    check_parts,
    checkpoint_path,
    read_checkpoint,
    restoring,
)
from nas.oneshot.training.distributed import choose_strategy
from nas.oneshot.training.judging import Judging
from nas.oneshot.training.learner import Learner
from nas.oneshot.training.steering import Steering, refuse_module
from nas.protocols import OneShotTask
from nas.random_state import derive_seed, seeded

MakeLearner: TypeAlias = Callable[[Inputs], Learner]
"""Makes a learner, given what the network is called with."""


@final
class Training:
    """A supernet, and how far it is trained.

    Args:
        task: of the strategy.
        make: makes the learner.
        epochs: of the search; the evaluator's where None.
        every: training steps from one checkpoint to the next.
    """

    def __init__(self, task: OneShotTask, make: MakeLearner, *, epochs: int | None, every: int) -> None:
        assert isinstance(task.evaluator, TrainingEvaluator)
        self.task, self.evaluator, self._every = task, task.evaluator, every
        given = self.evaluator.trainer_arguments()
        _refuse_arguments(given)
        self.epochs = _epochs(given) if epochs is None else epochs
        self._limits = [self.epochs, *(str(given.get(name)) for name in ("max_steps", "max_time"))]
        self.judging = Judging(self.evaluator, task.seed)
        found = read_checkpoint(task.directory)
        with silenced():
            with seeded(task.seed):
                model = task.space.build(task.space.default(), device="cpu")
            dry = {"accelerator": "cpu", "precision": None, "plugins": None}
            (self.example,) = network_calls(self.evaluator, model, seed=task.seed, number=1, changed=dry)
            self.learner = make(self.example)
            self.inner: LightningModule = self.evaluator.module(self.learner.model)
        self.metric = task.objective or self.evaluator.metric
        self.steering = Steering(self.inner, self.learner, metric=self.metric, direction=task.direction, seed=task.seed)
        if found is None:
            self.learner.check(self.example)
        self._load(found)

    def _load(self, found: dict[str, Any] | None) -> None:
        self.finished, self.epoch, self.steps = False, 0, 0
        if found is None:
            return
        check_parts(found, self.task.directory)
        state = found["nas"]
        self.epoch, self.steps = found["epoch"], state["done"]
        ended = not state["inside"] and state["limits"] == self._limits
        enough = self.epochs != -1 and self.epoch >= self.epochs
        if not (ended or enough or state["stopped"]):
            return  # Lightning restores the rest when it goes on
        self.finished = True
        with restoring(self.task.directory, lambda: False):
            self.inner.on_load_checkpoint(found)
            self.inner.load_state_dict(found["state_dict"], strict=self.inner.strict_loading)
            self.learner.load_state_dict(state["learner"])

    def measure(self, sample: Sample, batches: int | None = None) -> dict[str, float]:
        """The metrics of a sample as the supernet itself computes it, for those whose weights cannot be taken along."""

        def select(trainer: Trainer) -> None:
            self.learner.to(trainer.strategy.root_device)
            self.learner.select(sample)

        return self.judging.measure(self.inner, before=select, batches=batches)

    def curvature(self) -> float | None:
        """The largest eigenvalue of the Hessian of the validation loss in the architecture parameters, on one batch.

        None where there are no such parameters.

        Raises:
            NasValueError: an operation of the network cannot be differentiated twice.
        """

        def look(trainer: Trainer) -> float | None:
            self.learner.to(trainer.strategy.root_device)
            self.steering.trainer = trainer
            try:
                return self.learner.curvature(self.steering, next(self.steering.validation_batches(self.task.seed))[0])
            finally:
                self.steering.release()

        return self.judging.inside(self.inner, look, gradients=True)

    def fit(self) -> None:
        """Trains until the end, or until the time is up."""
        task = self.task
        checkpoints = Checkpoints(
            self.steering,
            task.directory,
            every=self._every,
            seed=derive_seed(task.seed, 0),
            limits=self._limits,
            deadline=partial(getattr, task, "deadline"),  # goes to other processes as the task does
        )
        follow = _Follow(task, self.steering, self.epochs)
        with silenced(), seeded(task.seed):
            family = family_of(self.inner)
            trainer = self.evaluator.trainer(
                directory=task.directory, callbacks=[follow], changed=self._changed(), family=family
            )
            ours = [family.as_callback(checkpoints), family.as_callback(self.steering)]
            trainer.callbacks[:0] = ours  # type: ignore[attr-defined]  # a trainer has them
            data = self.evaluator.data(
                seed=task.seed, train=lambda load: self._batches(trainer, checkpoints, load), family=family
            )
            path = checkpoint_path(task.directory)
            known = (
                path is None or trainer.strategy.launcher is not None
            )  # other processes do not tell how far they are
            restored = restoring(task.directory, lambda: known or checkpoints.is_restored)
            with interruptible(follow), restored, _ending(self.steering):
                trainer.fit(self.inner, datamodule=data, ckpt_path=path, weights_only=True)
        self._load(read_checkpoint(task.directory))

    def _changed(self) -> dict[str, Any]:
        given = self.evaluator.trainer_arguments()
        changed: dict[str, Any] = {"max_epochs": self.epochs, "use_distributed_sampler": False}
        theirs = given.get("callbacks") or []
        kind = family_of(self.inner).get("callbacks.Checkpoint")
        if not any(isinstance(callback, kind) for callback in tree_leaves(theirs)):
            changed["enable_checkpointing"] = bool(given.get("enable_checkpointing", False))
        if given.get("devices", 1) not in (1, "1", [0]):
            if not isinstance(self.inner, LightningModule):
                raise NasValueError(
                    explain(
                        "one-shot search on several devices takes modules of pytorch_lightning",
                        got=f"{type(self.inner).__name__} of {family_of(self.inner)}",
                        mend="import LightningModule from pytorch_lightning, or take devices=1",
                    )
                )
            changed["strategy"] = choose_strategy(given.get("strategy"))
        return changed

    def _batches(self, trainer: Trainer, checkpoints: Checkpoints, load: Load) -> Batches:
        """What Lightning trains on."""
        steering = self.steering
        steering.train_loaders = load(self.task.seed)
        refuse_module(self.inner, self.learner, steering.train_loaders, trainer.datamodule)  # type: ignore[attr-defined]  # it has one
        return Batches(
            lambda cycle: load(derive_seed(cycle, 1)),
            seed=self.task.seed,
            place=lambda: (trainer.current_epoch, steering.position),
            before=checkpoints.before_batch,
            rank=trainer.global_rank,
            devices=trainer.world_size,
        )


@contextmanager
def _ending(steering: Steering) -> Iterator[None]:
    """Lets a fit end when the time is up, in this process or in those of other devices."""
    try:
        yield
    except TimeUp:
        pass
    except ProcessRaisedException as error:
        if TimeUp.__name__ not in str(error):
            raise
    finally:
        steering.release()


def _epochs(given: dict[str, Any]) -> int:
    if given.get("max_epochs") is not None:
        return int(given["max_epochs"])
    return -1 if given.get("max_steps", -1) != -1 or given.get("max_time") is not None else 10


def _refuse_arguments(given: dict[str, Any]) -> None:
    refused = {
        "overfit_batches": "the supernet is trained on the training data and judged on the validation data",
        "barebones": "subnets are ranked by what is logged, and a barebones Trainer logs nothing",
        "sync_batchnorm": "the batch normalisation of a supernet is that of each device",
    }
    for name, reason in refused.items():
        if given.get(name):
            raise NasValueError(
                explain(reason, got=given[name], where=f"{name} of the Trainer", mend=f"leave {name} out")
            )
    if given.get("limit_val_batches") == 0:
        raise NasValueError(
            explain(
                "subnets are ranked by validation", got=0, where="limit_val_batches of the Trainer", mend="leave it out"
            )
        )


_PACE = 10.0
"""Seconds from one line about epochs to the next."""


@final
class _Follow(Callback):
    """Says now and then how the training goes, and keeps what ended the fit."""

    def __init__(self, task: OneShotTask, steering: Steering, epochs: int) -> None:
        self._task, self._steering, self._epochs = task, steering, epochs
        self.exception: BaseException | None = None
        self._unsaid, self._said_at = "", time.monotonic()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a process of another device: it is as quiet as the one it came from."""
        self.__dict__.update(state)
        silence()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says which data does what."""
        if not trainer.is_global_zero:
            return
        self._steering.show = self._task.note
        evaluator = self._task.evaluator
        folds = evaluator.folds if isinstance(evaluator, TrainingEvaluator) else None
        whose = "the validation data that was given" if folds is None else f"fold 1 of {folds} of the training data"
        learns = self._steering.learner.needs_validation
        use = "the architecture is trained and judged" if learns else "architectures are judged"
        validation = sum(trainer.num_val_batches) if isinstance(trainer.num_val_batches, list) else "all batches"
        self._task.note(
            f"supernet: weights are trained on {trainer.num_training_batches} batches an epoch, {use} on "
            f"{validation} of {whose}"
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a metric that validation does not log; before training, where there is a sanity check."""
        metrics = logged(trainer)
        if not trainer.sanity_checking or metrics:  # some log nothing in a sanity check
            self._steering.value(metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows how it goes."""
        metrics = trainer.callback_metrics  # on all devices: they compute it together
        if not trainer.is_global_zero:
            return
        found = {name: value for name, value in sorted(metrics.items()) if "/" not in name}
        shown = ", ".join(f"{name} {float(value):.4g}" for name, value in found.items())
        of = f" of {self._epochs}" if self._epochs != -1 else ""
        self._unsaid = f"supernet, epoch {trainer.current_epoch + 1}{of}: {shown}"
        if time.monotonic() - self._said_at >= _PACE:
            self._say()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows what it came to."""
        self._say()

    def _say(self) -> None:
        if self._unsaid:
            self._task.note(self._unsaid)
        self._unsaid, self._said_at = "", time.monotonic()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning turns an interrupt into an exit."""
        self.exception = exception
