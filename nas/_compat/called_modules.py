"""Private names of torch: the method by which a module is called, what its constructor makes first, where it keeps."""

from __future__ import annotations

from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def module_called(frame: FrameType | None) -> nn.Module | None:
    """The module that is being called where a frame runs; None where there is none, or it constructs another one.

    Example:
        >>> import inspect
        >>> class Net(nn.Module):
        ...     def forward(self):
        ...         return module_called(inspect.currentframe())
        >>> Net()(), module_called(inspect.currentframe())
        (Net(), None)
    """
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module):
            if code is nn.Module._call_impl.__code__:
                return first
            if code.co_name == "__init__":
                return None
        frame = frame.f_back
    return None


def is_unfinished(module: object) -> bool:
    """Whether it is a module in which the constructor of `nn.Module` has not run.

    Example:
        >>> is_unfinished(nn.Linear(1, 1)), is_unfinished(nn.Linear.__new__(nn.Linear)), is_unfinished(3)
        (False, True, False)
    """
    return isinstance(module, nn.Module) and "_modules" not in vars(module)


def plain_state(module: nn.Module) -> dict[str, tuple[dict[str, Any], str]] | None:
    """Where the tensors lie that the state dict of a module holds, by their names in it: dicts, and the keys there.

    None where that is not all there is to it: a part saves or loads in a way of its own, somebody listens, or it holds
    other things than tensors of the plain kind. What was never to be saved is left out.

    Example:
        >>> list(plain_state(nn.Sequential(nn.BatchNorm1d(2, affine=False))))
        ['0.running_mean', '0.running_var', '0.num_batches_tracked']
    """
    places: dict[str, tuple[dict[str, Any], str]] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        kind, own = type(part), vars(part)
        if (
            any(getattr(kind, name) is not getattr(nn.Module, name) for name in _AS_EVER)
            or kind._load_from_state_dict not in (nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)
            or any(own[name] for name in _LISTENING)
            or own.keys() & _KEEPING
        ):
            return None
        prefix, unsaved = f"{path}." if path else "", part._non_persistent_buffers_set
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None and name not in unsaved:
                    if type(tensor.detach()) is not Tensor:
                        return None
                    places[prefix + name] = held, name
    return places


_AS_EVER = ("_save_to_state_dict", "get_extra_state", "set_extra_state", "state_dict", "load_state_dict")
_KEEPING = {*_AS_EVER, "_load_from_state_dict"}
_LISTENING = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
