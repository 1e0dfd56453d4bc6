"""What can be asked of an experiment at any time, while it runs too: from another thread, for itself or a shell."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping
from types import EllipsisType
from typing import Any

from nas.checks import check_bool, check_int
from nas.domains import Answer
from nas.errors import NasValueError, explain
from nas.execution import Executor
from nas.records import Session
from nas.search.limits import check_limits
from nas.space import ModelSpace


class Controlled(ABC):
    """An experiment, as far as it can be steered; all of it is noted in the ledger, and done within a second."""

    space: ModelSpace
    """Of its samples."""

    _session: Session
    """Where all of it is noted."""
    _executor: Executor

    def enqueue(self, sample: Mapping[str, Answer], *, again: bool = False) -> bool:
        """Puts a sample in front of what the strategy proposes: known architectures to begin with.

        The queue is part of the ledger. A sample that was enqueued or tried before is not enqueued again, so a script
        that is run again with `resume=True` may say the same once more. It may be called while the experiment runs, in
        another thread or another process.

        Args:
            sample: label -> answer; what it lacks takes its default.
            again: whether it is evaluated once more where it has been tried before.

        Returns:
            Whether it was put in the queue.

        Raises:
            NasValueError: unknown labels, answers outside their domain, or a sample that is not allowed in the space.
        """
        whole = self.space.validate(self.space.complete(sample))
        return self._session.enqueue(whole, again=check_bool("again", again, where="enqueue"))

    def retry(self, numbers: int | Iterable[int] | None = None) -> list[int]:
        """Puts the samples of FAILED trials in the queue again, once each; the next `run` evaluates them first.

        What is tried again takes the place of what failed: among the `max_trials` of a run it counts once.

        Args:
            numbers: of the trials; None for all that are FAILED.

        Returns:
            The numbers of the trials whose samples were put there.

        Raises:
            NasValueError: a trial that is not there, or not FAILED.
        """
        return self._session.retry([numbers] if isinstance(numbers, int) else None if numbers is None else [*numbers])

    def stop(self) -> None:
        """Asks whoever runs the experiment to start no more trials, and to end when those that run have."""
        self._session.stop()

    def kill(self, numbers: int | Iterable[int]) -> None:
        """Ends trials that run, at once: they are FAILED, and the search goes on.

        A trial in this process is interrupted; one in a process of its own is killed with it. One that nobody runs
        just now, because its process has died, is FAILED when the experiment is gone on with.

        Args:
            numbers: of the trials.

        Raises:
            NasValueError: a trial that is not there, or does not run.
        """
        given = [numbers] if isinstance(numbers, int) else [*numbers]
        self._session.kill([check_int("trial", number, least=0, where="kill") for number in given])

    def set(
        self,
        *,
        max_trials: int | EllipsisType | None = ...,
        timeout: float | str | EllipsisType | None = ...,
        concurrency: int | EllipsisType | None = ...,
        max_trial_time: float | str | EllipsisType | None = ...,
    ) -> None:
        """Changes limits of the run that is under way; what is left out stays as it is, None takes the limit away.

        They mean what they mean for `run`, as if it had been begun with them. Where the experiment does not run, they
        are noted, and `nas resume` takes them.

        Args:
            max_trials: of the whole experiment.
            timeout: seconds from the beginning of the run, or a text such as "12h", after which no new trial starts.
            concurrency: trials at a time, as far as the executor can; those that run are let finish.
            max_trial_time: seconds, or such a text, from the beginning of a trial after which it is FAILED; one that
                runs too.

        Raises:
            NasError: a limit that makes no sense, or none at all.
        """
        given: dict[str, Any] = {
            "max_trials": max_trials,
            "timeout": timeout,
            "concurrency": concurrency,
            "max_trial_time": max_trial_time,
        }
        said = {name: value for name, value in given.items() if value is not ...}
        if not said:
            raise NasValueError(explain("set changes one limit at least", where="set", mend="set(max_trials=100), say"))
        self._session.change_limits(check_limits(said, where="set", possible=self._executor.max_concurrency))
