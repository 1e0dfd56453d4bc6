"""A device that is not the CPU, without hardware: torch's own backend for others, its memory that of the CPU.

Its tensors are ordinary ones of torch's key for backends of others, with views, gradients and hooks by torch itself.
Each operation that reaches the backend is computed by the CPU on the same memory, after it was refused where CUDA
refuses it.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "second_device"
"""Of the device: `torch.device("second_device")`."""

_CPU, _OTHERS = 1, 12
"""Kinds of devices in DLPack."""
_CONVOLUTIONS = {
    "aten::convolution_overrideable": lambda *given: torch.ops.aten.convolution.default(*given),
    "aten::convolution_backward_overrideable": lambda gradient, x, weight, *rest: (
        torch.ops.aten.convolution_backward.default(gradient, x, weight, [weight.shape[0]], *rest)
    ),
}
"""What torch calls for backends of others, and what it calls for the CPU."""
_INDEXING = ("aten::index.", "aten::index_put", "aten::_index_put", "aten::_unsafe_index")
_WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique")


@final
class Backend:
    """What torch asks about the device, and what is known of what was done on it.

    Attributes:
        present: whether torch is told that the device is there.
        calls: how often each operation was computed there.
        waits: how often the host would have waited for the device, by operation; copies to the host among them.
        copies: how often something was copied to the device.
    """

    def __init__(self) -> None:
        self.present = False
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.copies = 0
        self._state = torch.Generator().manual_seed(0).get_state()
        self._lock = threading.RLock()

    def is_available(self) -> bool:
        """For torch."""
        return self.present

    def is_initialized(self) -> bool:
        """For torch."""
        return True

    def device_count(self) -> int:
        """For torch."""
        return int(self.present)

    def current_device(self) -> int:
        """For torch."""
        return 0

    def set_device(self, device: Any) -> None:
        """For torch: there is one."""

    def device(self, device: Any) -> AbstractContextManager[None]:
        """For torch: there is one."""
        return nullcontext()

    def synchronize(self, device: Any = None) -> None:
        """For torch: everything is done at once."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        """Of its own random numbers, which are not those of the CPU."""
        self._state = torch.Generator().manual_seed(seed).get_state()

    def manual_seed_all(self, seed: int) -> None:
        """The same: there is one device."""
        self.manual_seed(seed)

    def get_rng_state(self, device: Any = None) -> Tensor:
        """Where its random numbers are."""
        return self._state.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        """Goes on from there."""
        self._state = state.clone()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """For autocast."""
        return [torch.bfloat16, torch.float16]

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside, the CPU draws the random numbers of the device."""
        with self._lock:
            before = torch.default_generator.get_state()
            torch.default_generator.set_state(self._state)
            try:
                yield
            finally:
                self._state = torch.default_generator.get_state()
                torch.default_generator.set_state(before)


_generators: set[int] = set()
"""Those of the device, by torch's number: an operation is given another object for the same one."""


class _AnyGenerator(type(torch._C.Generator)):  # type: ignore[misc]
    """Generators that torch has made are generators too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, torch._C.Generator)


class Generator(torch._C.Generator, metaclass=_AnyGenerator):
    """A generator of any device; torch's own cannot be one of a backend that is written in Python."""

    def __new__(cls, device: Any = "cpu") -> Any:
        """One of the CPU is torch's own."""
        if torch.device(device).type != NAME:
            return torch._C.Generator(device)
        return super().__new__(cls)

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()
        _generators.add(self._cdata)  # type: ignore[attr-defined]

    def __del__(self) -> None:
        _generators.discard(self._cdata)  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The other device."""
        return torch.device(NAME, 0)


def _clone_of_storage(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """A copy of a storage, made as a tensor is: torch has no allocator for a backend that is written in Python."""
    if storage.device.type != NAME:
        return type(storage)(storage.nbytes(), device=storage.device).copy_(storage)
    made = torch.empty(storage.nbytes(), dtype=torch.uint8, device=storage.device)
    there = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    return made.copy_(there).untyped_storage()


@contextmanager
def present() -> Iterator[Backend]:
    """Inside, the device is there."""
    backend = register()
    clone, generator = torch.UntypedStorage.clone, torch.Generator
    backend.present = True
    backend.calls.clear()
    backend.waits.clear()
    backend.copies = 0
    backend.manual_seed(0)
    torch.UntypedStorage.clone = _clone_of_storage  # type: ignore[method-assign, assignment]
    torch.Generator = Generator  # type: ignore[misc]
    try:
        yield backend
    finally:
        torch.UntypedStorage.clone = clone  # type: ignore[method-assign]
        torch.Generator = generator  # type: ignore[misc]
        backend.present = False


BACKEND = Backend()
_registered: list[torch.library.Library] = []


def can_register() -> bool:
    """Whether this torch takes backends that are written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend") and hasattr(torch._C, "_acc")


