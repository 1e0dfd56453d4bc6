"""The executor that runs trials on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, final

from nas.calls import explained
from nas.checks import check_int, check_number
from nas.durations import check_seconds
from nas.errors import ExperimentError, MissingDependency, NasTypeError, explain
from nas.execution.crew import Crew, Worker
from nas.execution.executor import CrewedExecutor
from nas.execution.pickled import dump_plan
from nas.execution.ray_worker import Letters, Mailbox, RayWorker
from nas.execution.trial_run import Plan

_MOST = 4096
_GRACE = 5.0


@explained()
@final
class RayExecutor(CrewedExecutor[RayWorker]):
    """Runs trials in actors of Ray, which places them, and gives each the GPUs it asks for.

    An actor stays warm from trial to trial. One that dies, or does not end when its time is up, fails its own trial and
    is replaced; when its whole node is lost, the trial is run again on another one.

    Args:
        workers: how many at most; None for as many as `Experiment.run(concurrency=...)` asks for.
        resources_per_trial: what each trial needs, by Ray's names, as {"CPU": 2, "GPU": 0.5}; one CPU where omitted.
        address: of a cluster, as `ray.init` takes it; None for the one this process is connected to, that of
            RAY_ADDRESS, or one that is started here and ended with the run. A cluster that checks tokens, as Ray
            2.60 starts them, is joined with RAY_AUTH_MODE=token in the environment.
        grace: seconds, or a text as "2m", that a trial may go on after `max_trial_time` before its actor is killed.

    Raises:
        NasError: a number that makes no sense.

    Example:
        >>> RayExecutor(workers=4, resources_per_trial={"CPU": 2}).max_concurrency
        4
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        resources_per_trial: Mapping[str, float] | None = None,
        address: str | None = None,
        grace: float | str = _GRACE,
    ) -> None:
        if workers is not None:
            workers = check_int("workers", workers, least=1, or_else="None", where="RayExecutor")
        self._resources = {"CPU": 1.0} if resources_per_trial is None else dict(resources_per_trial)
        for name, amount in self._resources.items():
            if not isinstance(name, str):
                raise NasTypeError(explain("resources_per_trial is a dict name -> number", got=resources_per_trial))
            self._resources[name] = check_number(f"resources_per_trial[{name!r}]", amount, least=0, where="RayExecutor")
        seconds = check_seconds("grace", grace, least=0, below=1e6, where="RayExecutor")
        self._limit, self._address, self._grace = workers, address, float(seconds)
        self._mailbox: Any = None
        self._is_ours = False
        self._start: Callable[[], RayWorker] | None = None
        self._time: float | None = None

    @property
    def max_concurrency(self) -> int:
        """The number of workers."""
        return _MOST if self._limit is None else self._limit

    @property
    def usual_concurrency(self) -> int:
        """All its workers; one where nobody said how many there are."""
        return self._limit or 1

    @property
    def is_isolated(self) -> bool:
        """Yes."""
        return True

    def start(self, plan: Plan, concurrency: int) -> None:
        """Connects to the cluster; actors are made when they get their first trial.

        Raises:
            MissingDependency: Ray is not installed.
            ExperimentError: no node of the cluster has what a trial needs.
            NasTypeError: the evaluator or the space cannot be pickled.
        """
        try:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
        except ImportError as error:
            raise MissingDependency("ray", purpose="RayExecutor", extra="ray") from error
        self.close()
        pickled = dump_plan(plan)
        if not ray.is_initialized():
            # Without an address Ray would also connect to what an earlier cluster on this machine has left behind.
            address = self._address or (None if "RAY_ADDRESS" in os.environ else "local")
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
            self._is_ours = True
        self._check_resources(ray.nodes())
        # On this process's own node: the loss of another one must not take the reports of all trials with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        place = {"num_cpus": 0, "scheduling_strategy": here}
        self._mailbox = ray.remote(Mailbox).options(max_concurrency=1000, **place).remote()
        reference = ray.put(pickled)
        numbers = count()
        self._start = lambda: RayWorker(reference, self._mailbox, self._resources, next(numbers))
        self._time = plan.max_trial_time
        self._crew = Crew(self._places(concurrency), Letters(self._mailbox).listen)

    def _places(self, number: int) -> list[Worker[RayWorker]]:
        assert self._start is not None
        return [Worker(self._start, limit=self._time, grace=self._grace) for _ in range(number)]

    def _check_resources(self, nodes: list[dict[str, Any]]) -> None:
        offers = [node["Resources"] for node in nodes if node["Alive"]]
        if not any(all(offer.get(name, 0) >= need for name, need in self._resources.items()) for offer in offers):
            have = [{name: offer.get(name, 0) for name in self._resources} for offer in offers]
            problem = explain(
                "no node of the cluster has what a trial needs",
                got=self._resources,
                mend=f"ask for less in resources_per_trial; the nodes have {have}",
            )
            self.close()
            raise ExperimentError(problem)

    def limit(self, seconds: float | None) -> None:
        """For trials that begin from now on; those that run may get less time by it, but not more."""
        self._time = seconds
        super().limit(seconds)

    def resize(self, concurrency: int) -> bool:
        """Makes room for so many."""
        self._working.resize(self._places(concurrency))
        return True

    def close(self) -> None:
        """Kills the actors, and ends Ray where it was started here."""
        if self._mailbox is None and not self._is_ours:
            return
        import ray

        if ray.is_initialized():
            if self._crew is not None:
                self._crew.close()
            if self._mailbox is not None:
                ray.kill(self._mailbox)
            if self._is_ours:
                ray.shutdown()
        self._crew, self._mailbox, self._is_ours = None, None, False
