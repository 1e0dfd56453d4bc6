"""The experiment: its loop, what it shows, and what comes of it."""

from typing import TYPE_CHECKING

from nas.late import late
from nas.search.conclusion import describe_failures, failures_text
from nas.search.limits import check_limits
from nas.search.progress import Progress, sample_text
from nas.search.results import Results

if TYPE_CHECKING:
    from nas.search.background import BackgroundRun
    from nas.search.experiment import Experiment
    from nas.search.search_loop import EARLY, INTERRUPTED, STOPPED, TIME_IS_UP

_LATE = {
    "BackgroundRun": "nas.search.background",
    "EARLY": "nas.search.search_loop",
    "Experiment": "nas.search.experiment",
    "INTERRUPTED": "nas.search.search_loop",
    "STOPPED": "nas.search.search_loop",
    "TIME_IS_UP": "nas.search.search_loop",
}

__all__ = [
    "EARLY",
    "INTERRUPTED",
    "STOPPED",
    "TIME_IS_UP",
    "BackgroundRun",
    "Experiment",
    "Progress",
    "Results",
    "check_limits",
    "describe_failures",
    "failures_text",
    "sample_text",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = late(__name__, _LATE)
