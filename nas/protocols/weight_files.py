"""The files of the weights that a trial was judged with: where they lie, without reading them."""

from __future__ import annotations

import os
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from nas.errors import ExperimentError
from nas.files import folder_in, is_file

FILE, BUFFERS = "weights.pt", "weights-buffers.pt"
"""Of a state dict, and of the buffers that it leaves out."""


def forget_weights(folder: Path) -> None:
    """Removes what was kept in a folder: by a run of the same trial that was killed, say."""
    for name in (FILE, BUFFERS):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(folder / name)


def weights_file(folder: Path) -> Path | None:
    """The state dict that is kept in a trial's folder, where there is one; what a link leads to is none of its own."""
    try:
        path = folder_in(folder.parents[1], *folder.parts[-2:]) / FILE
    except (ExperimentError, IndexError):
        return None
    return path if is_file(path) else None


def weights_of_runs(folder: Path) -> list[Path]:
    """The state dicts of a trial whose value is a mean over several trainings, one for each of them."""
    return [path for path in files_below(folder, FILE) if path.parent != folder]


def files_below(folder: Path, pattern: str, depth: int = 2) -> list[Path]:
    """Ordinary files in a folder and in the folders in it, none of which is a link.

    Args:
        folder: to begin with.
        pattern: of the names, as "*.pt".
        depth: how many folders deep.

    Returns:
        Their paths, in their order.
    """
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and depth:
                found += files_below(Path(entry.path), pattern, depth - 1)
            elif entry.is_file(follow_symlinks=False) and fnmatch(entry.name, pattern):
                found.append(Path(entry.path))
    return sorted(found)
