"""What follows one fit of a trial: reports, the clock, losses that are not finite, the HParams record, and silence."""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import statistics
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, final

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from nas._compat.lightning_families import families, family_of
from nas.domains import Answer
from nas.errors import NasTypeError, NasValueError, TrialPruned, close_names, explain
from nas.protocols import Job

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
_LIBRARIES = r"(pytorch_lightning|lightning_fabric|lightning|lightning_utilities|torchmetrics|tensorboard)\b"
"""Whose own deprecated calls are no business of the user's."""


@final
class TrialCallback(Callback):
    """Follows one fit.

    Args:
        metric: is reported after each validation.
        sample: of the trial, for the HParams record.
        pause: where a checkpoint is left, to go on from, when a report stops the trial; None for none.
    """

    def __init__(self, metric: str, sample: Mapping[str, Answer], pause: Path | None = None) -> None:
        self.metric, self.pause = metric, pause
        self.pruned: TrialPruned | None = None
        """What a report has raised by which the trial is paused."""
        self._stopped = False
        # YAML would write a tuple as an object of Python.
        self.sample = {label: list(a) if isinstance(a, tuple) else a for label, a in sample.items()}
        self.report: Callable[[float, int], bool | None] | None = None
        self.check_time: Callable[[], None] | None = None
        self.exception: BaseException | None = None
        self._finite: Tensor | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a process that Lightning started: it is as quiet as the one it came from."""
        self.__dict__.update(state)
        silence()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins the HParams record, which outlives a kill."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.sample)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Notes whether the loss is finite, without waiting for the device."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            finite = torch.isfinite(loss.detach()).all()
            self._finite = finite if self._finite is None else self._finite & finite
        self._look_at_the_clock()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Looks at the clock."""
        self._look_at_the_clock()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a fit whose loss is lost, before it is validated."""
        self._check_loss(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same where an epoch is not validated."""
        self._check_loss(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports; the sanity check before the first epoch only says whether the metric is there."""
        if trainer.sanity_checking:
            # Some modules log nothing in it; and of several loaders Lightning does not say what was logged.
            if logged(trainer):
                metric_of(trainer, self.metric)
            return
        value = metric_of(trainer, self.metric)
        if not math.isfinite(value):
            raise NasValueError(
                explain(f"the metric {self.metric!r} must be finite", got=value, where=f"epoch {trainer.current_epoch}")
            )
        if self.report is not None:
            stop = self._report(value, trainer.current_epoch) if trainer.is_global_zero else False
            # Where there are several processes, all end in good order; `relayed` then raises what stopped the trial.
            self._stopped = bool(trainer.strategy.broadcast(stop))
            trainer.should_stop = trainer.should_stop or self._stopped

    def _report(self, value: float, step: int) -> bool:
        """Whether the trial is to end in good order."""
        assert self.report is not None
        try:
            return bool(self.report(value, step))
        except TrialPruned as pruned:
            if self.pause is None:
                raise
            self.pruned = pruned
            return True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the HParams record, and leaves a checkpoint where the trial may go on.

        By now schedulers have taken their steps, so what goes on from here is what would have gone on.
        """
        self._record(trainer)
        if self.pause is not None and self._stopped:
            draft = self.pause.with_suffix(".tmp")
            trainer.save_checkpoint(draft)
            if trainer.is_global_zero:
                draft.replace(self.pause)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keeps what ended the fit, for Lightning turns an interrupt into an exit; a stopped trial has a record too."""
        self.exception = exception
        self._record(trainer)

    def _look_at_the_clock(self) -> None:
        if self.check_time is not None:
            self.check_time()

    def _check_loss(self, trainer: Trainer) -> None:
        finite, self._finite = self._finite, None
        if finite is not None and not trainer.strategy.reduce_boolean_decision(bool(finite)):
            raise NasValueError(
                explain(
                    "the training loss must be finite, but became NaN or infinite",
                    where=f"epoch {trainer.current_epoch}",
                    mend="lower the learning rate, clip gradients by gradient_clip_val=1.0, or look at the data",
                )
            )

    def _record(self, trainer: Trainer) -> None:
        reached = {f"hp/{name}": value for name, value in logged(trainer).items()}
        board: type = family_of(trainer).get("loggers.TensorBoardLogger")
        for logger in trainer.loggers:
            if isinstance(logger, board) and reached:
                logger.log_hyperparams(self.sample, reached)


def logged(trainer: Trainer) -> dict[str, float]:
    """What has been logged, by name.

    Of several validation loaders Lightning logs `NAME/dataloader_idx_0`, `NAME/dataloader_idx_1`, ...; their mean is
    there too, as NAME.
    """
    return as_numbers(trainer.callback_metrics)


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of what has been logged, by name; see `logged`."""
    found = {name: float(value) for name, value in metrics.items()}
    several: dict[str, list[float]] = {}
    for name, value in found.items():
        plain, separator, _ = name.rpartition("/dataloader_idx_")
        if separator:
            several.setdefault(plain, []).append(value)
    return {name: statistics.fmean(values) for name, values in several.items()} | found


def metric_of(trainer: Trainer, name: str) -> float:
    """A metric that was logged.

    Raises:
        NasValueError: there is none of this name.
    """
    found = logged(trainer)
    if name not in found:
        raise NasValueError(
            explain(
                f"the metric {name!r} was not logged in validation; {close_names(name, found)}",
                mend="log it in validation_step by self.log(name, value), and let the Trainer validate",
            )
        )
    return found[name]


class Follower(Protocol):
    """A callback that keeps what ended a fit."""

    exception: BaseException | None


@contextmanager
def interruptible(follow: Follower) -> Iterator[None]:
    """Ctrl-C ends the search, not the trial alone: Lightning exits or returns instead of passing it on."""
    ours = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if ours else None
    try:
        yield
    except SystemExit as exit_:
        if not isinstance(follow.exception, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from exit_
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    if isinstance(follow.exception, KeyboardInterrupt):
        raise follow.exception


def silence() -> None:
    """Keeps the tips and notices of Lightning from flooding a search; its errors are shown."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for family in families():
        warnings.filterwarnings("ignore", category=family.get("utilities.warnings.PossibleUserWarning"))
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)
    for message in (
        "GPU available but not used",
        "Checkpoint directory .* exists",
        "Experiment logs directory .* exists",
    ):
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def silenced() -> Iterator[None]:
    """`silence` inside the block."""
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        with warnings.catch_warnings():
            silence()
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@final
class _Remote:
    """Reports over a connection, from the process that Lightning started for the first device."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, value: float, step: int) -> bool:
        """Whether the trial is to stop."""
        self._connection.send((value, step))
        stop: bool = self._connection.recv()
        return stop


@contextmanager
def relayed(job: Job) -> Iterator[Callable[[float, int], bool]]:
    """Reports of other processes reach the job; what it raises is raised at the end of the block.

    Yields:
        What those processes report by; it can be pickled while they are started.
    """
    near, far = Pipe()
    raised: list[BaseException] = []

    def listen() -> None:
        try:
            while True:
                value, step = near.recv()
                try:
                    job.report(value, step)
                except BaseException as error:
                    raised.append(error)
                near.send(bool(raised))
        except (EOFError, OSError):
            return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield _Remote(far)
        if raised:
            raise raised[0]
    except Exception as error:
        if raised and error is not raised[0]:
            raise raised[0] from error
        raise
    finally:
        far.close()
        thread.join(timeout=5)
        near.close()


def fit(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule,
    follow: TrialCallback,
    job: Job,
    checkpoint: Path | None,
) -> None:
    """Fits, and lets nothing of it stay behind: an interrupt passes, and processes that were started end."""
    begin: dict[str, Any] = {} if checkpoint is None else {"ckpt_path": str(checkpoint), "weights_only": True}
    launcher = trainer.strategy.launcher
    if launcher is None:
        follow.report, follow.check_time = job.report, job.check_time
    with _seed_for_others(job.seed), interruptible(follow):
        if launcher is None:
            trainer.fit(module, datamodule=data, **begin)
            if follow.pruned is not None:
                raise follow.pruned
            return
        with relayed(job) as follow.report:
            try:
                trainer.fit(module, datamodule=data, **begin)
            except (AttributeError, TypeError, pickle.PicklingError) as error:
                if "pickle" not in str(error):
                    raise
                raise NasTypeError(
                    explain(
                        f"what several processes share must be picklable: {error}",
                        mend='define it at the top of a module, or take strategy="ddp_fork"',
                    )
                ) from error
            except BaseException:
                launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
                raise


@contextmanager
def _seed_for_others(seed: int) -> Iterator[None]:
    """The seed that Lightning shuffles by where several processes share the data."""
    before = os.environ.get("PL_GLOBAL_SEED")
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PL_GLOBAL_SEED"]
        else:
            os.environ["PL_GLOBAL_SEED"] = before


@contextmanager
def determinism_kept() -> Iterator[None]:
    """Afterwards torch's settings are as before which a Trainer sets when it is made with `deterministic=True`."""
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        else:
            os.environ[_WORKSPACE] = workspace


_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
