"""The files of the weights that a trial was judged with: where they lie, without reading them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

FILE, BUFFERS = "weights.pt", "weights-buffers.pt"
"""Of a state dict, and of the buffers that it leaves out."""


def forget_weights(folder: Path) -> None:
    """Removes what was kept in a folder: by a run of the same trial that was killed, say."""
    for name in (FILE, BUFFERS):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(folder / name)


def weights_file(folder: Path) -> Path | None:
    """The state dict that is kept in a trial's folder, where there is one."""
    path = folder / FILE
    return path if path.is_file() else None


def weights_of_runs(folder: Path) -> list[Path]:
    """The state dicts of a trial whose value is a mean over several trainings, one for each of them."""
    return sorted(path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{FILE}"))
