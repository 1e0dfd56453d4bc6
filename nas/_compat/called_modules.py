"""Private names of torch: the method by which a module is called, and what its constructor makes first."""

from __future__ import annotations

from types import FrameType

from torch import nn


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
