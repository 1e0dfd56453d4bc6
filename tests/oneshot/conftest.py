"""Another device for one-shot search, and CUDA graphs without CUDA.

The device is a stand-in, or the one that NAS_TEST_DEVICE names, "cuda" say: then the searches of all tests here run
there which say `accelerator="cpu"`.

CUDA graphs without CUDA: operations on a CPU are noted down, undone, and done again on the same memory.

As on a device, nothing is computed while it is recorded, what is replayed writes where it wrote before, and what would
wait for the device is refused.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from nas.evaluators import TrainingEvaluator
from nas.oneshot.judged import Lane
from nas.oneshot.speed.recorders import Recorder
from nas.testing import can_stand_in, second_device

T = TypeVar("T")
WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.lift_fresh")
"""What waits for a device, or copies from the host."""
UNTOLD = ("running_mean", "running_var")
"""What batch norms write into although their schema does not say so."""


class Tape(TorchDispatchMode):
    """Notes down what is done while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if str(func).rpartition(".")[0] in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in _written(func, args, kwargs):
            if tensor.untyped_storage().data_ptr() not in self._made:
                self._before.setdefault(id(tensor), (tensor, tensor.clone()))
        read = {leaf.untyped_storage().data_ptr() for leaf in _tensors((args, kwargs))}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        self._made |= {found for leaf in _tensors(out) if (found := leaf.untyped_storage().data_ptr()) not in read}
        return out

    def undo(self) -> None:
        """Nothing is computed: what was written has its numbers again, what was made has none."""
        for tensor, numbers in self._before.values():
            tensor.data.copy_(numbers)  # which autograd is not to see
        for *_, out in self.calls:
            for leaf in _tensors(out):
                if leaf.is_floating_point() and leaf.untyped_storage().data_ptr() in self._made:
                    leaf.data.fill_(math.nan)

    def let_go(self) -> None:
        """Reads and writes what was there before by its address alone, as a CUDA graph does: it does not own it.

        Nor does it keep the graph of gradients.
        """

        def known(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if not leaf.numel() or leaf.untyped_storage().data_ptr() in self._made:
                return leaf.detach()
            return _by_address(leaf)

        self.calls = [(func, *tree_map(known, (args, kwargs, out))) for func, args, kwargs, out in self.calls]
        self._before.clear()

    def replay(self) -> None:
        """Does it again, to the same tensors."""
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, out in self.calls:
                again = func(*args, **kwargs)
                for place, leaf in zip(_tensors(out), _tensors(again), strict=True):
                    if not place.numel() or place.data_ptr() != leaf.data_ptr():
                        place.copy_(leaf)


class TapeRecorder(Recorder):
    """Records on tapes, and keeps count."""

    def __init__(self) -> None:
        self.replays = 0

    def record(self, work: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What the work yields, none of it computed yet, and the function that computes it."""
        tape = Tape()
        with torch.random.fork_rng(devices=[]):
            with tape:
                found = work()
            with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
                tape.undo()
                tape.let_go()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return found, replay


class Reruns(Recorder):
    """Does work itself again, on the same memory, whatever the device; the first time it is done already."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What the work yields, and what does it again."""
        found, done = work(), [True]

        def replay() -> None:
            if done:
                done.clear()
            else:
                found.copy_(work())

        return found, replay


class TapeLane(Lane):
    """Records on tapes of its own, and notes what goes on in all lanes.

    Args:
        name: of the lane.
        events: of all of them.
        recorder: in place of tapes.
    """

    def __init__(self, name: str, events: list[str], recorder: Any = None) -> None:
        self.recorder: Any = recorder or TapeRecorder()
        self._name, self._events = name, events

    @contextmanager
    def work(self) -> Iterator[None]:
        """Notes when it begins and ends."""
        self._events.append(f"{self._name} begins")
        yield
        self._events.append(f"{self._name} is asked")

    def wait(self) -> None:
        """Notes it."""
        self._events.append(f"{self._name} is waited for")


class Unwatched(nullcontext[Any]):
    """In the place of `Aside`: the stand-in for a device makes no tensors of numbers while operations are watched."""

    found = False

    def __init__(self, *_: Any) -> None:
        super().__init__(self)


def _by_address(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage()
    memory = (ctypes.c_byte * storage.nbytes()).from_address(storage.data_ptr())
    return torch.frombuffer(memory, dtype=tensor.dtype).as_strided(
        tensor.size(), tensor.stride(), tensor.storage_offset()
    )


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation writes into."""
    given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    written = [
        given[a.name]
        for a in func._schema.arguments
        if a.name in given and (a.name in UNTOLD or (a.alias_info is not None and a.alias_info.is_write))
    ]
    return _tensors(written)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """`Speed(cuda_graphs=True)` and "auto" record on tapes; yields these, the latest at last."""
    made: list[TapeRecorder] = []

    def make(device: torch.device) -> TapeRecorder:
        made.append(TapeRecorder())
        return made[-1]

    monkeypatch.setattr("nas.oneshot.speed.whole_passes.CudaRecorder", make)
    monkeypatch.setattr("nas.oneshot.speed.whole_passes.records_on", lambda device: True)
    return made


ASKED = os.environ.get("NAS_TEST_DEVICE", "")

REAL = ASKED or ("cuda" if torch.cuda.is_available() else "")
if not REAL and can_stand_in():
    with second_device():
        """Is made known before any test: torch counts devices at its first backward pass."""


@dataclass(frozen=True, kw_only=True)
class OtherDevice:
    """Not the CPU."""

    device: torch.device
    accelerator: Any
    """For a Trainer."""


@pytest.fixture
def other_device() -> Iterator[OtherDevice]:
    """What NAS_TEST_DEVICE names, or CUDA; else the stand-in, which refuses where something was left behind."""
    if REAL:
        yield OtherDevice(device=torch.device(REAL, 0), accelerator=REAL)
        return
    if not can_stand_in():
        pytest.skip("this torch knows no backends in Python")
    with second_device() as second:
        yield OtherDevice(device=second.device, accelerator=second.accelerator)


@pytest.fixture(autouse=bool(ASKED))
def searches_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be trained on the CPU is trained on the device that NAS_TEST_DEVICE names."""
    given = TrainingEvaluator.trainer

    def trainer(self: TrainingEvaluator, **options: Any) -> Any:
        changed = dict(options.pop("changed", None) or {})
        if self.trainer_arguments().get("accelerator") == "cpu":
            changed.setdefault("accelerator", ASKED)
        return given(self, changed=changed, **options)

    monkeypatch.setattr(TrainingEvaluator, "trainer", trainer)
