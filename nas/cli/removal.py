"""Deleting the folder of an experiment: what an experiment keeps there, and nothing else."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from nas.errors import ExperimentError, explain

_FOLDERS = ("trials", "earlier", "supernet", "top", "exports", "retrained")
_FILES = ("report.html",)
_LAST = "journal.log"
"""Deleted when all else is, so that an experiment which is only half deleted is still one."""


def refuse_link(folder: Path) -> None:
    """Says that the folder of an experiment is a link.

    Raises:
        ExperimentError: it is one.
    """
    if folder.is_symlink():
        target = os.readlink(folder)
        mend = f"remove the link by `rm`, and what it leads to where it lies: nas rm {Path(target).name} -d its folder"
        raise ExperimentError(
            explain(
                "the folder of this experiment is a link, and nas rm follows none",
                got=f"{folder} -> {target}",
                mend=mend,
            )
        )


def remove_folder(folder: Path, alone: AbstractContextManager[object]) -> list[str]:
    """Deletes what an experiment keeps in its folder, and the folder where nothing else is in it.

    Args:
        folder: of the experiment.
        alone: keeps out whoever wants to run it meanwhile.

    Returns:
        The names of what was kept, which is none of the experiment's.

    Raises:
        ExperimentError: a process runs it, or something cannot be deleted.
    """
    if not folder.is_dir():
        return []
    try:
        with alone:
            for name in sorted(os.listdir(folder)):
                if _is_its_own(name) and not name.startswith(_LAST):
                    _delete(folder / name)
        # The locks too, which nobody waits for: the experiment is no more when its journal is deleted.
        for name in sorted(os.listdir(folder), reverse=True):
            if _is_its_own(name) or _is_lock(name):
                _delete(folder / name)
        if not (kept := sorted(os.listdir(folder))):
            folder.rmdir()
    except OSError as error:
        raise ExperimentError(
            explain(f"not all of the experiment can be deleted ({error})", got=str(folder), mend="try again")
        ) from error
    return kept


def _is_its_own(name: str) -> bool:
    draft = name.startswith(".") and name.endswith(".tmp")
    return name in (*_FOLDERS, *_FILES) or name.startswith(_LAST) or draft


def _is_lock(name: str) -> bool:
    return name in ("running.lock", "queue.lock", "journal.lock")


def _delete(path: Path) -> None:
    """Never through a link: the link is deleted."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
