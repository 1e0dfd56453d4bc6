"""What disks and database files do wrong, said in one way: what was kept, and how to go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nas.errors import ExperimentError, NasError, disk_full, explain, is_full

_LONGEST = 300
"""Characters of another library's message that are passed on."""


def of_disk(error: BaseException, place: str | os.PathLike[str]) -> ExperimentError | None:
    """What to say of an error of a disk or a database file; None of any other.

    Args:
        error: that was caught.
        place: the file, folder or database that was written or read.

    Example:
        >>> import errno
        >>> print(of_disk(OSError(errno.ENOSPC, "No space left on device"), "journal.log"))
        there is no space left on the disk, so this was not written; all that was written before is kept; \
received 'journal.log'. To mend: make room, and go on with it by resume=True, or nas resume.
    """
    if isinstance(error, NasError):
        return None
    if is_full(error):
        return disk_full(place, "make room, and go on with it by resume=True, or nas resume")
    for cause in _causes(error):
        if type(cause).__module__.partition(".")[0] in ("sqlite3", "sqlalchemy"):
            return ExperimentError(
                explain(
                    f"the database cannot be used: {_short(cause)}",
                    got=os.fspath(place),
                    mend="look whether it is there, whole and writable; then go on by resume=True, or nas resume",
                )
            )
    if isinstance(error, OSError):
        return ExperimentError(
            explain(
                f"it cannot be read or written: {_short(error)}",
                got=os.fspath(place),
                mend="look whether it is there, and may be written",
            )
        )
    return None


@contextmanager
def told(place: str | os.PathLike[str]) -> Iterator[None]:
    """What goes wrong with a disk inside is an ExperimentError that says so."""
    try:
        yield
    except Exception as error:
        found = of_disk(error, place)
        if found is None:
            raise
        raise found from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of; that of the database's driver before the one that was made of it."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return reversed(chain)


def _short(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(getattr(error, "orig", None) or error).splitlines() or [""]
    text = lines[0] or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
