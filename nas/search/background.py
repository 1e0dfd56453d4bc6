"""A search that runs in a thread of its own, while the program or the notebook that has started it goes on."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from types import EllipsisType
from typing import Literal, TypeAlias, final

from nas._compat.changed import is_shutting_down
from nas.durations import check_seconds
from nas.execution import raise_in
from nas.search.control import Controlled

_FAREWELL = 5.0
"""Seconds that a trial in this process has to end in order when the script has."""

State: TypeAlias = Literal["running", "done", "stopped", "failed"]


@final
class BackgroundRun:
    """A run in the background, made by `experiment.run(background=True)`.

    It ends with the script, broken off as by a second Ctrl-C, unless that waits for it.

    Args:
        experiment: that is run.
        run: does it, and calls what it is given as soon as it has begun; returns whether it has come to its end, and
            was not stopped before.
        interruption: makes what a Ctrl-C raises when the search has ended by it.

    Raises:
        ExperimentError: it could not begin, because another process runs this experiment, say.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from nas import Experiment, ValueChoice
        >>> from nas.evaluators import FunctionalEvaluator
        >>> from nas.strategies import GridSearch
        >>> experiment = Experiment(
        ...     lambda: nn.Linear(4, ValueChoice([1, 2, 3, 4], label="width")),
        ...     FunctionalEvaluator(lambda model: sum(p.numel() for p in model.parameters())),
        ...     GridSearch(), name="background", directory=tempfile.mkdtemp())
        >>> run = experiment.run(max_trials=2, background=True)
        >>> run.set(max_trials=None)
        >>> run.wait(), run.state
        (True, 'done')
    """

    def __init__(
        self,
        experiment: Controlled,
        run: Callable[[Callable[[], None]], bool],
        interruption: Callable[[], BaseException],
    ) -> None:
        self._experiment, self._run, self._interruption = experiment, run, interruption
        self._state: State = "running"
        self._error: BaseException | None = None
        self._has_begun, self._can_tell = False, threading.Event()
        # Not Thread.join, which a Ctrl-C convinces that the thread has ended.
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._go,), name="nas-run", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)
        self._can_tell.wait()
        self._refuse()

    def _refuse(self) -> None:
        if self._error is not None and not self._has_begun:
            raise self._error

    def _go(self) -> None:
        try:
            self._state = "done" if self._run(self._begun) else "stopped"
        except KeyboardInterrupt:
            self._state = "stopped"
        except BaseException as error:  # It comes out of `wait`, whatever it is.
            self._error, self._state = error, "failed"
        finally:
            atexit.unregister(self._at_exit)
            self._can_tell.set()
            if is_shutting_down():
                self._tell_of_the_end()
            self._over.set()

    def _at_exit(self) -> None:
        """The script ends. What trials in other processes wait for has been ended by now; one in this is ended here."""
        if not self._over.is_set():
            self._break_off()
            self._over.wait(_FAREWELL)

    def _tell_of_the_end(self) -> None:
        with suppress(OSError):
            os.write(
                2,
                b"The search in the background has ended with the script, before its end: run.wait() waits for it. "
                b"resume=True goes on with it.\n",
            )

    def _begun(self) -> None:
        self._has_begun = True
        self._can_tell.set()

    @property
    def state(self) -> State:
        """ "running"; "done"; "stopped", before its end; or "failed", by an error that `wait` raises."""
        return self._state if self._over.is_set() else "running"

    def wait(self, timeout: float | str | None = None) -> bool:
        """Waits for its end.

        In a script, a Ctrl-C meanwhile ends the search as it ends `run`: first its running trials are let finish, a
        second one breaks them off. Where somebody types, the search goes on.

        Args:
            timeout: seconds, or a text such as "10m", to wait at most; None for as long as it takes.

        Returns:
            Whether it has ended.

        Raises:
            BaseException: the error of the run, as `run` itself would have raised it.
        """
        seconds = None if timeout is None else check_seconds("timeout", timeout, least=0, or_else="None", where="wait")
        try:
            self._over.wait(seconds)
        except KeyboardInterrupt:
            if hasattr(sys, "ps1"):
                raise
            self._end_in_order()
            raise self._interruption() from None
        if not self._over.is_set():
            return False
        if self._error is not None:
            raise self._error
        return True

    def _end_in_order(self) -> None:
        self.stop()
        with suppress(OSError):
            os.write(2, b"\nThe running trials are let finish; Ctrl-C once more breaks them off.\n")
        try:
            self._over.wait()
        except KeyboardInterrupt:
            self._break_off()
            self._over.wait()

    def _break_off(self) -> None:
        assert self._thread.ident is not None
        raise_in(self._thread.ident, KeyboardInterrupt)

    def stop(self) -> None:
        """Starts no more trials, and ends when those that run have; see `wait`."""
        self._experiment.stop()

    def kill(self, numbers: int | Iterable[int]) -> None:
        """Ends trials that run, at once; see `Experiment.kill`."""
        self._experiment.kill(numbers)

    def set(
        self,
        *,
        max_trials: int | EllipsisType | None = ...,
        timeout: float | str | EllipsisType | None = ...,
        concurrency: int | EllipsisType | None = ...,
        max_trial_time: float | str | EllipsisType | None = ...,
    ) -> None:
        """Changes limits; see `Experiment.set`.

        Args:
            max_trials: of the whole experiment.
            timeout: from the beginning of the run.
            concurrency: trials at a time.
            max_trial_time: from the beginning of each trial.
        """
        self._experiment.set(
            max_trials=max_trials, timeout=timeout, concurrency=concurrency, max_trial_time=max_trial_time
        )
