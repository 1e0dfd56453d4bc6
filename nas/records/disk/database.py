"""Database files: what is in one is found out before Optuna opens it, and looking into one writes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
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


def to_look(url: str, file: Path) -> str:
    """The URL by which a database file is opened so that nothing can be written: there, or at its copy."""
    prefix, _, path = url.partition(":///")
    options = path.partition("?")[2]
    return f"{prefix}:///{_read_only(file)}{f'&{options}' if options else ''}&uri=true"


def _read_only(file: Path) -> str:
    """The name by which SQLite opens a file to read it; it makes files of its own beside one with a log, else."""
    with open(file, "rb") as opened:
        has_log = opened.read(20)[18:] == b"\x02\x02"
    is_still = has_log and not Path(f"{file}-wal").exists()
    return f"file:{quote(str(file))}?mode=ro{'&immutable=1' if is_still else ''}"


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
    with told(file), closing(sqlite3.connect(_read_only(file), uri=True)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not tables >= _OURS:
        raise ExperimentError(
            explain("this is a database of something else than experiments", got=str(file), mend=_MEND)
        )
    return bool(tables)


def copy_if_torn(file: Path) -> Path | None:
    """A copy, in a folder of its own, of a database file whose writer was killed in the middle; else None.

    SQLite takes back what is half written as soon as it opens such a file, which is to write. So that is done to the
    copy, and the file is left to who runs the experiment.
    """
    beside = [path for end in ("-journal", "-wal") if (path := Path(f"{file}{end}")).exists()]
    if not beside or not file.exists():
        return None
    with closing(sqlite3.connect(_read_only(file), uri=True)) as connection:
        try:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                return None
        except sqlite3.DatabaseError:
            return None
        else:
            return None
    with told(file):
        copy = Path(tempfile.mkdtemp(prefix="nas-look-")) / file.name
        for path in (file, *beside):
            shutil.copyfile(path, copy.with_name(path.name))
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
        return copy


_MEND = "check storage=, the URL of an Optuna storage such as sqlite:///folder/file.db"
