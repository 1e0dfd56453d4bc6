"""The error where a library is no longer as this package knows it, and the private names of Python's own."""

from __future__ import annotations

import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from types import FrameType

from nas.errors import ExperimentError, explain


def changed(package: str, name: str, *, purpose: str) -> ExperimentError:
    """The error to raise.

    Args:
        package: as pip calls it.
        name: what is missing in it, or means something else.
        purpose: what this package does by it.

    Returns:
        An error with the installed version.

    Example:
        >>> error = changed("optuna", "Study._storage", purpose="trials are written")
        >>> "is not what this package knows, and by it trials are written" in str(error)
        True
    """
    try:
        installed = version(package)
    except PackageNotFoundError:
        installed = "of an unknown version"
    return ExperimentError(
        explain(
            f"{name} of {package} {installed} is not what this package knows, and by it {purpose}",
            mend=f"pip install --upgrade torch-nas {package}, which takes versions that fit together",
        )
    )


def is_shutting_down() -> bool:
    """Whether the main thread has come to its end, so that the interpreter waits for others, or ends them."""
    return bool(getattr(threading, "_SHUTTING_DOWN", False)) or not threading.main_thread().is_alive()


def frame_of(thread: int) -> FrameType | None:
    """The innermost frame that a thread runs just now, by its identity; None where there is no such thread."""
    return sys._current_frames().get(thread)
