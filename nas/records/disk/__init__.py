"""What an experiment keeps on a disk: the journal and its lines, database files, locks, and what is said of faults."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.records.disk.database import copy_if_torn, database_file, has_tables, in_place, to_look
from nas.records.disk.faults import of_disk, told
from nas.records.disk.lines import refuse_depth
from nas.records.disk.locks import Running, queue_of
from nas.records.disk.shapes import (
    Rule,
    anything,
    brief,
    broken,
    count,
    flag,
    listed,
    mapped,
    nullable,
    number,
    one_of,
    optional,
    shaped,
    text,
    whole,
)

if TYPE_CHECKING:
    from nas.records.disk.journal import JournalFile

_LATE = {"JournalFile": "nas.records.disk.journal"}

__all__ = [
    "JournalFile",
    "Rule",
    "Running",
    "anything",
    "brief",
    "broken",
    "copy_if_torn",
    "count",
    "database_file",
    "flag",
    "has_tables",
    "in_place",
    "listed",
    "mapped",
    "nullable",
    "number",
    "of_disk",
    "one_of",
    "optional",
    "queue_of",
    "refuse_depth",
    "shaped",
    "text",
    "to_look",
    "told",
    "whole",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
