"""The experiment: its loop, what it shows, and what comes of it."""

from nas.search.conclusion import describe_failures, failures_text
from nas.search.experiment import Experiment
from nas.search.progress import Progress, sample_text
from nas.search.results import Results
from nas.search.search_loop import INTERRUPTED, STOPPED, TIME_IS_UP

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
