"""Private names of torch's compiler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from warnings import catch_warnings, filterwarnings

import torch._dynamo
import torch._functorch.config
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._dynamo.utils import counters

__all__ = ["COMPILER_ERRORS", "cache_counts", "is_transformed", "once_for_all"]

COMPILER_ERRORS: tuple[type[Exception], ...] = (TorchDynamoException, FailOnRecompileLimitHit)
"""What torch raises where it cannot compile a function, before anything of it has run."""
_WANTED = {
    # A backward pass may be run twice, with `retain_graph`: what it reads is not given away.
    "donated_buffer": False,
    # Ours keep no state, and the graphs that they are traced to are part of what the cache goes by.
    "autograd_cache_allow_custom_autograd_functions": True,
}


@contextmanager
def once_for_all() -> Iterator[None]:
    """Inside, what is compiled may be run backward any number of times, and is kept on disk for other processes."""
    config = torch._functorch.config
    with config.patch({name: value for name, value in _WANTED.items() if hasattr(config, name)}), catch_warnings():
        # It looks at the gradients of all that it is given, and then warns of having done so.
        filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf", category=UserWarning)
        yield


def is_transformed() -> bool:
    """Whether somebody looks at each operation, or transforms it: functions run as they are then, compiled or not."""
    dispatched: int = torch._C._len_torch_dispatch_stack()
    return dispatched > 0 or torch._C._functorch.peek_interpreter_stack() is not None


def cache_counts() -> Counter[str]:
    """How often a graph was found on disk ("hit"), was not there ("miss"), or could not be kept ("bypass")."""
    found: Counter[str] = Counter()
    for group in ("aot_autograd", "inductor"):
        for name, number in counters[group].items():
            for kind in ("hit", "miss", "bypass"):
                if name.endswith(f"cache_{kind}"):
                    found[kind] += number
    return found
