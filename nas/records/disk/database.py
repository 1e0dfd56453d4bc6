"""Database files: what is in one is found out before Optuna opens it, and looking into one writes nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from nas.checks import absolute
from nas.errors import ExperimentError, explain
from nas.records.disk.faults import told

_OURS = {"studies", "trials", "version_info"}
"""Tables that every database of Optuna has."""


def database_file(url: str) -> Path | None:
    """The file of a database, by its URL; None of a server, or of one in memory.

    Example:
        >>> database_file("sqlite:////data/search.db?timeout=30"), database_file("postgresql://host/search")
        (PosixPath('/data/search.db'), None)
    """
    prefix, separator, path = url.partition(":///")
    path = path.partition("?")[0]
    if not separator or not prefix.startswith("sqlite") or not path or path.startswith((":memory:", "file:")):
        return None
    return absolute(path)


def in_place(url: str) -> str:
    """The URL of a database file with its whole path, for connections are opened one by one, wherever one is then."""
    file, (prefix, _, path) = database_file(url), url.partition(":///")
    options = path.partition("?")[1:]
    return url if file is None else f"{prefix}:///{file}{''.join(options)}"


def to_look(url: str) -> str:
    """The URL by which a database file is opened so that nothing can be written."""
    file, (prefix, _, path) = database_file(url), url.partition(":///")
    assert file is not None
    options = path.partition("?")[2]
    return f"{prefix}:///file:{quote(str(file))}?{f'{options}&' if options else ''}mode=ro&uri=true"


def has_tables(file: Path) -> bool:
    """Whether a database file has the tables of Optuna; not where it is not there, or empty.

    Raises:
        ExperimentError: it is no such database, or one of something else.
    """
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise ExperimentError(explain("a database is a file", got=str(file), mend=_MEND))
    if not found.st_size:
        return False
    with told(file), closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not tables >= _OURS:
        raise ExperimentError(
            explain("this is a database of something else than experiments", got=str(file), mend=_MEND)
        )
    return bool(tables)


_MEND = "check storage=, the URL of an Optuna storage such as sqlite:///folder/file.db"
