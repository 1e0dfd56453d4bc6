"""What tests of processes need: patience, and what a process holds."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = float(os.environ.get("NAS_TEST_PATIENCE", "120"))
"""Seconds: machines that run tests are busy."""

INTERRUPTED_SCRIPT = """
import sys, time
from pathlib import Path
import cloudpickle
from torch import nn
from nas import Evaluator, Experiment, Real, ValueChoice
from nas.strategies import Random

folder = Path(sys.argv[1])

class Waits(Evaluator):
    hyperparameters = {"rate": Real(0, 1)}
    def evaluate(self, job):
        (folder / f"begun-{job.number}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        return job.number

experiment = Experiment(lambda: nn.Linear(2, ValueChoice([1, 2], label="width")), Waits(), Random(), name="interrupted",
                        directory=folder, resume=True, executor=cloudpickle.loads((folder / "executor").read_bytes()))
experiment.run(6, progress="silent")
print([trial.state.name for trial in experiment.trials], flush=True)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Looks until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def last_line(process: subprocess.Popen[str]) -> str:
    """The last line that a process prints, once it has ended well."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    return out.splitlines()[-1]


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
