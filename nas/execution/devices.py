"""Dividing what a machine has among its workers: CPU threads and GPUs, by their environments."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from nas.errors import NasValueError, explain

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_MAX_THREADS")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index in range(torch.cuda.device_count())]


def gpus_there(gpus_per_trial: float | None) -> list[str]:
    """The GPUs to divide: those that this process may use, once torch sees them too.

    Raises:
        NasValueError: CUDA_VISIBLE_DEVICES names some that torch does not see; trials would run on the CPU unasked.
    """
    gpus = visible_gpus()
    if gpus_per_trial != 0 and "CUDA_VISIBLE_DEVICES" in os.environ and len(gpus) > torch.cuda.device_count():
        raise NasValueError(
            explain(
                f"CUDA_VISIBLE_DEVICES names devices that torch does not see: it sees {torch.cuda.device_count()}",
                got=os.environ["CUDA_VISIBLE_DEVICES"],
                where="the environment",
                mend="name those that are there (`nvidia-smi -L`); for the CPU CUDA_VISIBLE_DEVICES= or "
                "ProcessExecutor(gpus_per_trial=0)",
            )
        )
    return gpus


def divide_gpus(gpus: list[str], workers: int, gpus_per_trial: float | None) -> list[str | None]:
    """What CUDA_VISIBLE_DEVICES is for each worker.

    Args:
        gpus: that there are.
        workers: how many.
        gpus_per_trial: a whole number, or a fraction of one that trials share; None for one GPU each, in turn.

    Returns:
        A value for each worker; None to leave it as it is.

    Raises:
        NasValueError: there are too few GPUs for so many workers.

    Example:
        >>> divide_gpus(["0", "1"], 4, 0.5), divide_gpus(["0", "1", "2", "3"], 2, 2), divide_gpus(["0", "1"], 3, None)
        (['0', '0', '1', '1'], ['0,1', '2,3'], ['0', '1', '0'])
    """
    if gpus_per_trial is None:
        return [gpus[worker % len(gpus)] if gpus else None for worker in range(workers)]
    if gpus_per_trial == 0:
        return [""] * workers
    sharing = max(1, int(1 / gpus_per_trial + 1e-9))
    each = max(1, round(gpus_per_trial))
    possible = len(gpus) * sharing // each
    if workers > possible:
        raise NasValueError(
            explain(
                f"{len(gpus)} visible GPUs serve {possible} trials at a time with gpus_per_trial={gpus_per_trial:g}",
                got=workers,
                where="concurrency",
                mend=f"concurrency={possible}, or a smaller gpus_per_trial" if possible else "gpus_per_trial=0",
            )
        )
    return [",".join(gpus[(worker // sharing) * each : (worker // sharing + 1) * each]) for worker in range(workers)]


def divide_threads(cores: int, workers: int, threads: int | None) -> int:
    """CPU threads for each worker: an equal share of the cores, and at least one.

    Example:
        >>> divide_threads(16, 3, None), divide_threads(2, 8, None), divide_threads(2, 8, 2)
        (5, 1, 2)
    """
    return max(1, cores // workers) if threads is None else threads


def environments(
    *, cores: int, workers: int, threads: int | None, gpus_per_trial: float | None
) -> list[dict[str, str]]:
    """What the environment of each worker has that this one has not."""
    each = divide_threads(cores, workers, threads)
    chosen = "OMP_NUM_THREADS" in os.environ and threads is None
    common = {} if chosen else dict.fromkeys(_THREADS, str(each))
    return [
        common if gpus is None else {**common, "CUDA_VISIBLE_DEVICES": gpus}
        for gpus in divide_gpus(gpus_there(gpus_per_trial), workers, gpus_per_trial)
    ]
