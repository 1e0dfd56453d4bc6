"""What tests of processes need: patience, processes that begin at once, and what a process holds."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations

PATIENCE = float(os.environ.get("NAS_TEST_PATIENCE", "120"))
"""Seconds: machines that run tests are busy."""


def wait_until(condition: Callable[[], bool]) -> None:
    """Looks until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def fork(function: Callable[..., None], *arguments: Any, output: Path, preload: tuple[str, ...] = ()) -> BaseProcess:
    """Runs a function in a process of its own, which begins at once.

    It is forked from a process that has imported what searches need, but has run nothing, for torch cannot be forked
    after it has. Function and arguments travel whole, so they need no file that could be imported.

    Args:
        function: to run.
        *arguments: for it.
        output: the file that gets what it prints, appended.
        preload: modules that are imported before the first fork; later they change nothing.

    Returns:
        The process; it has its own `exitcode`.
    """
    modules = {sys.modules[getattr(part, "__module__", type(part).__module__)] for part in (function, *arguments)}
    theirs = [module for module in modules if module.__name__.split(".")[0] not in (*sys.stdlib_module_names, "nas")]
    for module in theirs:
        cloudpickle.register_pickle_by_value(module)
    try:
        payload = cloudpickle.dumps((function, arguments))
    finally:
        for module in theirs:
            cloudpickle.unregister_pickle_by_value(module)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nas.testing", *_IMPORTED, *preload])
    process = context.Process(target=_run, args=(payload, str(output)))
    process.start()
    return process


_IMPORTED = ("nas.strategies", "nas.evaluators", "nas.oneshot", "optuna.storages", "optuna.storages.journal")


def _run(payload: bytes, output: str) -> None:
    with open(output, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        function, arguments = cloudpickle.loads(payload)
        try:
            function(*arguments)
        except BaseException:
            traceback.print_exc()
            raise


def ended_well(process: BaseProcess, output: Path) -> None:
    """Waits for a process, and fails with what it has printed if it has."""
    process.join(PATIENCE)
    assert process.exitcode == 0, (process.exitcode, output.read_text() if output.exists() else "")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def held() -> tuple[int, int]:
    """Open files of this process, and its memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGESIZE") // 2**20


def pack(pid: int, files: int, memory: int) -> float:
    """What a process holds as one number, for a trial to return."""
    return float((pid * 2**14 + files) * 2**15 + memory)


def unpack(value: float) -> tuple[int, int, int]:
    """The parts of such a number."""
    rest, memory = divmod(int(value), 2**15)
    return (*divmod(rest, 2**14), memory)
