"""Pickles of strangers, packed by bz2 or not."""

from __future__ import annotations

import bz2
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from nas.files import MIB, open_file
from nas.reading.machine import Machine, Refused
from nas.reading.plain_names import plain_name
from nas.reading.steps import run_pickle

_FREE, _FOR_EACH = 16 * MIB, 100
"""Bytes that any file may be unpacked to, and for each of its own so many more; benchmarks come to a dozen."""


def pickled_data(path: str | os.PathLike[str]) -> Any:
    """What a pickle holds.

    Raises:
        OSError: it is not there, say.
        ExperimentError: it is a pipe or a device.
        Refused: it is torn, forged, or holds anything else than plain data.
    """
    with open_file(path, follow=True) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        is_packed = file.read(3) == b"BZh"
        file.seek(0)
        return run_pickle(Machine(_unpacked(file, size) if is_packed else file.read), plain_name)


def _unpacked(file: BinaryIO, size: int) -> Callable[[int], bytes]:
    stream, most, done = bz2.BZ2File(file), _FREE + _FOR_EACH * size, 0

    def read(count: int) -> bytes:
        nonlocal done
        try:
            found = stream.read(count)
        except (OSError, EOFError) as error:
            raise Refused(f"it is torn or no bz2 file: {error}") from error
        done += len(found)
        if done > most:
            raise Refused(f"its {size:,} bytes unpack to more than {most:,}")
        return found

    return read
