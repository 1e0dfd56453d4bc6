"""Plans on their way to another process, by cloudpickle: classes of a script or a notebook travel whole.

What is set in the whole process travels with them, for a trial must not find another torch there than here.
"""

from __future__ import annotations

import importlib
import io
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Mapping
from multiprocessing.reduction import ForkingPickler
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations
import torch

from nas.errors import NasTypeError, explain
from nas.execution.trial_run import Plan


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no annotations
    """Sends modules of a type of their own, as torch.backends.cudnn is, by name, as all others are."""

    def reducer_override(self, part: Any) -> Any:
        if isinstance(part, ModuleType) and type(part) is not ModuleType and sys.modules.get(part.__name__) is part:
            return importlib.import_module, (part.__name__,)
        return super().reducer_override(part)


def dumps(part: object) -> bytes:
    """Anything as bytes, what lies in a script whole."""
    file = io.BytesIO()
    _Pickler(file).dump(part)
    return file.getvalue()


def dump_plan(plan: Plan) -> bytes:
    """A plan as bytes that `load_plan` takes, with the settings of this process.

    Raises:
        NasTypeError: it holds something that cannot be pickled; the message says which part.
    """
    try:
        return dumps((settings(), plan))
    except Exception as error:  # Whatever __reduce__ and __getstate__ of the user's objects raise.
        parts = {"the evaluator": plan.evaluator, "the model space": plan.build, "the objectives": plan.objectives}
        culprits = [name for name, part in parts.items() if not _can_be_pickled(part)]
        raise NasTypeError(
            explain(
                f"what runs in another process must be picklable, but {' and '.join(culprits) or 'the plan'} cannot be "
                f"({type(error).__name__}: {error})",
                mend="open files, locks, connections and generators inside the function that is evaluated, not outside",
            )
        ) from error


def load_plan(pickled: bytes) -> Plan:
    """Takes a plan, and makes this process, which is there for trials alone, like that of the experiment."""
    found, plan = pickle.loads(pickled)
    apply(found)
    assert isinstance(plan, Plan)
    return plan


_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "precision of matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "sharing": (torch.multiprocessing.get_sharing_strategy, torch.multiprocessing.set_sharing_strategy),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "anomalies": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
}
_FLAGS = (
    "backends.cudnn.enabled",
    "backends.cudnn.benchmark",
    "backends.cudnn.deterministic",
    "backends.cudnn.allow_tf32",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "utils.deterministic.fill_uninitialized_memory",
)


def settings() -> dict[str, Any]:
    """What is set for the whole of this process: how processes are started, and torch's global settings."""
    device = torch.get_default_device()
    return {
        "start method": multiprocessing.get_start_method(allow_none=True),
        "default device": None if device.type == "cpu" else str(device),
        **{name: get() for name, (get, _) in _SETTINGS.items()},
        **{flag: attrgetter(flag)(torch) for flag in _FLAGS},
    }


def apply(found: Mapping[str, Any]) -> None:
    """Sets what `settings` has found in another process."""
    multiprocessing.set_start_method(found["start method"], force=True)  # loky's own starts loky's processes alone
    setattr(ForkingPickler, "reducer_override", reduce_whole)  # noqa: B010 - the hook that pickle documents
    for name, (_, put) in _SETTINGS.items():
        put(found[name])
    for flag in _FLAGS:
        place, _, name = flag.rpartition(".")
        setattr(attrgetter(place)(torch), name, found[flag])
    if found["default device"] is not None:
        torch.set_default_device(found["default device"])


def reduce_whole(pickler: object, part: Any) -> Any:
    """Sends functions and classes of a script, which have no module here, whole to the processes that a trial spawns.

    Args:
        pickler: that of multiprocessing.
        part: to be pickled.
    """
    if isinstance(part, type | FunctionType) and part.__module__ == "__main__" and not _is_found(part):
        return pickle.loads, (dumps(part),)
    return NotImplemented


def _is_found(part: type | FunctionType) -> bool:
    try:
        return attrgetter(part.__qualname__)(sys.modules["__main__"]) is part
    except AttributeError:
        return False


def _can_be_pickled(part: object) -> bool:
    try:
        dumps(part)
    except Exception:
        return False
    return True
