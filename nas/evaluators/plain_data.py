"""Pickles and torch files of benchmarks, read without executing code: containers, numbers, text, numpy arrays."""

from __future__ import annotations

import os
from typing import Any

from nas.errors import ExperimentError, NasValueError, explain
from nas.reading import Refused, pickled_data, torch_data


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """What a pickle holds; one that bz2 has packed is unpacked.

    Raises:
        NasValueError: no such file, a torn one, or one that holds anything else than plain data.
    """
    try:
        return pickled_data(path)
    except (Refused, OSError, ExperimentError) as error:
        raise _unreadable(path, error) from error


def read_torch(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote, if that is plain data; a note stands for each tensor.

    Raises:
        NasValueError: no such file, a torn one, or one that holds anything else.
    """
    try:
        return torch_data(path)
    except (Refused, OSError, ExperimentError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> NasValueError:
    return NasValueError(
        explain(
            f"the file must hold plain data: containers, numbers, text, numpy arrays ({str(error)[:400]})",
            got=str(path),
            mend="fetch the file again from its publisher; if it holds weights too, take the one without them",
        )
    )
