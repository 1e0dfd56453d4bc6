"""One actor of Ray, seen from the process of the experiment; and what runs inside the actors."""

from __future__ import annotations

import asyncio
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, final

from nas.execution.crew import Begun, Done, Gone, Line, Report, Word
from nas.execution.pickled import load_plan
from nas.execution.trial_run import Assignment, Outcome, Plan
from nas.execution.worker import run_trial

_STARVED = 10.0
"""Seconds after which an actor that has not started is taken to find no place; it starts in about two."""
_GLANCE = 0.5
"""Seconds between two looks at what happens, and two questions to an actor that cannot be reached."""


@final
class Mailbox:
    """An actor that passes reports to the experiment, and answers back; the others are known by their numbers."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[tuple[int, int, float]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[bool]] = {}

    async def ask(self, number: int, step: int, value: float) -> bool:
        """Called by an actor: reports, and waits for whether to stop."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._letters.put((number, step, value))
        return await answer

    async def next(self) -> tuple[int, int, float]:
        """Called by the experiment: waits for the next report."""
        return await self._letters.get()

    async def answer(self, number: int, stop: bool) -> None:
        """Called by the experiment: answers an actor."""
        waiting = self._answers.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(stop)


@final
class Runner:
    """An actor that runs trials.

    Args:
        plan: pickled.
        mailbox: for reports.
        number: its own, there.
    """

    def __init__(self, plan: bytes, mailbox: Any, number: int) -> None:
        self._pickled, self._mailbox, self._number = plan, mailbox, number
        self._plan: Plan | None = None

    def node(self) -> str:
        """The node that it is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, assignment: Assignment) -> Outcome:
        """Runs a trial."""
        import ray

        def report(step: int, value: float) -> bool:
            return bool(ray.get(self._mailbox.ask.remote(self._number, step, value)))

        try:
            if self._plan is None:
                self._plan = load_plan(self._pickled)
            return run_trial(self._plan, assignment, on_report=report)
        except Exception:
            return assignment.failed(traceback.format_exc())


@final
class RayWorker(Line):
    """An actor that runs trials, seen from the process of the experiment.

    Args:
        plan: reference to the pickled plan.
        mailbox: for reports.
        resources: that the actor holds.
        number: in the mailbox; no two are the same, so that late words are known as what they are.
    """

    def __init__(self, plan: Any, mailbox: Any, resources: Mapping[str, float], number: int) -> None:
        import ray

        self._mailbox, self.number = mailbox, number
        amounts = dict(resources)
        make = ray.remote(Runner).options(
            num_cpus=amounts.pop("CPU", 0),
            num_gpus=amounts.pop("GPU", 0),
            resources=amounts,
            scheduling_strategy="SPREAD",
            max_restarts=0,
            max_task_retries=0,
        )
        self._asked = time.monotonic()
        self._actor = make.remote(plan, mailbox, number)
        self._place: Any = self._actor.node.remote()
        self._result: Any = None
        self._probe: Any = None
        self._node: str | None = None
        self._error: Exception | None = None

    @property
    def noun(self) -> str:
        """An actor."""
        return "actor"

    @property
    def awaited(self) -> list[Any]:
        """What comes next: its place, as long as that is not known, and the outcome; or whether it is alive at all."""
        if self._probe is not None:
            return [self._probe]
        return [reference for reference in (self._place, self._result) if reference is not None]

    @property
    def is_starved(self) -> bool:
        """Whether it has not started for so long that there seems to be no place for it."""
        return self._place is not None and time.monotonic() > self._asked + _STARVED

    def send(self, assignment: Assignment) -> bool:
        """Hands over a trial, which begins at once in an actor that is up."""
        self._result = self._actor.run.remote(assignment)
        return self._place is None

    def answer(self, stop: bool) -> None:
        """Answers a report."""
        self._mailbox.answer.remote(self.number, stop)

    def read(self, reference: Any) -> Word | None:
        """What is meant by one of `awaited` that is ready; None where that is not known yet."""
        import ray

        try:
            found = ray.get(reference)
        except ray.exceptions.ActorUnavailableError:
            # The connection broke; only the cluster knows, some seconds later, whether the actor or its node is lost.
            time.sleep(_GLANCE)
            self._probe = self._actor.node.remote()
            return None
        except ray.exceptions.RayError as error:
            self._error = error
            return Gone(innocent=self._node_is_lost())
        if reference == self._probe:  # It lives, but what it was asked for is lost with the connection.
            return Gone(innocent=True)
        if reference == self._place:
            self._place, self._node = None, found
            return Begun()
        self._result = None
        return Done(outcome=found)

    def _node_is_lost(self) -> bool:
        import ray

        if "node has died" in str(self._error):
            return True
        return self._node is not None and not any(n["Alive"] for n in ray.nodes() if n["NodeID"] == self._node)

    def cause(self) -> str:
        """What Ray says of its death."""
        return (
            f"has died ({_detail(self._error)}): by a fault in compiled code, "
            "killed by somebody, or by the system because memory was short"
        )

    def end(self) -> None:
        """Kills the actor, whatever it does."""
        import ray

        ray.kill(self._actor)


@final
class Letters:
    """What actors say, those of one run.

    Args:
        mailbox: of their reports.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox
        self._next: Any = None

    def listen(self, actors: list[RayWorker], timeout: float | None) -> Iterator[tuple[RayWorker, Word]]:
        """What they say next."""
        import ray

        if self._next is None:
            self._next = self._mailbox.next.remote()
        awaited = {reference: actor for actor in actors for reference in actor.awaited}
        # ray.wait does not see every signal: a second Ctrl-C would wait for the next trial to end.
        ready, _ = ray.wait([*awaited, self._next], timeout=_GLANCE if timeout is None else min(timeout, _GLANCE))
        if self._next in ready:
            number, step, value = ray.get(self._next)
            self._next = None
            for actor in actors:
                if actor.number == number:  # Else it is a last word of an actor that has been replaced.
                    yield actor, Report(step=step, value=value)
        for reference in ready:
            speaker = awaited.get(reference)
            word = speaker.read(reference) if speaker is not None and reference in speaker.awaited else None
            if speaker is not None and word is not None:
                yield speaker, word


def _detail(error: Exception | None) -> str:
    """What Ray says of the end of a worker, without its advice."""
    text = " ".join(str(error).split())
    found = re.search(r"Worker exit type: (.*?)(?: Some common causes|$)", text)
    return (found.group(1) if found else text).replace(" Worker exit detail:", ":").rstrip(". ")
