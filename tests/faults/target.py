"""A search that is struck: run as a program, it forks a process for each case, so that a case costs no import.

A line of its standard input is a case, in JSON; its answers are lines too: {"pid": ...} when the process of the case
has begun, and {"code": ...} when it has ended. What the case came to is in the file `answer` of its folder.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nas
from nas import Experiment, LayerChoice, Real, ValueChoice
from nas.evaluators import FunctionalEvaluator
from nas.strategies import RegularizedEvolution


def space() -> nn.Module:
    return nn.Linear(2, ValueChoice(list(range(1, 40)), label="width"))


def experiment(folder: Path, resume: Any, during: Callable[[int], None], storage: str | None) -> Experiment:
    """The search of all cases: what a trial is worth follows from its sample alone."""

    def evaluate(model: nn.Linear, rate: float) -> float:
        number = int(nas.trial_directory().name)
        print("evaluating", model.out_features)
        kept = nas.load_checkpoint()
        nas.save_checkpoint({"step": 0 if kept is None else kept["step"]})
        (nas.trial_directory() / "notes.txt").write_text("the evaluator's own")
        during(number)
        for step in range(2):
            nas.report(model.out_features * rate * step, step)
        nas.keep_weights(model)
        return model.out_features * rate

    return Experiment(
        space,
        FunctionalEvaluator(evaluate, rate=Real(0, 1)),
        RegularizedEvolution(population_size=4),
        name="struck",
        directory=folder,
        seed=9,
        storage=storage,
        resume=resume,
    )


def one_shot(folder: Path, resume: Any) -> Experiment:
    """A search by a supernet, which keeps checkpoints, judgements and a ranking."""
    from nas.evaluators import Regression
    from nas.oneshot import RandomOneShot

    def network() -> nn.Module:
        width = ValueChoice([2, 4], label="width")
        return nn.Sequential(nn.Linear(3, width), LayerChoice([nn.ReLU, nn.Tanh], label="act"), nn.Linear(width, 1))

    torch.manual_seed(0)
    x = torch.randn(24, 3)
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    evaluator = Regression(train=data, validation=data, batch_size=8, max_epochs=2, accelerator="cpu")
    strategy = RandomOneShot(candidates=2, checkpoint_every=1)
    return Experiment(network, evaluator, strategy, name="struck", directory=folder, seed=9, resume=resume)


def found(trials: Any) -> list[list[Any]]:
    """What must not change, whatever strikes."""
    return [
        [t.number, t.sample, str(t.state), t.values, dict(t.metrics), dict(t.intermediate), t.seed, bool(t.error)]
        for t in trials
    ]


def refuse_opening(number: int, count: list[int]) -> None:
    """No room from one of the openings for writing on, counted from 0; none at all is refused where it is negative.

    Args:
        number: of the first one that is refused.
        count: holds how many there have been; negative when it is over.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            if count[0] < 0:
                return
            count[0] += 1
            if 0 <= number < count[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)


def list_openings(into: list[str]) -> None:
    """The paths that are opened for writing, made, or given another name."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            into.append(os.path.abspath(os.fsdecode(arguments[0])) if isinstance(arguments[0], str | bytes) else "")
        elif event == "os.mkdir":
            into.append(os.path.abspath(os.fsdecode(arguments[0])))
        elif event == "os.rename":
            into.append(os.path.abspath(os.fsdecode(arguments[1])))

    sys.addaudithook(hook)


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def play(case: dict[str, Any]) -> dict[str, Any]:
    """Runs a case.

    Args:
        case: what to do.
            "folder": of the experiments.
            "trials": how many.
            "load": only to look.
            "resume": as an Experiment takes it.
            "one_shot": by a supernet.
            "slow": seconds of a trial.
            "delete": a path in the experiment's folder that trial 3 deletes.
            "file_size": bytes that a file has at most.
            "refuse": from which opening for writing on there is no room.
            "list": to list the paths that are opened for writing.
    """
    folder = Path(case["folder"])
    answer: dict[str, Any] = {}
    openings: list[str] = []
    if "list" in case:
        list_openings(openings)
    if "refuse" in case:
        refuse_opening(case["refuse"], counted := [0])

    def during(number: int) -> None:
        time.sleep(case.get("slow", 0.0))
        if number == 3 and "delete" in case:
            delete(folder / "struck" / case["delete"])

    try:
        if "file_size" in case:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case["file_size"], resource.RLIM_INFINITY))
        if case.get("load"):
            results = Experiment.load(folder / "struck")
            answer["trials"] = found(results.trials)
        else:
            resume = case.get("resume", True)
            if case.get("one_shot"):
                made = one_shot(folder, resume)
            else:
                made = experiment(folder, resume, during, case.get("storage"))
            made.run(2 if case.get("one_shot") else case["trials"], progress="silent")
            answer["trials"] = found(made.trials)
    except BaseException as error:
        answer |= {"error": f"{type(error).__name__}: {error}", "told": isinstance(error, nas.NasError)}
        answer["traceback"] = traceback.format_exc()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if "refuse" in case:
        answer["openings"], counted[0] = counted[0], -1
    answer["opened"] = sorted({path for path in openings if path.startswith(os.path.abspath(folder) + os.sep)})
    answer["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return answer


def main() -> None:
    output = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    lines = os.fdopen(os.dup(0), "r")
    os.dup2(nothing, 0)
    children: dict[int, int] = {}
    output.write(json.dumps({"ready": True}) + "\n")
    for line in lines:
        case = json.loads(line)
        if "wait" in case:
            _, status = os.waitpid(case["wait"], 0)
            output.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
            continue
        if case.get("one_shot"):
            importlib.import_module("nas.oneshot")  # Here, so that a case does not import it.
        pid = os.fork()
        if pid == 0:
            os.setsid()
            with contextlib.suppress(BaseException):
                answer = play(case)
                Path(case["answer"]).write_text(json.dumps(answer))
            os._exit(0)
        children[pid] = pid
        output.write(json.dumps({"pid": pid}) + "\n")


if __name__ == "__main__":
    main()
