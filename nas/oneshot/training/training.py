"""The training of one supernet, from the evaluator's arguments to the last checkpoint, in as many runs as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any, Literal, TypeAlias, final

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from nas._compat.lightning_internals import continue_from
from nas.domains import Sample
from nas.errors import NasValueError, explain
from nas.evaluators import TrainingEvaluator, interruptible, silenced
from nas.oneshot.training.batches import Batches, cycled
from nas.oneshot.training.checkpoints import Checkpoints, read_checkpoint
from nas.oneshot.training.distributed import Share, choose_strategy
from nas.oneshot.training.learner import Learner
from nas.oneshot.training.measures import Logged, to_device, train_step
from nas.oneshot.training.search_module import SearchModule, refuse_module
from nas.protocols import OneShotTask
from nas.random_state import derive_seed, seeded

MakeLearner: TypeAlias = Callable[[tuple[Any, ...]], Learner]
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
        self.epochs = epochs if epochs is not None else given.get("max_epochs") or 10
        self._limit = given.get("limit_train_batches")
        found = read_checkpoint(task.directory)
        with silenced():
            self.example = example_inputs(task)
            self.learner = make(self.example)
            inner = self.evaluator.module(self.learner.model)
            refuse_module(inner)
            clip = (given.get("gradient_clip_val"), given.get("gradient_clip_algorithm"))
            self.module = SearchModule(
                inner, self.learner, clip=clip, metric=task.objective or self.evaluator.metric, direction=task.direction
            )
        if found is None:
            self.learner.check(self.example)
            self._check_metric()
        self._load(found)

    def _check_metric(self) -> None:
        """Refuses a metric that validation does not log, by one batch of it."""
        with silenced(), seeded(self.task.seed):
            self.module.to(self.device)
            logged = self.module.measured(self.batches("validation", 1))
        if self.module.metric not in logged:
            raise NasValueError(
                explain(
                    "subnets are ranked by a metric that validation logs",
                    got=self.module.metric,
                    where="objective",
                    mend=f"one of {', '.join(map(repr, logged))}",
                )
            )

    def _load(self, found: dict[str, Any] | None) -> None:
        self._found = found
        self.epoch = 0 if found is None else found["epoch"]
        if found is not None:
            self.module.load_state_dict(found["module"])
            self.module.done, self.module.position = found["done"], found["position"]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.epoch >= self.epochs or self.learner.stopped

    @cached_property
    def device(self) -> torch.device:
        """Where subnets are judged: the Trainer's first device."""
        with silenced():
            trainer = self.evaluator.trainer(changed={"devices": 1, "strategy": "auto", "logger": False, **_MANUAL})
        root: torch.device = trainer.strategy.root_device
        return root

    def batches(self, part: Literal["train", "validation"], number: int | None) -> Iterator[Any]:
        """Some batches of the data, or all of them, on the device where subnets are judged."""
        data = self.evaluator.data(seed=self.task.seed)
        loader = data.train_dataloader() if part == "train" else data.val_dataloader()
        device = self.device
        for batch in islice(loader, number):
            yield to_device(batch, device)

    def measure(self, sample: Sample) -> dict[str, float]:
        """The metrics of a sample as the supernet itself computes it, for those whose weights cannot be taken along."""
        self.module.to(self.device)
        self.learner.select(sample)
        return self.module.measured(self.batches("validation", None))

    def curvature(self) -> float | None:
        """The largest eigenvalue of the Hessian of the validation loss in the architecture parameters, on one batch.

        None where there are no such parameters.
        """
        self.module.to(self.device)
        return self.learner.curvature(self.module, next(iter(self.batches("validation", 1))))

    def _split(self) -> str:
        """Which data does what, in words."""
        data, folds = self.evaluator.data(seed=self.task.seed), self.evaluator.folds
        train, validation = (_length(loader) for loader in (data.train_dataloader(), data.val_dataloader()))
        whose = "the validation data that was given" if folds is None else f"fold 1 of {folds} of the training data"
        use = "the architecture is trained and judged" if self.learner.needs_validation else "architectures are judged"
        return f"supernet: weights are trained on {train} batches an epoch, {use} on {validation} of {whose}"

    def _validation(self, seed: int) -> Iterator[Any]:
        return cycled(lambda cycle: _shuffled(self.evaluator, cycle), seed)

    def fit(self) -> None:
        """Trains until the end, or until the time is up."""
        task, given = self.task, self.evaluator.trainer_arguments()
        checkpoints = Checkpoints(task.directory, self._every, self._found, derive_seed(task.seed, 0))
        follow = _Follow(task, self.epochs, checkpoints)
        changed = _MANUAL | {
            "max_epochs": self.epochs,
            "reload_dataloaders_every_n_epochs": 1,
            "use_distributed_sampler": False,
            "enable_checkpointing": False,
            "enable_progress_bar": given.get("enable_progress_bar", False),
            "limit_train_batches": None,
            "num_sanity_val_steps": 0,
        }
        if given.get("devices", 1) not in (1, "1", [0]):
            changed["strategy"] = choose_strategy(given.get("strategy"))
        with silenced(), seeded(task.seed):
            task.note(self._split())
            trainer = self.evaluator.trainer(directory=task.directory, callbacks=[follow, checkpoints], changed=changed)
            continue_from(trainer, epoch=self.epoch, steps=self.module.done)
            self.module.validation = self._validation
            self.module.after_epoch = _AfterEpoch(self.module, checkpoints)
            data = SearchData(self, self.module)
            with interruptible(follow), suppress(_TimeUp):
                trainer.fit(self.module, datamodule=data)
        found = read_checkpoint(task.directory)
        if found is not None:
            self._load(found)


