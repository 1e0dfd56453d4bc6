"""One actor of Ray and its trial, seen from the process of the experiment; and what runs inside the actors."""

from __future__ import annotations

import asyncio
import pickle
import re
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from nas.execution.log import quote_log
from nas.execution.trial_run import Assignment, Outcome, Plan
from nas.execution.worker import run_trial

_TRIES = 3
"""So many actors may die before they come to a trial at all."""
_STARVED = 10.0
"""Seconds after which an actor that has not started is taken to find no place; it starts in about two."""
_GLANCE = 0.5
"""Seconds between two questions to an actor that cannot be reached."""


@final
class Mailbox:
    """An actor that passes reports to the experiment, and answers back."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[tuple[int, int, float]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[bool]] = {}

    async def ask(self, number: int, step: int, value: float) -> bool:
        """Called by a trial: reports, and waits for whether to stop."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._letters.put((number, step, value))
        return await answer

    async def next(self) -> tuple[int, int, float]:
        """Called by the experiment: waits for the next report."""
        return await self._letters.get()

    async def answer(self, number: int, stop: bool) -> None:
        """Called by the experiment: answers a trial."""
        waiting = self._answers.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(stop)


@final
class Runner:
    """An actor that runs trials.

    Args:
        plan: pickled.
        mailbox: for reports.
    """

    def __init__(self, plan: bytes, mailbox: Any) -> None:
        self._pickled, self._mailbox = plan, mailbox
        self._plan: Plan | None = None

    def node(self) -> str:
        """The node that it is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, assignment: Assignment) -> Outcome:
        """Runs a trial."""
        import ray

        def report(step: int, value: float) -> bool:
            return bool(ray.get(self._mailbox.ask.remote(assignment.number, step, value)))

        try:
            if self._plan is None:
                self._plan = pickle.loads(self._pickled)
            return run_trial(self._plan, assignment, on_report=report)
        except Exception:
            return assignment.failed(traceback.format_exc())


@final
class RayWorker:
    """An actor that runs trials, replaced when it dies.

    Args:
        plan: reference to the pickled plan.
        mailbox: for reports.
        resources: that the actor holds.
        limit: seconds for a trial.
        grace: seconds that it may go on after them.
    """

    def __init__(
        self, plan: Any, mailbox: Any, resources: Mapping[str, float], *, limit: float | None, grace: float
    ) -> None:
        self._plan, self._mailbox, self._resources = plan, mailbox, dict(resources)
        self._limit, self._grace = limit, grace
        self.assignment: Assignment | None = None
        """What it works on."""
        self._actor: Any = None
        self._place: Any = None
        self._result: Any = None
        self._probe: Any = None
        self._node: str | None = None
        self._began: float | None = None
        self._asked = 0.0
        self._tries = 0
        self._curve: dict[int, float] = {}

    @property
    def number(self) -> int:
        """Of its trial."""
        assert self.assignment is not None
        return self.assignment.number

    @property
    def awaited(self) -> list[Any]:
        """What comes next: its place, as long as that is not known, and the outcome; or whether it is alive at all."""
        if self._probe is not None:
            return [self._probe]
        return [reference for reference in (self._place, self._result) if reference is not None]

    @property
    def is_warm(self) -> bool:
        """Whether it has an actor and no trial for it."""
        return self.assignment is None and self._actor is not None

    @property
    def is_starved(self) -> bool:
        """Whether its trial has waited so long for an actor that there seems to be no place for one."""
        return self._place is not None and time.monotonic() > self._asked + _STARVED

    @property
    def deadline(self) -> float | None:
        """Of `time.monotonic()`: when its trial has gone on too long after its time."""
        if self._began is None or self._limit is None:
            return None
        return self._began + self._limit + self._grace

    def assign(self, assignment: Assignment) -> None:
        """Hands it a trial."""
        self.assignment, self._tries = assignment, 0
        self._send()

    def _send(self) -> None:
        assert self.assignment is not None
        self._curve = {}
        if self._actor is None:
            self._start()
        self._began = None if self._place is not None else time.monotonic()
        self._result = self._actor.run.remote(replace(self.assignment, on_report=None))

    def _start(self) -> None:
        import ray

        self._tries += 1
        amounts = dict(self._resources)
        make = ray.remote(Runner).options(
            num_cpus=amounts.pop("CPU", 0),
            num_gpus=amounts.pop("GPU", 0),
            resources=amounts,
            scheduling_strategy="SPREAD",
            max_restarts=0,
            max_task_retries=0,
        )
        self._asked = time.monotonic()
        self._actor = make.remote(self._plan, self._mailbox)
        self._place, self._node = self._actor.node.remote(), None

    def report(self, step: int, value: float) -> bool:
        """What the experiment answers to a report."""
        assert self.assignment is not None
        self._curve[step] = value
        return self.assignment.on_report is not None and self.assignment.on_report(step, value)

    def receive(self, reference: Any) -> Outcome | None:
        """Takes what is ready; the outcome, where it is one."""
        import ray

        if reference not in self.awaited:
            return None  # of an actor that has been replaced since
        try:
            found = ray.get(reference)
        except ray.exceptions.ActorUnavailableError:
            # The connection broke; only the cluster knows, some seconds later, whether the actor or its node is lost.
            time.sleep(_GLANCE)
            self._probe = self._actor.node.remote()
            return None
        except ray.exceptions.RayError as error:
            return self._died(error)
        if reference == self._probe:  # It lives, but what it was asked for is lost with the connection.
            self._run_again()
            return None
        if reference == self._place:
            self._place, self._node, self._began = None, found, time.monotonic()
            return None
        outcome: Outcome = found
        self.assignment = self._began = self._result = None
        return outcome

    def end_overdue(self) -> Outcome:
        """Kills the actor: its trial has not ended at its time."""
        reason = (
            f"the trial ran longer than max_trial_time, {self._limit:g} s, and did not end within {self._grace:g} s"
        )
        return self._fail(f"TrialTimeout: {reason} more; its actor was killed")

    def _died(self, error: Exception) -> Outcome | None:
        """The outcome of a trial whose actor has died; none where it is run again."""
        lost = self._node_is_lost(error)
        if lost or (self._began is None and self._tries < _TRIES):
            self._run_again()
            return None
        return self._fail(
            f"WorkerDied: the actor of this trial has died ({_detail(error)}): by a fault in compiled code, "
            "killed by somebody, or by the system because memory was short"
        )

    def _run_again(self) -> None:
        self._stop()
        self._send()

    def _node_is_lost(self, error: Exception) -> bool:
        import ray

        if "node has died" in str(error):
            return True
        return self._node is not None and not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == self._node)

    def _fail(self, error: str) -> Outcome:
        assert self.assignment is not None
        duration = 0.0 if self._began is None else time.monotonic() - self._began
        error = quote_log(self.assignment.directory) + error
        outcome = self.assignment.failed(error, duration=duration, curve=self._curve)
        self.close()
        return outcome

    def _stop(self) -> None:
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = self._place = self._result = self._probe = self._node = self._began = None

    def close(self) -> None:
        """Kills the actor, whatever it does."""
        self._stop()
        self.assignment = None


def _detail(error: Exception) -> str:
    """What Ray says of the end of a worker, without its advice."""
    text = " ".join(str(error).split())
    found = re.search(r"Worker exit type: (.*?)(?: Some common causes|$)", text)
    return (found.group(1) if found else text).replace(" Worker exit detail:", ":").rstrip(". ")