def register() -> Backend:
    """Makes torch know the device. It stays known in this process; whether it is there, `Backend.present` says.

    torch counts devices when gradients are computed for the first time, so this must come before.

    Raises:
        RuntimeError: another backend has torch's only place for backends of others.
    """
    if _registered:
        return BACKEND

    class Hooks(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return BACKEND.present

        def has_primary_context(self, device: int) -> bool:
            return BACKEND.present

        def is_built(self) -> bool:
            return True

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=BACKEND, hook=Hooks())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_compute, "PrivateUse1")
    some = torch.library.Library("aten", "IMPL")
    for name in _CONVOLUTIONS:
        op = getattr(torch.ops.aten, name.removeprefix("aten::")).default
        some.impl(name, _computes(op), "PrivateUse1")
    some.impl("_has_compatible_shallow_copy_type", _may_take_its_place, "PrivateUse1")
    _registered.extend([everything, some])
    return BACKEND


def _may_take_its_place(tensor: Tensor, other: Tensor) -> bool:
    """Whether `tensor.data = other` is allowed: between CPU and device, so that modules that move keep parameters."""
    return {tensor.device.type, other.device.type} <= {"cpu", NAME}


def _computes(op: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _compute(op, *args, **kwargs)


def _capsule_pointer() -> Any:
    found = ctypes.pythonapi.PyCapsule_GetPointer
    found.restype, found.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return found


_pointer = _capsule_pointer()
_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def _seen_as(tensor: Tensor, kind: int) -> Tensor:
    """The same memory, said to be on another device; it lives as long as one of the two tensors does."""
    capsule = torch._C._to_dlpack(tensor)
    at = _pointer(capsule, b"dltensor")
    ctypes.c_int32.from_address(at + 8).value = kind
    ctypes.c_int32.from_address(at + 12).value = 0
    found: Tensor = torch._C._from_dlpack(capsule)
    if found.stride() != tensor.stride():  # of sides of length 1
        found = _as_strided(found, tensor.shape, tensor.stride(), int(found.storage_offset()))
    return found


def _as_strided(tensor: Tensor, size: Any, stride: Any, offset: int) -> Tensor:
    found: Tensor = torch.ops.aten.as_strided.default.redispatch(_KEYS, tensor, size, stride, offset)
    return found


def _is_here(tensor: Tensor) -> bool:
    return tensor.device.type == NAME


def _compute(op: Any, *args: Any, **kwargs: Any) -> Any:
    """What is done for each operation: refused, or computed by the CPU on the same memory."""
    schema = op._schema
    name: str = schema.name
    full = f"{name}.{schema.overload_name}" if schema.overload_name else name
    if op.is_view or name == "aten::set_":
        return op.redispatch(_KEYS, *args, **kwargs)
    BACKEND.calls[full] += 1
    if name == "aten::resize_":
        return _resized(*args)
    if name not in ("aten::_copy_from", "aten::_copy_from_and_resize"):
        _refuse_mixture(op, full, args, kwargs)
    else:
        source, target = args[0], args[1]
        if not _is_here(target):
            BACKEND.waits[full] += 1
        elif not _is_here(source):
            BACKEND.copies += 1
    if full.startswith(_WAITS):
        BACKEND.waits[full] += 1
    seen = _Seen(op)
    cpu_args, cpu_kwargs = seen.arguments(args, kwargs)
    if name == "aten::_local_scalar_dense":
        return op.redispatch(_KEYS, *cpu_args)
    with torch._C._AutoDispatchBelowAutograd(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*resized since it had shape")
        if name.startswith("aten::_copy_from"):
            cpu_args[1].copy_(cpu_args[0])
            return args[1]
        computes = _CONVOLUTIONS.get(name, op)
        if torch.Tag.nondeterministic_seeded in op.tags and kwargs.get("generator") is None:
            with BACKEND.drawing():
                found = computes(*cpu_args, **cpu_kwargs)
        else:
            found = computes(*cpu_args, **cpu_kwargs)
    return seen.results(found)


@final
class _Seen:
    """The arguments of one operation as the CPU sees them, and its results as the device has them."""

    def __init__(self, op: Any) -> None:
        self._outputs = {argument.name for argument in op._schema.arguments if argument.is_out}
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def arguments(self, args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
        """Those for the CPU."""
        given = {name: self._seen(value, name in self._outputs) for name, value in kwargs.items()}
        if isinstance(given.get("device"), torch.device):
            given["device"] = torch.device("cpu")
        given.pop("pin_memory", None)
        return [self._seen(value, False) for value in args], given

    def _seen(self, value: Any, is_output: bool) -> Any:
        if isinstance(value, Tensor):
            if not _is_here(value):
                return value
            # What is empty may be given a size by the CPU, which it cannot give to memory of others.
            found = value.new_empty(value.shape, device="cpu") if is_output and not value.numel() else None
            found = _seen_as(value, _CPU) if found is None else found
            self._pairs.append((found, value))
            return found
        if isinstance(value, list | tuple):
            return [self._seen(each, is_output) for each in value]
        return value

    def results(self, found: Any) -> Any:
        """What the operation yields on the device."""
        if isinstance(found, Tensor):
            for cpu, here in self._pairs:
                if cpu is found:
                    return self._given_back(cpu, here)
            return _seen_as(found, _OTHERS) if found.device.type == "cpu" else found
        if isinstance(found, list | tuple):
            return type(found)(self.results(each) for each in found)
        for cpu, here in self._pairs:
            self._given_back(cpu, here)
        return found

    @staticmethod
    def _given_back(cpu: Tensor, here: Tensor) -> Tensor:
        if cpu.shape != here.shape:
            made = _seen_as(cpu, _OTHERS)
            torch.ops.aten.set_.source_Tensor.redispatch(_KEYS, here, made)
        return here


def _resized(tensor: Tensor, size: list[int], memory_format: Any = None) -> Tensor:
    if list(tensor.shape) != list(size):
        fresh = torch.empty(size, dtype=tensor.dtype, device="cpu")
        before = _seen_as(tensor, _CPU).flatten()[: fresh.numel()]
        fresh.flatten()[: before.numel()].copy_(before)
        torch.ops.aten.set_.source_Tensor.redispatch(_KEYS, tensor, _seen_as(fresh, _OTHERS))
    return tensor


def _refuse_mixture(op: Any, full: str, args: Any, kwargs: Any) -> None:
    """Raises where CUDA does.

    Raises:
        RuntimeError: tensors of two devices, or a generator of another one.
    """
    generator = kwargs.get("generator")
    if generator is not None and generator._cdata not in _generators:
        raise RuntimeError(f"Expected a {NAME!r} device type for generator but found {generator.device.type!r}")
    values = [*args, *kwargs.values()]
    if full.startswith(_INDEXING) and _is_here(args[0]):
        values = [value for position, value in enumerate(values) if position != 1]  # indices may be on the CPU
    tensors = [each for value in values for each in (value if isinstance(value, list | tuple) else [value])]
    elsewhere = [each for each in tensors if isinstance(each, Tensor) and not _is_here(each)]
    numbers = torch.Tag.pointwise in op.tags or full.startswith(("aten::_foreach_", *_INDEXING))
    if any(each.dim() or not numbers for each in elsewhere):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{NAME}:0 and {elsewhere[0].device}! (when checking arguments of {full})"
        )