_MANUAL: dict[str, Any] = {"gradient_clip_val": None, "gradient_clip_algorithm": None}
"""What Lightning refuses where a module optimises itself; the search does it."""


def _refuse_arguments(given: dict[str, Any]) -> None:
    refused = {
        "max_steps": "epochs decide how long a supernet is trained",
        "max_time": "experiment.run(timeout=...) limits the time of a search",
        "accumulate_grad_batches": "each step of one-shot search trains another part, so steps are not accumulated",
        "min_steps": "epochs decide how long a supernet is trained",
    }
    for name, reason in refused.items():
        if given.get(name) not in (None, -1, 1):
            raise NasValueError(
                explain(reason, got=given[name], where=f"{name} of the Trainer", mend=f"leave {name} out")
            )


@final
class _AfterEpoch:
    """Writes the checkpoint of an epoch that is over."""

    def __init__(self, module: SearchModule, checkpoints: Checkpoints) -> None:
        self._module, self._checkpoints = [module], checkpoints

    def __call__(self) -> None:
        module = self._module[0]
        self._checkpoints.write(module.trainer, module, epoch=module.current_epoch + 1)


@final
class SearchData(LightningDataModule):
    """The evaluator's data as pairs of training and validation batches, from where the search stands."""

    def __init__(self, training: Training, module: SearchModule) -> None:
        super().__init__()
        self._seed, self._limit = training.task.seed, training._limit
        self._evaluator, self._module = training.evaluator, [module]

    def train_dataloader(self) -> Any:
        """What is left of the epoch."""
        module, trainer = self._module[0], self.trainer
        assert trainer is not None
        devices = trainer.world_size
        limit = self._limit * devices if isinstance(self._limit, int) else self._limit
        batches = Batches(
            lambda seed: self._evaluator.data(seed=seed).train_dataloader(),
            (lambda seed: _shuffled(self._evaluator, seed)) if module.learner.needs_validation else None,
            seed=self._seed,
            epoch=trainer.current_epoch,
            begin=module.position * devices,
            limit=limit,
        )
        return batches if devices == 1 else Share(batches, trainer.global_rank, devices)

    def val_dataloader(self) -> Any:
        """All of it, on every device."""
        return self._evaluator.data(seed=self._seed).val_dataloader()


def _shuffled(evaluator: TrainingEvaluator, seed: int) -> Any:
    """The validation data; in a random order where it has a fixed one, for an epoch may see a part of it only."""
    loader = evaluator.data(seed=seed).val_dataloader()
    if not isinstance(loader, DataLoader) or not isinstance(loader.sampler, SequentialSampler):
        return loader
    if not isinstance(loader.batch_sampler, BatchSampler):
        return loader
    order = RandomSampler(loader.dataset, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]  # it has a length, or its order were none
    whole = len(order) >= loader.batch_sampler.batch_size
    return DataLoader(
        loader.dataset,
        batch_sampler=BatchSampler(order, loader.batch_sampler.batch_size, drop_last=whole),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )


def _length(loader: Any) -> str:
    try:
        return str(len(loader))
    except TypeError:
        return "an unknown number of"


@final
class _Follow(Callback):
    """Says a line for each epoch, ends in time, and keeps what ended the fit."""

    def __init__(self, task: OneShotTask, epochs: int, checkpoints: Checkpoints) -> None:
        self._task, self._epochs, self._checkpoints = task, epochs, checkpoints
        self.exception: BaseException | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Ends in time, with a checkpoint; the last step of an epoch goes on to its end."""
        if self._task.deadline is None or trainer.is_last_batch:
            return
        if trainer.strategy.broadcast(time.monotonic() > self._task.deadline):
            search: SearchModule = pl_module  # type: ignore[assignment]  # the only module that has this callback
            self._checkpoints.write(trainer, search, epoch=trainer.current_epoch)
            raise _TimeUp

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows how it goes."""
        metrics = trainer.callback_metrics  # on all devices: they compute it together
        if not trainer.is_global_zero:
            return
        found = {name: value for name, value in sorted(metrics.items()) if "/" not in name}
        shown = ", ".join(f"{name} {float(value):.4g}" for name, value in found.items())
        self._task.note(f"supernet, epoch {trainer.current_epoch + 1} of {self._epochs}: {shown}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning turns an interrupt into an exit."""
        self.exception = exception


class _TimeUp(Exception):  # noqa: N818 - it is no error
    """The time of the run is up."""


class _Caught(Exception):  # noqa: N818 - it is no error
    """The network was called."""


def example_inputs(task: OneShotTask) -> tuple[Any, ...]:
    """What the evaluator calls a network with: the inputs of the first training batch.

    Raises:
        NasValueError: its training step does not call the network.
    """
    evaluator = task.evaluator
    assert isinstance(evaluator, TrainingEvaluator)
    found: list[tuple[Any, ...]] = []

    def catch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs)
        raise _Caught

    with seeded(task.seed):
        model = task.space.build(task.space.default())
        inner = evaluator.module(model)
        Logged().attach(inner)
        batch = next(iter(evaluator.data(seed=task.seed).train_dataloader()))
        handle = model.register_forward_pre_hook(catch)
        try:
            train_step(inner, batch, 0)
        except _Caught:
            return found[0]
        finally:
            handle.remove()
    raise NasValueError(explain("the training step of the evaluator must call the model", got=type(inner).__name__))
