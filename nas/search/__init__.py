"""The experiment: its loop, what it shows, and what comes of it."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.search.conclusion import describe_failures, failures_text
from nas.search.progress import Progress, sample_text
from nas.search.results import Results

if TYPE_CHECKING:
    from nas.search.experiment import Experiment
    from nas.search.search_loop import INTERRUPTED, STOPPED, TIME_IS_UP

_LATE = {
    "Experiment": "nas.search.experiment",
    "INTERRUPTED": "nas.search.search_loop",
    "STOPPED": "nas.search.search_loop",
    "TIME_IS_UP": "nas.search.search_loop",
}

__all__ = [
    "INTERRUPTED",
    "STOPPED",
    "TIME_IS_UP",
    "Experiment",
    "Progress",
    "Results",
    "describe_failures",
    "failures_text",
    "sample_text",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
